"""What the loop eats: token rows and padded batches.

Notable: rows are right-padded to be one tensor; ``length_B`` says what of it is real, and the model leaves the pads
out. Targets are already shifted: ``target_BT[b, t]`` is the token after ``ids_BT[b, t]``.
Legend: B sequences, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One rendered example. ``weight[t]`` is the loss weight of predicting ``ids[t]`` (0 for the prompt); ``label`` is
    a class."""

    ids: tuple[int, ...]
    weight: tuple[float, ...]
    label: int = -1
    example_id: str = ""

    @property
    def trained(self) -> int:
        """Tokens that enter the loss (the first token has nothing before it and never does)."""
        return sum(w > 0 for w in self.weight[1:])


@dataclass(frozen=True, slots=True)
class Batch:
    """A padded micro-batch. ``weight_BT`` is the loss weight of ``target_BT``; ``label_B`` is -1 where there is no
    class."""

    ids_BT: Tensor
    target_BT: Tensor
    weight_BT: Tensor
    length_B: Tensor
    label_B: Tensor
    example_ids: tuple[str, ...] = ()

    def to(self, device: str) -> Batch:
        """The same batch with its tensors on ``device``."""
        return Batch(
            self.ids_BT.to(device),
            self.target_BT.to(device),
            self.weight_BT.to(device),
            self.length_B.to(device),
            self.label_B.to(device),
            self.example_ids,
        )

    def halves(self) -> tuple[Batch, ...]:
        """The first and the second half of the rows, each as wide as its own longest row; itself where it is one."""
        rows = len(self.length_B)
        if rows < 2:
            return (self,)
        return tuple(self._part(slice(start, end)) for start, end in ((0, rows // 2), (rows // 2, rows)))

    def _part(self, rows: slice) -> Batch:
        wide = int(self.length_B[rows].max())
        whole = (self.ids_BT, self.target_BT, self.weight_BT)
        ids_BT, target_BT, weight_BT = (tensor[rows, :wide] for tensor in whole)
        names = self.example_ids[rows]
        return Batch(ids_BT, target_BT, weight_BT, self.length_B[rows], self.label_B[rows], names)
