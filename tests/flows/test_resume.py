"""A run that was stopped at any place goes on and ends with the bits of one that never was; changes are refused."""

import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.flows.conftest import MakeRecipe, write_jsonl
from torch import Tensor

from tunesmith.core import files, recipe_file
from tunesmith.core.batch import Batch
from tunesmith.core.errors import BusyError, DataError, DiskError, Diverged, Interrupted, RecipeError, TunesmithError
from tunesmith.core.plan import Plan
from tunesmith.core.recipe import Recipe
from tunesmith.core.report import CurvePoint, Prediction, Report, SystemResult
from tunesmith.core.run import Run
from tunesmith.flows import judging, keeping
from tunesmith.flows.finetune import finetune
from tunesmith.flows.resume import resume
from tunesmith.models.model import Model
from tunesmith.records.checkpoints import Checkpoints
from tunesmith.records.folder import RunFolder, as_it_stands, read_jsonl
from tunesmith.records.index import Index

QUICK: dict[str, Any] = {"baselines": ["majority", "zero_shot"], "max_new_tokens": 6}


class Stops:
    """A watcher that ends the process's work at a stage, or after a step."""

    def __init__(self, stage: str = "", step: int = 0, error: type[BaseException] = ZeroDivisionError) -> None:
        self.at, self.after, self.error = stage, step, error
        self.stages: list[str] = []
        self.notes: list[str] = []

    def stage(self, name: str, detail: str = "") -> None:
        self.stages.append(name)
        if name == self.at:
            raise self.error

    def step(self, point: CurvePoint, total_steps: int, tokens_per_second: float) -> None:
        if point.step == self.after:
            raise self.error

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def recipe(make_recipe: MakeRecipe) -> Recipe:
    """Dropout, shuffling, packing, micro-batches of a row or two, a checkpoint after each step."""
    train = {"epochs": 3, "batch_tokens": 1024, "save_every": 0}
    return make_recipe(method={"name": "lora", "rank": 4, "dropout": 0.1}, train=train, evaluate=QUICK)


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finetune(recipe, workspace=tmp_path_factory.mktemp("whole"))


def stopped(recipe: Recipe, workspace: Path, watch: Stops) -> Path:
    with pytest.raises(watch.error):
        finetune(recipe, workspace=workspace, watch=watch)
    (folder,) = (workspace / "runs").iterdir()
    return folder


def same_bits(done: Run, whole: Run) -> None:
    for name in ("adapter/adapter_model.safetensors", "predictions/tuned.jsonl", "predictions/zero_shot.jsonl"):
        assert (Path(done.folder) / name).read_bytes() == (Path(whole.folder) / name).read_bytes(), name
    ours, theirs = (Report.load(Path(r.folder) / "report.json") for r in (done, whole))
    assert ours.verdict == theirs.verdict
    assert ours.forgetting == theirs.forgetting
    assert [(p.step, p.loss, p.dev_loss) for p in ours.fit.curve] == [
        (p.step, p.loss, p.dev_loss) for p in theirs.fit.curve
    ]


@pytest.mark.parametrize(
    ("watch", "baselines"),
    [
        (Stops(stage="Baselines"), True),
        (Stops(step=1), False),
        (Stops(step=7), False),
        (Stops(stage="Evaluate"), False),
        (Stops(stage="Verdict"), False),
    ],
    ids=["baselines", "first step", "a step", "evaluate", "verdict"],
)
def test_a_run_that_broke_anywhere_goes_on_to_the_same_bits(
    recipe: Recipe, whole: Run, tmp_path: Path, watch: Stops, baselines: bool
) -> None:
    folder = stopped(recipe, tmp_path, watch)
    assert Run.load(folder / "run.json").status == "failed"
    seen = Stops()
    done = resume(folder, watch=seen)
    assert done.status == "done" and done.id == folder.name
    assert ("Baselines" in seen.stages) is baselines
    same_bits(done, whole)
    steps = [r["step"] for r in read_jsonl(folder / "metrics.jsonl")]
    assert steps == sorted(set(steps))  # no step stands twice
    assert Index.open(tmp_path).get(done.id).status == "done"


