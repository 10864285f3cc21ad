"""Float32 masters of weights that are trained: bf16 ones, so that no small update is lost, or single rows.

Notable: a bf16 weight of 1 cannot take a step below 0.004; its master can, and the weight follows when enough has
come together (mixed-precision training: Micikevicius et al., 2017). Gradients move to the master as soon as they are
whole, and add up there in float32 over the micro-batches of a step; ``then`` is told of each master that has one. Of a
weight with ``rows`` the master holds these rows alone.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


class Masters:
    """``of`` names the master of each trained weight; the optimiser sees masters only."""

    def __init__(self, weights: dict[str, nn.Parameter], rows: Mapping[str, Tensor] | None = None) -> None:
        self.weights = weights
        self.rows = dict(rows or {})
        self.then: Callable[[nn.Parameter], None] | None = None
        self.of = {n: nn.Parameter(self._part(n, w.detach()).to(torch.float32, copy=True)) for n, w in weights.items()}
        for name, weight in weights.items():
            weight.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda w, name=name: self._hand_up(name, w)
            )

    def _part(self, name: str, tensor: Tensor) -> Tensor:
        return tensor[self.rows[name]] if name in self.rows else tensor

    def copy_down(self) -> None:
        """The network takes over what the masters are."""
        self.put(self.of)

    @torch.no_grad()
    def put(self, values: Mapping[str, Tensor]) -> None:
        """The network takes over ``values``, which are shaped like the masters."""
        whole = [n for n in values if n not in self.rows]
        if whole:
            torch._foreach_copy_([self.weights[n].data for n in whole], [values[n].data for n in whole])
        for name, places in self.rows.items():
            self.weights[name].data[places] = values[name].data.to(self.weights[name].dtype)

    @torch.no_grad()
    def copy_up(self) -> None:
        """The masters take over what the network is."""
        for name, weight in self.weights.items():
            self.of[name].copy_(self._part(name, weight.detach()))

    def _hand_up(self, name: str, weight: nn.Parameter) -> None:
        assert weight.grad is not None  # the hook runs after it was made
        master, gradient = self.of[name], self._part(name, weight.grad)
        if master.grad is None:
            master.grad = gradient.float()
        else:
            master.grad += gradient
        weight.grad = None
        if self.then is not None:
            self.then(master)
