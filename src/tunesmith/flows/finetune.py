"""The main job, as a flat story: read, check, split, baselines, train, evaluate, verdict, report.

Notable: the only writer of a run's folder, with ``resume``, which joins the same pieces. The baselines are measured
before a weight moves, the test rows are answered once by each system, and whatever goes wrong leaves a run that says
so.
"""

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

from tunesmith.core import files, parts, recipe_file
from tunesmith.core.errors import DiskError, Diverged, Interrupted, TunesmithError, is_out_of_memory
from tunesmith.core.origin import Origin
from tunesmith.core.recipe import Recipe
from tunesmith.core.report import Report, SystemResult
from tunesmith.core.run import Run
from tunesmith.data import split
from tunesmith.flows import judging, keeping, preferring, training
from tunesmith.flows.checkpointing import Checkpointing, room
from tunesmith.flows.prepare import Prepared, prepare
from tunesmith.flows.rewarding import ancestors, before, company
from tunesmith.flows.watch import Silent, Watcher
from tunesmith.models import artefact
from tunesmith.models import load as loading
from tunesmith.models.model import Model, adapters_off
from tunesmith.present.html import render_html
from tunesmith.present.model_card import model_card
from tunesmith.records.folder import RunFolder, check_writable
from tunesmith.records.index import Index
from tunesmith.train.state import Snapshot

UNEXPECTED = "stopped by an unexpected error; see the terminal"
ROWS = Path(".tunesmith") / "rows"  # rendered rows of large sets, for the next run
REFERENCE = Path(".tunesmith") / "reference"  # likelihoods under the base, for the next run


def finetune(
    recipe: Recipe | str | Path,
    *,
    overrides: Sequence[str] = (),
    workspace: Path | str = ".",
    watch: Watcher | None = None,
) -> Run:
    """Tune a model by ``recipe`` and prove the result; the run's folder is ``workspace/runs/<id>/``.

    Raises the errors of ``core.errors``; a run that began is left in the index with its status and error.
    """
    watch = watch or Silent()
    recipe = (
        recipe_file.absolute(recipe_file.override(recipe, overrides), Path.cwd())
        if isinstance(recipe, Recipe)
        else recipe_file.load(Path(recipe), overrides)
    )
    check_writable(Path(workspace))
    if (rival := judging.rival(recipe)) is not None:
        rival.ready()
    clock = Clock(watch)
    prepared, model = made_ready(recipe, Path(workspace), clock)
    origin = keeping.origin(prepared, versions())
    folder = RunFolder.create(Path(workspace), recipe)
    with folder.lock():
        write_inputs(folder, prepared, origin)  # a run is listed from the moment on at which it can be resumed
        with recorded(folder, prepared, Path(workspace)) as record:
            folder.check_space(room(model))
            kept = checkpointing(folder, prepared, origin, watch)
            return carry_out(folder, model, prepared, record, clock, kept)


def checkpointing(folder: RunFolder, prepared: Prepared, origin: Origin, watch: Watcher) -> Checkpointing:
    every, as_asked = prepared.plan.save_seconds, prepared.recipe.train.save_every != "auto"
    return Checkpointing(folder, watch, origin.content_hash(), every=every, as_asked=as_asked)


def made_ready(
    recipe: Recipe, workspace: Path, clock: "Clock", settle: Callable[[Prepared], Prepared] = lambda prepared: prepared
) -> tuple[Prepared, Model]:
    """Rows, plan and a model with its method: the last that can refuse a recipe. Nothing of a run is written.
    ``settle`` has the last word on the plan before the weights are loaded."""
    clock.stage("Read and check", recipe.data.train)
    prepared = settle(prepare(recipe, workspace / ROWS))
    for warning in prepared.warnings:
        clock.watch.note(warning)
    clock.stage("Load", f"{prepared.card.name}, {prepared.card.parameters / 1e6:.1f}M parameters")
    four_bits = parts.find("models.adapters", recipe.method.name).four_bits
    model = loading.load(recipe.model, precision=prepared.plan.precision, four_bits=four_bits)
    members = company(model, recipe, prepared.objective)
    prepared = replace(prepared, before=before(model, recipe), company=members)
    training.attach(model, prepared)
    return preferring.referenced(model, prepared, workspace / REFERENCE), model


