"""Earlier runs of a workspace correct the time of a plan, where a probe was kept before they ran."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.flows.conftest import MakeRecipe, labelled, write_jsonl

from tunesmith.core.recipe import EvaluateRecipe, Recipe
from tunesmith.core.report import Report
from tunesmith.flows import plan as module
from tunesmith.flows.finetune import finetune
from tunesmith.flows.plan import Asked, plan
from tunesmith.plan.calibrate import LEAST_RUNS, Earlier, correction
from tunesmith.plan.devices import find
from tunesmith.plan.rates import Rates, of_device, save


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Rates]:
    """``probe()`` keeps rates of the machine at hand, which had none."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))

    def done() -> Rates:
        rates = replace(of_device(find("laptop")), name="this processor", source="probe")
        save(rates)
        return rates

    return done


def tiny(make_recipe: MakeRecipe, folder: Path, seed: int = 0) -> Recipe:
    path = write_jsonl(folder / "rows.jsonl", labelled(60))
    train = {"epochs": 1, "batch_tokens": 512, "seed": seed}
    changes = {"task": "classify", "evaluate": EvaluateRecipe(baselines=("majority",))}
    return make_recipe(str(path), model="bert", train=train).model_copy(update=changes)


def test_runs_after_a_probe_correct_the_time_of_a_plan(
    make_recipe: MakeRecipe, tmp_path: Path, probe: Callable[[], Rates]
) -> None:
    rates, earlier = probe(), []
    for seed in range(LEAST_RUNS):
        run = finetune(tiny(make_recipe, tmp_path, seed), workspace=tmp_path)
        report = Report.load(Path(run.folder) / "report.json")
        assert report.plan.device == rates.name and report.plan.step_seconds and report.fit.step_seconds
        earlier.append(Earlier(report.plan.step_seconds, report.fit.step_seconds, rates.name, "lora"))
    expected = correction(earlier, rates.name, "lora")
    asked = tiny(make_recipe, tmp_path)
    plain, found = plan(asked), plan(asked, workspace=tmp_path)
    assert expected and plain.seconds and found.seconds and found.range
    assert found.seconds == pytest.approx(expected.factor * plain.seconds)
    assert found.range[1] == pytest.approx(expected.spread * found.seconds)
    assert any(told.startswith(f"{LEAST_RUNS} earlier lora runs took") for told in found.assumed)
    assert not any("cannot correct" in told for told in found.assumed)


def test_runs_without_a_probe_cannot_correct_and_the_plan_says_so(
    make_recipe: MakeRecipe, tmp_path: Path, probe: Callable[[], Rates]
) -> None:
    asked = tiny(make_recipe, tmp_path)
    assert not any("cannot correct" in told for told in plan(asked, workspace=tmp_path).assumed)
    finetune(asked, workspace=tmp_path)
    told = "Of the earlier runs in this workspace, 1 cannot correct the time: no probe of the machine was kept when"
    for _ in range(2):  # neither before a probe nor after it
        (sentence,) = (line for line in plan(asked, workspace=tmp_path).assumed if line.startswith(told))
        assert f"--probe first; {LEAST_RUNS} runs after it do." in sentence
        probe()
    assert not any(line.startswith(told) for line in plan(asked).assumed)
    assert not any(line.startswith(told) for line in plan(asked, Asked(device="l4"), workspace=tmp_path).assumed)


def test_the_newest_runs_of_the_same_device_correct_the_time(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One real run, whose report is then read as that of many; those of another device, and of none, are left out."""
    path = write_jsonl(tmp_path / "rows.jsonl", labelled(60))
    asked = make_recipe(str(path), model="bert", train={"epochs": 1}).model_copy(update={"task": "classify"})
    run = finetune(asked, workspace=tmp_path)
    real = Report.load(Path(run.folder) / "report.json")
    assert real.fit.step_seconds and real.fit.step_seconds > 0
    ran = [run.model_copy(update={"id": str(n), "folder": str(n)}) for n in range(module.MOST_EARLIER + 9)]

    def report(of: Path) -> Report:
        n = int(of.parent.name)
        told = {"step_seconds": float(n + 1), "device": {0: "mine", 1: None}.get(n, "other")}
        return real.model_copy(update={"plan": real.plan.model_copy(update=told)})

    monkeypatch.setattr(module.Report, "load", report)
    monkeypatch.setattr(module.Index, "all", lambda _: ran)
    found, unforeseen = module._earlier(tmp_path)
    assert unforeseen == 1
    assert [one.predicted for one in found] == [1.0, *map(float, range(3, module.MOST_EARLIER + 1))]  # newest first
    assert [one.device for one in found[:2]] == ["mine", "other"]
