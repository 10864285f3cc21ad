"""The worst micro-batches by hand, and beside those that the engine really forms."""

import random
from collections.abc import Callable, Iterable, Sequence

import pytest

from tunesmith.core.batch import TokenRow
from tunesmith.data import batches as engine
from tunesmith.plan.activations import Held
from tunesmith.plan.batches import PLAYED, looked_at, worst
from tunesmith.plan.resolve import Data
from tunesmith.plan.work import Rows

SHORT = 192


def row(length: int, *others: int, prefix: int = 0) -> TokenRow:
    return TokenRow((0,) * length, (1.0,) * length, others=tuple(row_with(n, prefix) for n in others))


def row_with(length: int, prefix: int) -> TokenRow:
    return TokenRow((0,) * length, (1.0,) * length, prefix=prefix)


def planned(rows: Sequence[TokenRow]) -> Rows:
    """As ``flows/prepare.py`` tells a plan of them."""
    widths = [max(len(r.ids) for r in u.unit) for u in rows]
    sizes = [r.size for r in rows]
    return Data(sizes, lambda *_: 1, 0, sum(sizes), max(widths), unit=len(rows[0].unit), widths=widths).rows


def formed(rows: Sequence[TokenRow], batch: int, micro: int, seeds: Iterable[int]) -> list[tuple[int, int, int]]:
    """(tokens, with pads, longest row) of every micro-batch of so many passes."""
    found = []
    for seed in seeds:
        steps = engine.Steps(rows, batch_tokens=batch, micro_tokens=micro, pad_id=0, seed=seed)
        for group in steps.groups(0):
            for part in engine.cut(group, micro):
                each = [r for u in part for r in u.unit]
                longest = max(len(r.ids) for r in each)
                found.append((sum(u.size for u in part), len(each) * longest, longest))
    return found


def skewed(rng: random.Random) -> int:
    return min(900, max(8, int(rng.lognormvariate(4.3, 0.9))))


def outliers(rng: random.Random) -> int:
    return rng.choice((700, 900)) if rng.random() < 0.002 else rng.randint(15, 60)


def two_kinds(rng: random.Random) -> int:
    return rng.choice((30, 500))


def close(rng: random.Random) -> int:
    return rng.randint(300, 345)


KINDS = [skewed, outliers, two_kinds, close]


@pytest.mark.parametrize(("length", "budget"), [(100, 1024), (600, 1024), (2000, 1024), (256, 1024), (7, 1)])
def test_of_rows_that_are_all_alike_as_many_as_fit(length: int, budget: int) -> None:
    count = max(1, budget // length)
    alike = planned([row(length)] * 1000)
    assert worst(alike, 4096, budget, 0) == (Held(count * length, count * length, length),)
    assert worst(Rows(1000, 1000 * length, 0, length, length), 4096, budget, 0) == worst(alike, 4096, budget, 0)
    pairs = planned([row(length, length, prefix=length // 2)] * 1000)
    size = 2 * length - length // 2
    count = max(1, budget // size)
    assert worst(pairs, 4096, budget, SHORT) == (Held(count * size, count * 2 * length, length),)


def test_short_rows_fill_what_a_long_one_leaves_empty() -> None:
    """A row of 600 stands alone in 1,024 tokens behind twice three of 340, and with one of 340 behind three and one."""
    for others, padded in ((6, 600), (4, 1200)):
        rows = [row(600), *[row(340)] * others]
        short, long = worst(planned(rows), 4096, 1024, 512)
        assert (short.tokens, short.padded, short.longest) == (1020, 1020, 340)
        assert (long.padded, long.longest) == (padded, 600)
        (held,) = worst(planned(rows), 4096, 1024, 0)
        assert (held.tokens, held.padded, held.longest) == (1020, max(padded, 1020), 600)


def test_one_long_row_pads_short_ones_up_to_four_budgets() -> None:
    for long, short, count, padded in ((900, 20, 465, 51 * 20), (300, 60, 80, 13 * 300)):  # 7 x 900 would be too wide
        rows = [row(long), *[row(short)] * count]
        (held,) = worst(planned(rows), 4096, 1024, 0)
        assert held.padded == padded == max(wide for _, wide, _ in formed(rows, 4096, 1024, range(30)))


def check(rows: Sequence[TokenRow], batch: int, micro: int, passes: int = 12) -> None:
    """The bounds beside what three passes form: hardly less; and what more of them form: little more (pads and the
    longest row of few rows are those of one micro-batch, which chance makes)."""
    micro = max(min(micro, batch), planned(rows).largest)  # as ``plan/resolve.py`` has it
    held = worst(planned(rows), batch, micro, SHORT)
    found = formed(rows, batch, micro, range(min(3, passes)))
    more = found + formed(rows, batch, micro, range(3, passes))
    kinds = {one[2] <= SHORT: [o for o in found if (o[2] <= SHORT) == (one[2] <= SHORT)] for one in found}
    assert kinds.keys() == {bound.longest <= SHORT for bound in held}
    for bound in held:
        tokens, padded, longest = (max(of) for of in zip(*kinds[bound.longest <= SHORT], strict=True))
        assert 0.95 * tokens <= bound.tokens
        assert 0.8 * padded <= bound.padded
        assert bound.padded <= 1.6 * max(p for _, p, n in more if (n <= SHORT) == (bound.longest <= SHORT))
        assert bound.longest == longest or bound.longest <= SHORT
    assert max(bound.tokens for bound in held) <= 1.05 * max(tokens for tokens, *_ in found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [3, 40, 300, 3000])
def test_the_worst_is_as_bad_as_what_the_engine_forms(kind: Callable[[random.Random], int], count: int) -> None:
    rng = random.Random(f"{kind.__name__} {count}")
    for batch, micro in ((512, 512), (2048, 1024), (4096, 2048), (16_384, 1024)):
        check([row(kind(rng)) for _ in range(count)], batch, micro)


@pytest.mark.parametrize("count", [40, 1000])
def test_the_worst_of_pairs_is_as_bad_as_what_the_engine_forms(count: int) -> None:
    rng = random.Random(count)
    for batch, micro in ((2048, 1024), (4096, 2048)):
        rows = []
        for _ in range(count):
            prompt = skewed(rng) // 3
            better, other = (prompt + 2 + skewed(rng) // 3 for _ in range(2))
            rows.append(row(better, other, prefix=prompt))
        check(rows, batch, micro)


def test_of_many_rows_a_sample_is_played_with_the_largest() -> None:
    rng = random.Random(3)
    rows = [row(2000), *(row(rng.randint(20, 400)) for _ in range(3 * PLAYED))]
    check(rows, 8192, 2048, passes=1)
    assert max(held.longest for held in worst(planned(rows), 8192, 2048, SHORT)) == 2000


def test_what_is_looked_at_is_that_of_the_engine() -> None:
    """Sorted as a whole, in twice as many tokens."""
    rng = random.Random(5)
    rows = [row(skewed(rng)) for _ in range(400)]
    parts = list(engine.in_order(rows, budget=2048, pad_id=0))
    padded = max(part.ids_BT.numel() for part in parts)
    assert looked_at(planned(rows), 2048) == Held(
        max(part.tokens for part in parts), padded, max(len(r.ids) for r in rows)
    )
