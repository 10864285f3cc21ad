"""The fault harness: what is promised about files is broken on purpose, fault by fault, and looked at afterwards.

Notable: ``python -m tests.faults`` (``make faults``) runs every suite of ``suites.SUITES`` and writes the counts into
``docs/reliability.md``; pytest runs a share of it. Nothing here imports torch.
"""
