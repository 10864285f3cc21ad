"""``tunesmith runs`` and ``tunesmith show``: what has been done, from the index and the reports."""

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.output import AsJson, Runs, index_of, show_json, tell, the_run
from tunesmith.cli.output import show as print_out
from tunesmith.cli.run import show_report
from tunesmith.core.errors import DataError

EXAMPLES = {
    "runs": ("tunesmith runs", "tunesmith runs --json", "tunesmith runs --runs tunesmith-demo"),
    "show": ("tunesmith show 20261124-0126", "tunesmith show 20261124-0126 --json"),
}


def runs(runs: Runs = Path(), as_json: AsJson = False) -> None:
    """List the runs of a workspace, newest first."""
    from tunesmith.records.folder import as_it_stands

    index = index_of(runs)
    found = [] if index is None else [as_it_stands(run) for run in index.all()]
    for notice in index.notices if index is not None else ():
        tell(notice)
    if as_json:
        show_json([run.model_dump(mode="json") for run in found])
    elif not found:
        tell(f"No runs in {runs.absolute()} yet. Start one with tunesmith run RECIPE.")
    else:
        from tunesmith.present import terminal

        print_out(terminal.runs_table(found))


def show(
    run: Annotated[str, typer.Argument(help="The run's id, or its start.", show_default=False)],
    runs: Runs = Path(),
    as_json: AsJson = False,
) -> None:
    """Show the verdict, the systems and the warnings of one run."""
    from tunesmith.core.report import Report
    from tunesmith.records.folder import as_it_stands

    found = as_it_stands(the_run(run, runs))
    path = Path(found.folder) / "report.json"
    if found.status != "done" or not path.is_file():
        why = f" ({found.error})" if found.error else ""
        raise DataError(f"Run {found.id} has no result: its status is {found.status}{why}.")
    try:
        report = Report.load(path)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"{path} cannot be read ({first}). Run its recipe again.") from error
    if as_json:
        show_json(report.model_dump(mode="json"))
        return
    show_report(report, path.parent)
