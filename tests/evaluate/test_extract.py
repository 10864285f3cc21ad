"""JSON out of answers: hostile, cut off, wrapped; and equality of values."""

import time

import pytest

from tunesmith.evaluate.extract import canonical, first_object, invalid, same_answer, whole_object


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('```json\n{"a": "}"}\n```', {"a": "}"}),
        ('{bad} then {"a": 1} then {"b": 2}', {"a": 1}),
        ('{"a": {"b": {}}}', {"a": {"b": {}}}),
        ('{"a": "use {} here', None),
        ('{"a": {"b": 1}, "c"', None),
        ('{"a": Infinity}', None),
        ("", None),
        ("[1]", None),
        ("{" * 50, None),
    ],
)
def test_first_object(text: str, value: object) -> None:
    assert first_object(text) == value


@pytest.mark.parametrize(
    "text", ['{"a":' * 20_000 + "1" + "}" * 20_000, '{"a":' * 100 + "1" + "}" * 100, "{" * 200_000]
)
def test_hostile_nesting_is_no_object_and_costs_no_time(text: str) -> None:
    started = time.perf_counter()
    assert first_object(text) is None
    assert whole_object(text) is None
    assert time.perf_counter() - started < 1.0


def test_long_numbers_are_no_crash() -> None:
    assert first_object('{"a": ' + "9" * 5_000 + "}") is None
    assert first_object('{"a": 1e999}') is not None


def test_objects_beyond_the_bound_are_not_read() -> None:
    assert first_object('{"a": "' + "x" * 100_001 + '"}') is None


def test_whole_object_takes_no_prose() -> None:
    assert whole_object(' {"a": 1}\n') == {"a": 1}
    assert whole_object('so {"a": 1}') is None
    assert whole_object('{"a": 1} {"b": 1}') is None


def test_canonical_tells_true_from_one_and_ignores_spelling() -> None:
    assert canonical(True) != canonical(1)
    assert canonical([1.0, "a  b"]) == canonical([1, "a b"])
    assert canonical({"x": None}) != canonical({})


def test_text_references_compare_as_text() -> None:
    assert same_answer(" a\tb ", "a b")
    assert not same_answer('{"a": 1} ', "a 1")


def test_invalid_counts_extraction_failures_apart() -> None:
    assert invalid(['{"a": 1}', "", "sorry", '{"wrong": 2}']) == 2
