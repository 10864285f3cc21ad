"""Token rows to optimiser steps: length-grouped, a fixed budget of real tokens.

Notable: which rows come together is ``core.order``'s, and depends on (seed, epoch) alone. Pads only square the tensors
up; the network never sees them (``models.packing``), so they cost no budget. Rows that are compared with each other
stay together.
Legend: B sequences, T tokens.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from tunesmith.core import order, seeds
from tunesmith.core.batch import TRACKS, Batch, TokenRow


def collate(rows: Sequence[TokenRow], pad_id: int) -> Batch:
    """A right-padded batch with targets shifted by one, each row followed by its others.

    >>> batch = collate([TokenRow((5, 6, 7), (0.0, 1.0, 1.0)), TokenRow((8, 9), (0.0, 1.0))], pad_id=0)
    >>> batch.ids_BT.tolist(), batch.target_BT.tolist(), batch.weight_BT.tolist()
    ([[5, 6, 7], [8, 9, 0]], [[6, 7, 0], [9, 0, 0]], [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    """
    unit = len(rows[0].unit)
    rows = [r for u in rows for r in u.unit]
    prefix_B = torch.tensor([r.prefix for r in rows]) if any(r.prefix for r in rows) else None
    width = max(len(r.ids) for r in rows)
    ids_BT = torch.full((len(rows), width), pad_id)
    weight_BT = torch.zeros(len(rows), width)
    target_BT = torch.full((len(rows), width), pad_id)
    for i, row in enumerate(rows):
        n = len(row.ids)
        ids = torch.tensor(row.ids)
        ids_BT[i, :n] = ids
        target_BT[i, : n - 1] = ids[1:]
        weight_BT[i, : n - 1] = torch.tensor(row.weight[1:])
    length_B = torch.tensor([len(r.ids) for r in rows])
    label_B = torch.tensor([r.label for r in rows])
    names = tuple(r.example_id for r in rows)
    reference_B, margin_B, sure_B = (
        torch.tensor([getattr(r, f) for r in rows]) for f in ("reference", "margin", "sure")
    )
    batch = Batch(ids_BT, target_BT, weight_BT, length_B, label_B, names, unit, prefix_B, reference_B, margin_B, sure_B)
    return batch if rows[0].tracks is None else replace(batch, **_tracks(rows, width))


def _tracks(rows: Sequence[TokenRow], width: int) -> dict[str, Any]:
    """The tracks that all ``rows`` have, shifted as targets are."""
    found: dict[str, Any] = {}
    for name in TRACKS:
        held = [r.tracks[name] for r in rows if r.tracks is not None and name in r.tracks]
        if len(held) < len(rows):
            continue
        found[f"{name}_BT"] = values_BT = torch.zeros(len(rows), width)
        for i, track in enumerate(held):
            values_BT[i, : len(track) - 1] = track[1:]
    return found


def cut(rows: Sequence[TokenRow], budget: int) -> list[list[TokenRow]]:
    """Consecutive groups of at most ``budget`` tokens (a longer row stands alone), each row with its others; and of at
    most ``order.PADDED`` times as many with pads."""
    padded = [len(row.unit) * max(len(each.ids) for each in row.unit) for row in rows]
    return [list(rows[part.start : part.stop]) for part in order.cut([row.size for row in rows], budget, padded)]


def together(rows: Sequence[TokenRow], group: int, budget: int, *, packs: bool) -> list[TokenRow]:
    """Units of as many of the ``group`` consecutive answers to one prompt as may stand in memory at once: what they
    share is computed once, which ``budget`` knows where the model ``packs``. All units have as many rows.

    >>> rows = [TokenRow((1, 2, 3, n), (0.0, 0.0, 0.0, 1.0)) for n in (4, 5, 6, 7)]
    >>> [len(together(rows, 4, budget, packs=True)[0].unit) for budget in (7, 6, 5, 4)]
    [4, 2, 2, 1]
    >>> [len(together(rows, 4, budget, packs=False)[0].unit) for budget in (16, 15, 7)]
    [4, 2, 1]
    >>> long = [TokenRow((*range(20), n), (0.0,) * 20 + (1.0,)) for n in range(8)]
    >>> [len(together(long, 8, budget, packs=True)[0].unit) for budget in (42, 41, 28)]  # 8 x 21 is 4 x 42
    [8, 4, 4]
    """
    longest = max(len(row.ids) for row in rows)
    units: list[TokenRow] = []
    for size in (n for n in range(group, 0, -1) if group % n == 0):
        units = [_unit(*rows[i : i + size]) for i in range(0, len(rows), size)]
        if size * longest <= budget * (order.PADDED if packs else 1) and max(unit.size for unit in units) <= budget:
            break
    return units


def _unit(first: TokenRow, *others: TokenRow) -> TokenRow:
    """Answers to one prompt, which ends where the first of their tokens is trained."""
    shared = next((t for row in (first, *others) for t, w in enumerate(row.weight) if w > 0), 0)
    return replace(first, others=tuple(replace(o, prefix=shared) for o in others))


class Steps:
    """``steps(epoch)`` yields the optimiser steps of one pass, each a list of micro-batches. ``pad_id`` fills the
    right."""

    def __init__(
        self, rows: Sequence[TokenRow], *, batch_tokens: int, micro_tokens: int, pad_id: int, seed: int
    ) -> None:
        self.rows = list(rows)
        self.batch_tokens = batch_tokens
        self.micro_tokens = micro_tokens
        self.pad_id = pad_id
        self.seed = seed

    def groups(self, epoch: int) -> list[list[TokenRow]]:
        rng = random.Random(seeds.stream(self.seed, f"order/{epoch}"))
        steps = order.steps([row.size for row in self.rows], self.batch_tokens, rng)
        return [[self.rows[place] for place in step] for step in steps]

    def __call__(self, epoch: int) -> Iterator[list[Batch]]:
        for group in self.groups(epoch):
            yield [collate(part, self.pad_id) for part in cut(group, self.micro_tokens)]

    def per_epoch(self) -> int:
        """Optimiser steps of the first pass (later passes differ by one or two)."""
        return len(self.groups(0))


def in_order(rows: Sequence[TokenRow], *, budget: int, pad_id: int) -> Iterator[Batch]:
    """Batches for evaluation: sorted by length, no shuffling."""
    for group in cut(sorted(rows, key=lambda r: r.size), budget):
        yield collate(group, pad_id)
