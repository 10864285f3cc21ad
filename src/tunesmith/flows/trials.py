"""Small runs of a recipe on a part of its training rows, scored on other training rows: real training, nothing of the
locked test.

Notable: the rows are split as a run splits them, and what would be its training rows is split once more. What no trial
needs to be trained on is held back, whole units of it, and asked in place of the locked test; the trained parts are
nested, each stratified, and drawn from the rest. Ways without training have nearly all rows at hand, as they would in
use: held-back rows are asked in turns, with the others at hand. Each trial keeps its answers in a file of its own, so
that trials that were stopped go on.
"""

import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

from tunesmith.core import files, parts, seeds
from tunesmith.core.errors import DataError, Diverged, ModelError, RecipeError
from tunesmith.core.example import Dataset, Example, Splits
from tunesmith.core.noun import Noun, content_hash
from tunesmith.core.recipe import DataRecipe, Recipe, SplitRecipe
from tunesmith.core.report import Prediction, SystemResult
from tunesmith.data import split
from tunesmith.decide.lists import PROMPTED
from tunesmith.evaluate.baselines._context import BaselineContext
from tunesmith.evaluate.prompts import instruction
from tunesmith.evaluate.systems import find_baseline, system_result
from tunesmith.flows import judging, training
from tunesmith.flows.checkpointing import Checkpointing
from tunesmith.flows.prepare import Ground, Prepared, assembled
from tunesmith.flows.watch import Watcher
from tunesmith.models import load as loading
from tunesmith.models.model import Model
from tunesmith.records.folder import RunFolder

SHARES = (0.05, 0.1, 0.2, 0.4)  # of the training rows
TWICE = 2  # of the smallest sizes are run again with other rows and another seed: runs on few rows differ most
HELD = 0.55  # of the training rows are scored on
MOST_HELD, MOST_WRITTEN = 600, 300  # rows at most: to choose a label for, and to write an answer to, which takes longer
ASKED_AT_ONCE = 0.2  # of the training rows at most, the others of which are at hand without training
FEWEST = 16  # rows of a trial
TIMED = 5  # answers that are timed one by one


class Answered(Noun):
    """A system's answers to the scored rows: a way without training (``rows`` 0), or a trial. ``latency`` is the time
    of one answer asked alone, in seconds."""

    system: SystemResult
    predictions: tuple[Prediction, ...]
    latency: float | None = None
    rows: int = 0
    seed: int = 0
    steps: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Trials:
    """``whole`` is what a run would do, ``asked`` the same with held-back training rows in place of the locked test.
    ``sizes`` are (rows, seed) in the order in which they are run."""

    on: Ground
    whole: Prepared
    asked: Prepared
    sizes: tuple[tuple[int, int], ...]
    how: str

    @property
    def rows(self) -> int:
        return len(self.whole.splits.train)


def check(recipe: Recipe) -> None:
    """Raise RecipeError for recipes of which no small run tells anything."""
    objective = recipe.objective.name
    if recipe.task == "prefer" or objective not in ("auto", "sft", "classify"):
        raise RecipeError(
            f"task is {recipe.task} and objective {objective}: advise knows answers that are written (sft) and labels "
            "(classify), for only there is prompting the other way. Use tunesmith compare."
        )
    if recipe.start is not None:
        raise RecipeError(
            "start names a run to go on from, whose model has seen its rows already; a learning curve begins with the "
            "base. Leave start out."
        )


