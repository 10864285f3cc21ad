"""``tunesmith check``: what the data looks like and what would stop a run."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.output import LONGEST, AsJson, recipes_of, show, show_json, tell
from tunesmith.core.errors import RecipeError

if TYPE_CHECKING:
    from tunesmith.core.report import DataReport
    from tunesmith.flows.check import MaskedRow

    Checked = tuple[str, DataReport, list[MaskedRow]]  # with the name of the objective

EXAMPLES = {
    "check": (
        "tunesmith check tickets.jsonl",
        "tunesmith check support.yaml --show-mask --rows 5",
        "tunesmith check news.csv --column text=body --column label=topic",
        "tunesmith check reviews.parquet --task classify",
        "tunesmith check examples/three_stages.yaml",
        "tunesmith check tickets.jsonl --on-bad-row quarantine --json",
    )
}
BLOCKED = 2


def check(
    path: Annotated[Path, typer.Argument(metavar="FILE|RECIPE", help="A data file, or a recipe.", show_default=False)],
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="TASK",
            help="generate, classify or prefer; for a file of preferences it need not be named.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="Model whose tokens are counted.", show_default="bundled"),
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option("--column", metavar="OURS=THEIRS", help="Name a column; may be repeated.")
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help="Name of a format, when detection is wrong.")
    ] = None,
    on_bad_row: Annotated[
        str | None, typer.Option("--on-bad-row", metavar="WHAT", help="stop or quarantine.", show_default=False)
    ] = None,
    show_mask: Annotated[bool, typer.Option("--show-mask", help="Print rows with the trained text marked.")] = False,
    rows: Annotated[
        int, typer.Option("--rows", metavar="N", min=1, max=1000, help="How many rows --show-mask prints.")
    ] = 3,
    as_json: AsJson = False,
) -> None:
    """Check a data file or a recipe's data, and name what would stop a run.

    Of a recipe with stages, each stage's data are checked as it learns from them.

    Exit code 2 when a finding is blocking. Nothing is written.
    """
    settings = _settings(
        {"task": task, "model": model, "data.format": format_, "data.on_bad_row": on_bad_row}, column or []
    )
    found = _checked(path, settings, rows if show_mask else 0, task_given=task is not None)
    blocking = sum(len(report.blocking) for _, report, _ in found)
    if as_json:
        told = [_told(report, masks) for _, report, masks in found]
        staged = [{"stage": name} | one for (name, _, _), one in zip(found, told, strict=True)]
        show_json(told[0] if len(told) == 1 else {"stages": staged, "blocking": blocking})
    else:
        _show(found)
    if blocking:
        if not as_json:
            tell("A run would stop here. Fix the rows, or accept a check with data.allow in the recipe.")
        raise typer.Exit(BLOCKED)


def _checked(path: Path, settings: list[str], show_mask: int, *, task_given: bool) -> "list[Checked]":
    """A recipe is loaded, or that of each of its stages; a data file becomes the only key of one."""
    from tunesmith.core import recipe_file
    from tunesmith.core.recipe import Recipe
    from tunesmith.data.containers import admit

    if is_recipe(path):
        recipes = recipes_of(path, settings)
        from tunesmith.flows.check import check as run_checks

        return [(recipe.objective.name, *run_checks(recipe, show_mask)) for recipe in recipes]
    recipe = recipe_file.override(Recipe.parse({"data": {"train": str(admit(path).absolute())}}), settings)
    from tunesmith.flows.check import check_file

    return [("", *check_file(recipe, show_mask, task_given=task_given))]


def is_recipe(path: Path) -> bool:
    """Whether a path names a recipe: by its ending, and for JSON by an object under ``data``."""
    suffix = path.suffix.lower()
    if suffix != ".json":
        return suffix in (".yaml", ".yml", ".toml")
    from tunesmith.core.recipe_file import LARGEST

    if not path.is_file() or path.stat().st_size > LARGEST:
        return False
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and isinstance(value.get("data"), dict)


def _settings(given: dict[str, str | None], columns: Iterable[str]) -> list[str]:
    settings = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    for pair in columns:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            raise RecipeError(f"--column {pair}: expected ours=theirs, such as --column prompt=question.")
        settings.append(f"data.columns.{ours}={json.dumps(theirs)}")
    return settings


def _told(report: "DataReport", masks: "list[MaskedRow]") -> dict[str, Any]:
    more = {"blocking": len(report.blocking), "masked": [asdict(row) for row in masks]}
    return report.model_dump(mode="json") | more


def _show(found: "list[Checked]") -> None:
    from tunesmith.present import terminal

    for number, (name, report, masks) in enumerate(found, 1):
        if len(found) > 1:
            show(f"Stage {number} of {len(found)}: {name}")
        show(terminal.data_summary(report))
        _show_masks(masks)


def _show_masks(rows: Sequence["MaskedRow"]) -> None:
    if not rows:
        return
    from rich.text import Text

    from tunesmith.present.words import clean

    legend = Text("\nTrained tokens are ")
    legend.append("⟦marked⟧", style="bold green")
    show(legend + Text("; the rest is context."))
    for row in rows:
        text = Text(f"\n{row.id}, {row.trained} of {row.tokens} tokens trained\n", style="bold")
        for piece, trained in row.pieces:
            shown = clean(piece, LONGEST)
            text.append(f"⟦{shown}⟧" if trained else shown, style="bold green" if trained else "dim")
        show(text)
