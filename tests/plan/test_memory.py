"""Bytes by part, by hand."""

from tests.plan.test_resolve import card

from tunesmith.plan.memory import HEADROOM, LEVELS, choose, needed

TINY = card(parameters=1_000_000, layers=2, width=100, vocabulary=2_000)  # 200,000 in the embedding


def test_parts_by_hand() -> None:
    parts = needed(TINY, full=True, rank=1, narrow=False, micro_tokens=1000)
    assert parts["weights"] == parts["gradients"] == 4_000_000
    assert parts["moments"] == 8_000_000
    a_layer = 4.4 * 100 + 1.33 * 400_000 / 100  # 400,000 weights a layer
    assert parts["activations"] == int(4 * 1000 * 2 * a_layer)
    narrow = needed(TINY, full=True, rank=1, narrow=True, micro_tokens=1000)
    assert narrow["weights"] == 2_000_000
    assert narrow["moments"] == 8_000_000 + 4_000_000  # the float32 masters
    lora = needed(TINY, full=False, rank=3, narrow=False, micro_tokens=1000)
    assert lora["gradients"] == 4 * 20 * 100 * 2 * 3
    least = needed(TINY, full=True, rank=1, narrow=False, micro_tokens=1000, level="least", eight_bit=True)
    assert least["moments"] == int(2.1 * 800_000 + 8 * 200_000)  # those of the embedding stay float32


DEEP = card(parameters=1_000_000, layers=4, width=100, vocabulary=2_000)
SHAPE = {"full": True, "rank": 1, "narrow": False, "micro_tokens": 9000}


def test_each_level_needs_less_than_the_one_before() -> None:
    sums = [sum(needed(DEEP, **SHAPE, level=x).values()) for x in LEVELS]
    assert sums == sorted(sums, reverse=True)
    assert len(set(sums)) == len(LEVELS)


def test_the_first_level_that_fits_is_taken_and_the_reason_names_all_that_were_tried() -> None:
    limit = int(sum(needed(DEEP, **SHAPE, level="checkpoint").values()) / HEADROOM) + 1
    level, reason = choose(limit, DEEP, **SHAPE)
    assert level == "checkpoint"
    assert all(name in reason for name in ("fast", "selective", "checkpoint"))
    assert "least" not in reason
