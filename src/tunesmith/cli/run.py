"""``tunesmith run``: the whole story of one recipe."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.output import AsJson, Runs, Settings, show, show_json
from tunesmith.cli.progress import Watch
from tunesmith.core.errors import VERDICT_NO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunesmith.core.recipe import Recipe
    from tunesmith.core.report import Report
    from tunesmith.core.run import Run

EXAMPLES = {
    "run": (
        "tunesmith run support.yaml",
        "tunesmith run support.yaml -s train.epochs=5 -s method.rank=32",
        "tunesmith run support.yaml --dry-run",
        "tunesmith run support.yaml --json --runs /data/work",
        "tunesmith run examples/three_stages.yaml",
    )
}


def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe: YAML, JSON or TOML.", show_default=False)],
    settings: Settings = None,
    runs: Runs = Path(),
    as_json: AsJson = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its warnings; write nothing.")] = False,
) -> None:
    """Check the data, measure the baselines, train, and give the verdict.

    A recipe with stages (sft, reward, ppo) is a run for each; the same again goes on where it stopped.

    Exit code 0 when the verdict is SHIP, 7 when it is HOLD or NOT ENOUGH EVIDENCE.
    """
    from tunesmith.core import recipe_file

    if recipe_file.stages(recipe, settings or []):
        _stages(recipe, settings or [], runs, as_json, dry_run)
        return
    loaded = recipe_file.load(recipe, settings or [])  # before torch is imported: a wrong key answers at once
    if dry_run:
        _plans([loaded], as_json)
        return
    from tunesmith.flows.finetune import finetune

    with Watch() as watch:
        done = finetune(loaded, workspace=runs, watch=watch)
    finish(done, as_json)


def _stages(recipe: Path, settings: list[str], runs: Path, as_json: bool, dry_run: bool) -> None:
    """The stages of ``recipe``, or the plan of each."""
    from tunesmith.flows.stages import recipes, run_stages

    if dry_run:
        _plans(recipes(recipe, settings), as_json)
        return
    with Watch() as watch:
        found = run_stages(recipe, overrides=settings, workspace=runs, watch=watch)
    page = runs / "stages" / found.id / "stages.html"
    if as_json:
        show_json(found.model_dump(mode="json") | {"html": str(page)})
    else:
        from tunesmith.present.stages import stages_summary

        show(stages_summary(found, str(page)))
    if found.stages[-1].decision != "SHIP":
        raise typer.Exit(VERDICT_NO)


def finish(done: "Run", as_json: bool) -> None:
    """Print a finished run and leave with 0 for SHIP and 7 for any other verdict."""
    from tunesmith.core.report import Report

    folder = Path(done.folder)
    report = Report.load(folder / "report.json")
    if as_json:
        show_json(summary_object(done, report.adapter))
    else:
        show_report(report, folder)
    if done.verdict != "SHIP":
        raise typer.Exit(VERDICT_NO)


def show_report(report: "Report", folder: Path) -> None:
    """The summary of a run, and where its page and its weights lie."""
    from tunesmith.present import terminal

    show(terminal.summary(report, {"Weights": str(folder / report.adapter), "Report": str(folder / "report.html")}))


def summary_object(done: "Run", adapter: str) -> dict[str, Any]:
    """What ``--json`` prints about a run."""
    folder = Path(done.folder)
    return {
        "run": done.id,
        "verdict": done.verdict,
        "metric": done.metric,
        "tuned": done.score,
        "baseline": done.baseline,
        "report": str(folder / "report.json"),
        "html": str(folder / "report.html"),
        "adapter": str(folder / adapter) if adapter else None,
    }


def _plans(recipes: "Sequence[Recipe]", as_json: bool) -> None:
    """The plan of a recipe, or of each of its stages, and what a run would say of it."""
    from tunesmith.flows.prepare import prepare

    found = [prepare(recipe) for recipe in recipes]
    if as_json:
        told = [
            {"plan": p.plan.model_dump(mode="json"), "data": p.data.model_dump(mode="json"), "warnings": p.warnings}
            for p in found
        ]
        show_json(told[0] if len(told) == 1 else {"stages": told})
        return
    from tunesmith.present import terminal

    for prepared in found:
        show(terminal.data_summary(prepared.data))
        show(terminal.warnings(prepared.warnings))
        show(terminal.plan_summary(prepared.plan))
