"""What stands in memory together: of the micro-batches that the engine forms of its rows, the worst.

Notable: ``data/batches.py`` fills a micro-batch to a number of real tokens with rows that follow each other in length,
of those that are sorted together; pads cost no budget. So it may hold many short rows where one long one would stand
alone, and short rows beside a long one are padded to it. What comes out are bounds: which rows are sorted together is
left to chance, so where they are not all, the next shorter row is taken to be as far off as it hardly ever is.
"""

import math
from bisect import bisect_left, bisect_right
from functools import lru_cache
from itertools import accumulate

from tunesmith.plan.activations import Held
from tunesmith.plan.work import Rows

WINDOW = 32  # steps whose rows are sorted together, as in data/batches.py; a test compares them
HARDLY = 3.0  # so that one pass over the rows in twenty has a wider gap: exp(-3)


@lru_cache(maxsize=512)
def worst(rows: Rows, batch_tokens: int, budget: int, short: int) -> tuple[Held, ...]:
    """The most tokens, the most pads and the longest row of micro-batches of ``budget`` tokens (or one longer unit), in
    steps of ``batch_tokens``: once for those in which no row is longer than ``short``, where attention keeps something
    else, and once for the others, as far as there are such.

    >>> tail = Rows(7, 2640, 1320, 600, 400, units=((600, 600, 1), (340, 340, 6)))
    >>> [(h.tokens, h.padded, h.longest) for h in worst(tail, 4096, 1024, 0)]  # 3 x 340; 340 beside 600
    [(1024, 1200, 600)]
    >>> [(h.tokens, h.padded, h.longest) for h in worst(tail, 4096, 1024, 512)]
    [(1020, 1020, 340), (1024, 1200, 600)]
    """
    if not rows.units:
        count = max(1, budget // rows.largest)
        return (Held(count * rows.largest, count * rows.unit, rows.longest),)
    bounds: dict[bool, tuple[int, int, int]] = {}
    widest, smallest = 0, rows.units[-1][0]
    total = sum(count for *_, count in rows.units)
    window = min(total, max(1, int(WINDOW * batch_tokens * total / max(rows.tokens, 1))))
    windows = {window, total % window or window}  # the last of a pass is what is left
    for size, width, count in (found for held in windows for found in _most(rows, total, held, budget)):
        widest = width if size == smallest else max(widest, width)
        tokens = min(max(budget, size), count * size, max(rows.tokens, size))
        kinds = [(True, min(widest, short))] if width <= short else []
        kinds += [(False, widest)] if widest > short else []
        for kind, longest in kinds:
            found = (tokens, count * rows.unit * longest, longest)
            so_far = bounds.get(kind, found)
            bounds[kind] = (max(so_far[0], found[0]), max(so_far[1], found[1]), max(so_far[2], found[2]))
    return tuple(Held(tokens, padded / longest, longest) for tokens, padded, longest in bounds.values())


def _most(rows: Rows, total: int, window: int, budget: int) -> list[tuple[int, int, int]]:
    """(size, longest row, units of a micro-batch at most) where a unit of that size is the largest of it; the smallest
    size first. ``window`` of the ``total`` units are sorted together."""
    gap = 0 if window == total else math.ceil(HARDLY + math.log(total))
    ranks, above = [0], 0  # of a window that is like the whole: how many of its units are at least of each size
    for *_, count in rows.units:
        above += count
        ranks.append(-(-above * window // total))
    sizes: list[int] = []
    for (size, *_), before, after in reversed([*zip(rows.units, ranks, ranks[1:], strict=False)]):
        sizes += [size] * (after - before)
    sums = [0, *accumulate(sizes)]
    found = []
    for (size, width, _), before, after in zip(rows.units, ranks, ranks[1:], strict=False):
        room, smaller = max(0, budget - size), window - after
        end = max(0, smaller - gap)
        start = bisect_left(sums, sums[end] - room)
        beside = end - start
        if sums[end] <= room:  # all of these; more of them that are nearer in size, and of its own
            beside = min(bisect_right(sums, room) - 1, max(smaller, window - before - 1))
        found.append((size, width, 1 + beside))
    return found[::-1]