def test_what_will_be_done_again_is_told(recipe: Recipe, tmp_path: Path) -> None:
    folder = stopped(recipe, tmp_path, Stops(step=9))
    for _, path in Checkpoints(folder / "checkpoints").all()[:1]:
        shutil.rmtree(path)
    seen = Stops(step=10)
    with pytest.raises(ZeroDivisionError):
        resume(folder, watch=seen)
    told = next(n for n in seen.notes if n.startswith("Going on from step"))
    kept = int(told.split()[4])
    again = "1 step is" if kept == 8 else f"{9 - kept} steps are"
    assert re.search(rf": {again} done again, about \d.*; \d+ steps are left, about \d", told), told


def test_the_whole_model_is_resumed_too(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    changes = {"method": {"name": "full"}, "train": {"save_every": 0, "epochs": 4}, "evaluate": {"limit": 6}}
    recipe = make_recipe("labelled", "bert", **changes)
    one = finetune(recipe, workspace=tmp_path / "one")
    done = resume(stopped(recipe, tmp_path / "two", Stops(step=3)))
    for name in ("model/model.safetensors", "model/head.safetensors", "predictions/tuned.jsonl"):
        assert (Path(done.folder) / name).read_bytes() == (Path(one.folder) / name).read_bytes(), name


def test_a_done_run_is_not_resumed(whole: Run) -> None:
    with pytest.raises(DataError, match="is done; there is nothing to resume"):
        resume(whole.folder)


# -- what has changed --------------------------------------------------------------------------------------------------


def changed_rows(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(path.read_text().replace("garden", "Garden", 1))


def changed_key(folder: Path, tmp_path: Path) -> None:
    path = folder / "recipe.yaml"
    path.write_text(path.read_text().replace("rank: 4", "rank: 5"))


def changed_epochs(folder: Path, tmp_path: Path) -> None:
    path = folder / "recipe.yaml"
    path.write_text(path.read_text().replace("epochs: 2.0", "epochs: 3.0"))


def changed_base(folder: Path, tmp_path: Path) -> None:
    from tests import small

    small.edit_tensor(tmp_path / "base" / "model.safetensors", "model.norm.weight", 1.5)


def changed_template(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "base" / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|im_start|>", "<|im_start|> ", 1))


def removed_dev(folder: Path, tmp_path: Path) -> None:
    path = folder / "recipe.yaml"
    path.write_text(re.sub(r"^  dev: /.*$", "  dev:", path.read_text(), count=1, flags=re.MULTILINE))


def changed_version(folder: Path, tmp_path: Path) -> None:
    then = keeping.read_origin(RunFolder(folder))
    changes = {"versions": then.versions | {"torch": "1.0"}, "before": (then.content_hash(),)}
    keeping.write_origin(RunFolder(folder), then.model_copy(update=changes))


@pytest.fixture
def broken(make_recipe: MakeRecipe, store: Path, tmp_path: Path) -> Path:
    """A run in its fifth step, on a base and rows of its own."""
    shutil.copytree(store / "llama", tmp_path / "base")
    shutil.copy(store / "asked.jsonl", tmp_path / "rows.jsonl")
    rows = {"dev": str(store / "held.jsonl")}
    recipe = make_recipe(str(tmp_path / "rows.jsonl"), data=rows, train={"save_every": 0}, evaluate=QUICK)
    recipe = recipe.model_copy(update={"model": str(tmp_path / "base")})
    return stopped(recipe, tmp_path / "work", Stops(step=5))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (changed_rows, "the file of data.train has changed"),
        (changed_key, "method.rank was 4 and is 5"),
        (changed_epochs, "train.epochs was 2.0 and is 3.0"),
        (changed_base, "the weights of the model has changed"),
        (changed_template, "the chat template of the model has changed"),
        (removed_dev, "the file of data.dev has changed .*, now none"),
        (changed_version, "torch was 1.0 and is "),
    ],
)
def test_whatever_has_changed_is_refused_by_name(broken: Path, tmp_path: Path, change: Any, told: str) -> None:
    change(broken, tmp_path)
    before = {p: p.read_bytes() for p in (broken / "checkpoints").rglob("*") if p.is_file()}
    with pytest.raises(RecipeError, match=told) as caught:
        resume(broken)
    assert caught.value.exit_code == 2
    assert {p: p.read_bytes() for p in (broken / "checkpoints").rglob("*") if p.is_file()} == before
    assert Run.load(broken / "run.json").status == "failed"


def test_what_may_change_changes_when_it_is_allowed(broken: Path, tmp_path: Path) -> None:
    changed_epochs(broken, tmp_path)
    before, seen = keeping.read_origin(RunFolder(broken)).plan, Stops(step=8)
    with pytest.raises(ZeroDivisionError):
        resume(broken, allow=["train.epochs"], watch=seen)
    seen = Stops()
    done = resume(broken, watch=seen)  # from then on it is what the run stands on
    assert not any(n.startswith("Allowed") for n in seen.notes)
    assert any(n.startswith("Going on from step 7") or n.startswith("Going on from step 8") for n in seen.notes)
    report = Report.load(Path(done.folder) / "report.json")
    assert report.recipe.train.epochs == 3
    assert report.fit.steps == report.plan.steps == 3 * before.steps // 2
    changed = {n for n in Plan.model_fields if getattr(report.plan, n) != getattr(before, n)}
    assert {"epochs", "steps", "reasons"} <= changed <= {"epochs", "steps", "reasons", "warmup_steps", "eval_every"}
    assert keeping.read_origin(RunFolder(broken)).recipe.train.epochs == 3


def test_what_lies_elsewhere_and_is_the_same_has_not_changed(broken: Path, tmp_path: Path) -> None:
    shutil.move(tmp_path / "base", tmp_path / "other")
    shutil.move(tmp_path / "rows.jsonl", tmp_path / "moved.jsonl")
    path = broken / "recipe.yaml"
    path.write_text(path.read_text().replace("/base", "/other").replace("/rows.jsonl", "/moved.jsonl"))
    assert resume(broken).status == "done"


def test_an_origin_that_was_tampered_with_is_refused(broken: Path) -> None:
    path = broken / "origin.json"
    path.write_text(path.read_text().replace('"batch_tokens": 1024', '"batch_tokens": 1025'))
    with pytest.raises(DataError, match=r"origin\.json is damaged: its hash"):
        resume(broken)


def test_the_checkpoints_of_another_run_are_refused(broken: Path, recipe: Recipe, tmp_path: Path) -> None:
    other = stopped(recipe, tmp_path / "more", Stops(step=4))
    shutil.rmtree(broken / "checkpoints")
    shutil.copytree(other / "checkpoints", broken / "checkpoints")
    with pytest.raises(DataError, match="belongs to another run, or to other data"):
        resume(broken)


def test_a_dry_run_tells_and_writes_nothing(broken: Path) -> None:
    def held() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in broken.rglob("*") if p.is_file() and p.name != "run.lock"}

    before, seen = held(), Stops()
    assert resume(broken, dry_run=True, watch=seen).status == "failed"
    assert any(n.startswith("Going on from step ") for n in seen.notes)
    assert held() == before


