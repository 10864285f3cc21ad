"""Token counts without the tokenizer's classes, beside those of rendering itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.core.example import Example, Message, Place
from tunesmith.core.recipe import Recipe
from tunesmith.data import read
from tunesmith.data.sizes import LONGEST, SAMPLE, Counter, Size
from tunesmith.flows.prepare import prepare

ASSETS = Path(__file__).resolve().parents[2] / "src" / "tunesmith" / "assets"
PLACE = Place(file="a.jsonl", line=1)


def chat(prompt: str, answer: str) -> Example:
    turns = (Message(role="user", content=prompt), Message(role="assistant", content=answer))
    return Example(place=PLACE, messages=turns)


def test_counts_are_close_to_what_is_trained() -> None:
    recipe = Recipe.parse({"data": {"train": str(ASSETS / "helpdesk" / "tickets.jsonl"), "on_bad_row": "quarantine"}})
    whole = read.read(Path(recipe.data.train), recipe.data, recipe.task)
    sizes = Counter(ASSETS / "base").sizes(whole.examples)
    rows = prepare(recipe).train_rows
    mean = sum(r.size for r in rows) / len(rows)
    assert sum(s.tokens for s in sizes) / len(sizes) == pytest.approx(mean, rel=0.03)
    trained = sum(r.trained for r in rows) / sum(r.size for r in rows)
    assert sum(sum(s.answers) for s in sizes) / sum(s.tokens for s in sizes) == pytest.approx(trained, rel=0.06)


def test_without_a_tokenizer_characters_are_counted_and_that_is_said(tmp_path: Path) -> None:
    counter = Counter(None)
    (size,) = counter.sizes([chat("a" * 40, "b" * 20)])
    assert size == Size(10 + 5 + 5, (5 + 1,))
    assert "4 characters" in counter.assumed[0]
    for broken in ("{", "", '{"model": {}}', "[]"):
        (tmp_path / "tokenizer.json").write_text(broken)
        assert "cannot be read" in Counter(tmp_path).assumed[0]


def test_answers_that_are_compared_share_their_prompt() -> None:
    pair = chat("a" * 40, "b" * 20).model_copy(update={"rejected": Message(role="assistant", content="c" * 80)})
    (size,) = Counter(None).sizes([pair])
    assert size.answers == (6, 21)
    assert (size.tokens, size.longest) == (20 + 27, 20 + 21)


def test_plain_text_is_all_answer() -> None:
    (size,) = Counter(None).sizes([Example(place=PLACE, text="a" * 40)])
    assert size == Size(0, (11,))


def test_of_many_rows_a_sample_is_counted() -> None:
    rows = [chat("a" * (4 * (n % 7)), "b") for n in range(3 * SAMPLE)]
    assert len(Counter(None).sizes(rows)) == SAMPLE


def test_the_longest_rows_are_always_counted() -> None:
    rows = [chat("a" * 40, "b") for _ in range(3 * SAMPLE)]
    rows[7], rows[8] = chat("a" * 40, "c" * 4000), Example(place=PLACE, text="d" * 8000)
    counter = Counter(None)
    assert max(size.longest for size in counter.sizes(rows)) < 30
    longest = counter.longest(rows)
    assert len(longest) == LONGEST
    assert longest[0] == Size(0, (2001,))
    assert longest[1] == Size(10 + 5 + 5, (1000 + 1,))
    assert counter.longest(rows[:SAMPLE]) == []  # all are counted


def test_templates_that_do_not_render_are_no_fault(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((ASSETS / "base" / "tokenizer.json").read_bytes())
    for template in ("{{ 1 / 0 }}", "{% for", "{{ nothing.of.it }}"):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
        assert Counter(tmp_path).a_turn >= 1


def test_no_torch_is_imported() -> None:
    code = "import sys, tunesmith.data.sizes; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
