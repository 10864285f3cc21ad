"""How gradients become steps: all together after the backward pass, or each weight within it.

Notable: ``AfterBackward`` is the rule: the gradient is clipped as one vector and nothing moves unless all of it is
finite. ``InBackward`` steps each weight as soon as its gradient is whole and lets the gradient go (Lv et al., 2023,
LOMO), so the gradients of all weights never stand side by side; the price is that each tensor is clipped by its own
share of ``clip_norm``, and that a step whose gradient breaks half-way has moved the weights behind the break.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tunesmith.core.errors import ModelError
from tunesmith.train.optimiser import NamedParameters

OnGradient = Callable[[Callable[[nn.Parameter], None]], None]


class Update(Protocol):
    """What a step asks: ``norm`` of the gradient (not finite where any of it is not), then ``step`` or not, then
    ``clear``."""

    optimisers: list[Optimizer]

    def norm(self) -> Tensor: ...
    def step(self) -> None: ...
    def clear(self) -> None: ...


class AfterBackward:
    def __init__(self, parameters: NamedParameters, optimisers: list[Optimizer], clip_norm: float) -> None:
        self.parameters, self.optimisers, self.clip_norm = parameters, optimisers, clip_norm

    def norm(self) -> Tensor:
        _all_reached([name for name, p in self.parameters if p.requires_grad and p.grad is None])
        return torch.nn.utils.clip_grad_norm_([p for _, p in self.parameters], self.clip_norm)

    def step(self) -> None:
        for one in self.optimisers:
            one.step()

    def clear(self) -> None:
        for one in self.optimisers:
            one.zero_grad(set_to_none=True)


class InBackward:
    """``make(parameters)`` gives the optimisers of one weight; ``on_gradient`` calls back with each weight whose
    gradient is whole. A step must be one micro-batch."""

    def __init__(
        self,
        parameters: NamedParameters,
        make: Callable[[NamedParameters], list[Optimizer]],
        clip_norm: float,
        on_gradient: OnGradient,
    ) -> None:
        self.parameters = parameters
        total = sum(p.numel() for _, p in parameters)
        self.clip = {id(p): clip_norm * (p.numel() / total) ** 0.5 for _, p in parameters}
        self.own = {id(p): make([(name, p)]) for name, p in parameters}
        self.optimisers = [one for made in self.own.values() for one in made]
        self.square: dict[int, Tensor] = {}
        on_gradient(self._arrived)

    @torch.no_grad()
    def _arrived(self, weight: nn.Parameter) -> None:
        key = id(weight)
        if key in self.square:
            raise ModelError("train.memory: least takes steps of one micro-batch; lower train.batch_tokens.")
        norm = torch.nn.utils.clip_grad_norm_([weight], self.clip[key])
        self.square[key] = norm.double().square()
        if torch.isfinite(norm):
            for one in self.own[key]:
                one.step()
        weight.grad = None

    def norm(self) -> Tensor:
        _all_reached([name for name, p in self.parameters if p.requires_grad and id(p) not in self.square])
        return torch.stack(list(self.square.values())).sum().sqrt()

    def step(self) -> None:
        """Nothing is left to do."""

    def clear(self) -> None:
        self.square.clear()


def _all_reached(missing: list[str]) -> None:
    if missing:
        raise ModelError(
            f"No gradient reached {missing[0]} ({len(missing)} such weights): the adapter is not in the graph."
        )
