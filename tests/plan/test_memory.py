"""Bytes by part, by hand."""

from dataclasses import replace

import pytest
from tests.plan.test_resolve import card

from tunesmith.core.errors import MemoryNeeded
from tunesmith.plan.memory import HEADROOM, LEVELS, Training, choose, needed

TINY = card(parameters=1_000_000, layers=2, width=100, vocabulary=2_000)  # 200,000 in the embedding
WHOLE = Training(TINY, full=True, trained=1_000_000, narrow=False)


def test_parts_by_hand() -> None:
    parts = needed(WHOLE, micro_tokens=1000)
    assert parts["weights"] == parts["gradients"] == 4_000_000
    assert parts["moments"] == 8_000_000
    assert parts["best"] == 0
    a_layer = 4.4 * 100 + 1.33 * 400_000 / 100  # 400,000 weights a layer
    assert parts["activations"] == int(4 * 1000 * 2 * a_layer)
    narrow = needed(replace(WHOLE, narrow=True), micro_tokens=1000)
    assert narrow["weights"] == 2_000_000
    assert narrow["moments"] == 8_000_000 + 4_000_000  # the float32 masters
    lora = needed(replace(WHOLE, full=False, trained=12_000, keeps_best=True), micro_tokens=1000)
    assert lora["gradients"] == lora["best"] == 4 * 12_000
    least = needed(replace(WHOLE, eight_bit=True, keeps_best=True), micro_tokens=1000, level="least")
    assert least["moments"] == int(2.1 * 800_000 + 8 * 200_000)  # those of the embedding stay float32
    assert least["best"] == 4_000_000


DEEP = Training(
    card(parameters=1_000_000, layers=4, width=100, vocabulary=2_000), full=True, trained=1_000_000, narrow=False
)
TOKENS = 36_000


def total(level: str, tokens: int) -> int:
    return sum(needed(DEEP, level=level, micro_tokens=tokens).values())  # type: ignore[arg-type]


def chosen(limit: float, *, batch: int = 9000, longest: int = 100) -> tuple[str, int, str]:
    return choose(int(limit / HEADROOM) + 1, DEEP, batch_tokens=batch, micro_tokens=TOKENS, longest=longest)


def test_each_level_needs_less_than_the_one_before() -> None:
    sums = [total(level, 9000) for level in LEVELS]
    assert sums == sorted(sums, reverse=True)
    assert len(set(sums)) == len(LEVELS)


def test_smaller_micro_batches_come_before_recomputing() -> None:
    for tokens in (TOKENS, TOKENS // 2, TOKENS // 4):
        level, found, reason = chosen(total("fast", tokens))
        assert (level, found) == ("fast", tokens)
        assert f"with {tokens} tokens at once" in reason
    assert chosen(total("fast", TOKENS // 4) - 2)[:2] == ("selective", TOKENS // 4)
    assert chosen(total("fast", TOKENS) - 2, longest=30_000)[:2] == ("fast", 30_000)  # a row is never cut


def test_the_first_level_that_fits_is_taken_and_the_reason_names_all_that_were_tried() -> None:
    level, _, reason = chosen(total("checkpoint", 9000))
    assert level == "checkpoint"
    assert all(name in reason for name in ("fast", "selective", "checkpoint"))
    assert "least" not in reason


def test_least_is_judged_by_the_whole_step_that_it_takes_at_once() -> None:
    room = total("checkpoint", 9000) - 2
    level, tokens, reason = chosen(room, batch=8000)
    assert (level, tokens) == ("least", 8000)
    assert "least" in reason
    with pytest.raises(MemoryNeeded, match=r"with 400000 tokens at once.* lower train\.batch_tokens"):
        chosen(room, batch=400_000)
