"""From a recipe to rows that can be trained: read, check, split, render, plan. No weights are loaded.

Notable: everything that can be refused is refused here, before a weight is read: unknown parts, rows that train
nothing, blocking findings, an answer longer than the context.
"""

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tunesmith.core import parts, seeds
from tunesmith.core.batch import TokenRow
from tunesmith.core.card import ModelCard
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.example import BadRow, Dataset, Example, Message, Place, Splits
from tunesmith.core.plan import Plan, Technique
from tunesmith.core.recipe import Recipe
from tunesmith.core.report import DataReport, Finding
from tunesmith.data import inspect, read, split
from tunesmith.data.batches import Steps
from tunesmith.data.render import Renderer
from tunesmith.data.rendered import render_all
from tunesmith.evaluate.score import default_metrics, find_metric
from tunesmith.evaluate.systems import find_baseline
from tunesmith.models import load as loading
from tunesmith.models import own_weights
from tunesmith.models.adapters._method import Method
from tunesmith.models.machine import machine
from tunesmith.models.skeleton import skeleton
from tunesmith.plan.resolve import resolve

SHORTEST_ROW = 8  # tokens that must be left beside those that a method puts before each row
DEV_ROWS = 1000  # looked at during training; more would cost time and tell nothing new
FEWEST_DEV_ROWS = 100  # or a quarter of the training rows where that is more


@dataclass(frozen=True)
class Prepared:
    """What the later steps need. ``dev_rows`` are at most ``DEV_ROWS`` rows of dev, drawn by the seed."""

    recipe: Recipe
    card: ModelCard
    tokenizer: Any
    objective: str
    data: DataReport
    splits: Splits
    test: tuple[Example, ...]
    labels: tuple[str, ...]
    train_rows: tuple[TokenRow, ...]
    dev_rows: tuple[TokenRow, ...]
    plan: Plan
    metrics: tuple[str, ...]
    max_new_tokens: int
    bad_rows: tuple[BadRow, ...]
    warnings: tuple[str, ...]

    @property
    def uses_head(self) -> bool:
        return self.objective == "classify"


@dataclass(frozen=True)
class _Sized:
    """A dataset whose every row renders, with its token rows; ``lengths`` and ``answers`` count tokens a row."""

    dataset: Dataset
    rows: dict[Place, tuple[TokenRow, ...]]
    lengths: tuple[int, ...]
    answers: tuple[int, ...]
    trained_share: float | None


@dataclass(frozen=True)
class Checked:
    """A dataset that was read, rendered and inspected. ``limit`` bounds a row in tokens; ``rows`` are not bounded."""

    dataset: Dataset
    rows: dict[Place, tuple[TokenRow, ...]]
    data: DataReport
    card: ModelCard
    config: Any
    tokenizer: Any
    limit: int


def check_data(recipe: Recipe, objective: str, store: Path | None = None) -> Checked:
    """Read, render and inspect the training file; findings are reported, not acted on. ``store`` keeps rendered rows
    from run to run."""
    dataset = read.read(Path(recipe.data.train), recipe.data, recipe.task)
    card, config, tokenizer = loading.card_of(recipe.model)
    own_weights.add(tokenizer, recipe.method.new_tokens)
    if card.kind == "encoder" and objective != "classify":
        raise RecipeError(
            f"model: {card.name} is an encoder, which cannot write; expected task: classify with objective: classify. "
            "Set these, or use a decoder."
        )
    limit = _limit(recipe, card)
    sized = _sized(dataset, tokenizer, card, objective, limit, recipe.data.on_bad_row, store)
    data = inspect.inspect(
        sized.dataset,
        task=recipe.task,
        token_lengths=sized.lengths,
        answer_lengths=sized.answers,
        max_length=limit,
        allow=recipe.data.allow,
    )
    data = data.model_copy(
        update={
            "trained_share": sized.trained_share,
            "quarantined": len(sized.dataset.bad_rows),
            "file_sha256": dataset.file_sha256,
        }
    )
    return Checked(sized.dataset, sized.rows, data, card, config, tokenizer, limit)


