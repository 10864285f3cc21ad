"""Float32 masters of bf16 weights, so that full fine-tuning in bf16 loses no small update.

Notable: a bf16 weight of 1 cannot take a step below 0.004; its master can, and the weight follows when enough has
come together (mixed-precision training: Micikevicius et al., 2017). Gradients move to the master as soon as they are
whole, and add up there in float32 over the micro-batches of a step; ``then`` is told of each master that has one.
"""

from collections.abc import Callable

import torch
from torch import nn


class Masters:
    """``of`` names the master of each trained weight; the optimiser sees masters only."""

    def __init__(self, weights: dict[str, nn.Parameter]) -> None:
        self.weights = weights
        self.then: Callable[[nn.Parameter], None] | None = None
        self.of = {name: nn.Parameter(weight.detach().float()) for name, weight in weights.items()}
        for name, weight in weights.items():
            weight.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda w, master=self.of[name]: self._hand_up(w, master)
            )

    @torch.no_grad()
    def copy_down(self) -> None:
        if self.of:
            torch._foreach_copy_([w.data for w in self.weights.values()], [m.data for m in self.of.values()])

    def _hand_up(self, weight: nn.Parameter, master: nn.Parameter) -> None:
        assert weight.grad is not None  # the hook runs after it was made
        if master.grad is None:
            master.grad = weight.grad.float()
        else:
            master.grad += weight.grad
        weight.grad = None
        if self.then is not None:
            self.then(master)
