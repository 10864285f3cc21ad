"""``tunesmith plan``: memory, time and money of a training, before anything is spent."""

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.output import AsJson, Runs, Settings, recipes_of, show, show_json, tell

EXAMPLES = {
    "plan": (
        "tunesmith plan support.yaml",
        "tunesmith plan support.yaml --fit -s budget.memory=8GB",
        "tunesmith plan support.yaml --devices --out plan.html",
        "tunesmith plan support.yaml -s model=meta-llama/Llama-3.1-405B --device h200 --rows 10000 --tokens 800",
        "tunesmith plan support.yaml --probe --json",
    )
}


def plan(
    recipe: Annotated[Path, typer.Argument(help="The recipe: YAML, JSON or TOML.", show_default=False)],
    settings: Settings = None,
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="NAME", help="A device of the table.", show_default="the machine at hand"),
    ] = None,
    count: Annotated[int, typer.Option("--count", metavar="N", help="So many of them, which share the weights.")] = 1,
    fit: Annotated[bool, typer.Option("--fit", help="Find settings that fit memory, time and money.")] = False,
    devices: Annotated[bool, typer.Option("--devices", help="Tabulate the devices of the table.")] = False,
    devices_file: Annotated[
        Path | None, typer.Option("--devices-file", metavar="FILE", help="Devices of your own (JSON).")
    ] = None,
    rows: Annotated[int | None, typer.Option("--rows", metavar="N", help="Rows, instead of the recipe's file.")] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", metavar="N", help="Tokens of a row, with --rows.")] = None,
    usd: Annotated[
        float | None, typer.Option("--usd", metavar="X", help="What it may cost, for --fit or --devices.")
    ] = None,
    probe: Annotated[bool, typer.Option("--probe", help="Measure this machine first, for 10 seconds.")] = False,
    runs: Runs = Path(),
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the page there.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Foresee memory by part, time, cost and energy of a recipe's training.

    No weight is read, so any model whose config.json is here, or whose name is known, can be planned. Earlier runs
    of the workspace correct the time, three at least, begun after a --probe. Exit code 4 when it does not fit.
    """
    from tunesmith.core import files
    from tunesmith.core.errors import MemoryNeeded
    from tunesmith.flows.plan import Asked, plans, probed

    loaded = recipes_of(recipe, settings or [])
    if probe:
        tell("Measuring this machine, about 10 seconds.")
        probed()
    asked = Asked(device, count, devices_file, rows, tokens, usd, fit, devices)
    found = plans(loaded, asked, workspace=runs)
    if out is not None:
        from tunesmith.present.forecast import render_forecast

        files.write_text(out, render_forecast(*found))
    if as_json:
        told = [one.model_dump(mode="json") for one in found]
        show_json((told[0] if len(told) == 1 else {"stages": told}) | ({"html": str(out)} if out else {}))
    else:
        from tunesmith.present.forecast import forecast_summary

        for one in found:
            show(forecast_summary(one, str(out) if out and one is found[-1] else ""))
    if not all(one.fits for one in found):
        raise typer.Exit(MemoryNeeded.exit_code)
