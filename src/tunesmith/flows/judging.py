"""From a model to numbers on the locked test: baselines before training, the tuned system after it, one scorer for
all."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean, median

from tunesmith.core import parts
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.example import Example
from tunesmith.core.recipe import Recipe, Task
from tunesmith.core.report import (
    CurvePoint,
    Estimate,
    Fit,
    Forgetting,
    Prediction,
    Report,
    Rewarded,
    RolloutPoint,
    SystemResult,
)
from tunesmith.data import split
from tunesmith.data.preferences import expected as expected_preference
from tunesmith.evaluate.baselines._context import BaselineContext
from tunesmith.evaluate.fit import overfitting
from tunesmith.evaluate.forgetting import forgetting, passages
from tunesmith.evaluate.forms import known_answers
from tunesmith.evaluate.outcomes import confusions, outcomes
from tunesmith.evaluate.preferences import preferences
from tunesmith.evaluate.rewarded import rewarded
from tunesmith.evaluate.score import find_metric, score
from tunesmith.evaluate.systems import Ruler, run_baselines, system_result
from tunesmith.evaluate.verdict import judge
from tunesmith.flows import preferring
from tunesmith.flows.prepare import Prepared, sampled
from tunesmith.flows.training import Trained
from tunesmith.generate.local import LocalModel
from tunesmith.generate.remote import RemoteModel
from tunesmith.models.model import Model


@dataclass(frozen=True)
class Baselines:
    results: tuple[SystemResult, ...]
    predictions: dict[str, tuple[Prediction, ...]]
    notes: tuple[str, ...]


def baselines(model: Model, prepared: Prepared) -> Baselines:
    """Every asked baseline on the locked test, with the untouched base.

    Raises RecipeError when none can run, or when none has the primary metric: better now than after training.
    """
    context = context_of(model, prepared)
    results, predictions, notes = run_baselines(prepared.recipe.evaluate.baselines, context, ruler(prepared))
    primary = prepared.metrics[0]
    if not any(primary in r.metrics for r in results):
        raise RecipeError(
            f"evaluate.baselines: none of {', '.join(r.name for r in results)} has {primary}, so there is nothing "
            "to beat. Add zero_shot, or choose another primary metric."
        )
    return Baselines(tuple(results), predictions, notes)


def context_of(model: Model, prepared: Prepared) -> BaselineContext:
    """What the baselines of ``prepared`` may use: the untouched base, and the training rows."""
    references(prepared.splits.train, prepared.recipe.task)  # some baselines answer with them
    local = LocalModel(model)
    decoder = model.card.kind == "decoder"
    return BaselineContext(
        task=prepared.recipe.task,
        train=prepared.splits.train,
        test=prepared.test,
        labels=prepared.labels,
        completer=local if decoder else None,
        embedder=None if decoder else local,
        shots=prepared.recipe.evaluate.shots,
        prompt=prepared.recipe.evaluate.prompt,
        max_new_tokens=prepared.max_new_tokens,
        seed=prepared.plan.seed,
        start=None if prepared.before is None else LocalModel(prepared.before),
        rewarded=None if prepared.company is None else prepared.company.rewarded,
        rival=rival(prepared.recipe),
    )


def rival(recipe: Recipe) -> RemoteModel | None:
    """The other model of the recipe, if any."""
    return None if recipe.evaluate.rival.url is None else RemoteModel(recipe.evaluate.rival)


def ruler(prepared: Prepared) -> Ruler:
    """What all systems are measured by on the locked test."""
    known = known_answers(prepared.splits.train, prepared.recipe.task, prepared.labels)
    expected = tuple(references(prepared.test, prepared.recipe.task))
    return Ruler(expected, prepared.metrics, prepared.plan.seed, tuple(known), split.units(prepared.test))


def references(examples: Sequence[Example], task: Task) -> list[str]:
    """What answers are scored against. Raises DataError for a tool call of which nobody wrote the text: scored against
    nothing, every system would be wrong on it."""
    if task == "prefer":
        return list(map(expected_preference, examples))
    for row in examples:
        if row.ends_in_calls and row.written is None:
            raise DataError(
                f"{row.place}: the answer is a tool call, and the text that the chat template writes for it is not "
                "known; expected text that can be scored. Leave such rows out, or end them with the assistant's text."
            )
    return [row.answer for row in examples]


def answer(
    model: Model, prepared: Prepared, examples: Sequence[Example], metrics: Sequence[str] = ()
) -> tuple[Prediction, ...]:
    """The tuned system's answers: by its head, by the likelihood of the labels, or by writing; with the likelihood of
    the references where one of ``metrics`` needs it."""
    if prepared.recipe.task == "prefer":
        return preferring.answers(model, prepared, examples)
    local = LocalModel(model)
    if model.head is not None:
        texts = [e.input_text for e in examples]
        sizes = [min(len(local.renderer.classify_ids(e)), local.context) for e in examples]
        chosen = local.classify(texts)
        return tuple(
            Prediction(id=e.id, answer=label, prompt_tokens=size)
            for e, (label, _), size in zip(examples, chosen, sizes, strict=True)
        )
    prompts, tools = [e.prompt for e in examples], [e.tools for e in examples]
    if prepared.recipe.task == "classify":
        table = local.label_logp(prompts, prepared.labels, tools=tools)
        best = [max(range(len(row)), key=row.__getitem__) for row in table]
        return tuple(
            Prediction(id=e.id, answer=prepared.labels[i], prompt_tokens=local.count_tokens(e.prompt, tools=e.tools))
            for e, i in zip(examples, best, strict=True)
        )
    limit = prepared.max_new_tokens
    written = local.complete(prompts, max_new_tokens=limit, tools=tools) if any(prompts) else []
    found = [
        Prediction(id=e.id, answer=c.text, prompt_tokens=c.prompt_tokens, new_tokens=c.new_tokens, finish=c.finish)
        for e, c in zip(examples, written, strict=False)
    ] or [Prediction(id=e.id, answer="") for e in examples]
    if any(find_metric(m).needs == "likelihood" for m in metrics):
        likelihoods = local.likelihood(prompts, [e.target for e in examples], tools=tools)
        found = [
            p.model_copy(update={"nll": -x.logp, "nll_tokens": x.tokens})
            for p, x in zip(found, likelihoods, strict=True)
        ]
    return tuple(found) if prepared.company is None else prepared.company.rewarded(examples, found)


def tuned(model: Model, prepared: Prepared) -> tuple[SystemResult, tuple[Prediction, ...]]:
    """The tuned system on the locked test."""
    started = time.monotonic()
    predictions = answer(model, prepared, prepared.test, prepared.metrics)
    seconds = time.monotonic() - started
    return system_result("tuned", predictions, ruler(prepared), seconds=seconds), predictions


def general_bits(model: Model) -> tuple[float, ...]:
    """Bits that each general passage costs ``model`` as a language model, also where a head answers for it; empty for
    an encoder, which is none."""
    if model.card.kind != "decoder":
        return ()
    model.train(False)
    texts = _general(model)
    found = LocalModel(model).likelihood([()] * len(texts), texts)
    return tuple(-x.logp / math.log(2) for x in found)


def _general(model: Model) -> tuple[str, ...]:
    """The passages, the same with the adapter on and off: soft tokens take their room in both."""
    return passages(model.card.context - (len(model.soft.ids) if model.soft is not None else 0))


def forgotten(model: Model, before: Sequence[float]) -> Forgetting | None:
    """What the tuned ``model`` lost since ``general_bits`` were ``before``; None for an encoder."""
    return forgetting(_general(model), before, general_bits(model)) if before else None


def fit_report(model: Model, prepared: Prepared, trained: Trained) -> Fit:
    """Curves, train and dev scores on a sample of rows, and the sentence on overfitting."""
    progress, primary = trained.progress, prepared.metrics[0]

    def scored(examples: tuple[Example, ...]) -> Estimate | None:
        rows = sampled(examples)
        if not rows:
            return None
        expected = references(rows, prepared.recipe.task)
        found = score(answer(model, prepared, rows, [primary]), expected, [primary], seed=prepared.plan.seed)
        return found.get(primary)

    train_score, dev_score = scored(prepared.splits.train), scored(prepared.splits.dev)
    curve = tuple(_thinned(progress.curve))
    best_step = progress.best_step if progress.best else progress.step
    last = [p.loss for p in progress.curve if p.loss is not None and p.step <= max(best_step, 1)][-20:]
    return Fit(
        curve=curve,
        best_step=best_step,
        steps=progress.step,
        stopped=progress.stopped,
        train_loss=sum(last) / max(len(last), 1),
        dev_loss=progress.best.loss if progress.best else float("nan"),
        train_score=train_score,
        dev_score=dev_score,
        overfit=overfitting(curve, best_step, train_score, dev_score, primary, worth=prepared.rewarded),
        trainable_parameters=trained.trainable,
        tokens_per_second=progress.tokens / max(progress.seconds, 1e-9),
        trained_tokens=progress.trained_tokens,
        seconds=progress.seconds,
        compile_seconds=trained.compile_seconds,
        saves=len(trained.saves),
        save_seconds=sum(trained.saves),
        save_bytes=trained.save_bytes,
        notes=trained.notes,
        peak_bytes=trained.peak_bytes,
        peak_of=trained.peak_of,
        step_seconds=_step_seconds(progress.curve, from_answers=prepared.rewarded),
    )


def of_rewards(
    prepared: Prepared, answers: dict[str, tuple[Prediction, ...]], points: Sequence[RolloutPoint], best_step: int
) -> Rewarded:
    """What is to be told of a policy that learned from rewards, whose weights are those of ``best_step``."""
    asked = ("start", "zero_shot", *answers)
    compared = next(name for name in asked if name in answers and name != "tuned")
    by_model = prepared.recipe.reward.model is not None
    return rewarded(answers, points, compared, best_step, by_model=by_model, units=ruler(prepared).units)


def _step_seconds(curve: Sequence[CurvePoint], *, from_answers: bool) -> float | None:
    """The median after the first step, which warms up; the mean of all where one step in several writes answers."""
    took = [p.took for p in curve if p.took is not None]
    if not took:
        return None
    return fmean(took) if from_answers else median(took[1:] or took)


def _thinned(curve: Sequence[CurvePoint], most: int = 400) -> list[CurvePoint]:
    """At most about ``most`` points; those with a dev loss are always kept."""
    every = max(1, len(curve) // most)
    return [p for i, p in enumerate(curve) if i % every == 0 or p.dev_loss is not None]


def report(
    run_id: str,
    prepared: Prepared,
    bars: Baselines,
    result: SystemResult,
    answers: dict[str, tuple[Prediction, ...]],
    fit: Fit,
    of_reward: Rewarded | None = None,
) -> Report:
    """The verdict and everything behind it as one value."""
    recipe, primary, measure = prepared.recipe, prepared.metrics[0], ruler(prepared)
    learned = fit.best_step > 0 or prepared.uses_head  # a head begins with what the rows tell of their classes
    unrewarded = sum(p.unrewarded for told in answers.values() for p in told)
    lost = f"{unrewarded:,} evaluated answers had no reward and count as 0." if unrewarded else ""
    doubt = " ".join(filter(None, (prepared.doubt, lost, *(of_reward.doubts if of_reward is not None else ()))))
    gain = recipe.evaluate.min_gain
    verdict = judge(result, bars.results, answers, measure, min_gain=gain, learned=learned, doubt=doubt)
    picked = outcomes(primary, answers["tuned"], answers[verdict.baseline], prepared.test, measure.references)
    return Report(
        run_id=run_id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe=recipe,
        card=prepared.card,
        plan=prepared.plan,
        data=prepared.data,
        split_sizes={name: len(getattr(prepared.splits, name)) for name in ("train", "dev", "test")},
        split_how=prepared.splits.how,
        test_hash=prepared.splits.test_hash,
        primary=primary,
        systems=(*bars.results, result),
        verdict=verdict,
        fit=fit,
        preferences=preferences(answers["tuned"], prepared.test, measure.units) if recipe.task == "prefer" else None,
        rewarded=of_reward,
        confusions=confusions([p.answer for p in answers["tuned"]], measure.references, recipe.task, measure.known),
        worst=picked.worst,
        best=picked.best,
        wins=picked.wins,
        losses=picked.losses,
        adapter="adapter" if parts.find("models.adapters", recipe.method.name).is_adapter else "model",
        warnings=(*prepared.warnings, *bars.notes, *filter(None, [lost])),
    )