def planned(on: Ground, *, fewest: int) -> Trials:
    """The scored rows and the sizes; none of either where fewer than ``fewest`` rows can be trained on, or where they
    cannot be split."""
    whole = assembled(on)
    train, task = on.splits.train, on.recipe.task
    most = MOST_HELD if task == "classify" else MOST_WRITTEN
    most = min(most, on.recipe.evaluate.limit or most)
    count = max(len(train), 1)
    share = min(HELD, most / count)
    held = Splits(train=train, dev=(), test=(), test_hash="", how="")
    if len(train) >= fewest:
        again = DataRecipe(train="-", split=SplitRecipe(dev=share, test=0.0, seed=on.recipe.data.split.seed))
        try:
            held = split.lock(Dataset(examples=train, format="", why=""), again, task=task)
        except DataError:  # a few large groups, which must stay together
            held = held.model_copy(update={"how": "its rows belong together and cannot be split once more"})
    scored = held.dev
    told = f"{len(scored):,} training rows are held back to score on; the {len(whole.splits.test):,} locked test rows "
    told += f"were not looked at; trained parts are nested and drawn from {len(held.train):,} rows; prompted ways and "
    told += f"lookups had all rows at hand but those asked with them ({len(_turns(scored, count))} turns)"
    if not scored:
        return Trials(on, whole, whole, (), held.how or "too few rows for a part of them to be trained on")
    splits = on.splits.model_copy(
        update={"train": held.train, "test": scored, "test_hash": split.hash_rows(scored), "how": told}
    )
    evaluate: dict[str, Any] = {"metrics": whole.metrics[:1], "baselines": "auto", "limit": None}
    if task == "generate":
        evaluate["max_new_tokens"] = whole.max_new_tokens
    recipe = on.recipe.model_copy(update={"evaluate": on.recipe.evaluate.model_copy(update=evaluate)})
    on = replace(on, recipe=recipe, splits=splits)
    sizes = sorted({max(FEWEST, round(share * len(train))) for share in SHARES})
    kept = [n for n in sizes if n <= len(held.train)]
    runs = [(n, 0) for n in kept] + [(n, 1) for n in kept[:TWICE]]
    return Trials(on, whole, assembled(on), tuple(runs), told)


def part(trials: Trials, rows: int, seed: int) -> Prepared:
    """A run on ``rows`` training rows. Those of one ``seed`` are nested."""
    on, recipe = trials.on, trials.on.recipe
    draw = seeds.stream(recipe.data.split.seed, f"trial {seed}") if seed else recipe.data.split.seed
    fewer = DataRecipe(train="-", limit=rows, split=SplitRecipe(dev=0.0, test=0.0, seed=draw))
    drawn = split.lock(Dataset(examples=on.splits.train, format="", why=""), fewer, task=recipe.task).train
    known = {e.label for e in drawn}
    dev = tuple(e for e in on.splits.dev if recipe.task != "classify" or e.label in known)
    train = recipe.train.model_copy(update={"seed": recipe.train.seed + seed})
    splits = on.splits.model_copy(update={"train": drawn, "dev": dev})
    return assembled(replace(on, recipe=recipe.model_copy(update={"train": train}), splits=splits))


def bars(model: Model, trials: Trials, folder: Path) -> tuple[Answered, ...]:
    """Every way without training, on the scored rows; read back where ``folder`` has them whole."""
    path = folder / "bars"
    with contextlib.suppress(DataError):  # not there, or damaged: asked (again)
        files.verify(path)
        return tuple(Answered.load(p) for p in sorted(path.glob("*.json")) if p.name != files.MANIFEST)
    asked = trials.asked
    context, ruler = judging.context_of(model, asked), judging.ruler(asked)
    turns = _turns(asked.test, trials.rows)
    found = [judging.baselines(model, _turn(asked, turn)) for turn in turns]
    done = []
    for name in found[0].predictions:
        told = zip(chain(*turns), chain(*(f.predictions[name] for f in found)), strict=True)
        answers = tuple(p for _, p in sorted(told, key=itemgetter(0)))
        seconds = sum(r.seconds for f in found for r in f.results if r.name == name)
        result = system_result(name, answers, ruler, seconds=seconds)
        if asked.metrics[0] in result.metrics:
            done.append(Answered(system=result, predictions=answers, latency=_latency(name, context)))
    with files.publish(path) as temporary:
        for answered in done:
            (temporary / f"{answered.system.name}.json").write_text(answered.model_dump_json(), encoding="utf-8")
    return tuple(done)


def _turns(asked: Sequence[Example], rows: int) -> list[list[int]]:
    """Places of the rows that are asked together, none of which is then at hand: whole units of them, and about
    ``ASKED_AT_ONCE`` of the training rows."""
    count = max(1, math.ceil(len(asked) / (ASKED_AT_ONCE * max(rows, 1))))
    own: dict[int, list[int]] = defaultdict(list)
    for n, unit in enumerate(split.units(tuple(asked))):
        own[unit].append(n)
    turns: list[list[int]] = [[] for _ in range(count)]
    for together in sorted(own.values(), key=len, reverse=True):
        min(turns, key=len).extend(together)
    return [sorted(turn) for turn in turns if turn]