def prepare(recipe: Recipe, store: Path | None = None) -> Prepared:
    """Raises RecipeError, DataError, ModelError or PartError, each a sentence. ``store`` keeps rendered rows from run
    to run."""
    objective = check_parts(recipe)
    checked = check_data(recipe, objective, store)
    inspect.stop_on_blocking(checked.data)
    card, renderer = checked.card, Renderer(checked.tokenizer)
    dev, of_dev, dev_whole = _own_file(recipe, "dev", checked, objective, store)
    test, of_test, _ = _own_file(recipe, "test", checked, objective, store)
    bad_rows = tuple(b for d in (checked.dataset, dev, test) if d is not None for b in d.bad_rows)
    splits = split.lock(checked.dataset, recipe.data, task=recipe.task, dev=dev, test=test)
    if not splits.test:
        raise RecipeError("data.split.test is 0, so nothing could be proven. Give it a share, or name data.test.")
    labels = _labels(splits) if recipe.task == "classify" else ()
    whole = checked.rows | dev_whole
    plan, train_rows, dev_rows, cut = _rows(recipe, checked, splits, labels if objective == "classify" else (), whole)
    spelled = {name: tuple(map(renderer.spelled, getattr(splits, name))) for name in ("train", "dev", "test")}
    splits = splits.model_copy(update=spelled)  # the text of answers that call tools
    metrics = recipe.evaluate.metrics or default_metrics(recipe.task, [e.answer for e in splits.train])
    asked = _sample(splits.test, recipe.evaluate.limit, recipe.data.split.seed)
    warnings: tuple[str, ...] = ()
    if cut:
        warnings += (f"{cut} tokens at the ends of rows longer than {plan.max_length} were cut off.",)
    if parts.find("models.adapters", recipe.method.name).four_bits:
        warnings += ("The base is held in four bits: its baselines are those of the quantised base as well.",)
    if recipe.method.new_tokens:
        warnings += (
            "In baselines and forgetting the base reads a new token as the mean of its pieces, not as it would alone.",
        )
    if len(asked) < len(splits.test):
        drawn = f"{len(asked):,} of {len(splits.test):,} test rows"
        warnings += (f"{drawn} are asked, drawn by data.split.seed (evaluate.limit).",)
    return Prepared(
        recipe=recipe,
        card=card,
        tokenizer=checked.tokenizer,
        objective=objective,
        data=checked.data.model_copy(
            update={"quarantined": len(bad_rows), "findings": (*checked.data.findings, *of_dev, *of_test)}
        ),
        splits=splits,
        test=asked,
        labels=labels,
        train_rows=tuple(train_rows),
        dev_rows=tuple(dev_rows),
        plan=plan,
        metrics=tuple(metrics),
        max_new_tokens=_answer_limit(recipe, card, renderer, splits),
        bad_rows=bad_rows,
        warnings=warnings,
    )


def check_parts(recipe: Recipe) -> str:
    """The name of the objective; raises when a named part does not exist or does not go with the task."""
    _check_method(recipe)
    for metric in recipe.evaluate.metrics:
        if find_metric(metric).needs == "likelihood" and recipe.task == "classify":
            raise RecipeError(f"evaluate.metrics: {metric} scores written text and task is classify. Leave it out.")
    if not recipe.evaluate.baselines:
        raise RecipeError("evaluate.baselines is empty; a verdict needs something to beat. Name one, or leave it out.")
    for baseline in recipe.evaluate.baselines if recipe.evaluate.baselines != "auto" else ():
        find_baseline(baseline)
    default = "classify" if recipe.task == "classify" else "sft"
    objective = default if recipe.objective == "auto" else recipe.objective
    parts.find("objectives", objective)
    if objective == "classify" and recipe.task != "classify":
        raise RecipeError("objective is classify and task is generate; a head chooses labels. Set task: classify.")
    return objective


