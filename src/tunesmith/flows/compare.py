"""One recipe, many methods: the same data, split and seeds, a whole run for each, and what came out side by side.

Notable: each run is a process of its own, started through the command line, so that its peak memory is its own and one
that fails ends nothing but itself. A run that this workspace already holds is taken over, and one that was stopped is
resumed, so that a comparison that was stopped goes on when it is asked for again.
"""

import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tunesmith.core import files, parts, recipe_file
from tunesmith.core.comparison import Attempt, Comparison, MethodResult, Outcome
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.noun import content_hash
from tunesmith.core.origin import Origin
from tunesmith.core.recipe import MethodRecipe, Recipe
from tunesmith.core.report import Report
from tunesmith.core.run import Run
from tunesmith.evaluate.over_seeds import RULE
from tunesmith.flows import keeping
from tunesmith.flows.check_recipe import check_parts
from tunesmith.flows.finetune import ROWS, environment, versions
from tunesmith.flows.prepare import Prepared, prepare
from tunesmith.flows.side_by_side import side_by_side
from tunesmith.flows.watch import Silent, Watcher
from tunesmith.models.adapters._method import Method
from tunesmith.present.comparison import render_comparison
from tunesmith.records.folder import RunFolder, as_it_stands, check_writable
from tunesmith.records.index import Index

FOLDER = "compare"
GO_ON = ("interrupted", "crashed")


@dataclass(frozen=True)
class Variant:
    """The recipe as one method has it. ``left_out`` are the keys that the method does not read."""

    method: str
    recipe: Recipe
    left_out: tuple[str, ...]

    def seeded(self, seed: int) -> Recipe:
        return self.recipe.model_copy(update={"train": self.recipe.train.model_copy(update={"seed": seed})})


@dataclass(frozen=True)
class Grid:
    """What is compared, and where: in ``folder``, named after what is asked, so that asking again goes on there."""

    recipe: Recipe
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    workspace: Path

    @property
    def folder(self) -> Path:
        asked = [self.recipe.content_hash(), [v.method for v in self.variants], self.seeds]
        return self.workspace / FOLDER / content_hash(asked)[:10]


def compare(
    recipe: Recipe | str | Path,
    methods: Sequence[str],
    *,
    seeds: int = 1,
    overrides: Sequence[str] = (),
    workspace: Path | str = ".",
    watch: Watcher | None = None,
) -> Comparison:
    """Run ``recipe`` with each of ``methods`` and ``seeds`` seeds, from train.seed on; the page is
    ``workspace/compare/<id>/compare.html``.

    Raises the errors of ``core.errors`` for what can be refused before a run; how a run ends stands in the result.
    """
    watch, grid = watch or Silent(), planned(recipe, methods, seeds, overrides, Path(workspace))
    check_writable(grid.workspace)
    watch.stage("Read and check", grid.recipe.data.train)
    prepared = prepare(grid.variants[0].recipe, grid.workspace / ROWS)
    stands = keeping.origin(prepared, versions())
    files.make_folder(grid.folder)
    held: list[MethodResult] = []
    for number, variant in enumerate(grid.variants):
        attempts: list[Attempt] = []
        for seed in grid.seeds:
            place = number * len(grid.seeds) + len(attempts) + 1
            watch.stage(f"{variant.method}, seed {seed}", f"{place} of {len(grid.variants) * len(grid.seeds)}")
            attempts.append(attempt(grid, variant, seed, stands, watch))
        held.append(MethodResult(name=variant.method, attempts=tuple(attempts), left_out=variant.left_out))
    found = _comparison(grid, prepared, side_by_side(prepared, grid.workspace, held))
    found.save(grid.folder / "comparison.json")
    files.write_text(grid.folder / "compare.html", render_comparison(found))
    return found


def _comparison(grid: Grid, prepared: Prepared, methods: tuple[MethodResult, ...]) -> Comparison:
    rate, notes = grid.recipe.train.learning_rate, [RULE]
    notes.append(
        "The learning rate is that of full fine-tuning times what suits the method (docs/methods.md)."
        if rate == "auto"
        else f"All train with the recipe's learning rate, {rate:g}, which does not suit all alike; auto does."
    )
    notes += [f"{m.name} does not read {', '.join(m.left_out)}: left out for it." for m in methods if m.left_out]
    notes += [w for w in prepared.warnings if "test rows are asked" in w]
    return Comparison(
        id=grid.folder.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe=grid.recipe,
        model=prepared.card.name,
        metric=prepared.metrics[0],
        seeds=grid.seeds,
        test_rows=len(prepared.test),
        test_hash=prepared.splits.test_hash,
        methods=methods,
        environment=environment(),
        notes=tuple(notes),
    )