def carry_out(
    folder: RunFolder,
    model: Model,
    prepared: Prepared,
    record: "Record",
    clock: "Clock",
    kept: Checkpointing,
    resume: Snapshot | None = None,
) -> Run:
    """From the baselines to the report, in ``folder``; ``resume`` and what lies in the folder are not done again."""
    bars = keeping.read_baselines(folder)
    if bars is None:
        clock.stage("Baselines", f"{len(prepared.test)} locked test rows")
        with adapters_off(model):
            bars = judging.baselines(model, prepared)
        keeping.write_predictions(folder, bars)
    with adapters_off(model):
        before = judging.general_bits(model)
    clock.stage("Train", f"{prepared.recipe.method.name}, {prepared.plan.steps} steps")
    trained = training.train(model, prepared, clock.watch, folder, kept, resume)
    clock.stage("Evaluate", f"{len(prepared.test)} locked test rows")
    split.check_lock(prepared.splits, folder.data)
    result, predictions = judging.tuned(model, prepared)
    fit, lost = judging.fit_report(model, prepared, trained), judging.forgotten(model, before)
    clock.stage("Verdict")
    answers = bars.predictions | {"tuned": predictions}
    points = folder.rollout_points()
    learned = None if prepared.company is None else judging.of_rewards(prepared, answers, points, fit.best_step)
    report = judging.report(folder.id, prepared, bars, result, answers, fit, learned)
    warnings = (*report.warnings, *_earlier_verdicts(record.workspace, prepared))
    about = {"seconds": clock.seconds(), "environment": environment(), "warnings": warnings, "forgetting": lost}
    if prepared.company is not None:
        about["warnings"] = (*warnings, *prepared.company.told(points))
    report = report.model_copy(update=about)
    keeping.write_predictions(folder, bars, predictions)
    publish(folder, model, report)
    done = record(report, result)
    with contextlib.suppress(OSError):  # a finished run needs none
        files.remove(folder.checkpoints)
    return done


def _earlier_verdicts(workspace: Path, prepared: Prepared) -> Iterator[str]:
    """A sentence where this test set has been used before: the best of several verdicts is luckier than one. Runs that
    this one goes on from are no rivals of it."""
    stands_on = ancestors(prepared.recipe)
    others = (r for r in Index.open(workspace).all() if str(Path(r.folder).absolute()) not in stands_on)
    same = (r for r in others if r.data_hash == prepared.splits.test_hash)
    earlier = sum(run.status == "done" for run in same)
    if earlier:
        times = "once" if earlier == 1 else f"{earlier} times"
        yield (
            f"This test set has given a verdict {times} before in this workspace; whoever keeps the best of several "
            "runs keeps the luckiest too. Confirm a choice on fresh rows."
        )


class Clock:
    """Times the stages and announces them."""

    def __init__(self, watch: Watcher) -> None:
        self.watch = watch
        self.marks: list[tuple[str, float]] = []

    def stage(self, name: str, detail: str = "") -> None:
        self.marks.append((name, time.monotonic()))
        self.watch.stage(name, detail)

    def seconds(self) -> dict[str, float]:
        ends = [t for _, t in self.marks[1:]] + [time.monotonic()]
        return {name: round(end - start, 2) for (name, start), end in zip(self.marks, ends, strict=True)}


