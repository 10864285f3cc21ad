"""What an objective can learn from: the task that it goes with, and the answers that a row must have.

Notable: ``needs`` and ``unit`` are those of ``objectives/_objective.py``; a plan knows them without loading it.
"""

from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.example import Example
from tunesmith.core.recipe import Task


def check_task(task: Task, objective: str, *, needs: str, unit: str) -> None:
    """Raises RecipeError where ``objective`` has nothing to learn from in ``task``."""
    if needs == "class_logp" and task != "classify":
        raise RecipeError(f"objective is {objective} and task is {task}; a head chooses labels. Set task: classify.")
    if unit in ("pair", "judged") and task != "prefer":
        raise RecipeError(
            f"objective is {objective} and task is {task}; {objective} learns from preferences. Set task: prefer."
        )
    if unit == "answer" and task != "generate":
        raise RecipeError(
            f"objective is {objective} and task is {task}; {objective} rewards what is written. Set task: generate."
        )


def check_answers(example: Example, objective: str, *, unit: str) -> None:
    """Raises DataError where a row of task ``prefer`` has neither two answers nor, unless pairs are needed, a
    judgement."""
    if example.rejected is not None or (unit != "pair" and example.wanted is not None):
        return
    wants = "a better and a worse answer" if unit == "pair" else "a judgement (label: true), or two answers"
    way_out = "Name kto, which learns from judged answers." if example.wanted is not None else "Set task: generate."
    raise DataError(f"{example.place}: objective {objective} learns from {wants}; the row has none. {way_out}")