def _turn(asked: Prepared, turn: Sequence[int]) -> Prepared:
    """``asked`` about the rows of ``turn``, with its other rows among the training rows."""
    inside = set(turn)
    others = tuple(row for n, row in enumerate(asked.test) if n not in inside)
    test = tuple(asked.test[n] for n in turn)
    splits = asked.splits.model_copy(update={"train": (*asked.splits.train, *others), "test": test})
    return replace(asked, splits=splits, test=test)


def _latency(name: str, context: BaselineContext) -> float | None:
    """Seconds of one answer asked alone; the search for similar rows is not counted, an index answers at once."""
    if name not in PROMPTED:
        return None
    shown = context.train[: context.shots]
    prompt = context.prompt or instruction(context.train, context.task, context.labels)
    baseline = find_baseline(name)

    return _timed(lambda row: baseline.answer(replace(context, train=shown, test=(row,), prompt=prompt)), context.test)


def _timed(ask: Callable[[Example], object], rows: Sequence[Example]) -> float:
    """The median time of one call, after one that is not counted."""
    taken = []
    for row in rows[: TIMED + 1]:
        began = time.monotonic()
        ask(row)
        taken.append(time.monotonic() - began)
    counted = sorted(taken[1:] or taken)
    return counted[len(counted) // 2]


def trial(trials: Trials, rows: int, seed: int, folder: Path, watch: Watcher) -> Answered:
    """One small run: trained, and its answers to the scored rows. What was stopped goes on from its checkpoint."""
    prepared = part(trials, rows, seed)
    place = RunFolder(folder / "trials" / f"{rows}-{seed}")
    files.make_folder(place.path)
    with place.lock():
        four_bits = parts.find("models.adapters", prepared.recipe.method.name).four_bits
        model = loading.load(prepared.recipe.model, precision=prepared.plan.precision, four_bits=four_bits)
        training.attach(model, prepared)
        stands = content_hash([prepared.recipe.model_dump(mode="json"), prepared.splits.test_hash, rows, seed])
        kept = Checkpointing(place, watch, stands, every=prepared.plan.save_seconds, as_asked=False)
        trained = training.train(model, prepared, watch, place, kept, kept.latest([stands], strict=False))
        began = time.monotonic()
        predictions = judging.answer(model, prepared, prepared.test, prepared.metrics)
        spent = time.monotonic() - began
        found = Answered(
            system=system_result("tuned", predictions, judging.ruler(prepared), seconds=spent),
            predictions=predictions,
            latency=_timed(lambda row: judging.answer(model, prepared, [row]), prepared.test),
            rows=len(prepared.splits.train),
            seed=seed,
            steps=trained.progress.step,
            seconds=trained.progress.seconds + trained.compile_seconds,
        )
        found.save(folder / "trials" / f"{rows}-{seed}.json")
    files.remove(place.path)
    return found


def _kept(path: Path) -> Answered | None:
    """A trial that is done; None where there is none, or it cannot be read."""
    try:
        return Answered.load(path)
    except (OSError, ValueError):
        return None


def run(trials: Trials, folder: Path, watch: Watcher, seconds: float | None, left_out: list[str]) -> Iterator[Answered]:
    """The trials, kept or made. Those that would take longer than what is left of ``seconds``, and those that cannot be
    trained, are left out; ``left_out`` gets a sentence for each."""
    began, pace = time.monotonic(), 0.0
    for number, (rows, seed) in enumerate(trials.sizes, 1):
        kept = _kept(folder / "trials" / f"{rows}-{seed}.json")
        if kept is not None:
            yield kept
            continue
        needed, left = pace * rows, None if seconds is None else seconds - (time.monotonic() - began)
        if left is not None and pace and needed > left:
            told = f"about {needed:.0f} s are needed and {max(left, 0):.0f} s are left (--time)"
            left_out.append(f"The small run on {rows:,} rows, seed {seed}, was left out: {told}.")
            watch.note(left_out[-1])
            continue
        watch.stage(f"Trial {number} of {len(trials.sizes)}", f"{rows:,} rows, seed {seed}")
        start = time.monotonic()
        try:
            done = trial(trials, rows, seed, folder, watch)
        except (Diverged, ModelError) as error:  # it says nothing of more rows, and stops no other
            left_out.append(f"The small run on {rows:,} rows, seed {seed}, was left out: {error}")
            watch.note(left_out[-1])
            continue
        yield done
        pace = (time.monotonic() - start) / rows
