"""init: a recipe that loads, from flags or questions, and nothing overwritten."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tunesmith.cli.init import Seen
from tunesmith.core import recipe_file

ROWS = [{"prompt": f"Where is order {i}?", "completion": json.dumps({"intent": "delivery", "n": i})} for i in range(30)]


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    path = tmp_path / "tickets.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_flags_give_a_recipe_that_loads(cli: Callable[..., Result], tickets: Path, tmp_path: Path) -> None:
    done = cli("init", "sub/support.yaml", "--data", "tickets.jsonl", "--yes")
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    assert "30 examples, read as" in done.stderr
    text = (tmp_path / "sub" / "support.yaml").read_text()
    assert "train: ../tickets.jsonl" in text
    assert "# passes over the training rows" in text
    recipe = recipe_file.load(tmp_path / "sub" / "support.yaml")
    assert Path(recipe.data.train).samefile(tickets)
    assert (recipe.task, recipe.evaluate.metrics) == ("generate", ("json_field_accuracy",))


def test_classes_are_seen(cli: Callable[..., Result], tmp_path: Path) -> None:
    rows = [f"text {i},{'sport' if i % 2 else 'trade'}" for i in range(40)]
    (tmp_path / "news.csv").write_text("\n".join(["text,label", *rows]))
    assert cli("init", "--data", "news.csv", "--yes").exit_code == 0
    recipe = recipe_file.load(tmp_path / "recipe.yaml")
    assert (recipe.task, recipe.evaluate.metrics) == ("classify", ("accuracy",))


def test_columns_of_another_name_are_given_by_flags(cli: Callable[..., Result], tmp_path: Path) -> None:
    rows = [f"pain {i},{'S43' if i % 2 else 'I10'}" for i in range(40)]
    (tmp_path / "notes.csv").write_text("\n".join(["diagnosis,code", *rows]))
    done = cli("init", "--data", "notes.csv", "--column", "text=diagnosis", "--column", "label=code", "--yes")
    assert done.exit_code == 0, done.output
    recipe = recipe_file.load(tmp_path / "recipe.yaml")
    assert (recipe.task, recipe.data.columns) == ("classify", {"text": "diagnosis", "label": "code"})
    for given, said in (("label", "expected OURS=THEIRS"), ("text=code", "text is diagnosis already")):
        odd = cli("init", "o.yaml", "--data", "notes.csv", "--column", "text=diagnosis", "--column", given, "--yes")
        assert odd.exit_code == 2 and said in odd.stderr
        assert not (tmp_path / "o.yaml").exists()


def test_a_recipe_is_never_overwritten_without_force(cli: Callable[..., Result], tickets: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("mine")
    done = cli("init", "--data", tickets, "--yes")
    assert (done.exit_code, (tmp_path / "recipe.yaml").read_text()) == (2, "mine")
    assert "exists already and was left as it is" in done.stderr
    assert cli("init", "--data", tickets, "--yes", "--force").exit_code == 0
    assert recipe_file.load(tmp_path / "recipe.yaml").model == "bundled"


def test_dry_run_prints_and_writes_nothing(cli: Callable[..., Result], tickets: Path, tmp_path: Path) -> None:
    done = cli("init", "--data", tickets, "--dry-run")
    assert done.exit_code == 0
    assert recipe_file.parse_text(done.stdout, ".yaml", "stdout")["data"]["train"] == "tickets.jsonl"
    assert not (tmp_path / "recipe.yaml").exists()


def test_json_says_what_was_written(cli: Callable[..., Result], tickets: Path) -> None:
    done = cli("init", "--data", tickets, "--yes", "--json", "--method", "full")
    assert json.loads(done.stdout)["method"] == {"name": "full"}
    assert json.loads(done.stdout)["recipe"] == "recipe.yaml"


@pytest.mark.parametrize(("words", "said"), [
    ((), "No data file was given. Give one with --data"),
    (("--data", "gone.jsonl"), "gone.jsonl"),
    (("--data", "tickets.jsonl", "--goal", "exact_mach"), 'called "exact_mach". Did you mean "exact_match"?'),
    (("--data", "tickets.jsonl", "--method", "lorra"), 'No adapters called "lorra". Did you mean "lora"?'),
    (("--data", "tickets.jsonl", "--task", "generat"), "task is 'generat'; expected generate, classify or prefer"),
    (("recipe.txt", "--data", "tickets.jsonl"), "recipe.txt: init writes YAML"),
    ((".yaml/", "--data", "tickets.jsonl"), ".yaml"),
])  # fmt: skip
def test_bad_input_is_a_sentence_and_writes_nothing(
    cli: Callable[..., Result], tickets: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = cli("init", *words, "--yes")
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("answers", "task", "metric"), [
    (["sport", "trade"] * 20, "classify", "accuracy"),
    (['{"a": 1}', '{"a": 2}'] * 20, "generate", "json_field_accuracy"),
    ([f"order {i}" for i in range(40)], "generate", "token_f1"),
    ([f"a long answer, number {i}, that goes on for a while, really" for i in range(40)], "generate", "token_f1"),
])  # fmt: skip
def test_what_is_read_off_the_answers(answers: list[str], task: str, metric: str) -> None:
    seen = Seen(answers, "why", labelled=False)
    assert (seen.task, seen.metric(seen.task)) == (task, metric)
