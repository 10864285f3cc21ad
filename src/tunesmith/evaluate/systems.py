"""Running and scoring systems: every baseline, and the tuned one, end as a ``SystemResult`` made by the same function.

Notable: a baseline that does not apply is left out with its reason, never in silence; a misspelt one is an error
before anything runs.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from tunesmith.core import parts
from tunesmith.core.errors import RecipeError
from tunesmith.core.report import Prediction, SystemResult
from tunesmith.evaluate.baselines._context import Baseline, BaselineContext
from tunesmith.evaluate.forms import answer_form, unreadable
from tunesmith.evaluate.score import find_metric, score

ROOM = "evaluate.baselines"


@dataclass(frozen=True, slots=True)
class Ruler:
    """What every system of a run is measured by, on the same test rows in the same order. ``known`` is the closed set
    of answers (``forms.known_answers``), empty for JSON and open text; ``units`` names the rows that belong together,
    None where each stands for itself."""

    references: tuple[str, ...]
    metrics: tuple[str, ...]
    seed: int
    known: tuple[str, ...] = ()
    units: tuple[int, ...] | None = None


def system_result(name: str, predictions: Sequence[Prediction], ruler: Ruler, *, seconds: float) -> SystemResult:
    """Score one system. ``invalid`` counts answers of no readable form: no JSON object, or none that is known."""
    kind: Literal["baseline", "tuned"] = "baseline" if name in parts.names(ROOM) else "tuned"
    form = "closed" if ruler.known else answer_form(ruler.references)
    return SystemResult(
        name=name,
        kind=kind,
        metrics=score(predictions, ruler.references, ruler.metrics, seed=ruler.seed, units=ruler.units),
        seconds=seconds,
        prompt_tokens=fmean(p.prompt_tokens for p in predictions),
        new_tokens=fmean(p.new_tokens for p in predictions),
        invalid=unreadable([p.answer for p in predictions], form, (*ruler.known, *ruler.references)),
        note=_note(predictions),
    )


def _note(predictions: Sequence[Prediction]) -> str:
    meanings = {
        "length": "cut off at the longest answer allowed",
        "refused": "not answered, for the endpoint refused them",
        "context": "not answered, for the prompt did not fit the context",
    }
    counts = {finish: sum(p.finish == finish for p in predictions) for finish in meanings}
    return "; ".join(f"{count} of {len(predictions)} {meanings[finish]}" for finish, count in counts.items() if count)


def run_baselines(
    names: Sequence[str] | Literal["auto"], context: BaselineContext, ruler: Ruler
) -> tuple[list[SystemResult], dict[str, tuple[Prediction, ...]], tuple[str, ...]]:
    """Results, predictions by baseline name, and notes on those left out with their reason.

    ``names`` "auto" means every baseline of the task that applies; ``ruler`` has the answers of ``context.test`` in
    order.
    Raises PartError for an unknown baseline or metric before anything runs; RecipeError when none can run.
    """
    found, context, notes = able(names, context, ruler.metrics)
    results, predictions = [], {}
    for part in found:
        started = time.monotonic()
        answers = part.answer(context)
        seconds = time.monotonic() - started
        predictions[part.name] = answers if context.rewarded is None else context.rewarded(context.test, answers)
        results.append(system_result(part.name, predictions[part.name], ruler, seconds=seconds))
    return results, predictions, notes


def able(
    names: Sequence[str] | Literal["auto"], context: BaselineContext, metrics: Sequence[str]
) -> tuple[list[Baseline], BaselineContext, tuple[str, ...]]:
    """The baselines of ``names`` that can run, the one that others answer first, with the context in which they do, and
    a note on each that was left out. Raises as ``run_baselines`` does."""
    asked = [find_baseline(name) for name in (parts.names(ROOM) if names == "auto" else dict.fromkeys(names))]
    asked = [part for part in asked if names != "auto" or (context.task in part.tasks and part.wanted(context))]
    likelihoods = [find_metric(name).needs == "likelihood" for name in metrics]
    context = replace(context, likelihood=any(likelihoods))

    def reason(part: Baseline) -> str | None:
        if part.elsewhere and likelihoods[0]:
            return f"it tells no likelihoods, which {metrics[0]} is made of"
        return part.applies(context)

    reasons = {part.name: reason(part) for part in asked}
    notes = tuple(f"{name} was left out: {reason}." for name, reason in reasons.items() if reason)
    found = sorted((part for part in asked if reasons[part.name] is None), key=lambda part: not part.elsewhere)
    if not found:
        raise RecipeError(
            f"evaluate.baselines is {list(names) if names != 'auto' else 'auto'} and none can run; expected at least "
            "one, for a verdict needs "
            f"something to beat. {' '.join(notes)} There are: {', '.join(parts.names(ROOM))}."
        )
    return found, context, notes


def find_baseline(name: str) -> Baseline:
    """The baseline called ``name``. Raises PartError with the nearest name."""
    part: Baseline = parts.find(ROOM, name)
    return part
