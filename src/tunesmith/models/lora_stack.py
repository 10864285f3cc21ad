"""Many adapters of the LoRA family on one base at once: each row of a call has its own, or none.

Notable: rows share the base's product, as in Punica (Chen et al., 2023) and S-LoRA (Sheng et al., 2023). The adapters
of the rows that run lie in one piece for each layer, ranks filled up with zeros; it is made anew only when another
adapter comes. With few adapters or few tokens one product meets all of them and what is not a row's own is set to zero;
else each row meets a copy of its own. Which is cheaper does not depend on the rank.
Legend: B rows, t tokens of each row, N = B t, K adapters, R rank, I inputs, O outputs.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tunesmith.core.errors import ModelError, did_you_mean
from tunesmith.models.frozen_linear import frozen_linear

COPY = 32  # copying an adapter for a row takes as long as about so many of its products with a token (two CPU cores)


class Update(NamedTuple):
    """``scale * B A``, which an adapter adds to the weight of one layer."""

    a_RI: Tensor
    b_OR: Tensor
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Turn:
    """The rows of a call, of ``tokens`` each: the place of each row's adapter in the stack (0 for a row on the base),
    and 1 where an adapter is a row's own."""

    names: tuple[str | None, ...]
    tokens: int
    place_B: Tensor
    own_BK: Tensor


class StackedLinear(nn.Module):
    """``base(x)``, and what each row's own adapter adds to it."""

    def __init__(self, name: str, base: nn.Linear, stack: "LoraStack") -> None:
        super().__init__()
        self.name, self.base, self.stack = name, base, stack
        self.enabled = True
        self.held: tuple[Tensor, Tensor] | None = None  # [K, R, I] and [K, R, O], scaled; None: no adapter has it

    def forward(self, x: Tensor) -> Tensor:
        y, turn = frozen_linear(x, self.base), self.stack.turn
        if turn is None or self.held is None or not self.enabled:
            return y
        shape = (len(turn.names), turn.tokens)
        if x.shape[:-1] not in (shape, (shape[0] * shape[1],)):
            raise ModelError(
                f"{self.name} reads {list(x.shape[:-1])} tokens where there are {shape[0]} rows of {shape[1]}: which "
                "adapter is whose cannot be told. Use each adapter on a base of its own."
            )
        return stacked_update(x.view(*shape, -1), y.view(*shape, -1), self.held, turn).view(y.shape)


def stacked_update(x_BtI: Tensor, y_BtO: Tensor, held: tuple[Tensor, Tensor], turn: Turn) -> Tensor:
    """``y`` and, for each row, ``x A^T B^T`` of its own adapter.

    >>> x, y, a, b = torch.ones(3, 1, 1), torch.zeros(3, 1, 1), torch.ones(2, 1, 1), torch.tensor([[[1.0]], [[3.0]]])
    >>> turn = Turn(("p", "q", None), 1, torch.tensor([0, 1, 0]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    >>> stacked_update(x, y, (a, b), turn)[:, 0, 0]
    tensor([1., 3., 0.])
    """
    a_KRI, b_KRO = held
    (adapters, rank, _), tokens = a_KRI.shape, x_BtI.shape[1]
    if (adapters - 1) * tokens <= COPY:
        low_BtKR = (x_BtI @ a_KRI.flatten(0, 1).T).view(-1, tokens, adapters, rank) * turn.own_BK[:, None, :, None]
        return torch.addmm(y_BtO.flatten(0, 1), low_BtKR.flatten(2).flatten(0, 1), b_KRO.flatten(0, 1)).view_as(y_BtO)
    low_BtR = torch.bmm(x_BtI, a_KRI[turn.place_B].mT) * turn.own_BK.sum(1)[:, None, None]
    return torch.baddbmm(y_BtO, low_BtR, b_KRO[turn.place_B])


