"""Confusions and telling rows."""

import json
from collections.abc import Callable

import pytest

from tunesmith.core.example import Example, Message
from tunesmith.core.report import Prediction
from tunesmith.evaluate.outcomes import confusions, outcomes

Make = Callable[..., Example]


def predictions(answers: list[str], nll: list[float] | None = None) -> list[Prediction]:
    return [
        Prediction(id=str(n), answer=a, nll=None if nll is None else nll[n], nll_tokens=1)
        for n, a in enumerate(answers)
    ]


def expected(rows: list[Example]) -> list[str]:
    return [row.answer for row in rows]


def test_every_row_is_counted_once_and_long_tails_are_gathered() -> None:
    right = [f"l{n:02}" for n in range(20) for _ in range(30 - n)]
    found = [("l19" if n % 2 else e) if n % 7 else "???" for n, e in enumerate(right)]
    (table,) = confusions(found, right, "classify")
    assert table.field == "label"
    assert table.labels[:2] == ("l00", "l01")
    assert table.labels[-2:] == ("(other)", "(invalid)")
    assert len(table.labels) == 17
    assert sum(map(sum, table.counts)) == len(right)
    assert sum(row[-1] for row in table.counts) == sum(f == "???" for f in found)


def test_json_fields_have_a_table_each() -> None:
    references = [json.dumps({"intent": "ab"[n % 2], "note": f"free {n}"}) for n in range(6)]
    answers = [references[0], '{"intent": "a"}', "nothing", '{"note": 1}', references[4], references[5]]
    (table,) = confusions(answers, references, "generate")
    assert (table.field, table.labels) == ("intent", ("a", "b", "(invalid)"))
    assert table.counts == ((2, 0, 1), (1, 1, 1), (0, 0, 0))


def test_open_text_has_no_confusions_and_known_answers_close_a_small_test() -> None:
    assert confusions(["x", "y"], ["Some text.", "More text."], "generate") == ()
    assert confusions(["a", "b"], ["a", "c"], "generate", ("a", "b", "c"))[0].labels == ("a", "c", "(other)")


def test_wins_losses_best_and_worst(make_chat: Make) -> None:
    rows = [make_chat(n, f"question {n} " + "z" * 600, "a b c d") for n in range(4)]
    tuned = predictions(["a b c d", "x", "a b", "a b c d"])
    base = predictions(["x", "a b c d", "a b c d", "a b c d"])
    found = outcomes("token_f1", tuned, base, rows, expected(rows))
    assert [r.id for r in found.wins] == ["rows.jsonl:0"]
    assert [r.id for r in found.losses] == ["rows.jsonl:1", "rows.jsonl:2"]
    assert found.worst[0].id == "rows.jsonl:1"
    assert found.best[0].tuned_score == 1.0
    assert len(found.wins[0].input) == 500
    assert found.losses[0].baseline == "a b c d"


def test_lower_is_better_and_missing_likelihoods(make_chat: Make) -> None:
    rows = [make_chat(n, "q", "a") for n in range(2)]
    found = outcomes(
        "perplexity", predictions(["", ""], [1.0, 3.0]), predictions(["", ""], [2.0, 2.0]), rows, expected(rows)
    )
    assert [r.id for r in found.wins] == ["rows.jsonl:0"]
    assert found.worst[0].id == "rows.jsonl:1"
    fallback = outcomes(
        "perplexity", predictions(["a", "x"], [1.0, 1.0]), predictions(["a", "a"]), rows, expected(rows)
    )
    assert [r.tuned_score for r in fallback.losses] == [0.0]


def test_at_most_eight_rows(make_chat: Make) -> None:
    rows = [make_chat(n, "q", "a") for n in range(30)]
    found = outcomes("exact_match", predictions(["a"] * 30), predictions(["b"] * 30), rows, expected(rows))
    assert len(found.wins) == len(found.best) == len(found.worst) == 8
    assert found.losses == ()
    with pytest.raises(LookupError):
        outcomes("nope", predictions(["a"]), predictions(["a"]), rows[:1], expected(rows[:1]))


def test_the_largest_win_and_the_worst_answer_come_first(make_chat: Make) -> None:
    rows = [make_chat(n, "q", "k l m n") for n in range(4)]
    tuned = predictions(["k l", "k l m n", "k", "k l m"])
    found = outcomes("token_f1", tuned, predictions(["x"] * 4), rows, expected(rows))
    assert [r.id[-1] for r in found.wins] == ["1", "3", "0", "2"]
    assert [r.id[-1] for r in found.best][:3] == ["1", "3", "0"]
    assert [r.id[-1] for r in found.worst][:2] == ["2", "0"]


def test_private_data_is_masked_in_the_rows_that_a_report_shows(make_chat: Make) -> None:
    rows = [make_chat(0, "The card I paid with is 5555 5555 5555 4444, write to jane@example.org", "a")]
    found = outcomes("exact_match", predictions(["a"]), predictions(["jane@example.org"]), rows, expected(rows))
    assert "5555 4444" not in found.wins[0].input and "jane@" not in found.wins[0].input + found.wins[0].baseline


def test_a_row_with_two_answers_shows_both(make_chat: Make) -> None:
    row = make_chat(0, "Which?", "the good one").model_copy(
        update={"rejected": Message(role="assistant", content="the bad one")}
    )
    found = outcomes("accuracy", predictions(["chosen"]), predictions(["rejected"]), [row], ["chosen"])
    assert found.wins[0].input == "Which?\n\nchosen: the good one\n\nrejected: the bad one"
    assert (found.wins[0].expected, found.wins[0].tuned) == ("chosen", "chosen")
