"""``tunesmith resume``: a run that was stopped goes on."""

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.output import AsJson, Runs, the_run
from tunesmith.cli.progress import Watch
from tunesmith.cli.run import finish

EXAMPLES = {
    "resume": (
        "tunesmith resume 20261124-0126",
        "tunesmith resume 20261124-0126 --dry-run",
        "tunesmith resume 20261124-0126 --allow-change train.epochs",
        "tunesmith resume 20261124-0126 --strict --json",
    )
}


def resume(
    run: Annotated[str, typer.Argument(help="The run's id, or its start.", show_default=False)],
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-change", metavar="KEY", help="A key of the run's recipe.yaml that may have changed; repeatable."
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail where the newest checkpoint is damaged; take no older one.")
    ] = False,
    runs: Runs = Path(),
    as_json: AsJson = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")] = False,
) -> None:
    """Go on with a run that was stopped, from its newest whole checkpoint.

    Exit codes are those of run: 0 when the verdict is SHIP, 7 when it is HOLD or NOT ENOUGH EVIDENCE.
    """
    found = the_run(run, runs)
    from tunesmith.flows.resume import resume as go_on

    with Watch() as watch:
        done = go_on(Path(found.folder), allow=allow or (), strict=strict, dry_run=dry_run, watch=watch)
    if not dry_run:
        finish(done, as_json)
