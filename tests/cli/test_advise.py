"""What ``tunesmith advise`` plans, asks and refuses; what it finds is tested in tests/flows/test_advise.py."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.cli.conftest import Cli
from tests.flows.conftest import asked, write_jsonl
from typer.testing import CliRunner

import sample_advice as sample
from tunesmith.cli import advise
from tunesmith.core.advice import Advice, Facts


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


NOTHING = dict.fromkeys(name for name in Facts.model_fields if name != "asked")
ASKED = ("calls_per_day", "facts_change", "prototype", "latency", "label_price", "price_in", "price_out", "host_price")


def questions(typed: str, **given: Any) -> tuple[Facts, str]:
    app, found = typer.Typer(), []

    @app.command()
    def ask() -> None:
        found.append(advise._asked(NOTHING | given))

    done = CliRunner().invoke(app, input=typed)
    assert done.exit_code == 0, done.output
    return found[0], done.output


def test_questions_take_answers_and_enter_leaves_them_open() -> None:
    assert questions("\n" * 6)[0] == Facts(asked=ASKED)
    facts, _ = questions("20,000\nweekly\nno\n0.5\n\n\n")
    assert facts == Facts(calls_per_day=20_000, facts_change="weekly", prototype=False, latency=0.5, asked=ASKED)


def test_prices_are_one_question() -> None:
    facts, output = questions("\n" * 5 + "0.5\n0.5, 1.5, free\n0.5, 1.5, 0.8\n")
    assert (facts.price_in, facts.price_out, facts.host_price) == (0.5, 1.5, 0.8)
    assert "0.5 is not 3 prices, such as 0.5, 1.5, 0.8." in output and "free is no number" in output


def test_what_a_flag_gives_is_not_asked_and_the_rest_is() -> None:
    facts, output = questions("weekly\n\n\n\n0.5 0.8\n", calls_per_day=50.0, price_out=2.0)
    assert facts == Facts(
        calls_per_day=50, facts_change="weekly", price_in=0.5, price_out=2, host_price=0.8,
        asked=("facts_change", "prototype", "latency", "label_price", "price_in", "host_price"),
    )  # fmt: skip
    assert "calls a day" not in output and "it writes" not in output
    assert questions("", **dict.fromkeys(ASKED, 1.0) | {"facts_change": "never"})[1] == ""


@pytest.mark.parametrize(
    ("terminal", "words", "asks"), [(True, (), True), (True, ("--json",), False), (False, (), False)]
)
def test_a_person_at_a_terminal_is_asked_and_a_pipe_is_not(
    cli: Cli, recipe: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool, words: tuple[str, ...], asks: bool
) -> None:
    """One flag among them silenced all questions once."""
    heard: list[Facts] = []

    def flow(*_: object, facts: Facts, **__: object) -> Advice:
        heard.append(facts)
        return sample.build(facts)

    monkeypatch.setattr("tunesmith.flows.advise.advise", flow)
    monkeypatch.setattr(advise, "_at_a_terminal", lambda: terminal)
    done = cli("advise", recipe, "--facts-change", "never", *words, input="70\n" + "\n" * 4)
    assert done.exit_code == 0, done.output
    assert (heard[0].facts_change, heard[0].calls_per_day) == ("never", 70 if asks else None)
    assert ("calls a day do you expect" in done.stderr) == asks
    shown = " ".join(done.stdout.split())
    assert ("Asked: unknown." in shown) == asks  # whether it is a prototype
    assert ("Not given: unknown (--prototype)." in shown) == (not asks)


def test_an_answer_that_is_none_is_asked_again() -> None:
    facts, output = questions("many\n-1\n5\nsometimes\ndaily\nperhaps\ny\n\n\n\n")
    assert facts == Facts(calls_per_day=5, facts_change="daily", prototype=True, asked=ASKED)
    assert "many is no number of at least 0" in output
    assert "sometimes is none of never, yearly" in output
    assert "perhaps is neither yes nor no" in output
