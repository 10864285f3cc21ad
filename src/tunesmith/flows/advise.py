"""Before anything is spent: what prompting reaches, what more rows would bring, what it would cost, and what to do.

Notable: everything that is measured lies in ``workspace/advise/<id>/``, named after what was asked and what it stands
on, so that an advice that was stopped goes on, and one that is asked again with other facts (traffic, prices) is
there at once. The locked test is split off as a run splits it and is not looked at.
"""

import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tunesmith.core import files, parts, recipe_file
from tunesmith.core.advice import Advice, Bar, CurvePoint, Evidence, Facts, Quality, Variety
from tunesmith.core.errors import Interrupted
from tunesmith.core.noun import content_hash
from tunesmith.core.protocols import Embedder
from tunesmith.core.recipe import Recipe
from tunesmith.core.report import DataReport
from tunesmith.decide import advise as deciding
from tunesmith.decide.economics import Use, checked, economics
from tunesmith.decide.lists import PROMPTED, best
from tunesmith.evaluate.forgetting import passages
from tunesmith.evaluate.forms import known_answers
from tunesmith.evaluate.score import find_metric
from tunesmith.evaluate.similarity import Remembered
from tunesmith.evaluate.variety import tokens_a_word, variety
from tunesmith.flows import judging, keeping, trials
from tunesmith.flows.check_recipe import check_parts
from tunesmith.flows.curve import curve
from tunesmith.flows.finetune import ROWS, environment, versions
from tunesmith.flows.prepare import ground, leaving
from tunesmith.flows.trials import Answered, Trials
from tunesmith.flows.watch import Silent, Watcher
from tunesmith.generate.local import LocalModel
from tunesmith.models import load as loading
from tunesmith.models.model import Model
from tunesmith.present.advice import render_advice
from tunesmith.records.folder import check_writable

FOLDER = "advise"
GENERAL = 8  # passages of general text that the inputs' words are compared with


def advise(
    recipe: Recipe | str | Path,
    *,
    facts: Facts | None = None,
    seconds: float | None = None,
    overrides: Sequence[str] = (),
    workspace: Path | str = ".",
    out: Path | None = None,
    watch: Watcher | None = None,
) -> Advice:
    """Measure and advise; the page is ``workspace/advise/<id>/advice.html``, or ``out/advice.html``, with what was
    measured in ``out/<id>/``. ``facts`` are what only the user knows, ``seconds`` the time that small runs may take.

    Raises the errors of ``core.errors``; what was measured by then stays, and is taken over when this is called again.
    """
    watch, began, workspace, facts = watch or Silent(), time.monotonic(), Path(workspace), checked(facts or Facts())
    loaded = _loaded(recipe, overrides)
    check_writable(workspace)
    watch.stage("Read and check", loaded.data.train)
    found = trials.planned(ground(loaded, workspace / ROWS), fewest=deciding.FEWEST_ROWS)
    kept = (out or workspace / FOLDER) / _name(found)
    files.make_folder(kept)
    try:
        evidence, notes = _measured(found, kept, facts, seconds, watch)
    except Interrupted as stopped:
        raise Interrupted(f"{stopped}. Go on with the same command.", stopped.signal) from None
    watch.stage("Advise")
    costs = economics(_use(evidence), facts, trained=evidence.tuned is not None)
    told = deciding.advise(evidence, costs)
    advice = told.model_copy(
        update={
            "id": _name(found),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "recipe": loaded,
            "model": found.whole.card.name,
            "seconds": round(time.monotonic() - began, 1),
            "environment": environment(),
            "notes": notes,
        }
    )
    folder = out or kept
    advice.save(folder / "advice.json")
    files.write_text(folder / "advice.html", render_advice(advice))
    return advice


def plan(recipe: Recipe | str | Path, overrides: Sequence[str] = ()) -> Trials:
    """What would be run, without loading weights or writing a file."""
    return trials.planned(ground(_loaded(recipe, overrides)), fewest=deciding.FEWEST_ROWS)


def _loaded(recipe: Recipe | str | Path, overrides: Sequence[str]) -> Recipe:
    loaded = (
        recipe_file.absolute(recipe_file.override(recipe, overrides), Path.cwd())
        if isinstance(recipe, Recipe)
        else recipe_file.load(Path(recipe), overrides)
    )
    check_parts(loaded)
    trials.check(loaded)
    return loaded


def _name(found: Trials) -> str:
    """Of the recipe and what it stands on: other rows, another base or other versions are measured anew."""
    stands = keeping.origin(found.whole, versions())
    return content_hash([stands.recipe.content_hash(), stands.files, stands.model, stands.test, stands.versions])[:10]


# -- what is measured --------------------------------------------------------------------------------------------------


