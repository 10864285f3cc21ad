"""Part of the network's own weights: the last layers, or named modules; the result is a plain transformers folder.

Notable: ``method.target_modules`` names modules whose weights are trained, wherever they stand (``mlp``,
``model.layers.3``, ``lm_head``), or ``last-4`` for the last four layers. ``all-linear`` is every linear layer.
"""

from tunesmith.models.adapters import full
from tunesmith.plan.targets import part

PART = full.method("partial", part, reads=("target_modules",))