def _check_method(recipe: Recipe) -> None:
    """Raise for a method that does not exist, and for keys that would act on nothing: a key acts or is refused."""
    method: Method = parts.find("models.adapters", recipe.method.name)
    unread = sorted(recipe.method.changed() - {"name", *method.reads})
    if unread:
        reads = f"It reads: {', '.join(method.reads)}." if method.reads else "Set method.name: lora, which reads it."
        raise RecipeError(f"method.{unread[0]} has no effect with method.name: {method.name}. Leave it out. {reads}")
    if recipe.train.compile == "always" and method.four_bits:
        raise RecipeError("train.compile is always; layers of four bits cannot be compiled. Leave it out.")
    if recipe.train.memory == "least" and method.is_adapter:
        raise RecipeError("train.memory least has nothing more to give with an adapter. Set train.memory: checkpoint.")


def _own_file(
    recipe: Recipe, role: Literal["dev", "test"], checked: Checked, objective: str, store: Path | None
) -> tuple[Dataset | None, tuple[Finding, ...], dict[Place, tuple[TokenRow, ...]]]:
    """A dev or test file of its own, what was found in it, inspected as the training file is, and its rows. A test row
    may be longer than the model takes: it is asked all the same, and counts as it comes out."""
    path = getattr(recipe.data, role)
    if path is None:
        return None, (), {}
    dataset = read.read(Path(path), recipe.data, recipe.task, role)
    limit = checked.limit if role == "dev" else None
    sized = _sized(dataset, checked.tokenizer, checked.card, objective, limit, recipe.data.on_bad_row, store)
    found = inspect.inspect(sized.dataset, task=recipe.task, allow=recipe.data.allow)
    inspect.stop_on_blocking(found)
    told = (f.model_copy(update={"message": f"In the {role} file: {f.message}"}) for f in found.findings)
    return sized.dataset, tuple(told), sized.rows


def _limit(recipe: Recipe, card: ModelCard) -> int:
    method: Method = parts.find("models.adapters", recipe.method.name)
    room = card.context - (recipe.method.rank if method.soft else 0)
    if room < SHORTEST_ROW:
        raise RecipeError(
            f"method.rank is {recipe.method.rank}: as many tokens before each row leave no room in the context of "
            f"{card.name} ({card.context} tokens). Lower it."
        )
    return room if recipe.train.max_length == "auto" else min(recipe.train.max_length, room)


def to_train(example: Example) -> Example:
    """A labelled row as a conversation that ends with its label, for training a language model on labels."""
    if example.label is None:
        return example
    turn = Message(role="assistant", content=example.label)
    return example.model_copy(update={"messages": (*example.messages, turn), "label": None})


def _sized(
    dataset: Dataset,
    tokenizer: Any,
    card: ModelCard,
    objective: str,
    limit: int | None,
    on_bad_row: str,
    store: Path | None,
) -> _Sized:
    """Render every row once: its whole length, and whether anything of it would be trained within ``limit`` tokens."""
    bounded = Renderer(tokenizer, max_length=limit)
    label = 0 if objective == "classify" else -1  # which class it is, is known once the rows are split
    turns = dataset.examples if label == 0 else tuple(map(to_train, dataset.examples))
    added = "".join(f"/{token}" for token in sorted(tokenizer.get_added_vocab()))
    identity = f"{card.tokenizer_hash}/{card.template_hash}{added}"
    whole = render_all(turns, bounded, label=label, store=store, identity=identity)
    kept: dict[Place, tuple[TokenRow, ...]] = {}
    good, bad = [], list(dataset.bad_rows)
    for example, turn, found in zip(dataset.examples, turns, whole, strict=True):
        rows, reason = ((), found) if isinstance(found, str) else (found, _refusal(bounded, turn, found))
        if reason and (example.answer.strip() or example.ends_in_calls):
            bad.append(BadRow(place=example.place, reason=reason, raw=example.input_text[:2000]))
            continue
        good.append(example)  # an empty answer is the checks' finding, with all its rows counted
        kept[example.place] = () if reason else rows
    fresh = bad[len(dataset.bad_rows) :]
    if fresh and (on_bad_row == "stop" or not good):
        way_out = "Or set data.on_bad_row: quarantine." if good else "No row is left to train on."
        raise DataError("\n".join([*(b.reason for b in fresh[:5]), f"{len(fresh)} such rows. {way_out}"]))
    lengths = [sum(len(r.ids) for r in rows) for rows in kept.values()]
    answers = [sum(r.trained for r in rows) for rows in kept.values()]
    return _Sized(
        dataset.model_copy(update={"examples": tuple(good), "bad_rows": tuple(bad)}),
        kept,
        tuple(lengths),
        tuple(answers),
        None if label == 0 else sum(answers) / max(sum(lengths), 1),
    )


