"""Three stages from one file of preferences: what follows from what, what is taken over, and kill -9 in each."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from tests.flows.conftest import MakeRecipe
from typer.testing import CliRunner, Result

import tunesmith
from tunesmith.cli.main import app
from tunesmith.core.errors import RecipeError, TunesmithError
from tunesmith.core.report import Report, Rewarded
from tunesmith.core.run import Run
from tunesmith.core.stages import Staged
from tunesmith.evaluate.rewarded import win_rate
from tunesmith.flows import keeping
from tunesmith.flows import stages as flow
from tunesmith.flows.stages import recipes, run_stages
from tunesmith.flows.watch import Noting, Silent
from tunesmith.present.stages import render_stages, stages_summary
from tunesmith.records.folder import RunFolder
from tunesmith.records.index import Index

WAYS = ("reward", "judged")
NAMES = {"ppo": "tuned", "sft": "start", "base": "zero_shot"}
PPO = {"objective": "ppo", "rollout": {"prompts": 8, "answers": 2, "passes": 2}, "evaluate": {"max_new_tokens": 6}}


def written(make_recipe: MakeRecipe, folder: Path, stages: Any = ("sft", "reward", PPO), **more: Any) -> Path:
    """A recipe file in stages on the small preferences."""
    base = make_recipe("preferred").model_dump(mode="json")
    raw: dict[str, Any] = {
        "model": base["model"],
        "stages": list(stages) if isinstance(stages, tuple) else stages,
        "data": {"train": base["data"]["train"], "limit": 24},
        "method": {"name": "lora", "rank": 4},
        "train": {"epochs": 1, "precision": "float32"},
        "evaluate": {"limit": 8},
    }
    path = folder / "staged.yaml"
    path.write_text(yaml.safe_dump(raw | more))
    return path


def reports(workspace: Path, found: Staged) -> list[Report]:
    return [Report.load(workspace / "runs" / s.run_id / "report.json") for s in found.stages]


def test_each_stage_goes_on_from_the_former_and_the_same_again_is_taken_over(
    make_recipe: MakeRecipe, finished: Callable[[str], str], tmp_path: Path
) -> None:
    path = written(make_recipe, tmp_path, reward={"judge": finished("judge")})
    found = run_stages(path, workspace=tmp_path)
    assert [s.name for s in found.stages] == ["sft", "reward", "ppo"]
    sft, reward, ppo = reports(tmp_path, found)
    assert [r.recipe.task for r in (sft, reward, ppo)] == ["generate", "prefer", "generate"]
    assert sft.recipe.start is None
    assert [Path(r.recipe.start or "").name for r in (reward, ppo)] == [sft.run_id] * 2
    assert Path(ppo.recipe.reward.model or "").name == reward.run_id
    assert found.stages[2].follows == {"start": sft.run_id, "reward": reward.run_id}
    # the locked test is the same rows in all of them, so nothing of it was trained on
    locked = [
        json.loads((tmp_path / "runs" / r.run_id / "data" / "splits.json").read_text()) for r in (sft, reward, ppo)
    ]
    assert len({tuple(sorted(x["test"])) for x in locked}) == 1
    assert not set(locked[2]["test"]) & set(locked[1]["train"])
    assert not any("trained on" in note for note in found.notes)
    assert not any("has given a verdict" in note for note in found.notes)  # its own stages are no rivals
    compared = {("ppo", "base"), ("sft", "base"), ("ppo", "sft")}
    assert {(w.system, w.against, w.by) for w in found.wins} == {(*c, by) for c in compared for by in WAYS}
    answers = {n: keeping.read_predictions(RunFolder(tmp_path / "runs" / ppo.run_id), n) for n in NAMES.values()}
    for win in found.wins:
        own, other = ([getattr(p, win.by) for p in answers[NAMES[name]]] for name in (win.system, win.against))
        assert win.share.value == pytest.approx(win_rate(own, other).value)  # type: ignore[union-attr]
    page = tmp_path / "stages" / found.id / "stages.html"
    html = page.read_text()
    assert all(s.run_id in html for s in found.stages) and "ppo against sft, by reward" in html
    assert "ppo against sft, by an independent judge" in html
    assert "dashed: as often won as lost" in html
    again = run_stages(path, workspace=tmp_path)
    assert [s.run_id for s in again.stages] == [s.run_id for s in found.stages]
    assert len(Index.open(tmp_path).all()) == 3
    other = run_stages(path, overrides=["train.seed=1"], workspace=tmp_path)
    assert not {s.run_id for s in other.stages} & {s.run_id for s in found.stages}


def test_the_page_runs_nothing_that_came_from_a_model(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    found = run_stages(written(make_recipe, tmp_path), workspace=tmp_path)
    assert found.rewarded is not None
    evil = "<script>alert(1)</script>"
    points = [p.model_copy(update={"samples": tuple(s.model_copy(update={"answer": evil, "prompt": evil})
              for s in p.samples)}) for p in found.rewarded.points]  # fmt: skip
    bad = found.model_copy(update={"notes": (evil,), "rewarded": found.rewarded.model_copy(update={
        "points": tuple(points), "signs": (evil,), "sentence": evil})})  # fmt: skip
    html = render_stages(bad)
    assert "<script" not in html and "&lt;script&gt;" in html


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ([], r"stages is \[\]; expected a list such as"),
        ("sft", "stages is 'sft'; expected a list such as"),
        ([3], "stages, number 1 is 3; expected the name of an objective"),
        ([{"train": {"epochs": 1}}], "number 1 is .* expected the name of an objective"),
        (["sft", "rewards"], 'No objective called "rewards"'),
        (["sft", "ppo"], "objective is ppo and nothing rewards an answer"),
        (["sft", "ppo", "reward"], "number 2: ppo learns from rewards, and the stage reward comes after it. Put"),
        (["sft", {"objective": "dpo", "train": {"epoch": 1}}], "stages, number 2: train.epoch is an unknown key"),
        ([{"objective": {"beta": 1}}], "objective is {'beta': 1}; expected the name"),
        (["sft", {"objective": "reward", "data": {"test": "nowhere.jsonl"}}], "nowhere.jsonl"),
    ],
)
def test_stages_that_cannot_be_are_refused_before_one_runs(
    make_recipe: MakeRecipe, tmp_path: Path, stages: Any, told: str
) -> None:
    path = written(make_recipe, tmp_path, stages)
    with pytest.raises(TunesmithError, match=told):
        run_stages(path, workspace=tmp_path)
    assert not (tmp_path / "runs").exists()


def test_rules_are_mixed_with_the_reward_model_of_the_stages(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    mixed = PPO | {"reward": {"rules": {"token_f1": 0.2}, "weight": 0.5}}
    alone = PPO | {"reward": {"rules": {"token_f1": 0.2}, "model": None}}
    found = [recipes(written(make_recipe, tmp_path, ("sft", "reward", own)), ())[-1].reward for own in (mixed, alone)]
    assert [(r.model is None, r.rules) for r in found] == [(False, {"token_f1": 0.2}), (True, {"token_f1": 0.2})]


def test_a_recipe_in_stages_is_no_single_run(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    path = written(make_recipe, tmp_path)
    with pytest.raises(RecipeError, match=r"tunesmith run, or with tunesmith\.run_stages in Python"):
        tunesmith.finetune(path)
    assert tunesmith.run_stages is run_stages
    plans = recipes(path)
    assert [r.objective.name for r in plans] == ["sft", "reward", "ppo"]
    assert plans[0].evaluate.limit == 8 and plans[2].evaluate.max_new_tokens == 6


def test_another_split_on_the_same_file_is_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    other = {"objective": "dpo", "data": {"split": {"seed": 3}}}
    with pytest.raises(RecipeError, match=r"data\.split is not that of"):
        run_stages(written(make_recipe, tmp_path, ["sft", other]), workspace=tmp_path)


def test_a_stage_that_failed_and_cannot_go_on_begins_anew(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """Without a checkpoint, and where none is whole; the latter is said."""
    path = written(make_recipe, tmp_path, ["sft", "reward"])
    ids = [run_stages(path, workspace=tmp_path).stages[1].run_id]
    for damaged in (False, True):
        folder = tmp_path / "runs" / ids[-1]
        Run.load(folder / "run.json").model_copy(update={"status": "failed"}).save(folder / "run.json")
        if damaged:
            (folder / "checkpoints" / "step-000000001").mkdir(parents=True)
        watch = Noting(Silent())
        ids.append(run_stages(path, workspace=tmp_path, watch=watch).stages[1].run_id)
        assert any("failed and cannot go on" in note for note in watch.notes) == damaged
    assert len(set(ids)) == 3


# -- through the command -----------------------------------------------------------------------------------------------


def command(*words: str) -> Result:
    return CliRunner().invoke(app, ["run", *words], env={"COLUMNS": "200", "NO_COLOR": "1"})


def test_the_command_tells_of_all_stages_and_leaves_with_the_verdict_of_the_last(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, workspace = written(make_recipe, tmp_path), tmp_path / "work"
    workspace.mkdir()
    planned = command(str(path), "--runs", str(workspace), "--dry-run", "--json")
    assert planned.exit_code == 0, planned.output
    told = json.loads(planned.stdout)["stages"]
    assert [(set(one), one["data"]["rows"]) for one in told] == [({"plan", "data", "warnings"}, 90)] * 3
    assert list(workspace.iterdir()) == []

    done = command(str(path), "--runs", str(workspace), "--json")
    told = json.loads(done.stdout)
    page = workspace / "stages" / told["id"] / "stages.html"
    found = Staged.load(page.with_name("stages.json"))
    assert told == found.model_dump(mode="json") | {"html": str(page)} and page.is_file()
    assert ([s.name for s in found.stages], found.total) == (["sft", "reward", "ppo"], 3)
    assert (done.exit_code, found.stages[-1].decision != "SHIP") == (7, True), done.output

    again = command(str(path), "--runs", str(workspace))  # taken over: the same runs, told as a table
    assert again.exit_code == 7 and again.stderr.count("Taken over from run") == 3
    assert "3 of 3 stages" in again.stdout and str(page) in again.stdout.replace("\n", "")
    for stage in found.stages:
        assert stage.run_id in again.stdout and stage.decision in again.stdout
    assert found.rewarded is not None and len(found.wins) == 3
    for line in ("ppo against base, by reward: ", "sft against base, by reward: ", found.rewarded.sentence[:60]):
        assert line in again.stdout

    ships = found.stages[-1].model_copy(update={"decision": "SHIP"})
    better = found.model_copy(update={"stages": (*found.stages[:-1], ships)})
    monkeypatch.setattr(flow, "run_stages", lambda *_, **__: better)
    assert command(str(path), "--runs", str(workspace)).exit_code == 0


def test_the_summary_tells_signs_and_warnings_and_how_far_the_stages_are(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    staged = run_stages(written(make_recipe, tmp_path, ["sft"]), workspace=tmp_path)
    rewarded = Rewarded(points=(), wins={}, sentence="The reward rose.", signs=("Answers are [bold]longer.",))
    some = staged.model_copy(update={"total": 3, "notes": ("A row \x1b[2J was cut.",), "rewarded": rewarded})
    console = Console(width=200, force_terminal=False)
    with console.capture() as held:
        console.print(stages_summary(some, "stages.html"))
    shown = held.get()
    assert "1 of 3 stages" in shown and staged.stages[0].run_id in shown
    for line in ("The reward rose.", "Answers are [bold]longer.", "Warning: A row ", "stages.html"):
        assert line in shown
    assert "\x1b" not in shown


# -- kill -9 -----------------------------------------------------------------------------------------------------------


def child(path: Path, workspace: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tunesmith", "run", str(path), "--runs", str(workspace), "--json"]
    command += ["-s", "train.save_every=0"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def killed_in(path: Path, workspace: Path, stage: int) -> None:
    """Start and kill -9 as soon as the run number ``stage`` has taken two steps."""
    process = child(path, workspace)
    deadline = time.monotonic() + 120
    try:
        while time.monotonic() < deadline and process.poll() is None:
            runs = sorted((workspace / "runs").glob("*/metrics.jsonl")) if (workspace / "runs").exists() else []
            if len(runs) > stage and len(runs[stage].read_bytes().splitlines()) >= 2:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return
            time.sleep(0.01)
        raise AssertionError(f"stage {stage} was not seen in its steps (exit code {process.poll()})")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_killed_in_every_stage_it_goes_on_to_the_same_result(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    path = written(make_recipe, tmp_path, train={"epochs": 3, "precision": "float32", "batch_tokens": "auto"})
    expected = run_stages(path, overrides=["train.save_every=0"], workspace=whole)
    for stage in range(3):
        killed_in(path, broken, stage)
        if stage == 1:  # as where the disk was full: a run that failed goes on as well, where it has a checkpoint
            failed = sorted((broken / "runs").iterdir())[stage] / "run.json"
            Run.load(failed).model_copy(update={"status": "failed"}).save(failed)
    found = run_stages(path, overrides=["train.save_every=0"], workspace=broken)
    assert len(Index.open(broken).all()) == 3  # every stage went on, none was begun anew
    for mine, theirs in zip(reports(broken, found), reports(whole, expected), strict=True):
        curves = [[(p.step, p.loss, p.dev_loss) for p in r.fit.curve] for r in (mine, theirs)]
        assert curves[0] == curves[1]
        scores = [{s.name: s.metrics[r.primary].value for s in r.systems} for r in (mine, theirs)]
        assert scores[0] == scores[1]
    last, first = reports(broken, found)[-1], reports(whole, expected)[-1]
    assert last.rewarded is not None and first.rewarded is not None
    assert last.rewarded.points == first.rewarded.points