def _measured(
    found: Trials, folder: Path, facts: Facts, seconds: float | None, watch: Watcher
) -> tuple[Evidence, tuple[str, ...]]:
    whole, recipe = found.whole, found.whole.recipe
    watch.stage("Load", f"{whole.card.name}, {whole.card.parameters / 1e6:.1f}M parameters")
    four_bits = parts.find("models.adapters", recipe.method.name).four_bits
    model = loading.load(recipe.model, precision=whole.plan.precision, four_bits=four_bits)
    watch.stage("Look at the rows", f"{found.rows:,} training rows")
    embedder = None if model.card.kind == "decoder" else Remembered(LocalModel(model))
    seen = _variety(model, found, embedder)
    bars: tuple[Answered, ...] = ()
    done: tuple[Answered, ...] = ()
    notes = [f"How it was measured: {found.how}."]
    if found.scored:
        watch.stage("Without training", f"{found.scored:,} held-back rows")
        notes += leaving(recipe)
        if (rival := judging.rival(recipe)) is not None and notes[1:] and not trials.is_kept(folder, "rival"):
            rival.ready()
            watch.note(notes[-1])
        bars = trials.bars(model, found, folder, embedder)
        del model, embedder
        done = tuple(trials.run(found, folder, watch, seconds, notes))
    evidence = Evidence(
        task=recipe.task,
        metric=whole.metrics[0],
        higher_is_better=find_metric(whole.metrics[0]).higher_is_better,
        method=recipe.method.name,
        rows=found.rows,
        scored=found.scored,
        test_rows=len(whole.test),
        points=tuple(_point(a, whole.metrics[0]) for a in done),
        bars=tuple(_bar(a, whole.metrics[0]) for a in bars),
        variety=seen,
        quality=_quality(found.on.checked.data),
        facts=facts,
    )
    if not done or not bars:
        return evidence, tuple(notes)
    largest = max(done, key=lambda a: (a.rows, -a.seed))
    spent = largest.seconds / largest.rows * found.rows
    evidence = evidence.model_copy(update={"tuned": _bar(largest, whole.metrics[0]), "train_seconds": spent})
    ruler, top = judging.ruler(found.asked), best(evidence, tuple(b.name for b in evidence.bars))
    assert top is not None  # as there are bars
    bar = next(a for a in bars if a.system.name == top.name)
    if not deciding.begun(evidence):
        return evidence, (*notes, "No curve was drawn: the largest small run does no better than the constant answer.")
    value, least = top.score.value, recipe.evaluate.min_gain
    worth = deciding.least_gain(least, value, higher_is_better=evidence.higher_is_better)
    through = curve(done, bar, ruler, rows=found.rows, test_rows=len(whole.test), worth=worth)
    if through is not None and least:
        through = through.model_copy(update={"least": worth})
    return evidence.model_copy(update={"curve": through}), tuple(notes)


def _variety(model: Model, found: Trials, embedder: Embedder | None) -> Variety:
    """Of the training rows; a metric of likelihoods compares no two texts, so the overlap of words stands in."""
    rows, task = found.whole.splits.train, found.whole.recipe.task
    metric = found.whole.metrics[0]
    if find_metric(metric).needs != "text":
        metric = "token_f1"
    tokenizer = found.whole.tokenizer

    def tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False).input_ids)

    general = tokens_a_word(passages(found.whole.card.context)[:GENERAL], tokens)
    return variety(
        rows,
        judging.references(rows, task),
        metric,
        closed=bool(known_answers(rows, task, found.whole.labels)),
        pieces=lambda texts: tokens_a_word(texts, tokens) / general,
        embedder=embedder,
        seed=found.whole.recipe.data.split.seed,
    )


def _quality(data: DataReport) -> Quality:
    found: dict[str, int] = {}
    for finding in data.findings:
        if finding.severity != "info":
            found[finding.check] = found.get(finding.check, 0) + finding.count
    return Quality(rows=data.rows, left_out=data.quarantined, found=found)


def _point(answered: Answered, metric: str) -> CurvePoint:
    return CurvePoint(
        rows=answered.rows,
        seed=answered.seed,
        score=answered.system.metrics[metric],
        steps=answered.steps,
        seconds=round(answered.seconds, 2),
    )


def _bar(answered: Answered, metric: str) -> Bar:
    system = answered.system
    return Bar(
        name=system.name,
        score=system.metrics[metric],
        tokens_in=system.prompt_tokens,
        tokens_out=system.new_tokens,
        seconds=answered.latency,
    )


def _use(evidence: Evidence) -> Use | None:
    """What an answer takes on each side; None where no prompted model read tokens."""
    prompted, tuned = best(evidence, PROMPTED), evidence.tuned
    if prompted is None or tuned is None or not prompted.tokens_in:
        return None
    needed = None if evidence.curve is None else evidence.curve.overtakes.value - evidence.rows
    better = evidence.higher_is_better
    full = evidence.curve.at_full.value if evidence.curve is not None else tuned.score.value
    return Use(
        prompted_in=prompted.tokens_in,
        prompted_out=prompted.tokens_out,
        tuned_in=tuned.tokens_in,
        tuned_out=tuned.tokens_out,
        tuned_seconds=tuned.seconds or 0.0,
        train_hours=(evidence.train_seconds or 0.0) / 3600,
        labels=None if needed is None or math.isinf(needed) else max(0.0, needed),
        prompted_quality=prompted.score.value if better else full,
        tuned_quality=full if better else prompted.score.value,
        forecast=evidence.curve is not None,
        rival=prompted.name == "rival",
    )
