"""Reading the kind of answer off the references."""

from collections.abc import Callable

import pytest

from tunesmith.core.example import Example
from tunesmith.evaluate.forms import answer_form, closed_fields, known_answers, most_frequent, unreadable


@pytest.mark.parametrize(
    ("references", "form"),
    [
        (["yes", "no"] * 5, "closed"),
        (["yes"] * 2, "closed"),
        (["yes"], "open"),
        ([], "open"),
        (["", "", ""], "open"),
        (["x" * 101] * 10, "open"),
        (['{"a": 1}'] * 20, "json"),
        (['{"a": 1}'] * 18 + ["sorry"] * 2, "closed"),
        ([f"label {n % 200}" for n in range(400)], "closed"),
        ([f"label {n % 201}" for n in range(402)], "open"),
    ],
)
def test_answer_form(references: list[str], form: str) -> None:
    assert answer_form(references) == form


def test_labels_are_closed_however_many() -> None:
    assert answer_form([str(n) for n in range(500)], "classify") == "closed"


def test_closed_fields_leave_out_nested_and_free_values() -> None:
    rows = [f'{{"kind": "k{n % 2}", "tags": [], "text": "t{n}", "rare": 1}}' for n in range(8)]
    assert closed_fields(rows) == {"kind": ("k0", "k1"), "rare": ("1",)}
    more = ['{"kind": "k1", "tags": []}'] * 9  # now "rare" and "text" are keys of fewer than half the rows
    assert closed_fields(rows + more) == {"kind": ("k1", "k0")}


def test_known_answers(make_chat: Callable[..., Example]) -> None:
    closed = [make_chat(n, "q", ["b", "a "][n % 2]) for n in range(6)]
    assert known_answers(closed, "generate") == ("a", "b")
    assert known_answers(closed, "classify", ("z", "y")) == ("y", "z")
    assert known_answers([make_chat(1, "q", "Once only")], "generate") == ()


def test_unreadable_counts_by_form() -> None:
    assert unreadable(["", "x", '{"a": 1}'], "json", ()) == 2
    assert unreadable(["a", " b", "c"], "closed", ("a", "b")) == 1
    assert unreadable(["", "x"], "open", ()) == 0


def test_most_frequent_breaks_ties_by_alphabet() -> None:
    assert most_frequent(["b", "c", "c", "b", "a"]) == "b"
