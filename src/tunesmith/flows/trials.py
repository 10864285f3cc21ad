"""Small runs of a recipe on a part of its training rows, scored on other training rows: real training, nothing of the
locked test.

Notable: the rows are split as a run splits them, and what would be its training rows is split once more. What no trial
needs to be trained on is held back, whole units of it, and asked in place of the locked test; the trained parts are
nested, each stratified, and drawn from the rest. Ways that look rows up have nearly all of them at hand, as they would
in use: held-back rows are asked in turns, with the others at hand. (The constant answer is that of the rows that are
not held back: of the others of a turn the commonest label is the one that the turn has least of.) Each way and each
trial keeps its answers in a file of its own, so that what was stopped goes on.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.core import files, parts, seeds
from tunesmith.core.errors import DataError, Diverged, ModelError, RecipeError
from tunesmith.core.example import Dataset, Example, Splits
from tunesmith.core.noun import Noun, content_hash
from tunesmith.core.protocols import Embedder
from tunesmith.core.recipe import DataRecipe, Recipe, SplitRecipe
from tunesmith.core.report import Prediction, SystemResult
from tunesmith.data import split
from tunesmith.decide.advise import FEWEST_SCORED
from tunesmith.decide.learning_curve import FEWEST, sizes
from tunesmith.decide.lists import PROMPTED
from tunesmith.evaluate.baselines._context import Baseline, BaselineContext
from tunesmith.evaluate.prompts import instruction
from tunesmith.evaluate.similarity import Remembered
from tunesmith.evaluate.systems import able, system_result
from tunesmith.flows import judging, training
from tunesmith.flows.checkpointing import Checkpointing
from tunesmith.flows.prepare import Ground, Prepared, assembled
from tunesmith.flows.watch import Watcher
from tunesmith.models import load as loading
from tunesmith.models.model import Model
from tunesmith.records.folder import RunFolder

TWICE = 2  # of the smallest sizes are run again with other rows and another seed: runs on few rows differ most
HELD = 0.5  # of the training rows are scored on: the largest unit of rows that belong together is never among them
FEWEST_UNITS = 10  # that are scored on: fewer have no interval worth the name
MOST_HELD, MOST_WRITTEN = 600, 300  # rows at most: to choose a label for, and to write an answer to, which takes longer
ASKED_AT_ONCE = 0.2  # of the training rows at most, the others of which are at hand without training
TIMED = 5  # answers that are timed one by one
BARS = "bars"


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

    @property
    def scored(self) -> int:
        """Rows that are held back to score on; 0 where none can be, and ``asked`` is ``whole``."""
        return 0 if self.asked is self.whole else len(self.asked.test)


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
    cannot be split, and no sizes where no curve would come of them."""
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
    scored = held.dev if len(set(split.units(held.dev))) >= FEWEST_UNITS else ()
    if held.dev and not scored:
        held = held.model_copy(update={"how": f"its rows belong together in fewer than {FEWEST_UNITS} units"})
    told = f"{len(scored):,} training rows are held back to score on; the {len(whole.splits.test):,} locked test rows "
    told += f"were not looked at; trained parts are nested and drawn from {len(held.train):,} rows; ways that look "
    told += f"rows up had all at hand but those asked with them ({len(_turns(scored, count))} turns)"
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
    asked, short = assembled(on), ""
    kept = [n for n in sizes(len(train)) if n <= len(held.train)]
    if len(asked.test) < FEWEST_SCORED:
        short = f"{FEWEST_SCORED} rows to score on are needed (more rows, or evaluate.limit)"
    elif len(kept) < FEWEST:
        short = f"{FEWEST} sizes are needed, and too many rows belong together to train on {sizes(len(train))[-1]:,}"
    if short:
        return Trials(on, whole, asked, (), f"{told}; no small run is made: {short}")
    runs = [(n, 0) for n in kept] + [(n, 1) for n in kept[:TWICE]]
    return Trials(on, whole, asked, tuple(runs), told)


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


def bars(model: Model, trials: Trials, folder: Path, embedder: Embedder | None = None) -> tuple[Answered, ...]:
    """Every way without training that the metric can score, on the scored rows; what ``folder`` has is read back.
    ``embedder``: the untuned encoder, which may have read some of the rows; rows are looked up with it."""
    asked = trials.asked
    ruler, turns = judging.ruler(asked), _turns(asked.test, trials.rows)
    found, context, _ = able("auto", judging.context_of(model, asked), asked.metrics)
    at_hand = replace(context, embedder=embedder or context.embedder)
    done = []
    for way in found:
        path = folder / BARS / f"{way.name}.json"
        answered = _kept(path)
        if answered is None:
            began = time.monotonic()
            answers = _in_turns(way, at_hand, turns) if way.looks_up else way.answer(context)
            result = system_result(way.name, answers, ruler, seconds=time.monotonic() - began)
            answered = Answered(system=result, predictions=answers, latency=_latency(way, context))
            files.make_folder(path.parent)
            answered.save(path)
        done.append(answered)
    return tuple(answered for answered in done if asked.metrics[0] in answered.system.metrics)


def is_kept(folder: Path, name: str) -> bool:
    """Whether the answers of this way without training are in ``folder``."""
    return _kept(folder / BARS / f"{name}.json") is not None


def _in_turns(way: Baseline, context: BaselineContext, turns: Sequence[Sequence[int]]) -> tuple[Prediction, ...]:
    """Answers to all test rows in their order, those of one turn with all rows but them at hand."""
    found: dict[int, Prediction] = {}
    for turn in turns:
        others = tuple(row for n, row in enumerate(context.test) if n not in set(turn))
        one = replace(context, train=(*context.train, *others), test=tuple(context.test[n] for n in turn))
        found |= zip(turn, way.answer(one), strict=True)
    return tuple(found[n] for n in range(len(context.test)))


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


def _latency(way: Baseline, context: BaselineContext) -> float | None:
    """Seconds of one answer asked alone; the search for similar rows is not counted, an index answers at once, and so
    do names of labels that were read before."""
    if way.name not in PROMPTED:
        return None
    if context.embedder is not None:
        context = replace(context, embedder=Remembered(context.embedder))
    shown = context.train[: context.shots]
    prompt = context.prompt or instruction(context.train, context.task, context.labels)
    return _timed(lambda row: way.answer(replace(context, train=shown, test=(row,), prompt=prompt)), context.test)


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
    """The trials, kept or made. Those that would take longer than what is left of ``seconds``, by the pace of the last
    one that was made (so the first is made whatever it takes), and those that cannot be trained, are left out;
    ``left_out`` gets a sentence for each."""
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
