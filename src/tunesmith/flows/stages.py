"""A recipe in stages, such as supervised fine-tuning, a reward model and PPO against it (Ouyang et al., 2022): each is
a whole run that goes on from the former, with a verdict, checkpoints and a page of its own.

Notable: nothing is kept beside the runs. A stage's recipe names the runs that it stands on, so its hash says whether a
run of this workspace is that stage: one that is done is taken over, one that was stopped goes on, and starting the same
recipe again is all there is to resuming. What follows from a stage is filled in: ``start`` is the last policy,
``reward.model`` the last reward model.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunesmith.core import files, parts, recipe_file
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.noun import content_hash
from tunesmith.core.origin import Origin
from tunesmith.core.recipe import Recipe
from tunesmith.core.recipe_file import Stage
from tunesmith.core.report import Report
from tunesmith.core.run import Run
from tunesmith.core.stages import Staged, StageResult, Win
from tunesmith.data.inspect import stop_on_blocking
from tunesmith.flows import keeping
from tunesmith.flows.check_recipe import check_parts
from tunesmith.flows.finetune import ROWS, environment, finetune, versions
from tunesmith.flows.networks import TO_COME
from tunesmith.flows.prepare import files_of
from tunesmith.flows.resume import resume
from tunesmith.flows.watch import Silent, Watcher
from tunesmith.models.load import card_of
from tunesmith.objectives._objective import Objective
from tunesmith.present.stages import render_stages
from tunesmith.records.checkpoints import Checkpoints
from tunesmith.records.folder import RunFolder, as_it_stands
from tunesmith.records.index import Index

FOLDER = "stages"
GO_ON = ("interrupted", "crashed", "failed")  # the last from a checkpoint alone: else it begins anew
OF_ONE_TASK = ("evaluate", "reward", "rollout")  # groups of which a stage takes only what it can read
BOTH = ("limit", "min_gain")  # keys of evaluate that every task reads


def run_stages(
    path: Path | str, *, overrides: Sequence[str] = (), workspace: Path | str = ".", watch: Watcher | None = None
) -> Staged:
    """Run the stages of the recipe in ``path``, or go on with them; the page is ``workspace/stages/<id>/stages.html``.

    Raises the errors of ``core.errors``; what is done by then stays, and is taken over when this is called again.
    """
    watch, workspace, path = watch or Silent(), Path(workspace), Path(path)
    stages = recipe_file.stages(path, overrides)
    for recipe in recipes(path, overrides):  # whatever can be refused is refused before a stage runs
        watch.stage("Read and check", recipe.data.train)
        stop_on_blocking(files_of(recipe, check_parts(recipe), workspace / ROWS).data)
    folder = workspace / FOLDER / content_hash([(s.shared, s.own) for s in stages])[:10]
    follows: dict[str, str] = {}
    done: list[tuple[Stage, Run, dict[str, str]]] = []
    for number, stage in enumerate(stages, 1):
        watch.stage(f"Stage {number} of {len(stages)}", stage.name)
        recipe = _recipe(stage, path, follows)
        stands = {role: run for role, run in follows.items() if run in (recipe.start, recipe.reward.model)}
        run = _carried(recipe, workspace, watch)
        done.append((stage, run, {role: Path(place).name for role, place in stands.items()}))
        follows["reward" if _objective(stage).needs == "score" else "start"] = str(Path(run.folder).absolute())
        found = _staged(folder.name, done, len(stages))
        files.make_folder(folder)
        found.save(folder / "stages.json")
        files.write_text(folder / "stages.html", render_stages(found))
    return found


def recipes(path: Path, overrides: Sequence[str] = ()) -> tuple[Recipe, ...]:
    """The recipe of each stage, as far as it is known before the stages before it have run."""
    follows: dict[str, str] = {}
    found = []
    stages = recipe_file.stages(path, overrides)
    for number, stage in enumerate(stages):
        later = next((s.name for s in stages[number:] if _objective(s).needs == "score"), None)
        if _objective(stage).unit == "answer" and later and not follows and not _rewarded(stage):
            raise RecipeError(
                f"{stage.where}: {stage.name} learns from rewards, and the stage {later} comes after it. Put {later} "
                "before it, or give it reward.rules."
            )
        found.append(_recipe(stage, path, follows))
        follows |= {"reward": TO_COME} if _objective(stage).needs == "score" else {}
    return tuple(found)


def _objective(stage: Stage) -> Objective:
    found: Objective = parts.find("objectives", stage.name)
    return found


def _recipe(stage: Stage, path: Path, follows: dict[str, str]) -> Recipe:
    """The recipe of ``stage`` after the runs that it ``follows``. Raises RecipeError."""
    objective = _objective(stage)
    task = "prefer" if objective.unit in ("pair", "judged") else "generate"
    task = str(stage.own.get("task", stage.shared.get("task", task)))
    raw = {"task": task} | {k: v for k, v in stage.shared.items() if k not in OF_ONE_TASK}
    shared = stage.shared.get("evaluate") or {}
    raw["evaluate"] = {k: v for k, v in shared.items() if task == "generate" or k in BOTH}
    if objective.unit == "answer":
        raw |= {k: v for k, v in stage.shared.items() if k in ("reward", "rollout")}
    raw = _over(raw, {**stage.own, "task": task})
    if "start" in follows:
        raw.setdefault("start", follows["start"])
    if objective.unit == "answer" and "reward" in follows:
        raw["reward"] = {"model": follows["reward"]} | (raw.get("reward") or {})
    return recipe_file.absolute(Recipe.parse(raw, stage.where), path.absolute().parent, stage.where)


def _rewarded(stage: Stage) -> bool:
    """Whether the recipe itself names what rewards the answers of ``stage``."""
    asked = _over(stage.shared.get("reward") or {}, stage.own.get("reward") or {})
    return bool(isinstance(asked, dict) and (asked.get("rules") or asked.get("model")))


def _over(below: Any, above: Any) -> Any:
    """``above`` laid over ``below``, key by key."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return below | {k: _over(below[k], v) if k in below else v for k, v in above.items()}


