"""Methods side by side: whole runs in processes of their own, taken over when asked again, and one that breaks."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.flows.conftest import MakeRecipe

from tunesmith.core.comparison import Comparison
from tunesmith.core.errors import PartError, RecipeError
from tunesmith.core.recipe import Recipe, RivalRecipe
from tunesmith.core.report import CurvePoint, Report
from tunesmith.flows import compare as flow
from tunesmith.flows.compare import compare, planned
from tunesmith.records.index import Index

QUICK: dict[str, Any] = {"baselines": ["majority"], "limit": 8}


class Told:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def stage(self, name: str, detail: str = "") -> None:
        self.notes.append(f"{name}: {detail}")

    def step(self, point: CurvePoint, total_steps: int, tokens_per_second: float) -> None:
        raise AssertionError("no step is taken in this process")

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def recipe(make_recipe: MakeRecipe) -> Recipe:
    return make_recipe("labelled", method={"name": "lora", "rank": 7}, train={"epochs": 1}, evaluate=QUICK)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compared")


@pytest.fixture(scope="module")
def first(recipe: Recipe, workspace: Path) -> Comparison:
    return compare(recipe, ["full", "lora"], workspace=workspace)


def test_each_method_has_a_run_of_its_own_and_its_numbers(first: Comparison, workspace: Path) -> None:
    assert sorted(m.name for m in first.methods) == ["full", "lora"]
    for method in first.methods:
        (attempt,) = method.attempts
        report = Report.load(workspace / "runs" / attempt.run_id / "report.json")
        tuned = next(s for s in report.systems if s.name == "tuned").metrics["accuracy"]
        assert (report.recipe.method.name, report.recipe.train.seed) == (method.name, 0)
        assert method.quality == tuned  # one seed: the interval of the run
        assert method.gain is not None
        assert method.gain.value == pytest.approx(report.verdict.difference.value)
        assert report.forgetting is not None
        assert method.forgetting == report.forgetting.difference
        assert method.trainable_parameters == report.fit.trainable_parameters
        assert method.peak_bytes == report.fit.peak_bytes
        assert report.test_hash == first.test_hash
    values = [m.quality.value for m in first.methods if m.quality]
    assert values == sorted(values, reverse=True)
    behind = first.methods[1].behind
    assert first.methods[0].behind is None
    assert behind is not None
    assert behind.value == pytest.approx(values[1] - values[0])


def test_a_dial_that_a_method_does_not_read_is_left_out_and_told(first: Comparison) -> None:
    full, lora = sorted(first.methods, key=lambda m: m.name)
    assert (full.left_out, lora.left_out) == (("method.rank",), ())
    assert any("full does not read method.rank" in note for note in first.notes)
    assert 0 < (lora.trainable_parameters or 0) < (full.trainable_parameters or 0)


def test_the_page_lies_where_it_is_said_to(first: Comparison, workspace: Path) -> None:
    folder = workspace / "compare" / first.id
    assert Comparison.load(folder / "comparison.json") == first
    html = (folder / "compare.html").read_text()
    assert all(method.attempts[0].run_id in html for method in first.methods)


def test_runs_are_taken_over_and_one_that_breaks_stays_in_the_table(
    first: Comparison, recipe: Recipe, workspace: Path
) -> None:
    before, told = {run.id for run in Index.open(workspace).all()}, Told()
    found = compare(recipe, ["full", "lora", "oft"], workspace=workspace, watch=told)
    after = {run.id for run in Index.open(workspace).all()}
    known = {m.name: m.attempts[0].run_id for m in first.methods}
    again = {m.name: m for m in found.methods}
    assert {name: again[name].attempts[0].run_id for name in known} == known
    assert after == before  # what is refused at the start leaves no run
    assert any(f"Taken over from run {known['full']}" in note for note in told.notes)
    broken = again["oft"].attempts[0]
    assert (found.methods[-1].name, broken.outcome, broken.status, broken.run_id) == ("oft", None, "failed", "")
    assert "method.rank is 7" in broken.error
    assert broken.error in (workspace / "compare" / found.id / "compare.html").read_text()


def test_a_run_on_other_rows_is_not_taken_over(first: Comparison, recipe: Recipe, workspace: Path) -> None:
    variant = planned(recipe, ["lora"], 1, [], workspace).variants[0]
    prepared = flow.prepare(variant.recipe)
    stands = flow.keeping.origin(prepared, flow.versions())
    assert flow.known(workspace, variant.seeded(0), stands) is not None
    assert flow.known(workspace, variant.seeded(1), stands) is None
    for changed in ({"files": {"train": "0"}}, {"versions": {"torch": "1"}}, {"model": {"weights": "0"}}):
        assert flow.known(workspace, variant.seeded(0), stands.model_copy(update=changed)) is None


def test_seeds_are_averaged(
    first: Comparison,
    recipe: Recipe,
    workspace: Path,
) -> None:
    """The second seed's run is a copy of the first with other answers: no third training."""
    (lora,) = (m for m in first.methods if m.name == "lora")
    run_id = lora.attempts[0].run_id
    shutil.copytree(workspace / "runs" / run_id, workspace / "runs" / "other")
    prepared = flow.prepare(recipe)
    path = workspace / "runs" / "other" / "predictions" / "tuned.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    right = [row | {"answer": example.answer} for row, example in zip(rows, prepared.test, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in right))
    attempts = (lora.attempts[0], lora.attempts[0].model_copy(update={"run_id": "other", "seed": 1}))
    (found,) = flow.side_by_side(prepared, workspace, [flow.MethodResult(name="lora", attempts=attempts)])
    shutil.rmtree(workspace / "runs" / "other")
    assert found.quality is not None and lora.quality is not None
    assert found.quality.value == pytest.approx((lora.quality.value + 1) / 2)
    assert found.quality.low < found.quality.value


@pytest.mark.parametrize(
    ("methods", "seeds", "told"),
    [
        ([], 1, "No method is named"),
        (["lora", "full", "lora"], 1, "lora is named twice"),
        (["lora", "lorra"], 1, 'Did you mean "lora"'),
        (["lora"], 0, "0 seeds"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_a_run(
    recipe: Recipe, tmp_path: Path, methods: list[str], seeds: int, told: str
) -> None:
    with pytest.raises((RecipeError, PartError), match=told):
        compare(recipe, methods, seeds=seeds, workspace=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_rival_that_each_run_would_pay_for_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    asked = recipe.model_copy(
        update={"evaluate": recipe.evaluate.model_copy(update={"rival": RivalRecipe(url="https://host/v1", model="m")})}
    )
    with pytest.raises(RecipeError, match=r"evaluate\.rival is paid for"):
        compare(asked, ["lora"], workspace=tmp_path)


def test_a_stop_is_handed_to_the_run_which_ends_in_its_own_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program"
    saved = f"trap 'sleep 0.2; touch {tmp_path}/saved; exit 143' TERM; echo ready >&2; sleep 30 & wait"
    program.write_text(f"#!/bin/sh\n{saved}\n")
    program.chmod(0o755)
    monkeypatch.setattr(flow.sys, "executable", str(program))

    class Stops(Told):
        def note(self, text: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flow.child(["run", "x.yaml"], Stops())
    assert (tmp_path / "saved").exists()


def test_the_error_of_a_run_is_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    assert flow.child(["run", "nowhere.yaml"], told).startswith("nowhere.yaml does not exist.")
    assert told.notes[0].startswith("error: nowhere.yaml")
