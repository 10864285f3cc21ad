"""What stands in memory together: of the micro-batches that the engine forms of its rows, the worst.

Notable: the engine's own rules (``core.order``) are played through, some passes with other chances than the run will
have. A micro-batch is filled to a number of real tokens, and pads cost no budget: it may hold many short rows where
one long one would stand alone, and short rows beside a long one are padded to it.
"""

import random
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, repeat

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
        return (Held(count * rows.largest, count * rows.unit, rows.longest),)
    bounds: dict[bool, tuple[int, int, int]] = {}
    for tokens, count, longest in _formed(rows, batch_tokens, budget):
        known = bounds.get(longest > short, (0, 0, 0))
        found = (tokens, count * rows.unit * longest, longest)
        bounds[longest > short] = (max(known[0], found[0]), max(known[1], found[1]), max(known[2], found[2]))
    return tuple(Held(tokens, padded / longest, longest) for _, (tokens, padded, longest) in sorted(bounds.items()))


def _formed(rows: Rows, batch_tokens: int, budget: int) -> Iterator[tuple[int, int, int]]:
    """(tokens, units, longest row) of each micro-batch of some passes."""
    units = list(chain.from_iterable(repeat((size, width), count) for size, width, count in rows.units))
    every = -(-len(units) // PLAYED)  # the largest comes first
    sizes, widths = [size for size, _ in units[::every]], [width for _, width in units[::every]]
    for turn in range(max(1, min(PASSES, PLAYED // len(sizes)))):
        for step in order.steps(sizes, batch_tokens, random.Random(turn)):
            for part in order.cut([sizes[p] for p in step], budget, [rows.unit * widths[p] for p in step]):
                places = step[part.start : part.stop]
                yield sum(sizes[p] for p in places), len(places), max(widths[p] for p in places)
