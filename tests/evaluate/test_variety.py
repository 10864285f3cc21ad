"""Patterns that are planted are found: like inputs with like answers, torn repeats, doubted answers, rare words."""

import random

import pytest
from tests.flows.conftest import labelled

from tunesmith.core.advice import Variety
from tunesmith.core.example import Example, Place
from tunesmith.evaluate.variety import tokens_a_word, variety


def rows(texts: list[str], labels: list[str]) -> list[Example]:
    pairs = enumerate(zip(texts, labels, strict=True))
    return [Example(place=Place(file="t", line=n), text=text, label=label) for n, (text, label) in pairs]


def looked(examples: list[Example], *, closed: bool = True, metric: str = "accuracy") -> Variety:
    answers = [e.answer for e in examples]
    return variety(examples, answers, metric, closed=closed, pieces=lambda texts: float(len(texts)))


def planted(count: int = 120) -> tuple[list[str], list[str]]:
    made = labelled(count)
    return [str(r["text"]) for r in made], [str(r["label"]) for r in made]


def test_like_inputs_with_like_answers_agree_more_than_chance() -> None:
    texts, labels = planted()
    found = looked(rows(texts, labels))
    assert found.agree > 0.9 > 0.6 > found.chance
    assert (found.rows, found.answers, found.doubted) == (120, 3, 0.0)


def test_random_answers_agree_as_by_chance() -> None:
    texts, labels = planted()
    random.Random(0).shuffle(labels)
    found = looked(rows(texts, labels))
    assert abs(found.agree - found.chance) < 0.2


def test_wrong_labels_are_doubted() -> None:
    texts, labels = planted()
    wrong = {"card": "fee", "fee": "login", "login": "card"}
    for i in range(0, 120, 10):
        labels[i] = wrong[labels[i]]
    found = looked(rows(texts, labels))
    assert found.doubted is not None
    assert 0.05 < found.doubted <= 0.1


def test_repeats_with_other_answers_are_torn_and_not_asked_as_neighbours() -> None:
    texts, labels = planted(60)
    found = looked(rows([*texts, *texts[:20]], [*labels, *["other"] * 20]))
    assert found.repeated == pytest.approx(40 / 80)
    assert found.torn == pytest.approx(0.5)
    assert found.agree > 0.5  # a row's own repeat, with another answer, is not its neighbour


def test_open_answers_have_no_doubted_ones_and_no_repeats_no_torn_ones() -> None:
    texts, labels = planted(30)
    found = looked(rows(texts, [f"see {label} please" for label in labels]), closed=False, metric="token_f1")
    assert (found.doubted, found.torn, found.repeated) == (None, None, 0.0)


def test_words_are_counted_and_pieces_are_those_of_the_rows() -> None:
    texts, labels = planted(30)
    found = looked(rows(texts, labels))
    assert found.pieces == 30
    assert 0 < found.types < 1
    assert tokens_a_word(["one two three", "four"], lambda text: 2 * len(text.split())) == 2


def test_two_rows_are_enough_for_an_answer() -> None:
    found = looked(rows(["where is my card", "a strange fee abroad"], ["card", "fee"]))
    assert (found.rows, found.agree) == (2, 0.0)
