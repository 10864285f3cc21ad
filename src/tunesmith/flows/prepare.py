"""From a recipe to rows that can be trained: read, check, split, render, plan. No weights are loaded.

Notable: everything that can be refused is refused here, before a weight is read: unknown parts, rows that train
nothing, blocking findings, an answer longer than the context.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tunesmith.core import parts, seeds
from tunesmith.core.batch import TokenRow
from tunesmith.core.card import ModelCard
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.example import BadRow, Dataset, Example, Place, Splits
from tunesmith.core.plan import Plan
from tunesmith.core.recipe import Recipe
from tunesmith.core.report import DataReport, Finding
from tunesmith.data import inspect, preferences, read, split
from tunesmith.data.batches import Steps
from tunesmith.data.render import Renderer
from tunesmith.evaluate.score import default_metrics
from tunesmith.flows.check_recipe import check_parts
from tunesmith.flows.planning import resolved, rollouts_planned, technique_of
from tunesmith.flows.rewarding import Company, parts_of_start, seen
from tunesmith.flows.rows import answer_limit, sized
from tunesmith.models import load as loading
from tunesmith.models import own_weights
from tunesmith.models.adapters._method import Method
from tunesmith.models.model import Model
from tunesmith.objectives._objective import Objective
from tunesmith.plan.families import shape_like
from tunesmith.plan.resolve import Data
from tunesmith.plan.resolve import dev_rows as looked_at

SHORTEST_ROW = 8  # tokens that must be left beside those that a method puts before each row
SAMPLE = 64  # rows of train and of dev that are answered to tell learning from memorising


@dataclass(frozen=True)
class Prepared:
    """What the later steps need. ``dev_rows`` are rows of dev, drawn by the seed; ``compared`` are
    the answers of each row with a preference, as they are evaluated. With the model come the tuned one that training
    goes on from (``before``), and who stands beside a policy that learns from rewards (``company``). ``doubt`` says why
    the test cannot be believed."""

    recipe: Recipe
    card: ModelCard
    tokenizer: Any
    objective: Objective
    data: DataReport
    splits: Splits
    test: tuple[Example, ...]
    labels: tuple[str, ...]
    train_rows: tuple[TokenRow, ...]
    dev_rows: tuple[TokenRow, ...]
    compared: dict[Place, TokenRow]
    plan: Plan
    metrics: tuple[str, ...]
    max_new_tokens: int
    bad_rows: tuple[BadRow, ...]
    warnings: tuple[str, ...]
    doubt: str = ""
    before: Model | None = None
    company: Company | None = None

    @property
    def uses_head(self) -> bool:
        return self.objective.needs in ("class_logp", "score")

    @property
    def rewarded(self) -> bool:
        """Whether the policy learns from rewards for its own answers."""
        return self.objective.unit == "answer"


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


def check_data(recipe: Recipe, objective: Objective, store: Path | None = None) -> Checked:
    """Read, render and inspect the training file; findings are reported, not acted on. ``store`` keeps rendered rows
    from run to run."""
    dataset = read.read(Path(recipe.data.train), recipe.data, recipe.task)
    card, config, tokenizer = loading.card_of(recipe.model)
    own_weights.add(tokenizer, recipe.method.new_tokens)
    if card.kind == "encoder" and objective.needs.startswith("token_logp"):
        able = "objective: reward" if recipe.task == "prefer" else "task: classify with objective: classify"
        raise RecipeError(
            f"model: {card.name} is an encoder, which cannot write; expected {able}. Set this, or use a decoder."
        )
    limit = _limit(recipe, card)
    rendered = sized(dataset, tokenizer, card, objective, recipe, limit, store)
    data = inspect.inspect(
        rendered.dataset,
        task=recipe.task,
        token_lengths=rendered.lengths,
        answer_lengths=rendered.answers,
        max_length=limit,
        allow=recipe.data.allow,
    )
    data = data.model_copy(
        update={
            "trained_share": rendered.trained_share,
            "quarantined": len(rendered.dataset.bad_rows),
            "file_sha256": dataset.file_sha256,
        }
    )
    return Checked(rendered.dataset, rendered.rows, data, card, config, tokenizer, limit)


@dataclass(frozen=True)
class Files:
    """All files of a recipe, read, rendered (``whole``) and inspected."""

    checked: Checked
    dev: Dataset | None
    test: Dataset | None
    whole: dict[Place, tuple[TokenRow, ...]]
    data: DataReport
    bad_rows: tuple[BadRow, ...]


def files_of(recipe: Recipe, objective: Objective, store: Path | None = None) -> Files:
    """The training file and those of dev and test, where they are of their own; findings are not acted on."""
    checked = check_data(recipe, objective, store)
    dev, of_dev, dev_whole = _own_file(recipe, "dev", checked, objective, store)
    test, of_test, test_whole = _own_file(recipe, "test", checked, objective, store)
    bad_rows = tuple(b for d in (checked.dataset, dev, test) if d is not None for b in d.bad_rows)
    found = {"quarantined": len(bad_rows), "findings": (*checked.data.findings, *of_dev, *of_test)}
    return Files(
        checked, dev, test, checked.rows | dev_whole | test_whole, checked.data.model_copy(update=found), bad_rows
    )


@dataclass(frozen=True)
class Ground:
    """What a recipe stands on: the rows of all its files, rendered (``whole``), and their split."""

    recipe: Recipe
    objective: Objective
    checked: Checked
    splits: Splits
    whole: dict[Place, tuple[TokenRow, ...]]
    data: DataReport
    bad_rows: tuple[BadRow, ...]


def prepare(recipe: Recipe, store: Path | None = None) -> Prepared:
    """Raises RecipeError, DataError, ModelError or PartError, each a sentence. ``store`` keeps rendered rows from run
    to run."""
    return assembled(ground(recipe, store))


def ground(recipe: Recipe, store: Path | None = None) -> Ground:
    """Read, check and split all files of ``recipe``. Raises what ``prepare`` raises."""
    objective = check_parts(recipe)
    files = files_of(recipe, objective, store)
    inspect.stop_on_blocking(files.data)
    splits = split_of(recipe, files)
    return Ground(recipe, objective, files.checked, splits, files.whole, files.data, files.bad_rows)


def assembled(on: Ground) -> Prepared:
    """The plan and the token rows for what ``on`` has in train and dev. Raises what ``prepare`` raises."""
    recipe, objective, checked, splits, whole = on.recipe, on.objective, on.checked, on.splits, on.whole
    card, renderer = checked.card, Renderer(checked.tokenizer)
    labels = _labels(splits) if recipe.task == "classify" else ("reward",) if objective.needs == "score" else ()
    plan, train_rows, dev_rows, cut = _rows(recipe, checked, splits, objective, whole)
    spelled = {name: tuple(map(renderer.spelled, getattr(splits, name))) for name in ("train", "dev", "test")}
    splits = splits.model_copy(update=spelled)  # the text of answers that call tools
    metrics = recipe.evaluate.metrics or _metrics(recipe, objective, splits)
    if not train_rows:
        raise DataError(f"No row is left to train on: {objective.name} knows no ties. Set objective: dpo, or add rows.")
    asked, warnings = _asked(recipe, splits)
    compared, shortened = _compared(recipe, checked, (*sampled(splits.train), *sampled(splits.dev), *asked), whole)
    warnings += tuple(f.message for f in split.overlap(splits, recipe.data))
    warnings += tuple(_unread(splits.train, objective))
    doubt, beside = seen(recipe, asked)
    warnings += tuple(filter(None, (doubt, beside)))
    if shortened:
        warnings += (f"The answers of {shortened:,} rows do not fit the context and are compared as far as they do.",)
    if objective.unit == "judged" and len({r.label for r in train_rows}) == 1:
        warnings += ("All judged answers are alike, wanted or not: nothing tells one kind from the other.",)
    if cut:
        warnings += (f"{cut} tokens at the ends of rows longer than {plan.max_length} were cut off.",)
    if parts.find("models.adapters", recipe.method.name).four_bits:
        warnings += ("The base is held in four bits: its baselines are those of the quantised base as well.",)
    warnings += leaving(recipe)
    if recipe.method.new_tokens:
        warnings += (
            "In baselines and forgetting the base reads a new token as the mean of its pieces, not as it would alone.",
        )
    return Prepared(
        recipe=recipe,
        card=card,
        tokenizer=checked.tokenizer,
        objective=objective,
        data=on.data,
        splits=splits,
        test=asked,
        labels=labels,
        train_rows=tuple(train_rows),
        dev_rows=tuple(dev_rows),
        compared=compared,
        plan=plan,
        metrics=tuple(metrics),
        max_new_tokens=answer_limit(recipe, card, renderer, splits),
        bad_rows=on.bad_rows,
        warnings=warnings,
        doubt=doubt,
    )


def leaving(recipe: Recipe) -> tuple[str, ...]:
    """What is sent elsewhere, in a sentence, where anything is."""
    rival = recipe.evaluate.rival
    if rival.url is None or recipe.task == "prefer":
        return ()
    shown = f"each with up to {recipe.evaluate.shots} training rows"
    told = f"Rows that are asked, {shown}, are sent to {rival.url}, where {rival.model} answers (evaluate.rival)"
    clear = ", not encrypted" if rival.url.startswith("http://") else ""
    return (f"{told}{f', with the key in {rival.key}' if rival.key else ''}{clear}.",)


def _asked(recipe: Recipe, splits: Splits) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """The test rows that systems are asked, and what is to be said of the others."""
    decided = tuple(e for e in splits.test if not e.tie or recipe.task != "prefer")
    if not decided:
        raise DataError("Every test row is a tie, which no system can get right. Name other rows with data.test.")
    asked = _sample(decided, recipe.evaluate.limit, recipe.data.split.seed)
    told: tuple[str, ...] = ()
    if ties := len(splits.test) - len(decided):
        told += (f"{ties:,} test rows are ties, which no system can get right; they are left out.",)
    if len(asked) < len(decided):
        drawn = f"{len(asked):,} of {len(decided):,} test rows"
        told += (f"{drawn} are asked, drawn by data.split.seed (evaluate.limit).",)
    return asked, told


def _own_file(
    recipe: Recipe, role: Literal["dev", "test"], checked: Checked, objective: Objective, store: Path | None
) -> tuple[Dataset | None, tuple[Finding, ...], dict[Place, tuple[TokenRow, ...]]]:
    """A dev or test file of its own, what was found in it, inspected as the training file is, and its rows. A test row
    may be longer than the model takes: it is asked all the same, and counts as it comes out; answers that are compared
    must be whole."""
    path = getattr(recipe.data, role)
    if path is None:
        return None, (), {}
    dataset = read.read(Path(path), recipe.data, recipe.task, role)
    limit = None if role == "test" and recipe.task != "prefer" else checked.limit
    rendered = sized(dataset, checked.tokenizer, checked.card, objective, recipe, limit, store)
    found = inspect.inspect(rendered.dataset, task=recipe.task, allow=recipe.data.allow)
    told = (f.model_copy(update={"message": f"In the {role} file: {f.message}"}) for f in found.findings)
    return rendered.dataset, tuple(told), rendered.rows


def _limit(recipe: Recipe, card: ModelCard) -> int:
    method: Method = parts.find("models.adapters", recipe.method.name)
    room = card.context - (recipe.method.rank if method.soft else 0)
    if room < SHORTEST_ROW:
        raise RecipeError(
            f"method.rank is {recipe.method.rank}: as many tokens before each row leave no room in the context of "
            f"{card.name} ({card.context} tokens). Lower it."
        )
    return room if recipe.train.max_length == "auto" else min(recipe.train.max_length, room)


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
    objective: Objective,
    whole: dict[Place, tuple[TokenRow, ...]],
) -> tuple[Plan, list[TokenRow], list[TokenRow], int]:
    bounded = Renderer(checked.tokenizer, max_length=checked.limit)
    number = {label: i for i, label in enumerate(_labels(splits))} if objective.needs == "class_logp" else {}
    cut = 0

    def render(examples: tuple[Example, ...]) -> list[TokenRow]:
        nonlocal cut
        found: list[TokenRow] = []
        for example in examples:
            if example.tie and objective.unit != "row" and not objective.ties:
                continue
            done = bounded.bound(example, whole[example.place])
            cut += done.truncated
            if recipe.task == "prefer":
                shares = checked.card.kind == "decoder"
                found += [preferences.together(example, done.rows, shares=shares)] if done.rows else []
            else:
                found += [replace(row, label=number[example.answer]) for row in done.rows] if number else done.rows
        if objective.unit == "judged":
            return preferences.judged(found)
        return found if objective.unit == "pair" or recipe.task != "prefer" else preferences.wanted(found)

    train_rows = render(splits.train)
    limit = answer_limit(recipe, checked.card, bounded, splits) if objective.unit == "answer" else 0
    dev_rows = render(_sample(splits.dev, looked_at(len(train_rows)), recipe.train.seed))
    technique = technique_of(recipe, checked.card, checked.config, objective, len(number))
    network = (checked.card, shape_like(checked.card, checked.config.to_dict()))
    if objective.unit == "answer":
        return rollouts_planned(recipe, network, objective, train_rows, limit, technique), train_rows, dev_rows, cut
    each = [row for r in train_rows for row in r.unit]
    own = train_rows if objective.unit == "judged" else each  # without other rows' answers
    data = Data(
        [r.size for r in train_rows],
        lambda batch, longest: Steps(
            train_rows, batch_tokens=batch, micro_tokens=longest, pad_id=0, seed=recipe.train.seed
        ).per_epoch(),
        dev_tokens=sum(r.size for r in dev_rows),
        trained=sum(row.trained for row in each),
        longest=max((len(row.ids) for row in each), default=1),
        unit=len(train_rows[0].unit) if train_rows else 1,
        outputs=len(number) or int(objective.needs == "score"),
        reference=objective.reference,
        answers=[(len(row.ids) - row.trained, row.trained) for row in own] if objective.adds_up else (),
        widths=[max(len(row.ids) for row in r.unit) for r in train_rows],
    )
    plan = resolved(recipe, network, objective, data, technique)
    return plan, train_rows, dev_rows, cut


def _metrics(recipe: Recipe, objective: Objective, splits: Splits) -> tuple[str, ...]:
    if objective.unit != "answer":
        return default_metrics(recipe.task, [e.answer for e in splits.train])
    judged = ("judged",) if recipe.reward.judge is not None else ()
    return ("reward", *judged, *recipe.reward.rules)


def split_of(recipe: Recipe, files: Files) -> Splits:
    """The run's rows in train, dev and test, as in the run that it goes on from where that had the same file."""
    dataset, dev, test = files.checked.dataset, files.dev, files.test
    then = None if dev is not None or test is not None else parts_of_start(recipe, dataset.examples)
    if then is not None:
        return split.lock_as(dataset, recipe.data, then, task=recipe.task)
    splits = split.lock(dataset, recipe.data, task=recipe.task, dev=dev, test=test)
    if not splits.test:
        raise RecipeError("data.split.test is 0, so nothing could be proven. Give it a share, or name data.test.")
    return splits