@contextmanager
def recorded(folder: RunFolder, prepared: Prepared, workspace: Path, created: str | None = None) -> Iterator["Record"]:
    """A run row that is "running" until it is done, and otherwise says how it ended."""
    record = Record(folder, prepared, workspace, created)
    try:
        record.write()  # in here: whoever is stopped as soon as the run is listed still leaves its end
        yield record
    except KeyboardInterrupt:
        record.broke("interrupted", f"interrupted; go on with: {_way_on(folder)}")
        raise
    except Interrupted as error:
        told = f"{error}. Go on with: {_way_on(folder)}"
        record.broke("interrupted", told)
        raise Interrupted(told, error.signal) from None
    except Diverged as error:
        record.broke("diverged", str(error))
        raise
    except TunesmithError as error:
        record.broke("failed", str(error))
        raise
    except (RuntimeError, MemoryError) as error:
        record.broke("failed", "out of memory" if is_out_of_memory(error) else UNEXPECTED)
        raise
    finally:
        if record.run.status == "running":
            record.broke("failed", UNEXPECTED)


def _way_on(folder: RunFolder) -> str:
    """The command with which a run goes on, as it has to be typed where this process was started."""
    workspace = folder.path.parent.parent
    where = "" if workspace.absolute() == Path.cwd() else f" --runs {workspace}"
    return f"tunesmith resume {folder.id}{where}"


class Record:
    def __init__(self, folder: RunFolder, prepared: Prepared, workspace: Path, created: str | None) -> None:
        self.folder, self.workspace, self.started = folder, workspace, time.monotonic()
        self.run = Run(
            id=folder.id,
            folder=str(folder.path),
            status="running",
            task=prepared.recipe.task,
            model=prepared.card.name,
            method=prepared.recipe.method.name,
            created=created or datetime.now(UTC).isoformat(timespec="seconds"),
            recipe_hash=prepared.recipe.content_hash(),
            data_hash=prepared.splits.test_hash,
            metric=prepared.metrics[0],
            pid=os.getpid(),
        )

    def write(self) -> None:
        self.run.save(self.folder.run)
        Index.open(self.workspace).put(self.run)

    def end(self, status: str, error: str | None = None) -> None:
        """How it ended, on disk. Raises DiskError."""
        self.run = self.run.model_copy(
            update={"status": status, "error": error, "seconds": round(time.monotonic() - self.started, 2), "pid": None}
        )
        self.write()

    def broke(self, status: str, error: str) -> None:
        """``end`` after a fault: where that cannot be written, the caller still hears of the fault itself."""
        with contextlib.suppress(DiskError):
            self.end(status, error)

    def __call__(self, report: Report, result: SystemResult) -> Run:
        best = next(s for s in report.systems if s.name == report.verdict.baseline)
        self.run = self.run.model_copy(
            update={
                "score": result.metrics[report.primary].value,
                "baseline": best.metrics[report.primary].value,
                "verdict": report.verdict.decision,
            }
        )
        self.end("done")
        return self.run


def write_inputs(folder: RunFolder, prepared: Prepared, origin: Origin) -> None:
    """What the run starts from: recipe, plan, data report, quarantined rows, the lock on the test rows, its origin."""
    files.write_text(folder.recipe, recipe_file.dump(prepared.recipe))
    prepared.plan.save(folder.resolved)
    prepared.data.save(folder.data / "report.json")
    _write_jsonl(folder.data / "quarantine.jsonl", [b.model_dump(mode="json") for b in prepared.bad_rows])
    split.write_lock(prepared.splits, folder.data)
    keeping.write_questions(folder, prepared)
    keeping.write_origin(folder, origin)


def publish(folder: RunFolder, model: Model, report: Report) -> None:
    """Weights with their card, report.json and report.html, each whole or not at all."""
    artefact.publish(model, report.recipe.method.name, folder.path / report.adapter, {"README.md": model_card(report)})
    report.save(folder.report)
    files.write_text(folder.html, render_html(report))


def _write_jsonl(path: Path, rows: Sequence[dict[str, object]]) -> None:
    files.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def versions() -> dict[str, str]:
    """Of what computes: a run is not resumed under others without being told to."""
    found = {name: metadata.version(name) for name in ("tunesmith", "torch", "transformers", "tokenizers", "numpy")}
    return found | {"device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"}


def environment() -> dict[str, str]:
    """Versions and machine, for whoever wants to repeat the numbers."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return versions() | {"python": platform.python_version(), "system": platform.platform(terse=True), "device": device}