def planned(
    recipe: Recipe | str | Path, methods: Sequence[str], seeds: int, overrides: Sequence[str], workspace: Path
) -> Grid:
    """Every variant, checked as far as it can be without data. Raises RecipeError, PartError."""
    loaded = (
        recipe_file.absolute(recipe_file.override(recipe, overrides), Path.cwd())
        if isinstance(recipe, Recipe)
        else recipe_file.load(Path(recipe), overrides)
    )
    if loaded.evaluate.rival.url is not None:
        raise RecipeError(
            "evaluate.rival is paid for and would be asked anew by each run of a comparison. Leave it out here: "
            "tunesmith advise and tunesmith run ask it."
        )
    if not methods:
        raise RecipeError("No method is named; expected some of docs/methods.md, such as full,lora.")
    twice = sorted({name for name in methods if list(methods).count(name) > 1})
    if twice:
        raise RecipeError(f"The method {twice[0]} is named twice. Leave one out; seeds repeat a method.")
    if seeds < 1:
        raise RecipeError(f"{seeds} seeds; expected at least 1.")
    first = loaded.train.seed
    return Grid(
        loaded, tuple(_variant(loaded, name) for name in methods), tuple(range(first, first + seeds)), workspace
    )


def _variant(recipe: Recipe, name: str) -> Variant:
    """``recipe`` with the method ``name`` and those dials of its own method that this one reads."""
    method: Method = parts.find("models.adapters", name)
    dials = recipe.method.changed() - {"name"}
    kept = {key: getattr(recipe.method, key) for key in dials & set(method.reads)}
    changed = recipe.model_copy(update={"method": MethodRecipe(name=name, **kept)})
    check_parts(changed)
    return Variant(name, changed, tuple(sorted(f"method.{key}" for key in dials - set(method.reads))))


def known(workspace: Path, recipe: Recipe, stands: Origin) -> Run | None:
    """The run of ``recipe`` that can be taken over or resumed, the newest that is done first: on the same files, base,
    test and versions."""
    asked = recipe.content_hash()
    same = [as_it_stands(run) for run in Index.open(workspace).all() if run.recipe_hash == asked]
    for run in sorted(same, key=lambda run: run.status != "done"):
        if run.status not in ("done", *GO_ON):
            continue
        try:
            then = keeping.read_origin(RunFolder(Path(run.folder)))
        except DataError:  # it began, or was written, otherwise: measured anew
            continue
        if all(getattr(then, what) == getattr(stands, what) for what in ("files", "model", "test", "versions")):
            return run
    return None


def attempt(grid: Grid, variant: Variant, seed: int, stands: Origin, watch: Watcher) -> Attempt:
    """One run, taken over or made; whatever becomes of it is told in the attempt."""
    recipe = variant.seeded(seed)
    run = known(grid.workspace, recipe, stands)
    said = ""
    if run is not None and run.status == "done":
        watch.note(f"Taken over from run {run.id}, the same recipe on the same data.")
    else:
        path = grid.folder / f"{variant.method}-{seed}.yaml"
        files.write_text(path, recipe_file.dump(recipe))
        command = ["run", str(path)] if run is None else ["resume", run.id]
        others = {r.id for r in Index.open(grid.workspace).all()} - ({run.id} if run else set())
        said = child([*command, "--runs", str(grid.workspace), "--json"], watch)
        fresh = (r for r in Index.open(grid.workspace).all() if r.id not in others)
        run = next((as_it_stands(r) for r in fresh if r.recipe_hash == recipe.content_hash()), None)
    if run is None:
        return Attempt(method=variant.method, seed=seed, run_id="", status="failed", error=said)
    told = {"method": variant.method, "seed": seed, "run_id": run.id, "status": run.status}
    if run.status != "done":
        return Attempt.model_validate(told | {"error": run.error or said})
    return Attempt.model_validate(told | {"outcome": outcome(Report.load(RunFolder(Path(run.folder)).report))})


def child(arguments: Sequence[str], watch: Watcher) -> str:
    """Run the command line in a process of its own and hand on what it says; its error, where it ended with one.

    It has a session of its own: a Ctrl-C is ours to hand on, once, so that its step is finished and saved.
    """
    command = [sys.executable, "-m", "tunesmith", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True
    ) as process:
        assert process.stderr is not None
        said: list[str] = []
        try:
            for line in process.stderr:
                said.append(line.rstrip())
                watch.note(said[-1].strip())
        except KeyboardInterrupt:
            process.send_signal(signal.SIGTERM)
            process.wait()
            raise
    start = next((i for i, line in enumerate(said) if line.startswith("error: ")), None)
    return "" if start is None else " ".join(said[start:]).removeprefix("error: ")


def outcome(report: Report) -> Outcome:
    """What a comparison takes from a report."""
    metric, fit = report.primary, report.fit
    scores = {system.name: system.metrics[metric] for system in report.systems if metric in system.metrics}
    return Outcome(
        score=scores["tuned"],
        baseline=report.verdict.baseline,
        baseline_score=scores[report.verdict.baseline],
        decision=report.verdict.decision,
        forgetting=report.forgetting,
        learning_rate=report.plan.learning_rate,
        loss=fit.train_loss,
        dev_loss=fit.dev_loss,
        trainable_parameters=fit.trainable_parameters,
        peak_bytes=fit.peak_bytes,
        peak_of=fit.peak_of,
        seconds=fit.seconds + fit.compile_seconds,
        total_seconds=sum(report.seconds.values()),
        tokens_per_second=fit.tokens_per_second,
    )
