"""Tunesmith: from a pre-trained model and examples to a specialist that is proven.

    import tunesmith
    run = tunesmith.finetune("support.yaml")

Notable: importing the package imports neither torch nor anything else that is slow; ``advise``, ``finetune``,
``resume``, ``compare`` and ``run_stages`` are looked up on use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith.flows.advise import advise
    from tunesmith.flows.compare import compare
    from tunesmith.flows.finetune import finetune
    from tunesmith.flows.resume import resume
    from tunesmith.flows.stages import run_stages

__version__ = "0.1.0"
__all__ = ["advise", "compare", "finetune", "resume", "run_stages"]


def __getattr__(name: str) -> Any:
    if name == "advise":
        from tunesmith.flows.advise import advise

        return advise
    if name == "compare":
        from tunesmith.flows.compare import compare

        return compare
    if name == "finetune":
        from tunesmith.flows.finetune import finetune

        return finetune
    if name == "resume":
        from tunesmith.flows.resume import resume

        return resume
    if name == "run_stages":
        from tunesmith.flows.stages import run_stages

        return run_stages
    raise AttributeError(f"module 'tunesmith' has no attribute {name!r}")
