"""What a method does around the steps of a training: nothing, unless it says so.

Notable: ``state`` are tensors beside the trained weights that a training needs when it goes on later; they are changed
in place, so that whoever holds them sees them as they are.
"""

from torch import Tensor


class Schedule:
    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}
        self.may_rest: frozenset[str] = frozenset()  # names of trained weights that may stay what they were

    def begin(self, steps: int) -> None:
        """A training of ``steps`` steps begins, or goes on."""

    def before(self, step: int) -> None:
        """Step number ``step``, from 0, comes next. Trained weights may be frozen for it, or freed."""

    def penalty(self) -> Tensor | None:
        """What is added to a step's loss for its gradient, and is not told as loss."""
        return None

    def after(self, step: int) -> None:
        """The step was taken; its gradients are still there."""

    def end(self) -> None:
        """The training is over."""