def _carried(recipe: Recipe, workspace: Path, watch: Watcher) -> Run:
    """The run of ``recipe``: taken over, gone on with, or made."""
    asked = recipe.content_hash()
    for run in (as_it_stands(r) for r in Index.open(workspace).all() if r.recipe_hash == asked):
        if run.status not in ("done", *GO_ON) or not _same_files(run, recipe):
            continue
        if run.status == "done":
            watch.note(f"Taken over from run {run.id}, the same recipe on the same files.")
            return run
        if run.status == "failed" and not _goes_on(run, watch):
            continue
        watch.note(f"Going on with run {run.id} ({run.status}).")
        return resume(Path(run.folder), watch=watch)
    return finetune(recipe, workspace=workspace, watch=watch)


def _goes_on(run: Run, watch: Watcher) -> bool:
    """Whether a run that failed has a checkpoint that can be gone on from."""
    folder = RunFolder(Path(run.folder))
    if not Checkpoints(folder.checkpoints).all():
        return False
    try:
        resume(folder.path, dry_run=True)
    except (DataError, RecipeError) as error:
        watch.note(f"Run {run.id} failed and cannot go on; its stage begins anew: {error}")
        return False
    return True


def _same_files(run: Run, recipe: Recipe) -> bool:
    """Whether the run stands on the same files, base and versions."""
    try:
        then: Origin = keeping.read_origin(RunFolder(Path(run.folder)))
        same = all(files.sha256(Path(getattr(recipe.data, role))) == was for role, was in then.files.items())
        base = card_of(recipe.model)[0].fingerprint
    except (DataError, OSError):
        return False
    return same and then.versions == versions() and then.model["weights"] == base


def _staged(name: str, done: Sequence[tuple[Stage, Run, dict[str, str]]], total: int) -> Staged:
    reports = [Report.load(RunFolder(Path(run.folder)).report) for _, run, _ in done]
    last = reports[-1]
    rows = zip(done, reports, strict=True)
    policies = [stage.name for stage, _, _ in done[:-1] if _objective(stage).needs != "score"]
    return Staged(
        id=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        total=total,
        stages=tuple(_result(stage, report, stands) for (stage, _, stands), report in rows),
        wins=tuple(_wins(last, policies[-1] if policies else "start")) if last.rewarded is not None else (),
        rewarded=last.rewarded,
        notes=last.warnings,
        environment=environment(),
    )


def _result(stage: Stage, report: Report, follows: dict[str, str]) -> StageResult:
    primary = report.primary
    scores = {system.name: system.metrics[primary] for system in report.systems if primary in system.metrics}
    return StageResult(
        name=stage.name,
        task=report.recipe.task,
        run_id=report.run_id,
        follows=follows,
        metric=primary,
        score=scores["tuned"],
        baseline=report.verdict.baseline,
        baseline_score=scores[report.verdict.baseline],
        decision=report.verdict.decision,
        sentence=report.verdict.sentence,
        seconds=sum(report.seconds.values()),
    )


def _wins(report: Report, before: str) -> Iterator[Win]:
    """Tuned against the stage ``before`` and the base, and that against the base: by the reward, and by the judge where
    there is one."""
    told, own = report.rewarded, report.recipe.objective.name
    assert told is not None  # the caller looked
    for by, wins in (("reward", told.wins), ("judged", told.judged_wins)):
        of_base, of_before = (own, "base", wins.get("zero_shot")), (own, before, wins.get("start"))
        for system, against, share in (of_base, (before, "base", told.start_wins.get(by)), of_before):
            if share is not None:
                yield Win(system=system, against=against, by=by, share=share)
