"""What verbs print: data to stdout, everything else to stderr; and the options that several verbs share."""

import contextlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tunesmith.core.recipe import Recipe
    from tunesmith.core.run import Run
    from tunesmith.records.index import Index

LONGEST = 1_000_000  # characters of a message

Runs = Annotated[
    Path, typer.Option("--runs", metavar="DIR", help="Workspace: the folder that holds runs/ and the index of runs.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("-s", "--set", metavar="KEY=VALUE", help="Override a key of the recipe; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def examples(*lines: str) -> str:
    """The epilog of a verb's help: one example a line."""
    return "\n".join(["Examples:", *lines])


def tell(text: str) -> None:
    """A line for the reader's eye, on stderr; what data may have put into it cannot steer the terminal."""
    from tunesmith.present.words import clean

    with contextlib.suppress(OSError):  # a terminal that is gone changes no exit code
        typer.echo(clean(text, LONGEST), err=True)


def recipes_of(path: Path, settings: Sequence[str]) -> "tuple[Recipe, ...]":
    """The recipe in ``path``, or that of each of its stages. Raises RecipeError."""
    from tunesmith.core import recipe_file

    if not recipe_file.stages(path, settings):
        return (recipe_file.load(path, settings),)
    from tunesmith.flows.stages import recipes

    return recipes(path, settings)


def index_of(workspace: Path) -> "Index | None":
    """The index of a workspace, or None where it has no runs: nothing is written by looking. Raises DataError."""
    from tunesmith.core.errors import DataError
    from tunesmith.records.index import Index

    if not workspace.is_dir():
        raise DataError(f"--runs {workspace} is no folder. Name the folder that a run was started in.")
    return Index.open(workspace) if (workspace / "runs").is_dir() else None


def the_run(name: str, workspace: Path) -> "Run":
    """The run called ``name``. Raises DataError."""
    from tunesmith.core.errors import DataError

    index = index_of(workspace)
    if index is None:
        raise DataError(f'No run called "{name}": there is none in {workspace.absolute()} yet. See tunesmith run.')
    for notice in index.notices:  # a run that cannot be read is not found either
        tell(notice)
    return index.get(name)


def show(what: Any) -> None:
    """A text or a rich renderable on stdout."""
    if isinstance(what, str):
        typer.echo(what.rstrip("\n"))
        return
    from rich.console import Console

    Console().print(what)


def show_json(value: Any) -> None:
    """``value`` (plain values) as JSON on stdout, where a number that is not finite, which JSON has not, is null."""
    typer.echo(json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    """
    >>> _finite({"rows": [1.5, float("inf"), None]})
    {'rows': [1.5, None, None]}
    """
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
