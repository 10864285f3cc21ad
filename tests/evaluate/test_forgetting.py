"""Forgetting by hand, and the passages on which it is measured."""

import pytest

from tunesmith.evaluate.forgetting import forgetting, passages


def test_values_and_their_paired_difference() -> None:
    texts = ["abcd", "abcdefgh"]  # 12 bytes in all
    found = forgetting(texts, [12.0, 12.0], [13.0, 17.0])
    assert (found.before.value, found.after.value) == (2.0, 2.5)
    assert found.difference.value == 0.5
    assert (found.difference.low, found.difference.high) == (0.25, 0.625)  # each passage drawn twice: 1 / 4 and 5 / 8
    assert found.before.low < 2.0 < found.before.high
    assert found.difference.n == 2


@pytest.mark.parametrize(
    ("after", "word"), [([9.0, 9.0], "It forgot:"), ([7.0, 7.0], "forgot nothing"), ([7.0, 9.0], "No forgetting")]
)
def test_the_sentence_says_what_the_interval_allows(after: list[float], word: str) -> None:
    assert word in forgetting(["abcd", "efgh"], [8.0, 8.0], after).sentence


def test_a_passage_is_never_longer_than_the_context_allows() -> None:
    whole = passages(4096)
    assert len(whole) == len(set(whole)) == 36
    assert 8_000 < sum(map(len, whole)) < 17_000
    assert max(map(len, whole)) <= 300
    assert {len(p) for p in passages(64)} == {56}
