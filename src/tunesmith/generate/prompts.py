"""Prompts that wait for a slot: which are read next, and what they begin with alike is read once.

Notable: keys and values differ between adapters, so a beginning is shared by the prompts of one adapter alone. It is
read by the first row that needs it and copied from whichever slot has it, as long as one of that adapter is in use.
Equal prompts, such as those of a rollout with several answers to each, are read once and copied whole.
"""

from collections import deque
from collections.abc import Sequence

from torch import Tensor

from tunesmith.generate.slots import Slots
from tunesmith.models.many import stack_of
from tunesmith.models.model import Model

READ_TOKENS = {"cpu": 2048, "cuda": 16_384}  # of prompts read at once: few rows of like length have few pads
SHORTEST_PREFIX = 16  # tokens; less is not worth a pass of its own


class Prompts:
    """``ids`` of each prompt as the network reads them. ``adapters`` names that of each; the base's where not given."""

    def __init__(self, model: Model, prompts: Sequence[Sequence[int]], adapters: Sequence[str | None] = ()) -> None:
        self.ids = [[*model.soft_ids, *prompt] for prompt in prompts]
        self._adapters = list(adapters) or [None] * len(prompts)
        if any(name is not None for name in self._adapters):
            stack_of(model).check(self._adapters)
        self._tokens = READ_TOKENS[model.device.partition(":")[0]]
        of: dict[str | None, list[list[int]]] = {}
        for own, name in zip(self.ids, self._adapters, strict=True):
            of.setdefault(name, []).append(own)
        self._common = {name: _common(own) for name, own in of.items()}
        longest = sorted(range(len(self.ids)), key=lambda i: -len(self.ids[i]))  # first: like lengths together
        self._waiting = deque(longest)

    def __len__(self) -> int:
        """How many still wait."""
        return len(self._waiting)

    def read(self, slots: Slots, most: int) -> tuple[list[int], Tensor]:
        """Read the next prompts, at most so many, into new slots: their numbers, and the logits [R, V] behind each."""
        alike = self._next(most)
        rows = [own[0] for own in alike]
        source = {name: slot for slot, name in enumerate(slots.adapters)}
        begins = {self._adapters[row]: row for row in reversed(rows)}  # the first row of each adapter
        first = [row for name, row in begins.items() if self._common[name] and name not in source]
        rows = [*first, *(row for row in rows if row not in first)]
        copies = {own[0]: own[1:] for own in alike}
        names = [self._adapters[row] for row in rows]
        opened = slots.open(names)
        if first:
            slots.extend(opened.start, [self.ids[row][: self._common[self._adapters[row]]] for row in first])
            source |= dict(zip(names, opened[: len(first)], strict=False))
        for name, slot in source.items():
            targets = [place for place, own in zip(opened, names, strict=True) if own == name]
            if targets and self._common[name]:
                slots.share(slot, targets, self._common[name])
        logits_RV = slots.extend(opened.start, [self.ids[row][self._common[self._adapters[row]] :] for row in rows])
        for slot, row in [(slot, row) for slot, row in zip(opened, rows, strict=True) if copies[row]]:
            slots.share(slot, slots.open([self._adapters[row]] * len(copies[row])), len(self.ids[row]))
        more = [(other, place) for place, row in enumerate(rows) for other in copies[row]]
        places = [*range(len(rows)), *(place for _, place in more)]
        return [*rows, *(other for other, _ in more)], logits_RV[places]

    def _next(self, most: int) -> list[list[int]]:
        """At most so many rows, equal ones together, and not more tokens with their pads than are read at once."""
        wide, found = len(self.ids[self._waiting[0]]), [[self._waiting.popleft()]]
        while self._waiting and sum(map(len, found)) < most:
            row, last = self._waiting[0], found[-1][0]
            if self.ids[row] == self.ids[last] and self._adapters[row] == self._adapters[last]:
                found[-1].append(self._waiting.popleft())
            elif wide * (len(found) + 1) <= self._tokens:
                found.append([self._waiting.popleft()])
            else:
                break
        return found


def _common(prompts: Sequence[list[int]]) -> int:
    """How many tokens all prompts begin with, each keeping one of its own; 0 where that is not worth a pass."""
    if len(prompts) < 2:
        return 0
    first, last = min(prompts), max(prompts)  # in this order, what these two share all share
    most = min(map(len, prompts)) - 1
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), most)
    return min(same, most) if min(same, most) >= SHORTEST_PREFIX else 0
