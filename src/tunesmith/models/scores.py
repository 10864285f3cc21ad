"""How much each weight of some layers matters for given rows: the size of its gradient, or its Fisher value.

Notable: gradients are taken up one weight at a time in the backward pass, so those of all weights never stand side by
side with their sums. The Fisher value is the sum over batches of the squared gradient; where each batch is one row, it
is the diagonal of the empirical Fisher information (Sung et al., 2021), times their number.
"""

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from tunesmith.core.batch import Batch
from tunesmith.models.model import Model

Score = Literal["gradient", "fisher"]


def weight_scores(
    model: Model, names: Iterable[str], loss: Callable[[Batch], Tensor], batches: Iterable[Batch], score: Score
) -> dict[str, Tensor]:
    """For each named linear layer a value [O, I] for each of its weights, in float32. ``model`` is left as it was,
    frozen."""
    model.network.requires_grad_(False)
    weights = {name: model.network.get_submodule(name).weight for name in names}
    found = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
    hooks = [
        weight.requires_grad_(True).register_post_accumulate_grad_hook(_adds_to(found[name], score))
        for name, weight in weights.items()
    ]
    for batch in batches:
        loss(batch).backward()  # type: ignore[no-untyped-call]
    for hook in hooks:
        hook.remove()
    model.network.requires_grad_(False)
    return {name: value.abs_() for name, value in found.items()}


def _adds_to(total: Tensor, score: Score) -> Callable[[nn.Parameter], None]:
    def take(weight: nn.Parameter) -> None:
        assert weight.grad is not None  # the hook runs after it was made
        gradient = weight.grad.float()
        total.add_(gradient.square() if score == "fisher" else gradient)
        weight.grad = None

    return take


def largest(score_OI: Tensor, count: int) -> Tensor:
    """A mask [O, I] of the ``count`` largest values; equal ones in the order of their place.

    >>> largest(torch.tensor([[3.0, 1.0], [2.0, 3.0]]), 2)
    tensor([[1., 0.],
            [0., 1.]])
    """
    chosen = score_OI.flatten().argsort(descending=True, stable=True)[:count]
    return torch.zeros_like(score_OI).flatten().index_fill_(0, chosen, 1.0).view_as(score_OI)
