"""The story through the command line: run, show, chat, check, each on what the one before left."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.flows.conftest import MakeRecipe, asked
from typer.testing import CliRunner, Result

from tunesmith.cli.main import app
from tunesmith.core import recipe_file
from tunesmith.core.report import Report


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(w) for w in words])


@pytest.fixture(scope="module")
def told(make_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``run --json`` printed; the workspace is beside it."""
    folder = tmp_path_factory.mktemp("story")
    recipe = make_recipe(evaluate={"baselines": ["majority", "zero_shot"], "max_new_tokens": 6})
    (folder / "r.yaml").write_text(recipe_file.dump(recipe))
    done = call("run", folder / "r.yaml", "--runs", folder, "--json", "-s", "train.epochs=1", "-s", "evaluate.limit=5")
    assert done.exit_code == 7, done.output  # five test rows prove nothing
    return {**json.loads(done.stdout), "folder": folder}


def test_run_prints_the_report_and_the_verdict_and_overrides_act(told: dict[str, Any]) -> None:
    report = Report.load(Path(told["report"]))
    assert (told["verdict"], told["run"]) == ("NOT ENOUGH EVIDENCE", report.run_id)
    assert (report.plan.epochs, report.recipe.evaluate.limit) == (1, 5)
    assert [s.metrics[report.primary].n for s in report.systems] == [5, 5, 5]
    assert Path(told["html"]).is_file()
    assert Path(told["adapter"], "adapter_config.json").is_file()


def test_show_and_runs_know_the_run(told: dict[str, Any]) -> None:
    assert told["run"] in call("runs", "--runs", told["folder"], "--json").stdout
    shown = call("show", told["run"], "--runs", told["folder"])
    assert shown.exit_code == 0
    assert "NOT ENOUGH EVIDENCE" in shown.stdout


def test_chat_prints_base_and_tuned(told: dict[str, Any]) -> None:
    question = asked(1)[0]["prompt"]
    words = ("chat", told["run"], "--runs", told["folder"], "--prompt", question, "--max-new-tokens", 8)
    done = call(*words, "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["prompt"] == question
    assert said["base"]
    assert said["tuned"]
    assert said["base"] != said["tuned"]
    assert call(*words).stdout.splitlines()[0] == f"base: {said['base']}".splitlines()[0]


def test_chat_with_an_unknown_run_is_a_sentence(told: dict[str, Any]) -> None:
    done = call("chat", "2020", "--runs", told["folder"], "--prompt", "x")
    assert (done.exit_code, "No run called" in done.stderr) == (2, True)


def test_check_marks_the_trained_tokens(told: dict[str, Any]) -> None:
    done = call("check", told["folder"] / "r.yaml", "--show-mask", "--rows", 2)
    assert done.exit_code == 0, done.output
    flat = done.stdout.replace("\n", "")
    for row in asked(2):
        assert f"⟦{row['completion']}<|im_end|>⟧" in flat
    report = call("check", told["folder"] / "r.yaml", "--show-mask", "--rows", 1, "--json")
    (masked,) = json.loads(report.stdout)["masked"]
    assert [text for text, trained in masked["pieces"] if trained] == [asked(1)[0]["completion"] + "<|im_end|>"]
