"""What ``tunesmith advise`` plans, asks and refuses; what it finds is tested in tests/flows/test_advise.py."""

import json
from pathlib import Path

import pytest
import typer
from tests.cli.conftest import Cli
from tests.flows.conftest import asked, write_jsonl
from typer.testing import CliRunner

from tunesmith.cli import advise
from tunesmith.core.advice import Facts


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "asked.jsonl", asked(200))
    (tmp_path / "r.yaml").write_text("data: {train: asked.jsonl}\nevaluate: {limit: 40}\n")
    return tmp_path / "r.yaml"


def test_a_dry_run_tells_the_small_runs_and_writes_nothing(cli: Cli, recipe: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    done = cli("advise", recipe, "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["scored"] == 40
    assert [(r["rows"], r["seed"]) for r in told["runs"]] == [(16, 0), (30, 0), (60, 0), (16, 1), (30, 1)]
    assert "were not looked at" in told["how"]
    assert sorted(tmp_path.iterdir()) == before
    assert "lora on 60 rows, seed 0" in cli("advise", recipe, "--dry-run").stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--calls-per-day", "-3"), "--calls-per-day is -3; expected a number of calls of at least 0"),
        (("--calls-per-day", "nan"), "--calls-per-day is nan"),
        (("--facts-change", "weekley"), 'Did you mean "weekly"'),
        (("--time", "soon"), "--time is soon: expected a time such as 30m"),
        (("--time", "0"), "--time is 0; expected a time above 0"),
        (("--latency", "0"), "--latency is 0; expected seconds above 0"),
        (("-s", "task=prefer"), "advise knows answers that are written"),
    ],
)
def test_absurd_flags_are_sentences(cli: Cli, recipe: Path, words: tuple[str, ...], told: str) -> None:
    done = cli("advise", recipe, *words)
    assert (done.exit_code, told in " ".join(done.stderr.split())) == (2, True), done.output


def questions(typed: str) -> tuple[Facts, str]:
    app, found = typer.Typer(), []

    @app.command()
    def ask() -> None:
        found.append(advise._asked())

    done = CliRunner().invoke(app, input=typed)
    assert done.exit_code == 0, done.output
    return found[0], done.output


def test_questions_take_answers_and_enter_leaves_them_open() -> None:
    assert questions("\n" * 5)[0] == Facts()
    facts, _ = questions("20,000\nweekly\nno\n0.5\n\n")
    assert facts == Facts(calls_per_day=20_000, facts_change="weekly", prototype=False, latency=0.5)


def test_an_answer_that_is_none_is_asked_again() -> None:
    facts, output = questions("many\n-1\n5\nsometimes\ndaily\nperhaps\ny\n\n\n")
    assert facts == Facts(calls_per_day=5, facts_change="daily", prototype=True)
    assert "many is no number of at least 0" in output
    assert "sometimes is none of never, yearly" in output
    assert "perhaps is neither yes nor no" in output
