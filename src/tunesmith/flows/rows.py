"""Every example of a file as the token rows that an objective learns from, whole and bounded.

Notable: a row is rendered once, whatever is then made of it; what would train nothing is a bad row with its reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.batch import TokenRow
from tunesmith.core.card import ModelCard
from tunesmith.core.errors import DataError
from tunesmith.core.example import BadRow, Dataset, Example, Message, Place, Splits
from tunesmith.core.learnable import check_answers
from tunesmith.core.recipe import Recipe, Task
from tunesmith.data import preferences
from tunesmith.data.render import Renderer
from tunesmith.data.rendered import Found, render_all
from tunesmith.objectives._objective import Objective


@dataclass(frozen=True)
class Sized:
    """A dataset whose every row renders, with its token rows; ``lengths`` and ``answers`` count tokens a row."""

    dataset: Dataset
    rows: dict[Place, tuple[TokenRow, ...]]
    lengths: tuple[int, ...]
    answers: tuple[int, ...]
    trained_share: float | None


def to_train(example: Example) -> Example:
    """A labelled row as a conversation that ends with its label, for training a language model on labels."""
    if example.label is None:
        return example
    turn = Message(role="assistant", content=example.label)
    return example.model_copy(update={"messages": (*example.messages, turn), "label": None})


def sized(
    dataset: Dataset,
    tokenizer: Any,
    card: ModelCard,
    objective: Objective,
    recipe: Recipe,
    limit: int | None,
    store: Path | None,
) -> Sized:
    """Render every row once: its whole length, and whether anything of it would be trained within ``limit`` tokens."""
    bounded = Renderer(tokenizer, max_length=limit)
    label = label_of(card, objective)
    shown = [turns(example, objective, recipe.task, label) for example in dataset.examples]
    added = "".join(f"/{token}" for token in sorted(tokenizer.get_added_vocab()))
    identity = f"{card.tokenizer_hash}/{card.template_hash}{added}"
    flat = iter(
        render_all([turn for own in shown for turn in own], bounded, label=label, store=store, identity=identity)
    )
    kept: dict[Place, tuple[TokenRow, ...]] = {}
    good, bad = [], list(dataset.bad_rows)
    for example, own in zip(dataset.examples, shown, strict=True):
        rows, reason = _whole(bounded, own, [next(flat) for _ in own])
        if reason and (example.answer.strip() or example.ends_in_calls):
            bad.append(BadRow(place=example.place, reason=reason, raw=example.input_text[:2000]))
            continue
        good.append(example)  # an empty answer is the checks' finding, with all its rows counted
        kept[example.place] = () if reason else rows
    fresh = bad[len(dataset.bad_rows) :]
    if fresh and (recipe.data.on_bad_row == "stop" or not good):
        way_out = "Or set data.on_bad_row: quarantine." if good else "No row is left to train on."
        raise DataError("\n".join([*(b.reason for b in fresh[:5]), f"{len(fresh)} such rows. {way_out}"]))
    lengths = [sum(len(r.ids) for r in rows) for rows in kept.values()]
    answers = [sum(r.trained for r in rows) for rows in kept.values()]
    return Sized(
        dataset.model_copy(update={"examples": tuple(good), "bad_rows": tuple(bad)}),
        kept,
        tuple(lengths),
        tuple(answers),
        None if label == 0 else sum(answers) / max(sum(lengths), 1),
    )


def label_of(card: ModelCard, objective: Objective) -> int:
    """0 where rows are inputs for a head (which class it is, the split will tell), else -1."""
    return 0 if card.kind == "encoder" or objective.needs == "class_logp" else -1


def turns(example: Example, objective: Objective, task: Task, label: int) -> tuple[Example, ...]:
    """What is rendered of a row. Raises DataError where it has not what the objective learns from."""
    if task != "prefer":
        return (example if label == 0 else to_train(example),)
    check_answers(example, objective.name, unit=objective.unit)
    return preferences.variants(example)


def _whole(
    bounded: Renderer, shown: Sequence[Example], found: Sequence[Found]
) -> tuple[tuple[TokenRow, ...], str | None]:
    """The rows of all that is ``shown``, and why they cannot be trained, if they cannot."""
    rows: tuple[TokenRow, ...] = ()
    for turn, one in zip(shown, found, strict=True):
        if isinstance(one, str):
            return (), one
        try:
            bounded.bound(turn, one)
        except DataError as error:
            return rows, str(error)
        rows += one
    return rows, None


def answer_limit(recipe: Recipe, card: ModelCard, renderer: Renderer, splits: Splits) -> int:
    """Longest answer to write: the recipe's, or a quarter more than the longest training answer, at most a third of
    the context."""
    if recipe.evaluate.max_new_tokens != "auto":
        return min(recipe.evaluate.max_new_tokens, card.context - 1)
    if recipe.task != "generate":
        return 16
    longest = max(
        (len(renderer.tokenizer(e.answer, add_special_tokens=False).input_ids) for e in splits.train), default=16
    )
    return max(8, min(longest * 5 // 4 + 4, card.context // 3))
