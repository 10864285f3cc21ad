"""``tunesmith init``: four questions, or flags, and a commented recipe.

Notable: the answers offered as defaults are read off the data: its format, whether the answers are classes, and which
metric fits them.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from tunesmith.cli.output import AsJson, show_json, tell
from tunesmith.core.errors import DataError, RecipeError, did_you_mean

EXAMPLES = {
    "init": (
        "tunesmith init",
        "tunesmith init support.yaml --data tickets.jsonl --yes",
        "tunesmith init topics.yaml --data news.csv --task classify --goal macro_f1 --yes",
        "tunesmith init codes.yaml --data notes.csv --column text=diagnosis --column label=code --yes",
        "tunesmith init support.yaml --data tickets.jsonl --dry-run",
    )
}
TASKS = ("generate", "classify", "prefer")


def init(
    path: Annotated[Path, typer.Argument(help="Where to write the recipe.")] = Path("recipe.yaml"),
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FILE", help="File with the examples.", show_default=False)
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="TASK", help="generate, classify or prefer.", show_default="by the data"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="bundled, a folder, or a hub id.", show_default="bundled"),
    ] = None,
    goal: Annotated[
        str | None, typer.Option("--goal", metavar="METRIC", help="What counts as good.", show_default="by the data")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="OURS=THEIRS", help="How the file calls a column of ours; may be repeated."),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", metavar="NAME", help="lora, full, dora, ...; docs/methods.md lists them.")
    ] = "lora",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take what was detected.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a recipe that is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the recipe and write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a commented recipe, from four questions or from flags."""
    _free(path, force or dry_run)
    answers = _Answers(ask=not yes and sys.stdin.isatty())
    file = Path(answers.get(data, "Which file holds the examples?", None, "--data")).expanduser()
    named = _columns(columns or [])
    seen = look(file, named)
    tell(f"{len(seen.answers):,} examples, {seen.why}.")
    chosen_task = answers.get(
        task, "Should the model generate an answer, classify, or learn what people prefer?", seen.task, "--task"
    )
    chosen_model = answers.get(model, "Which model? (bundled, a folder, or a hub id)", "bundled", "--model")
    chosen_goal = answers.get(goal, "What counts as good? (a metric)", seen.metric(chosen_task), "--goal")
    raw = {
        "model": _beside(chosen_model, path),
        "task": chosen_task,
        "data": {"train": _beside(file, path), "columns": named},
        "method": {"name": method},
        "evaluate": {"metrics": [_known("evaluate.metrics", chosen_goal)]},
    }
    _known("models.adapters", method)
    from tunesmith.core import files, recipe_file
    from tunesmith.core.recipe import Recipe

    text = recipe_file.commented(Recipe.parse(raw, "init"))
    if dry_run:
        typer.echo(text)
        return
    files.write_text(path, text)
    if as_json:
        show_json({"recipe": str(path), **raw})
    else:
        tell(f"Wrote {path}. Next: tunesmith check {path}, then tunesmith run {path}")


class Seen:
    """What the data file looks like: ``answers`` of its rows, the format's ``why``, and what the rows have beside
    them."""

    def __init__(self, answers: Sequence[str], why: str, *, labelled: bool, preferred: bool = False) -> None:
        self.answers, self.why = answers, why
        self.json = sum(_is_json_object(a) for a in answers) > len(answers) / 2
        words = median(len(a.split()) for a in answers) if answers else 0
        classes = len(set(answers))
        few = classes <= 200 and 5 * classes <= len(answers) and words <= 5 and not self.json
        self.task = "prefer" if preferred else "classify" if labelled or few else "generate"

    def metric(self, task: str) -> str:
        """The primary metric that a run would take for these answers."""
        from tunesmith.evaluate.score import default_metrics

        known: Any = task if task in TASKS else "generate"  # the recipe refuses it
        return default_metrics(known, self.answers)[0]


def _columns(pairs: Sequence[str]) -> dict[str, str]:
    """``label=code`` and so on as a mapping. Raises RecipeError."""
    named: dict[str, str] = {}
    for pair in pairs:
        ours, _, theirs = (part.strip() for part in pair.partition("="))
        if not (ours and theirs):
            raise RecipeError(f"--column {pair[:80]}: expected OURS=THEIRS, such as label=code.")
        if ours in named:
            raise RecipeError(f"--column {pair[:80]}: {ours} is {named[ours]} already. Give each column once.")
        named[ours] = theirs
    return named


def look(path: Path, columns: dict[str, str]) -> Seen:
    """Read the data file and see what it is good for. Raises DataError."""
    from tunesmith.core.recipe import DataRecipe
    from tunesmith.data.read import read

    recipe = DataRecipe(train=str(path), columns=columns, on_bad_row="quarantine")
    dataset = read(path, recipe, "prefer")  # which refuses no row that another task would take
    if dataset.bad_rows:
        bad, first = len(dataset.bad_rows), dataset.bad_rows[0]
        rows = bad + len(dataset.examples)
        tell(f"{bad:,} of {rows:,} rows are bad; tunesmith check {path} names them. {first.place}: {first.reason}")
    labelled = bool(dataset.examples) and all(e.label is not None for e in dataset.examples)
    preferred = bool(dataset.examples) and all(e.rejected or e.wanted is not None for e in dataset.examples)
    return Seen([e.answer for e in dataset.examples], dataset.why, labelled=labelled, preferred=preferred)


class _Answers:
    """Takes a flag, or asks, or takes the default."""

    def __init__(self, ask: bool) -> None:
        self.ask = ask

    def get(self, given: Any, question: str, default: str | None, flag: str) -> str:
        if given is not None:
            return str(given)
        if self.ask:
            return str(typer.prompt(question, default=default, err=True))
        if default is None:
            raise DataError(f"No data file was given. Give one with {flag}, for instance {flag} tickets.jsonl.")
        return default


def _free(path: Path, may_replace: bool) -> None:
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise RecipeError(f"{path}: init writes YAML; expected a name that ends in .yaml.")
    if path.is_dir():
        raise RecipeError(f"{path} is a folder; expected the name of a file to write.")
    if path.exists() and not may_replace:
        raise RecipeError(f"{path} exists already and was left as it is. Give another name, or --force to replace it.")


def _known(room: str, name: str) -> str:
    """``name`` when it is a part of ``room``. Raises RecipeError with the nearest name."""
    from tunesmith.core import parts

    names = parts.names(room)
    if name not in names:
        kind = room.rsplit(".", 1)[-1]
        raise RecipeError(f'No {kind} called "{name}".{did_you_mean(name, names)} There are: {", ".join(names)}.')
    return name


def _beside(path: Path | str, recipe: Path) -> str:
    """``path`` as the recipe's folder sees it; what is no path on this disk stays as it is."""
    if not Path(path).expanduser().exists() or str(path) == "bundled":
        return str(path)
    near = Path(os.path.relpath(Path(path).expanduser(), recipe.absolute().parent)).as_posix()
    return str(Path(path).expanduser().absolute()) if near.startswith("../..") else near


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
