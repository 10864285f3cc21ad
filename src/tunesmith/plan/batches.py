"""What stands in memory together: of the micro-batches that the engine forms of its rows, the worst.

Notable: the engine's own rules (``core.order``) are played through, some passes with other chances than the run will
have. A micro-batch is filled to a number of real tokens, and pads cost no budget: it may hold many short rows where
one long one would stand alone, and short rows beside a long one are padded to it.
"""

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice, repeat

from tunesmith.core import order
from tunesmith.plan.activations import Held
from tunesmith.plan.work import Rows

PLAYED = 24_000  # units over all passes; of more units a sample, evenly spread over their sizes, with the largest
PASSES = 12


@lru_cache(maxsize=512)
def worst(rows: Rows, batch_tokens: int, budget: int, short: int) -> tuple[Held, ...]:
    """The most tokens, the most pads and the longest row of micro-batches of ``budget`` tokens (or one longer unit), in
    steps of ``batch_tokens``: once for those in which no row is longer than ``short``, where attention keeps something
    else, and once for the others, as far as there are such.

    >>> tail = Rows(7, 2640, 1320, 600, 400, units=((600, 600, 1), (340, 340, 6)))
    >>> [(h.tokens, h.padded, h.longest) for h in worst(tail, 4096, 1024, 0)]  # twice 3 x 340, and 600 alone
    [(1020, 1020, 600)]
    >>> [(h.tokens, h.padded, h.longest) for h in worst(tail, 4096, 1024, 512)]
    [(1020, 1020, 340), (600, 600, 600)]
    """
    if not rows.units:
        count = max(1, budget // rows.largest)
        return (Held(count * rows.largest, count * rows.unit * rows.longest, rows.longest),)
    bounds: dict[bool, tuple[int, int, int]] = {}
    for found in _formed(rows, batch_tokens, budget):
        known = bounds.get(found[2] > short, (0, 0, 0))
        bounds[found[2] > short] = (max(known[0], found[0]), max(known[1], found[1]), max(known[2], found[2]))
    return tuple(Held(*bound) for _, bound in sorted(bounds.items()))


@lru_cache(maxsize=512)
def looked_at(rows: Rows, budget: int) -> Held:
    """The same where all rows are sorted by size, as for a look at dev.

    >>> looked_at(Rows(5, 1640, 820, 600, 400, units=((600, 600, 1), (260, 260, 4))), 1024)
    Held(tokens=860, padded=1200, longest=600)
    """
    if not rows.units:
        return worst(rows, budget, budget, 0)[0]
    return Held(*map(max, zip(*_cut(_played(rows)[::-1], rows.unit, budget), strict=True)))


def _formed(rows: Rows, batch_tokens: int, budget: int) -> Iterator[tuple[int, int, int]]:
    """(tokens, with pads, longest row) of each micro-batch of some passes."""
    units = _played(rows)
    sizes = [size for size, _ in units]
    for turn in range(max(1, min(PASSES, PLAYED // len(sizes)))):
        for step in order.steps(sizes, batch_tokens, random.Random(turn)):
            yield from _cut([units[place] for place in step], rows.unit, budget)


def _played(rows: Rows) -> list[tuple[int, int]]:
    """(tokens, longest row) of each unit, the largest first; of many, of as many as are played."""
    every = -(-sum(count for *_, count in rows.units) // PLAYED)
    return list(
        islice(chain.from_iterable(repeat((size, width), count) for size, width, count in rows.units), 0, None, every)
    )


def _cut(units: Sequence[tuple[int, int]], rows: int, budget: int) -> Iterator[tuple[int, int, int]]:
    """(tokens, with pads, longest row) of what consecutive units of so many ``rows`` are cut to."""
    for part in order.cut([size for size, _ in units], budget, [rows * width for _, width in units]):
        within = units[part.start : part.stop]
        longest = max(width for _, width in within)
        yield sum(size for size, _ in within), len(within) * rows * longest, longest
