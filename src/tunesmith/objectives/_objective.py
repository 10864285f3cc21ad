"""What an objective is: a pure function of log-probabilities and a batch. It knows no trainer, device or file."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tunesmith.core.batch import Batch


@dataclass(frozen=True, slots=True)
class Objective:
    """``loss(logp, batch)`` returns the *sum* of weighted losses and ``weight(batch)`` what that sum is divided by.

    The loop divides once, by the weight of the whole optimiser step (all micro-batches), so that accumulation never
    changes the result. ``needs`` says which log-probabilities: of each target token [B, T] or of each class [B, C].
    """

    name: str
    needs: Literal["token_logp", "class_logp"]
    loss: Callable[[Tensor, Batch], Tensor]
    weight: Callable[[Batch], Tensor]
