"""What the loop eats: token rows and padded batches.

Notable: rows are right-padded to be one tensor; ``length_B`` says what of it is real, and the model leaves the pads
out. Targets are already shifted: ``target_BT[b, t]`` is the token after ``ids_BT[b, t]``. Rows that are compared with
each other (the better and the worse answer to a prompt) come as one unit: they stay in one micro-batch, side by side,
and what they begin with alike is computed once (``prefix_B``). What is known of single tokens (what a policy gave them
when it wrote them) travels as tracks, one number a token.
Legend: B sequences, T tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

TRACKS = ("old", "base", "value", "return", "advantage")


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One rendered example. ``weight[t]`` is the loss weight of predicting ``ids[t]`` (0 for the prompt); ``label`` is
    a class, and 1 or 0 for an answer that is wanted or not; ``others`` are the rows that it is compared with, each of
    which begins with ``prefix`` tokens of this one that need not be computed again.

    ``reference`` is the log-likelihood of the row's weighted tokens under the model that training starts from;
    ``margin`` is how much better than ``others`` it should be, ``sure`` how likely it is to be better at all. A track
    has one number a token [T]: ``tracks[name][t]`` is of predicting ``ids[t]``; its names are those of ``TRACKS``.
    """

    ids: tuple[int, ...]
    weight: tuple[float, ...]
    label: int = -1
    example_id: str = ""
    others: tuple[TokenRow, ...] = ()
    prefix: int = 0
    reference: float = 0.0
    margin: float = 0.0
    sure: float = 1.0
    tracks: Mapping[str, Tensor] | None = None

    @property
    def trained(self) -> int:
        """Tokens that enter the loss (the first token has nothing before it and never does)."""
        return sum(w > 0 for w in self.weight[1:])

    @property
    def unit(self) -> tuple[TokenRow, ...]:
        """The row and the others, in the order of a batch."""
        return (self, *self.others)

    @property
    def size(self) -> int:
        """Tokens that are computed for the unit: what its rows begin with alike counts once."""
        return sum(len(row.ids) - row.prefix for row in self.unit)


@dataclass(frozen=True, slots=True)
class Batch:
    """A padded micro-batch. ``weight_BT`` is the loss weight of ``target_BT``; ``label_B`` is -1 where there is no
    class. ``unit`` consecutive rows belong together; row b begins with ``prefix_B[b]`` tokens of the first row of its
    unit (0 for that row itself). ``reference_B``, ``margin_B`` and ``sure_B`` are those of ``TokenRow``. Of each target
    that a policy wrote: ``old_BT`` is its log-probability then, ``base_BT`` that under the reference, ``value_BT`` the
    return that the critic expected, ``return_BT`` the one it should expect, ``advantage_BT`` how much better it was."""

    ids_BT: Tensor
    target_BT: Tensor
    weight_BT: Tensor
    length_B: Tensor
    label_B: Tensor
    example_ids: tuple[str, ...] = ()
    unit: int = 1
    prefix_B: Tensor | None = None
    reference_B: Tensor | None = None
    margin_B: Tensor | None = None
    sure_B: Tensor | None = None
    old_BT: Tensor | None = None
    base_BT: Tensor | None = None
    value_BT: Tensor | None = None
    return_BT: Tensor | None = None
    advantage_BT: Tensor | None = None

    @property
    def units(self) -> int:
        return len(self.length_B) // self.unit

    @property
    def tokens(self) -> int:
        """Real tokens, those that rows of a unit begin with alike counted once."""
        return int(self.length_B.sum()) - (0 if self.prefix_B is None else int(self.prefix_B.sum()))

    def to(self, device: str) -> Batch:
        """The same batch with its tensors on ``device``."""
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self._tensors()}
        return dataclasses.replace(self, **moved)

    def halves(self) -> tuple[Batch, ...]:
        """The first and the second half of the units, each as wide as its own longest row; itself where it is one."""
        if self.units < 2:
            return (self,)
        middle = self.units // 2 * self.unit
        return tuple(self._part(slice(start, end)) for start, end in ((0, middle), (middle, len(self.length_B))))

    def _part(self, rows: slice) -> Batch:
        wide = int(self.length_B[rows].max())
        cut: dict[str, Any] = {
            name: tensor[rows, :wide] if tensor.ndim == 2 else tensor[rows] for name, tensor in self._tensors()
        }
        return dataclasses.replace(self, **cut, example_ids=self.example_ids[rows])

    def _tensors(self) -> list[tuple[str, Tensor]]:
        held = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self) if f.name[-2:] in ("_B", "BT"))
        return [(name, tensor) for name, tensor in held if tensor is not None]
