"""``tunesmith compare``: one recipe, many methods, the same data and seeds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.output import AsJson, Runs, Settings, show, show_json, tell
from tunesmith.cli.progress import Watch
from tunesmith.core.errors import DataError

if TYPE_CHECKING:
    from tunesmith.flows.compare import Grid

EXAMPLES = {
    "compare": (
        "tunesmith compare support.yaml --methods full,lora,dora,ia3",
        "tunesmith compare support.yaml --methods full,lora --seeds 3 -s train.epochs=2",
        "tunesmith compare support.yaml --methods lora,qlora --dry-run",
        "tunesmith compare support.yaml --methods lora,oft --json --runs /data/work",
    )
}


def compare(
    recipe: Annotated[Path, typer.Argument(help="The recipe: YAML, JSON or TOML.", show_default=False)],
    methods: Annotated[
        str, typer.Option("--methods", metavar="A,B,...", help="Methods of docs/methods.md, by commas.")
    ],
    seeds: Annotated[int, typer.Option("--seeds", help="Seeds a method, from train.seed on.")] = 1,
    settings: Settings = None,
    runs: Runs = Path(),
    as_json: AsJson = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be run and write nothing.")] = False,
) -> None:
    """Run a recipe with several methods: quality, forgetting, memory and time of each, side by side.

    Each run is a whole run with its report. What the workspace already holds is taken over, so that a comparison that
    was stopped goes on when it is asked for again. A run that fails stands in the table with its reason.
    """
    from tunesmith.flows import compare as flow

    named = [name.strip() for name in methods.split(",") if name.strip()]
    if dry_run:
        _plan(flow.planned(recipe, named, seeds, settings or [], runs), as_json)
        return
    with Watch() as watch:
        found = flow.compare(recipe, named, seeds=seeds, overrides=settings or [], workspace=runs, watch=watch)
    folder = runs / flow.FOLDER / found.id
    if as_json:
        show_json(found.model_dump(mode="json"))
    else:
        from tunesmith.present.comparison import comparison_summary

        show(comparison_summary(found))
    tell(f"The page: {folder / 'compare.html'}")
    if not any(method.outcomes for method in found.methods):
        first = found.methods[0].attempts[0]
        raise DataError(f"No run ended with a result. {first.method}: {first.error or first.status}")


def _plan(grid: "Grid", as_json: bool) -> None:
    from tunesmith.flows.prepare import prepare

    told: list[dict[str, Any]] = []
    for variant in grid.variants:
        plan = prepare(variant.recipe).plan
        told.append(
            {
                "method": variant.method,
                "seeds": list(grid.seeds),
                "learning_rate": plan.learning_rate,
                "steps": plan.steps,
                "memory": plan.memory,
                "left_out": list(variant.left_out),
            }
        )
    if as_json:
        show_json({"folder": str(grid.folder), "methods": told})
        return
    for row in told:
        left = f"; does not read {', '.join(row['left_out'])}" if row["left_out"] else ""
        rate = f"learning rate {row['learning_rate']:.1e}"
        show(f"{row['method']}: {len(grid.seeds)} run(s), {row['steps']} steps, {rate}, memory {row['memory']}{left}")
    show(f"The page would be {grid.folder / 'compare.html'}")