def _unread(rows: Sequence[Example], objective: Objective) -> Iterator[str]:
    """A sentence for what pairs have and the objective cannot use."""
    ties, margins = sum(e.tie for e in rows), sum(e.margin > 0 for e in rows)
    if ties and objective.unit != "row" and not objective.ties:
        yield f"{ties:,} ties are not trained on: {objective.name} knows none (dpo, simpo, cpo and reward do)."
    if margins and not objective.margins:
        yield f"The margins of {margins:,} pairs are not read: of the objectives reward alone reads them."


def sampled(rows: tuple[Example, ...]) -> tuple[Example, ...]:
    """The rows of train or dev that are answered to tell learning from memorising."""
    return rows[:: max(1, len(rows) // SAMPLE)][:SAMPLE]


def _compared(
    recipe: Recipe, checked: Checked, rows: Sequence[Example], whole: dict[Place, tuple[TokenRow, ...]]
) -> tuple[dict[Place, TokenRow], int]:
    """The answers of each of ``rows`` with a preference as one unit, cut only where the model takes no more, which so
    many are."""
    if recipe.task != "prefer":
        return {}, 0
    renderer, shares = Renderer(checked.tokenizer, max_length=checked.card.context), checked.card.kind == "decoder"
    found = [(e, renderer.bound(e, whole[e.place])) for e in rows]
    units = {e.place: preferences.together(e, done.rows, shares=shares) for e, done in found if done.rows}
    return units, sum(done.truncated > 0 for _, done in found)
