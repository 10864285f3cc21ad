"""All checks together, what is accepted, and the stop."""

import json
from pathlib import Path

import pytest

from tunesmith.core.errors import DataError, PartError
from tunesmith.core.example import BadRow, Dataset, Example, Message, Place
from tunesmith.core.recipe import DataRecipe
from tunesmith.data.inspect import inspect, stop_on_blocking
from tunesmith.data.read import read

TOPICS = ["shipping", "refunds", "invoices", "passwords", "discounts", "opening hours", "warranty", "complaints"]


def dataset(*answers: str) -> Dataset:
    rows = [(f"Question {i} about {t}, please?", f"Our {t} desk answers {i}.") for i, t in enumerate(TOPICS * 4)]
    rows += [(f"Odd one about {i * 7919}", a) for i, a in enumerate(answers)]
    examples = tuple(
        Example(
            place=Place(file="a.jsonl", line=i),
            messages=(Message(role="user", content=q), Message(role="assistant", content=a)),
        )
        for i, (q, a) in enumerate(rows, 1)
    )
    bad = BadRow(place=Place(file="a.jsonl", line=99), reason="r", raw="x")
    return Dataset(examples=examples, format="chat", why="read as chat", bad_rows=(bad,))


def test_a_report_says_what_was_read():
    lengths = [9] * 32
    report = inspect(dataset(), task="generate", token_lengths=lengths, max_length=64)
    assert (report.rows, report.format, report.why, report.quarantined) == (32, "chat", "read as chat", 1)
    assert report.token_lengths == (9,) * 32
    assert report.blocking == ()
    stop_on_blocking(report)


def test_blocking_findings_stop_with_rows_and_the_way_out():
    report = inspect(dataset("", " "), task="generate")
    assert report.findings[0].severity == "blocking"
    with pytest.raises(DataError) as error:
        stop_on_blocking(report)
    assert "empty: 2 rows with an empty answer" in str(error.value)
    assert "a.jsonl:33, a.jsonl:34" in str(error.value)
    assert "data.allow: [empty]" in str(error.value)


def test_allowed_findings_become_warnings_and_stay():
    report = inspect(dataset(""), task="generate", allow=("empty",))
    stop_on_blocking(report)
    (found,) = [f for f in report.findings if f.check == "empty"]
    assert found.severity == "warning"
    assert "Accepted by data.allow" in found.message


def test_allow_must_name_a_check():
    with pytest.raises(PartError, match="empty"):
        inspect(dataset(), task="generate", allow=("emtpy",))


def test_label_counts_are_of_labels():
    examples = tuple(
        Example(
            place=Place(file="a", line=i), messages=(Message(role="user", content=f"t{i}"),), label="ab"[i % 3 == 0]
        )
        for i in range(9)
    )
    report = inspect(Dataset(examples=examples, format="text_label", why="w"), task="classify")
    assert report.label_counts == {"a": 6, "b": 3}
    assert inspect(dataset(), task="generate").label_counts == {}


def test_the_planted_flaws_of_the_bundled_set_are_found_and_nothing_else(repo_root):
    folder: Path = repo_root / "src" / "tunesmith" / "assets" / "helpdesk"
    flaws = json.loads((folder / "flaws.json").read_text(encoding="utf-8"))
    path = folder / "tickets.jsonl"
    data = read(path, DataRecipe(train=str(path), on_bad_row="quarantine"), "generate")
    assert [b.place.line for b in data.bad_rows] == [m["line"] for m in flaws["malformed"]]
    report = inspect(data, task="generate")
    assert report.blocking == ()
    lines = {f.check: {int(r.split(":")[1]) for r in f.rows} for f in report.findings if f.check != "private_data"}
    private = {int(r.split(":")[1]) for f in report.findings if f.check == "private_data" for r in f.rows}
    assert lines["exact_duplicates"] == {late for _, late in flaws["exact_duplicates"]}
    assert lines["near_duplicates"] == {late for _, late in flaws["near_duplicates"]}
    assert lines["contradictions"] == {line for both in flaws["contradictions"] for line in both}
    assert private == {p["line"] for p in flaws["personal_data"]}
    assert set(lines) == {"exact_duplicates", "near_duplicates", "contradictions"}
