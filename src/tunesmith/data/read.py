"""A file to a Dataset: the format found and explained, every row with its place, bad rows stopped at or set aside.

Notable: each format votes on the first rows, so a broken first line does not decide, and the sentence in ``why``
counts the rows that are as it says. No row is dropped in silence: it is an example or a ``BadRow`` with its reason.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

from tunesmith.core import parts
from tunesmith.core.errors import DataError, did_you_mean
from tunesmith.core.example import BadRow, Dataset, Example, Place
from tunesmith.core.recipe import DataRecipe
from tunesmith.data import containers
from tunesmith.data.formats._row import Format, Row
from tunesmith.data.rows import RawRow, RowError, listed

SAMPLE = 200
SHOWN = 5


def read(path: Path, recipe: DataRecipe, task: str, role: Literal["train", "dev", "test"] = "train") -> Dataset:
    """The examples of ``path``. ``role`` names the recipe's key in errors.

    Raises DataError (file, rows, columns) and PartError (an unknown ``format``).
    """
    contents = containers.load(path)
    file = str(path.expanduser())
    form, reason = _form(path, contents, recipe, role)
    examples: list[Example] = []
    bad: list[BadRow] = []
    for raw in contents.rows:
        try:
            examples.append(_convert(raw, file, form, recipe, task))
        except RowError as error:
            bad.append(_bad(raw, file, error))
    if bad and (recipe.on_bad_row == "stop" or not examples):
        raise _stopped(path, bad, len(contents.rows), "Not every row" if examples else "No row")
    return Dataset(
        examples=tuple(examples),
        format=form.name,
        why=_why(form, reason, len(examples), len(contents.rows), forced=recipe.format != "auto"),
        bad_rows=tuple(bad),
        file_sha256=contents.sha256,
    )


def format_of(path: Path, recipe: DataRecipe) -> Format:
    """The format as which ``read`` would read ``path``. Raises what ``read`` raises."""
    return _form(path, containers.load(path), recipe, "train")[0]


def _form(path: Path, contents: containers.Contents, recipe: DataRecipe, role: str) -> tuple[Format, str]:
    """The format of the first rows, and why it is that one."""
    file = str(path.expanduser())
    sound = [row for row in contents.rows if row.error is None]
    if not sound:
        raise _stopped(path, [_bad(r, file, r.error) for r in contents.rows if r.error], len(contents.rows), "No row")
    sample = [Row(r.value, Place(file=file, line=r.line), recipe.columns) for r in sound[:SAMPLE]]
    _check_columns(path, sample, recipe, role)
    return _format(path, sample, recipe)


def _convert(raw: RawRow, file: str, form: Format, recipe: DataRecipe, task: str) -> Example:
    if raw.error is not None:
        raise raw.error
    row = Row(raw.value, Place(file=file, line=raw.line), recipe.columns, recipe.split.group_by)
    return form.convert(row, task)


def _bad(raw: RawRow, file: str, error: RowError | None) -> BadRow:
    return BadRow(place=Place(file=file, line=raw.line), reason=str(error), raw=raw.text())


def _stopped(path: Path, bad: list[BadRow], rows: int, which: str) -> DataError:
    lines = [f"{b.place}{', ' if b.reason.startswith('field ') else ': '}{b.reason}" for b in bad[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f"... and {len(bad) - SHOWN:,} more.")
    way_out = "Fix the row" if len(bad) == 1 else "Fix the rows"
    if which != "No row":
        way_out += ", or set data.on_bad_row: quarantine to leave such rows out"
    lines.append(f"{which} of {path} can be used: {len(bad):,} of {rows:,} are bad. {way_out}.")
    return DataError("\n".join(lines))


def _why(form: Format, reason: str, good: int, rows: int, *, forced: bool) -> str:
    if forced:
        return f"read as {form.title} because the recipe says format: {form.name}"
    which = "every row has" if good == rows else f"{good:,} of {rows:,} rows have"
    return f"read as {form.title} because {which} {reason}"


# -- which format ----------------------------------------------------------------------------------


def _formats() -> list[Format]:
    found: list[Format] = [parts.find("data.formats", name) for name in parts.names("data.formats")]
    return sorted(found, key=lambda f: f.precedence)


def _format(path: Path, sample: list[Row], recipe: DataRecipe) -> tuple[Format, str]:
    if recipe.format != "auto":
        return parts.find("data.formats", recipe.format), ""
    usable = [f for f in _formats() if set(recipe.columns) <= set(f.columns)]
    votes: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {}
    for row in sample:
        for form in usable:
            if reason := form.recognises(row):
                votes[form.name] += 1
                reasons.setdefault(form.name, Counter())[reason] += 1
                break
    if votes:
        name, count = votes.most_common(1)[0]
        if 2 * count > len(sample):
            return parts.find("data.formats", name), reasons[name].most_common(1)[0][0]
    raise DataError(_undetected(path, sample, recipe))


def _columns_of(sample: list[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in sample for name in row.value))


def _undetected(path: Path, sample: list[Row], recipe: DataRecipe) -> str:
    names = _columns_of(sample)
    first, last = (names[0], names[1]) if len(names) > 1 else ("question", "reply")
    guess = "{text: %s, label: %s}" if "label" in names else "{prompt: %s, completion: %s}"
    mapped = f" with columns: {listed(f'{k}: {v}' for k, v in recipe.columns.items())}" if recipe.columns else ""
    known = "\n".join(f"  {f.name}: {f.example}" for f in _formats())
    return (
        f"{path}: the format of its rows cannot be told{mapped}; columns found: {listed(names)}.\n"
        f"Say which column is what, for instance\n  columns: {guess % (first, last)}\n"
        f"or name one of the formats with data.format:\n{known}"
    )


def _check_columns(path: Path, sample: list[Row], recipe: DataRecipe, role: str) -> None:
    """Columns that the recipe names must stand in the file, and our names in ``columns:`` must be known."""
    ours = sorted({name for form in _formats() for name in form.columns})
    there = _columns_of(sample)
    for our, theirs in recipe.columns.items():
        if our not in ours:
            raise DataError(f"data.columns: unknown name {our}.{did_you_mean(our, ours)} Known: {listed(ours)}.")
        if theirs not in there:
            raise DataError(_no_column(path, f"data.columns.{our}", theirs, there, role))
    group = recipe.split.group_by
    if group is not None and group not in there:
        raise DataError(_no_column(path, "data.split.group_by", group, there, role))


def _no_column(path: Path, key: str, name: str, there: list[str], role: str) -> str:
    hint = did_you_mean(name, there)
    return f"{path} (data.{role}) has no column {name}, which {key} names.{hint} Columns found: {listed(there)}."
