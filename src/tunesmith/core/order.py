"""Which rows make an optimiser step, and which of these stand in memory together, by their sizes alone: the trainer
takes its batches from here, and a plan sees what it will hold.

Notable: rows are shuffled, sorted by size within a window of a few steps, cut into steps, and the steps shuffled again:
rows of like size share their attention products, in random order. What comes out are places in ``sizes``.
"""

import random
from collections.abc import Sequence

WINDOW = 32  # steps whose rows are sorted together
PADDED = 4  # budgets that rows together may fill with their pads and with what they share, which attention alone sees


def cut(sizes: Sequence[int], budget: int, padded: Sequence[int] = ()) -> list[range]:
    """Consecutive groups of at most ``budget`` in all; what is larger stands alone. ``padded`` is what each takes as
    wide as its own longest row: where given, a group takes at most ``PADDED`` budgets as wide as its widest.

    >>> cut([3, 3, 5, 9, 1], 6)
    [range(0, 2), range(2, 3), range(3, 4), range(4, 5)]
    >>> cut([1, 1, 1, 6], 10, padded=[1, 1, 1, 6]), cut([1, 1, 1, 7], 10, padded=[1, 1, 1, 11])
    ([range(0, 4)], [range(0, 3), range(3, 4)])
    """
    starts: list[int] = []
    held = widest = 0
    for place, size in enumerate(sizes):
        held += size
        own = padded[place] if padded else 0
        widest = max(widest, own)
        if not starts or held > budget or (place + 1 - starts[-1]) * widest > PADDED * budget:
            starts.append(place)
            held, widest = size, own
    return [range(start, end) for start, end in zip(starts, [*starts[1:], len(sizes)], strict=False)]


def steps(sizes: Sequence[int], batch_tokens: int, rng: random.Random) -> list[list[int]]:
    """One pass over all rows in steps of about ``batch_tokens``, the rows of each sorted by size.

    >>> sorted(map(len, steps([4, 4, 4], 8, random.Random(0))))
    [1, 2]
    """
    order = list(range(len(sizes)))
    rng.shuffle(order)
    mean = sum(sizes) / max(len(order), 1)
    window = max(1, int(WINDOW * batch_tokens / max(mean, 1)))
    found: list[list[int]] = []
    for start in range(0, len(order), window):
        part = sorted(order[start : start + window], key=lambda place: sizes[place])
        found += [part[group.start : group.stop] for group in cut([sizes[place] for place in part], batch_tokens)]
    rng.shuffle(found)
    return found
