"""Seconds of a training: an optimiser step, and the whole run with what stands around the steps.

Notable: a sum of parts, each of which is operations over a rate or bytes over a bandwidth (``passes``), so a plan can
say where the time goes. The range is as wide as its source is weak: a data sheet is good for a factor of two (a rule of
thumb), earlier runs for what they differed by. By a probe of a processor alone the sum was a fifth too fast in the
median of 43 runs on one (``benchmarks/results/plan_accuracy.json``, 2026-11-27; a test compares them), so ``PROBED``
times the sum is the forecast, and the range is that of four of five of them. No run on a GPU has tried a probe yet: its
sum stands as it is, and its range is that of a data sheet.
Left out, for they are no training: loading, baselines, the evaluation at the end, saves.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tunesmith.plan.calibrate import Correction
from tunesmith.plan.decoding import looked, rollout
from tunesmith.plan.passes import (
    RECOMPUTED_OPERATIONS,
    Net,
    Parts,
    add,
    backward,
    forward,
    head,
    seconds,
    times,
)
from tunesmith.plan.rates import Rates
from tunesmith.plan.shape import Shape
from tunesmith.plan.work import Work

PROBED = 1.26  # measured over foreseen by a probe alone, the median; a tenth lies below 1.09, a tenth above 1.46
TABLE_SPREAD, PROBE_SPREAD = (0.6, 1.8), (1.09 / PROBED, 1.46 / PROBED)  # times the forecast, lowest and highest
RECOMPUTED = {"fast": 0.0, "selective": 0.5, "checkpoint": 1.0, "least": 1.0}  # of a forward pass
ADAM_BYTES, SMALL_ADAM_BYTES = 28, 16  # a weight: itself, its gradient and two moments, read and written
CLIP_BYTES, COPY_BYTES = 12, 6  # the gradient's norm and scale; a bf16 copy of a float32 master
ADDED_BYTES = {"float32": 12, "bfloat16": 10}  # a gradient that is added to another
TENSOR_OPERATIONS = 4  # a trained tensor and step: its gradient, norm and update
COMPILE_SECONDS = {"cpu": 60.0, "cuda": 40.0}
HEAD_ROWS = 10_000  # at most, that a classification head starts from
SHARDED = {True: 3, False: 2}  # times the weights travel in a micro-batch: gathered twice, gradients of all once


@dataclass(frozen=True, slots=True)
class Seconds:
    """``parts`` by name; from ``low`` to ``high`` four of five are expected, and ``basis`` says by what."""

    parts: Mapping[str, float]
    low: float
    high: float
    basis: str

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def step(work: Work, rates: Rates, correction: Correction | None = None, ranks: int = 1) -> Seconds:
    """One optimiser step, with its share of a rollout where a policy writes the rows. With ``ranks`` devices each takes
    its share of the tokens and holds its share of the weights (as FSDP does)."""
    found = _step(work, rates, ranks)
    if work.rollouts is not None:
        found = add(found, times(1 / work.rollouts.steps / ranks, rollout(work, work.rollouts, _net(work, rates))))
    return _within(found, rates, correction)


def run(
    work: Work,
    rates: Rates,
    *,
    dev_tokens: int = 0,
    looks: int = 0,
    correction: Correction | None = None,
    ranks: int = 1,
) -> Seconds:
    """The whole training, with ``looks`` at ``dev_tokens`` of dev."""
    found = times(work.steps, _step(work, rates, ranks))
    policy, context = _net(work, rates), work.rows.typical
    if work.rollouts is not None:
        count = math.ceil(work.steps / work.rollouts.steps)
        found = add(found, times(count / ranks, rollout(work, work.rollouts, policy)))
    if work.reference:
        frozen = policy.frozen()
        found["reference"] = looked(frozen, work, work.rows.tokens, work.rows.trained, context) / ranks
    if work.outputs:  # the classes' means, where the head starts
        share = min(1.0, HEAD_ROWS / max(work.rows.count, 1))
        found["head's start"] = looked(policy.frozen(), work, share * work.rows.tokens, 0, context) / ranks
    if work.looks and looks and dev_tokens:
        trained = 0 if work.outputs else work.rows.share * dev_tokens
        found["looks at dev"] = looks * looked(policy, work, dev_tokens, trained, context) / ranks
    if work.compiled:
        found["compiling"] = COMPILE_SECONDS[rates.kind]
    return _within(found, rates, correction)


def tokens_of_step(work: Work) -> float:
    """Tokens that a step really has: whole rows up to ``batch_tokens``, so half a row less where rows differ."""
    return float(work.batch_tokens) if work.rollouts else _filled(work, work.batch_tokens)


def tokens_a_second(work: Work, found: Seconds) -> float:
    """Of a step that takes ``found``."""
    return tokens_of_step(work) / found.total


def _filled(work: Work, budget: float) -> float:
    rows = work.rows
    mean = rows.tokens / max(rows.count, 1)
    if mean >= budget:
        return mean
    even = rows.longest * rows.unit <= 1.05 * mean or rows.longest <= 1.05 * mean
    filled = mean * math.floor(budget / mean) if even else max(mean, budget - mean / 2)
    return min(filled, float(rows.tokens))


def _net(work: Work, rates: Rates) -> Net:
    technique, critic = work.technique, work.rollouts is not None and work.rollouts.critic
    own = technique.trained / max(work.shape.parameters, 1) if technique.full else 0.0
    adapter = 0 if technique.full else technique.trained // (2 if critic else 1)
    return Net(work.shape, rates, work.precision, own, adapter, technique.four_bits, work.compiled)


def _step(work: Work, rates: Rates, ranks: int) -> Parts:
    net = _net(work, rates)
    tokens = tokens_of_step(work) / ranks
    count = max(1, math.ceil(tokens / max(1.0, min(tokens, _filled(work, work.at_once)))))
    own = tokens / count
    found = times(count, _micro_batch(net, work, own))
    if work.rollouts is not None and work.rollouts.critic:
        found = add(found, times(count, _micro_batch(net, replace(work, outputs=1), own)))
    found = add(found, _update(work, rates, count, ranks))
    if ranks > 1:
        travels = SHARDED[work.technique.full] * net.size * work.shape.parameters * (ranks - 1) / ranks
        found["between devices"] = count * travels / rates.link
    if rates.kind == "cuda":  # what is launched while the device works costs nothing
        found["overhead"] = seconds(found, rates) - (sum(found.values()) - found["overhead"])
    return found


def _micro_batch(net: Net, work: Work, tokens: float) -> Parts:
    context = work.rows.typical
    ahead = forward(net, tokens, context)
    found = add(ahead, backward(net, tokens, context))
    found["recomputed"] = RECOMPUTED[work.level] * (sum(ahead.values()) - ahead["overhead"])
    aside = RECOMPUTED_OPERATIONS * work.shape.layers * net.rates.overhead
    found["overhead"] += RECOMPUTED[work.level] * (ahead["overhead"] + aside)
    if not work.outputs:
        learns = work.technique.full and net.trained > _half(work.shape)
        found["head"] = head(net, work.rows.share * tokens, learns=learns)
    return found


def _half(shape: Shape) -> float:
    """Share of the weights above which the output matrix is taken to be among those that are trained."""
    return 1 - shape.vocabulary * shape.width / max(shape.parameters, 1) / 2


def _update(work: Work, rates: Rates, count: int, ranks: int) -> Parts:
    """Gradients that are added up over ``count`` micro-batches, and the optimiser."""
    technique, shape = work.technique, work.shape
    adam = SMALL_ADAM_BYTES if work.small_moments else ADAM_BYTES
    narrow = technique.full and work.precision == "bfloat16"
    moved = technique.trained / ranks * (adam + CLIP_BYTES + (COPY_BYTES if narrow else 0))
    added = count if narrow else count - 1
    gathered = technique.trained / ranks * ADDED_BYTES[work.precision] * added
    if technique.full:  # an embedding's gradient is as large as the embedding
        gathered += count * work.size * shape.vocabulary * shape.width
    tensors = sum(w.copies * (2 if w.bias else 1) for w in shape.weights) if technique.full else 0
    tensors = tensors or 2 * len(shape.linear_layers())
    return {
        "gradients": gathered / rates.bandwidth,
        "optimiser": moved / rates.bandwidth,
        "overhead": TENSOR_OPERATIONS * tensors * rates.overhead,
    }


def _within(parts: Parts, rates: Rates, correction: Correction | None) -> Seconds:
    low, high = TABLE_SPREAD
    why = "the data sheet and what trainings usually reach of it"
    if rates.source == "probe" and rates.kind == "cpu":
        measured = {name: parts[name] for name in parts if name == "compiling"}
        parts, (low, high) = times(PROBED, parts) | measured, PROBE_SPREAD
        why = f"a probe of it, times {PROBED:g}, as much longer as runs on one processor took in the median"
    elif rates.source == "probe":
        why = "a probe of it, which no run on a GPU has tried yet"
    basis = f"{rates.name}: by {why}; no earlier runs"
    if correction is not None:  # of forecasts with PROBED in them
        parts = times(correction.factor, parts)
        low, high = 1 / correction.spread, correction.spread
        basis = f"{correction}; four of five are expected within {correction.spread - 1:.0%} of that"
    total = sum(parts.values())
    return Seconds(parts, low * total, high * total, basis)
