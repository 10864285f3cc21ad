"""``tunesmith combine``: the adapters of several runs become one."""

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.output import AsJson, Runs, show, show_json, the_run

EXAMPLES = {
    "combine": (
        "tunesmith combine 20261124-0126 20261124-0951 --out both",
        "tunesmith combine 20261124-0126 20261124-0951 --by ties --weights 0.7,0.3 --rank 16 --out both",
    )
}


def combine(
    run: Annotated[list[str], typer.Argument(help="Ids of runs, or their starts.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder for the adapter.")],
    by: Annotated[str, typer.Option("--by", metavar="WAY", help="linear, svd, ties or dare.")] = "linear",
    weights: Annotated[
        str | None, typer.Option("--weights", metavar="W,W", help="A weight a run; all alike otherwise.")
    ] = None,
    rank: Annotated[int, typer.Option("--rank", metavar="R", help="Rank of svd, ties and dare; linear adds up.")] = 16,
    density: Annotated[
        float, typer.Option("--density", metavar="SHARE", help="Share of the entries that ties and dare keep.")
    ] = 0.5,
    runs: Runs = Path(),
    as_json: AsJson = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="See whether they fit together; write nothing.")] = False,
) -> None:
    """Combine LoRA adapters of runs on the same base into one adapter, in PEFT's format.

    What the sum is worth is not known before it is measured: evaluate it on held-out rows of every task.
    """
    from tunesmith.core.errors import DataError, RecipeError

    names = [Path(the_run(name, runs).folder) / "adapter" for name in run]
    try:
        chosen = [float(w) for w in weights.split(",")] if weights else [1 / len(names)] * len(names)
    except ValueError:
        raise RecipeError(f'--weights is "{weights}"; expected a number a run, such as 0.7,0.3.') from None
    if out.exists():
        raise DataError(f"{out} exists already. Name another folder with --out, or delete it.")
    from tunesmith.models.combine import Way, check
    from tunesmith.models.combine import combine as join

    way = Way(by, rank, density)
    if dry_run:
        check(names, chosen, way)
    else:
        join(names, chosen, way, out)
    told = "they fit together; nothing was written" if dry_run else "equal to PEFT's own on a test row"
    if as_json:
        show_json({"folder": None if dry_run else str(out), "by": by, "weights": chosen, "runs": run})
    else:
        show(f"{out}: the {by} combination of {len(names)} adapters; {told}.")
