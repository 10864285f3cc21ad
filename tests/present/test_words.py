import math

import pytest

from tunesmith.present import words


@pytest.mark.parametrize(
    "hidden",
    ["\u202e", "\u2066", "\u200b", "\u00ad", "\ufeff", "\x00", "\x1b", "\x85", "\u2028", "\ud800", "\U000e0041"],
)
def test_hidden_characters_become_visible(hidden: str) -> None:
    shown = words.clean(f"a{hidden}b")
    assert shown == f"a⟨U+{ord(hidden):04X}⟩b"
    assert words.clean(shown) == shown


@pytest.mark.parametrize(
    "text", ["žluťoučký", "日本語", "أين طلبي", "👩\u200d🚀", "na\u200cme", "tab\tand\nnewline", "ñ́"]
)
def test_ordinary_writing_is_untouched(text: str) -> None:
    assert words.clean(text) == text


def test_a_long_text_is_cut_and_says_so() -> None:
    assert words.clean("x" * 100_000, 10) == "xxxxxxxxxx… (99,990 more characters)"
    assert words.one_line("y" * 100_000, 10) == "yyyyyyyyy…"
    assert words.one_line(" " * 1000 + "z", 10) == "…"
    assert words.clean("exact", 5) == "exact"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_undefined_numbers_are_said_to_be_so(value: float) -> None:
    shown = [
        words.plain(value),
        words.score("accuracy", value),
        words.difference("accuracy", value),
        words.duration(value),
    ]
    assert shown == ["not defined"] * 4
    assert words.ranked("accuracy", value) == math.inf


def test_the_better_score_ranks_first_in_both_directions() -> None:
    assert words.ranked("accuracy", 0.9) < words.ranked("accuracy", 0.1)
    assert words.ranked("perplexity", 2.0) < words.ranked("perplexity", 9.0)
