"""Reading and checking alone, and showing what would be trained."""

from dataclasses import dataclass
from pathlib import Path

from tunesmith.core.errors import DataError
from tunesmith.core.recipe import Recipe
from tunesmith.core.report import DataReport
from tunesmith.data.read import format_of
from tunesmith.data.render import Renderer
from tunesmith.data.split import overlap
from tunesmith.flows.check_recipe import check_parts
from tunesmith.flows.prepare import files_of, split_of
from tunesmith.flows.rows import label_of, turns


@dataclass(frozen=True)
class MaskedRow:
    """A rendered row as pieces of text; ``pieces`` holds (text, is trained)."""

    id: str
    pieces: tuple[tuple[str, bool], ...]
    tokens: int
    trained: int


def check(recipe: Recipe, show_mask: int = 0) -> tuple[DataReport, list[MaskedRow]]:
    """The data report of a recipe's files and the first ``show_mask`` training rows with their trained tokens marked.
    Where dev or test is a file of its own, rows are split as a run would, which raises what it would raise."""
    objective = check_parts(recipe)
    files = files_of(recipe, objective)
    checked, data = files.checked, files.data
    if (files.dev or files.test) and not data.blocking:
        found = (*data.findings, *overlap(split_of(recipe, files), recipe.data))
        data = data.model_copy(update={"findings": found})
    renderer = Renderer(checked.tokenizer, max_length=checked.limit)
    label, rows = label_of(checked.card, objective), []
    for example in checked.dataset.examples[:show_mask]:
        for row in (
            r for turn in turns(example, objective, recipe.task, label) for r in renderer.rows(turn, label).rows
        ):
            flags = [w > 0 for w in row.weight]
            rows.append(MaskedRow(example.id, _pieces(checked.tokenizer, row.ids, flags), len(row.ids), row.trained))
    return data, rows


def check_file(recipe: Recipe, show_mask: int = 0, *, task_given: bool) -> tuple[DataReport, list[MaskedRow]]:
    """``check`` of a file that nobody wrote a recipe for: its format says what is learned from such rows, unless the
    task is given, and the report says what was taken."""
    form = format_of(Path(recipe.data.train), recipe.data)
    if form.task != "prefer" or (task_given and recipe.task != "prefer"):
        return check(recipe, show_mask)
    objective = recipe.objective.model_copy(update={"name": form.objective})
    taken = f"task: {form.task}" + (f", objective: {form.objective}" if form.objective != "auto" else "")
    try:
        data, rows = check(recipe.model_copy(update={"task": form.task, "objective": objective}), show_mask)
    except DataError as error:
        if task_given:
            raise
        raise DataError(f"{error}\nChecked with {taken}; --task names another task.") from None
    return data.model_copy(update={"why": f"{data.why}; checked with {taken}"}), rows


def _pieces(tokenizer: object, ids: tuple[int, ...], flags: list[bool]) -> tuple[tuple[str, bool], ...]:
    pieces: list[tuple[str, bool]] = []
    start = 0
    for i in range(1, len(ids) + 1):
        if i == len(ids) or flags[i] != flags[start]:
            pieces.append((tokenizer.decode(list(ids[start:i])), flags[start]))  # type: ignore[attr-defined]
            start = i
    return tuple(pieces)