class LoraStack:
    """Adapters by name on ``network``, whose layers that may be adapted are ``linear``. They lie on the network's
    device in ``dtype``."""

    def __init__(self, network: nn.Module, linear: Mapping[str, nn.Linear], dtype: torch.dtype) -> None:
        self.linear = dict(linear)
        self.layers: dict[str, StackedLinear] = {}
        self.turn: Turn | None = None
        self._network, self._dtype = network, dtype
        self._adapters: dict[str, dict[str, tuple[Tensor, Tensor]]] = {}
        self._stacked: tuple[str, ...] = ()
        self._last: Turn | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._adapters)

    def put(self, name: str, updates: Mapping[str, Update]) -> None:
        """Hold ``updates`` by layer as the adapter ``name``, in place of an older one. Raises ModelError."""
        if not updates:
            raise ModelError(f'The adapter "{name}" changes no layer; expected A and B of one layer at least.')
        self._adapters[name] = {layer: self._scaled(name, layer, update) for layer, update in updates.items()}
        self._stacked = ()
        for layer in updates:
            if layer not in self.layers:
                self.layers[layer] = StackedLinear(layer, self.linear[layer], self)
                parent, _, leaf = layer.rpartition(".")
                setattr(self._network.get_submodule(parent), leaf, self.layers[layer])

    def _scaled(self, name: str, layer: str, update: Update) -> tuple[Tensor, Tensor]:
        """Copies of A and of B turned and scaled: later changes of theirs do not reach the stack."""
        base = self.linear.get(layer)
        if base is None:
            raise ModelError(
                f'The adapter "{name}" changes {layer}, which is no linear layer of the base.'
                f"{did_you_mean(layer, self.linear)} Name its own base."
            )
        rank = len(update.a_RI)
        wanted = [[rank, base.in_features], [base.out_features, rank]]
        if [list(update.a_RI.shape), list(update.b_OR.shape)] != wanted or not rank:
            raise ModelError(
                f'The adapter "{name}": A and B of {layer} are {list(update.a_RI.shape)} and '
                f"{list(update.b_OR.shape)}; expected [rank, {base.in_features}] and [{base.out_features}, rank]."
            )
        b_RO = (update.b_OR.detach().float() * update.scale).T
        if not bool(update.a_RI.isfinite().all() & b_RO.isfinite().all()):
            raise ModelError(
                f'The adapter "{name}" holds values at {layer} that are not finite; they would spoil the rows beside '
                "its own. Train it again with a lower train.learning_rate."
            )
        device = base.weight.device
        a_RI = update.a_RI.detach().to(device, self._dtype, copy=True)
        return a_RI, b_RO.to(device, self._dtype, memory_format=torch.contiguous_format)

    def drop(self, name: str) -> None:
        """Let go of the adapter ``name``. Raises ModelError."""
        self.check([name])
        del self._adapters[name]
        self._stacked = ()

    def check(self, names: Sequence[str | None]) -> None:
        """Raise ModelError for a name that no adapter has."""
        odd = next((n for n in names if n is not None and n not in self._adapters), None)
        if odd is not None:
            raise ModelError(
                f'No adapter called "{odd}" is on the base.{did_you_mean(odd, self._adapters)} '
                "Put it there first; None is the base itself."
            )

    @contextmanager
    def rows(self, names: Sequence[str | None], tokens: int, running: Sequence[str | None] = ()) -> Iterator[None]:
        """Within it, the network reads a row for each of these adapters, ``tokens`` long. ``running`` are the adapters
        of all rows that are being written: they stay stacked between calls that read some of them."""
        if any(name is not None for name in names):
            self._stack({n for n in (*running, *names) if n is not None})
            if self._last is None or (self._last.names, self._last.tokens) != (tuple(names), tokens):
                self._last = self._turn(tuple(names), tokens)
            self.turn = self._last
        try:
            yield
        finally:
            self.turn = None

    def _turn(self, names: tuple[str | None, ...], tokens: int) -> Turn:
        places = {name: place for place, name in enumerate(self._stacked)}
        device = next(self._network.parameters()).device
        place_B = torch.tensor([-1 if n is None else places[n] for n in names], device=device)
        own_BK = (place_B[:, None] == torch.arange(len(places), device=device)).to(self._dtype)
        return Turn(names, tokens, place_B.clamp(min=0), own_BK)

    def _stack(self, wanted: set[str]) -> None:
        """Lay the wanted adapters into one piece, unless they lie there already and make up half of it."""
        if wanted <= set(self._stacked) and len(self._stacked) <= 2 * len(wanted):
            return
        self.check(sorted(wanted))
        self._stacked, self._last = tuple(sorted(wanted)), None
        for name, layer in self.layers.items():
            layer.held = _laid_out([self._adapters[adapter].get(name) for adapter in self._stacked])


def _laid_out(updates: Sequence[tuple[Tensor, Tensor] | None]) -> tuple[Tensor, Tensor] | None:
    """[K, R, I] and [K, R, O] of one layer; zeros fill up lower ranks and stand for adapters without the layer."""
    present = [update for update in updates if update is not None]
    if not present:
        return None
    rank = max(len(a_RI) for a_RI, _ in present)
    a_KRI, b_KRO = (t.new_zeros(len(updates), rank, t.shape[1]) for t in present[0])
    for place, update in enumerate(updates):
        if update is not None:
            a_KRI[place, : len(update[0])], b_KRO[place, : len(update[1])] = update
    return a_KRI, b_KRO