def test_a_recipe_from_python_with_relative_paths_is_resumed(
    recipe: Recipe, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(store / "asked.jsonl", tmp_path / "here.jsonl")
    monkeypatch.chdir(tmp_path)
    data = recipe.data.model_copy(update={"train": "here.jsonl"})
    folder = stopped(recipe.model_copy(update={"data": data}), tmp_path / "work", Stops(step=3))
    monkeypatch.chdir("/")
    assert resume(folder).status == "done"


@pytest.mark.parametrize("name", ["method.rank", "train.epoch", "data.train", "train.memory"])
def test_what_may_not_change_cannot_be_allowed(broken: Path, name: str) -> None:
    with pytest.raises(RecipeError, match=f"--allow-change {name}: this cannot change within a run"):
        resume(broken, allow=[name])


# -- checkpoints that are damaged --------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def test_a_damaged_checkpoint_is_told_and_the_one_before_is_taken(recipe: Recipe, whole: Run, tmp_path: Path) -> None:
    folder = stopped(recipe, tmp_path, Stops(step=7))
    (newest, path), *_ = Checkpoints(folder / "checkpoints").all()
    flip(path / "state.safetensors")
    with pytest.raises(DataError, match=r"state\.safetensors is damaged: found sha256 .* Without --strict"):
        resume(folder, strict=True)
    seen = Stops()
    done = resume(folder, watch=seen)
    assert any(n.startswith(f"step-{newest:09d} is left out") and "expected" in n for n in seen.notes)
    same_bits(done, whole)


def test_a_damaged_checkpoint_does_not_push_good_ones_out(recipe: Recipe, tmp_path: Path) -> None:
    folder = stopped(recipe, tmp_path, Stops(step=7))
    (newest, path), *_ = Checkpoints(folder / "checkpoints").all()
    shutil.copytree(path, folder / "checkpoints" / "step-000000500")
    for damaged in (path, folder / "checkpoints" / "step-000000500"):
        flip(damaged / "state.safetensors")
    with pytest.raises(ZeroDivisionError):
        resume(folder, watch=Stops(step=newest + 1))
    kept = Checkpoints(folder / "checkpoints").all()
    assert len(kept) == 2 and max(step for step, _ in kept) <= newest + 1
    for _, whole_one in kept:
        files.verify(whole_one)
    assert len(list((folder / "checkpoints").glob("damaged-*"))) == 2


def test_where_all_checkpoints_are_damaged_nothing_is_done(recipe: Recipe, tmp_path: Path) -> None:
    folder = stopped(recipe, tmp_path, Stops(step=7))
    for _, path in Checkpoints(folder / "checkpoints").all():
        flip(path / "state.json")
    with pytest.raises(DataError, match=r"is whole \(2 are damaged\)"):
        resume(folder)


def test_damaged_answers_of_baselines_are_measured_again(recipe: Recipe, whole: Run, tmp_path: Path) -> None:
    folder = stopped(recipe, tmp_path, Stops(step=4))
    flip(folder / "predictions" / "zero_shot.jsonl")
    seen = Stops()
    same_bits(resume(folder, watch=seen), whole)
    assert "Baselines" in seen.stages


# -- disks -------------------------------------------------------------------------------------------------------------


def test_too_little_room_is_told_before_anything_is_measured(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "baselines", lambda *_: pytest.fail("too late"))
    monkeypatch.setattr("tunesmith.flows.checkpointing.ROOM", 1e9)
    with pytest.raises(DiskError, match=r"MiB are free, this run may need .* MiB for its checkpoints") as caught:
        finetune(recipe, workspace=tmp_path)
    assert caught.value.exit_code == 6


def test_a_save_that_fails_leaves_the_training_alive_and_the_last_checkpoint_good(
    recipe: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Checkpoints.save

    def full(self: Checkpoints, step: int, write: Any) -> Any:
        if step in (3, 4, 8):
            raise DiskError("Cannot write it: No space left on device. Free space.")
        return own(self, step, write)

    monkeypatch.setattr(Checkpoints, "save", full)
    seen = Stops()
    same_bits(finetune(recipe, workspace=tmp_path, watch=seen), whole)
    assert [n.split(" could")[0] for n in seen.notes if "could not be saved" in n] == ["Step 3", "Step 4", "Step 8"]


def test_three_saves_that_fail_end_the_run_with_the_last_good_one(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Checkpoints.save

    def full(self: Checkpoints, step: int, write: Any) -> Any:
        if step > 4:
            raise DiskError("Cannot write it: No space left on device. Free space.")
        return own(self, step, write)

    monkeypatch.setattr(Checkpoints, "save", full)
    folder = stopped(recipe, tmp_path, Stops(error=DiskError))
    assert [step for step, _ in Checkpoints(folder / "checkpoints").all()] == [4, 3]
    assert "the last good is step 4" in (Run.load(folder / "run.json").error or "")


def test_a_workspace_that_cannot_be_written_is_told_before_the_model_is_loaded(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.flows.finetune.prepare", lambda *_: pytest.fail("too late"))
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match=r"file is no folder\. Choose a writable workspace"):
        finetune(recipe, workspace=tmp_path / "file" / "below")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(DiskError, match=r"cannot be written\. Choose a writable workspace"):
        finetune(recipe, workspace=tmp_path / "new")


def test_a_run_that_diverged_keeps_its_last_good_checkpoint(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, calls = Model.token_logp, []

    def broken(model: Model, batch: Batch) -> Tensor:
        calls.append(model.network.training)
        return own(model, batch) * (math.nan if sum(calls) > 7 and model.network.training else 1.0)

    monkeypatch.setattr(Model, "token_logp", broken)
    folder = stopped(recipe, tmp_path, Stops(error=Diverged))
    monkeypatch.undo()
    assert Run.load(folder / "run.json").status == "diverged"
    assert not (folder / "adapter").exists()
    path = folder / "recipe.yaml"
    path.write_text(path.read_text().replace("learning_rate: auto", "learning_rate: 0.0001"))
    seen = Stops()
    assert resume(folder, allow=["train.learning_rate"], watch=seen).status == "done"
    assert any(n.startswith("Going on from step ") for n in seen.notes)


def test_answers_with_unusual_line_ends_come_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    odd = tuple(Prediction(id=str(n), answer=f"a{c}b") for n, c in enumerate("\u2028\u2029\x85\x0b\n\r"))
    result = SystemResult(name="majority", kind="baseline", metrics={}, seconds=1.0)
    bars = judging.Baselines((result,), {"majority": odd}, ("a note",))
    keeping.write_predictions(folder, bars)
    assert keeping.read_baselines(folder) == bars


def test_a_disk_that_cannot_take_the_end_of_a_run_does_not_hide_why_it_ended(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Run.save

    def full(run: Run, path: Path) -> None:
        if run.status != "running":
            raise DiskError("Cannot write it: No space left on device. Free space.")
        own(run, path)

    monkeypatch.setattr(Run, "save", full)
    folder = stopped(recipe, tmp_path, Stops(step=3, error=Diverged))
    monkeypatch.undo()
    assert as_it_stands(Run.load(folder / "run.json")).status == "crashed"
    assert resume(folder).status == "done"


# -- real processes ----------------------------------------------------------------------------------------------------


def start(arguments: Sequence[str], folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tunesmith", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.fixture
def project(store: Path, tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "rows.jsonl", [json.loads(x) for x in (store / "asked.jsonl").read_text().splitlines()])
    raw = {
        "model": str(store / "llama"),
        "data": {"train": "rows.jsonl"},
        "method": {"name": "lora", "rank": 4, "dropout": 0.1},
        "train": {"epochs": 10, "batch_tokens": 512, "precision": "float32", "save_every": 0, "patience": 100},
        "evaluate": {"baselines": ["majority"], "max_new_tokens": 4},
    }
    (tmp_path / "r.yaml").write_text(recipe_file.dump(Recipe.parse(raw)).replace(str(tmp_path) + "/", ""))
    return tmp_path


def wait_for_step(process: "subprocess.Popen[str]", project: Path, step: int) -> Path:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        for path in project.glob("runs/*/metrics.jsonl"):
            if len(path.read_bytes().splitlines()) >= step:
                return path.parent
        time.sleep(0.05)
    raise AssertionError("the run did not get there")


def finished(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(project: Path, sent: signal.Signals) -> None:
    process = start(["run", "r.yaml", "-s", "train.save_every=1h"], project)
    folder = wait_for_step(process, project, 5)
    process.send_signal(sent)
    code, out, err = finished(process)
    assert (code, out) == (128 + sent, ""), err
    assert f"{sent.name}: stopping after this step; once more stops at once." in err
    assert "Traceback" not in err
    run = Run.load(folder / "run.json")
    assert run.status == "interrupted"
    assert f"tunesmith resume {folder.name}" in (run.error or "")
    assert f"Go on with: tunesmith resume {folder.name}" in err
    ((step, _path), *_) = Checkpoints(folder / "checkpoints").all()
    assert step == len(read_jsonl(folder / "metrics.jsonl"))
    code, out, err = finished(start(["resume", folder.name, "--json"], project))
    assert code in (0, 7), err
    assert f"Going on from step {step} of" in err and "no step is done again" in err
    assert json.loads(out)["run"] == folder.name


def test_a_killed_process_shows_as_crashed_within_five_seconds_and_its_lock_is_free(project: Path) -> None:
    process = start(["run", "r.yaml"], project)
    folder = wait_for_step(process, project, 5)
    process.send_signal(signal.SIGSTOP)  # it holds the run and stands still
    second = finished(start(["resume", folder.name], project))
    assert second[0] == 3, second[2]
    assert f"process {process.pid}" in second[2]
    with pytest.raises(BusyError):
        resume(folder)
    process.kill()
    process.wait()
    killed = time.monotonic()
    code, out, err = finished(start(["runs", "--json"], project))
    assert (code, time.monotonic() - killed < 5) == (0, True), err
    (shown,) = json.loads(out)
    assert shown["status"] == "crashed"
    assert f"process {process.pid} ended without a word, last seen at 20" in shown["error"]
    code, _, err = finished(start(["resume", folder.name], project))
    assert code in (0, 7), err
    assert as_it_stands(Run.load(folder / "run.json")).status == "done"


def test_an_interrupted_error_carries_the_exit_code_of_its_signal() -> None:
    assert (Interrupted("x").exit_code, Interrupted("x", 15).exit_code) == (130, 143)
    assert isinstance(Interrupted("x"), TunesmithError)


HANGS = """
import sys, time
from tunesmith.flows import checkpointing
from tunesmith.models.model import Model
checkpointing.HANG, checkpointing.HANG_STEPS, own, calls = 3.0, 0, Model.token_logp, []

def stuck(model, batch):
    calls.append(model.network.training)
    if sum(calls) > 5:
        time.sleep(600)
    return own(model, batch)

Model.token_logp = stuck
sys.argv = ["tunesmith", "run", "r.yaml"]
from tunesmith.cli.main import main
main()
"""


def test_a_step_that_hangs_is_ended_with_its_stack_and_the_run_goes_on(project: Path) -> None:
    command = [sys.executable, "-c", HANGS]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 1
    assert "Timeout (0:00:03)!" in done.stderr and "in stuck" in done.stderr
    (folder,) = (project / "runs").iterdir()
    assert as_it_stands(Run.load(folder / "run.json")).status == "crashed"
    seen = Stops()
    assert resume(folder, watch=seen).status == "done"
    assert any(n.startswith("Going on from step ") for n in seen.notes)


def test_a_device_that_fails_leaves_the_last_checkpoint(
    recipe: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, calls = Model.token_logp, []

    def failing(model: Model, batch: Batch) -> Tensor:
        calls.append(model.network.training)
        if sum(calls) > 6:
            raise RuntimeError("CUDA error: unspecified launch failure")
        return own(model, batch)

    monkeypatch.setattr(Model, "token_logp", failing)
    folder = stopped(recipe, tmp_path, Stops(error=RuntimeError))
    monkeypatch.undo()
    assert Run.load(folder / "run.json").status == "failed"
    same_bits(resume(folder), whole)


def test_a_clock_that_jumps_changes_nothing(
    recipe: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = itertools.cycle([0.0, 4e9, 1e9, 2e9])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    folder = stopped(recipe, tmp_path, Stops(step=6))
    for n, (_, path) in enumerate(Checkpoints(folder / "checkpoints").all()):
        os.utime(path, (n * 1e9, n * 1e9))  # the older one is the younger by its time
    seen = Stops()
    same_bits(resume(folder, watch=seen), whole)
    assert any(n.startswith("Going on from step 5 of") for n in seen.notes)


def test_a_run_folder_without_its_origin_is_a_sentence(recipe: Recipe, tmp_path: Path) -> None:
    folder = stopped(recipe, tmp_path, Stops(step=2))
    RunFolder(folder).origin.unlink()
    with pytest.raises(DataError, match="what this run stands on cannot be read"):
        resume(folder)