def _refusal(bounded: Renderer, example: Example, rows: tuple[TokenRow, ...]) -> str | None:
    try:
        bounded.bound(example, rows)
    except DataError as error:
        return str(error)
    return None


def _labels(splits: Splits) -> tuple[str, ...]:
    return tuple(sorted({e.answer for e in splits.train}))


def _sample(rows: tuple[Example, ...], limit: int | None, seed: int) -> tuple[Example, ...]:
    """At most ``limit`` rows, drawn by the seed, in their order."""
    if limit is None or limit >= len(rows):
        return rows
    chosen = sorted(random.Random(seeds.stream(seed, "test-limit")).sample(range(len(rows)), limit))
    return tuple(rows[i] for i in chosen)


def _rows(
    recipe: Recipe,
    checked: Checked,
    splits: Splits,
    labels: tuple[str, ...],
    whole: dict[Place, tuple[TokenRow, ...]],
) -> tuple[Plan, list[TokenRow], list[TokenRow], int]:
    bounded = Renderer(checked.tokenizer, max_length=checked.limit)
    number = {label: i for i, label in enumerate(labels)}
    cut = 0

    def render(examples: tuple[Example, ...]) -> list[TokenRow]:
        nonlocal cut
        found: list[TokenRow] = []
        for example in examples:
            done = bounded.bound(example, whole[example.place])
            cut += done.truncated
            found += [replace(row, label=number[example.answer]) for row in done.rows] if labels else done.rows
        return found

    train_rows = render(splits.train)
    method: Method = parts.find("models.adapters", recipe.method.name)
    most = min(DEV_ROWS, max(FEWEST_DEV_ROWS, len(train_rows) // 4))
    dev_rows = render(_sample(splits.dev, most, recipe.train.seed))
    plan = resolve(
        recipe,
        checked.card,
        [len(r.ids) for r in train_rows],
        lambda batch, longest: Steps(
            train_rows, batch_tokens=batch, micro_tokens=longest, pad_id=0, seed=recipe.train.seed
        ).per_epoch(),
        dev_tokens=sum(len(r.ids) for r in dev_rows),
        machine=machine(),
        technique=_technique(recipe, method, checked, len(labels)),
    )
    return plan, train_rows, dev_rows, cut


def _technique(recipe: Recipe, method: Method, checked: Checked, classes: int) -> Technique:
    """``classes`` is 0 without a head."""
    card = checked.card
    trained = method.count(skeleton(card, checked.config, head=bool(classes)), recipe.method)
    trained += classes * (card.width + 1)
    return Technique(not method.is_adapter, trained, method.rate, method.most_rate, four_bits=method.four_bits)


def _answer_limit(recipe: Recipe, card: ModelCard, renderer: Renderer, splits: Splits) -> int:
    """Longest answer to write: the recipe's, or a quarter more than the longest training answer, at most a third of
    the context."""
    if recipe.evaluate.max_new_tokens != "auto":
        return min(recipe.evaluate.max_new_tokens, card.context - 1)
    if recipe.task == "classify":
        return 16
    longest = max(
        (len(renderer.tokenizer(e.answer, add_special_tokens=False).input_ids) for e in splits.train), default=16
    )
    return max(8, min(longest * 5 // 4 + 4, card.context // 3))
