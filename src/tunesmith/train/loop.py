"""The one loop. Methods differ in the model, the source of batches and the objective; never in a subclass.

Notable: the loss is divided once, by the weight of the whole optimiser step, so micro-batches never change the
result; a step whose loss or gradient is not finite is not taken (never multiplied by zero), and three in a row end
the run as diverged; the best weights on dev are put back at the end.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from tunesmith.core.batch import Batch
from tunesmith.core.errors import Diverged, ModelError
from tunesmith.core.plan import Plan
from tunesmith.core.report import CurvePoint
from tunesmith.objectives._objective import Objective
from tunesmith.train import optimiser as optimisers_module
from tunesmith.train.optimiser import NamedParameters
from tunesmith.train.update import AfterBackward, InBackward, OnGradient, Update

MAX_SKIPPED_IN_A_ROW = 3
CHECK_MOVED_AT = 3  # LoRA's A has no gradient before B has moved; later still while a long warm-up takes tiny steps


class Trainable(Protocol):
    """What the loop asks of a model."""

    def trainable(self) -> NamedParameters: ...
    def token_logp(self, batch: Batch) -> Tensor: ...
    def class_logp(self, batch: Batch) -> Tensor: ...
    def train(self, mode: bool = True) -> None: ...
    def refresh(self) -> None: ...
    @property
    def on_gradient(self) -> OnGradient: ...
    @property
    def device(self) -> str: ...


Steps = Callable[[int], Iterator[list[Batch]]]  # epoch -> optimiser steps, each a list of micro-batches
MakeOptimisers = Callable[..., list[Optimizer]]


@dataclass(frozen=True)
class DevResult:
    """``loss`` a unit of weight; ``rank`` is compared, lower is better: the loss, or (error rate, loss)."""

    loss: float
    rank: tuple[float, ...]


@dataclass
class Progress:
    """What the loop has done so far."""

    step: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best: DevResult | None = None
    best_step: int = 0
    since_best: int = 0
    stopped: str = "all steps done"
    seconds: float = 0.0
    curve: list[CurvePoint] = field(default_factory=list)


@dataclass(frozen=True)
class Hooks:
    """Where others look in: dev evaluation, progress display, and what happens when dev improved. ``start`` is dev's
    result before the first step: weights that never beat it are not kept."""

    evaluate: Callable[[], DevResult] | None = None
    start: DevResult | None = None
    on_step: Callable[[CurvePoint, int, float], None] = lambda *_: None
    on_note: Callable[[str], None] = lambda _: None
    on_eval: Callable[[Progress], None] = lambda _: None
    make_optimisers: MakeOptimisers = optimisers_module.adamw
    schedule_floor: float = 0.0


def fit(model: Trainable, objective: Objective, steps: Steps, plan: Plan, hooks: Hooks | None = None) -> Progress:
    """Train ``model`` in place and return what happened. Raises Diverged, ModelError.

    ``steps(epoch)`` yields the optimiser steps of one pass; the loop takes passes until ``plan.steps`` are done.
    """
    hooks = hooks or Hooks()
    parameters = model.trainable()
    if not parameters:
        raise ModelError("Nothing to train: no weight requires a gradient. Check method.target_modules.")
    update = _update(model, parameters, plan, hooks)
    schedule = optimisers_module.warmup_cosine(plan.warmup_steps / max(plan.steps, 1), hooks.schedule_floor)
    start = [_bits(p) for _, p in parameters]
    keeper = _Best(parameters)
    state = Progress(best=hooks.start)
    if hooks.start is not None:
        keeper.keep()
    started = time.monotonic()
    model.train(True)
    for micro_batches in _endless(steps):
        state.seconds = time.monotonic() - started
        share = _share(plan, state)
        if share >= 1.0 or state.stopped == "no improvement on dev":
            break
        factor = schedule(share)
        optimisers_module.set_factor(update.optimisers, factor)
        loss = _step(model, objective, micro_batches, update, state)
        state.step += 1
        if start and state.step - state.skipped >= max(CHECK_MOVED_AT, plan.warmup_steps):
            _check_moved(parameters, start)
            start.clear()
        state.seconds = time.monotonic() - started
        point = CurvePoint(
            step=state.step,
            tokens=state.tokens,
            seconds=state.seconds,
            loss=loss,
            learning_rate=plan.learning_rate * factor,
        )
        if hooks.evaluate and (state.step % plan.eval_every == 0 or state.step == plan.steps):
            point = _evaluate(model, hooks, plan, state, keeper, point)
        state.curve.append(point)
        hooks.on_step(point, plan.steps, state.tokens / max(state.seconds, 1e-9))
        if loss is None:
            hooks.on_note(f"Step {state.step}: loss or gradient was not finite; the step was not taken.")
    if state.step < plan.steps and state.stopped == "all steps done":
        state.stopped = "time budget spent"
    if hooks.evaluate and (state.curve and state.curve[-1].dev_loss is None):
        state.curve[-1] = _evaluate(model, hooks, plan, state, keeper, state.curve[-1])
    keeper.restore()
    model.refresh()
    model.train(False)
    state.seconds = time.monotonic() - started
    return state


def _share(plan: Plan, state: Progress) -> float:
    """Progress at the middle of the coming step, or the share of the time spent where that is more. The first step is
    always taken."""
    by_steps = (state.step + 0.5) / plan.steps
    return by_steps if plan.seconds is None or state.step == 0 else max(by_steps, state.seconds / plan.seconds)


def _endless(steps: Steps) -> Iterator[list[Batch]]:
    epoch = 0
    while True:
        empty = True
        for micro_batches in steps(epoch):
            empty = False
            yield micro_batches
        if empty:
            raise ModelError("The source of batches is empty: no row is left to train on.")
        epoch += 1


def _step(
    model: Trainable,
    objective: Objective,
    micro_batches: list[Batch],
    update: Update,
    state: Progress,
) -> float | None:
    """One optimiser step; the loss a unit of weight, or None when it was not finite and the step was not taken."""
    weight = sum(float(objective.weight(b)) for b in micro_batches)
    if weight <= 0:
        raise ModelError("A step has no trained token: its rows are all prompt. Run tunesmith check --show-mask.")
    total = torch.zeros((), dtype=torch.float64, device=model.device)
    for batch in micro_batches:
        loss = objective.loss(getattr(model, objective.needs)(batch), batch.to(model.device)) / weight
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach().double()
        state.tokens += int(batch.length_B.sum())
        state.trained_tokens += int((batch.weight_BT > 0).sum())
    sizes: list[float] = torch.stack([total, update.norm().double()]).tolist()  # the one wait for the device in a step
    finite = all(map(math.isfinite, sizes))
    if finite:
        state.skipped_in_a_row = 0
        update.step()
        model.refresh()
    update.clear()
    if not finite:
        state.skipped += 1
        state.skipped_in_a_row += 1
        if state.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            rows = ", ".join(i for b in micro_batches for i in b.example_ids[:4])
            raise Diverged(
                f"Loss or gradient was not finite {MAX_SKIPPED_IN_A_ROW} steps in a row (step {state.step + 1}; "
                f"rows {rows or 'unnamed'}). "
                "Lower train.learning_rate, or look at these rows."
            )
        return None
    return sizes[0]


def _evaluate(
    model: Trainable, hooks: Hooks, plan: Plan, state: Progress, keeper: "_Best", point: CurvePoint
) -> CurvePoint:
    assert hooks.evaluate is not None  # the caller asked for it
    model.train(False)
    result = hooks.evaluate()
    model.train(True)
    better = state.best is None or result.rank < state.best.rank
    if better and math.isfinite(result.loss):
        state.best, state.best_step, state.since_best = result, state.step, 0
        keeper.keep()
    else:
        state.since_best += 1
        if state.since_best >= plan.patience:
            state.stopped = "no improvement on dev"
    hooks.on_eval(state)
    return point.model_copy(update={"dev_loss": result.loss})


def _update(model: Trainable, parameters: NamedParameters, plan: Plan, hooks: Hooks) -> Update:
    make = partial(hooks.make_optimisers, learning_rate=plan.learning_rate, weight_decay=plan.weight_decay)
    if plan.memory == "least":
        return InBackward(parameters, make, plan.clip_norm, model.on_gradient)
    return AfterBackward(parameters, make(parameters), plan.clip_norm)


def _bits(weight: Tensor) -> int:
    """A sum over the bits of a weight: it tells whether any of them has changed, without keeping a copy."""
    whole = torch.int32 if weight.element_size() == 4 else torch.int16 if weight.element_size() == 2 else torch.int64
    return int(weight.detach().contiguous().view(whole).sum(dtype=torch.int64))


def _check_moved(parameters: NamedParameters, start: list[int]) -> None:
    still = [name for (name, p), old in zip(parameters, start, strict=True) if _bits(p) == old]
    if still:
        raise ModelError(
            f"{still[0]} has not moved in the first steps ({len(still)} such weights): "
            "it is trained in name only. "
            "Leave it out of method.target_modules, or raise train.learning_rate."
        )


class _Best:
    """A copy of the trainable weights at the best dev result."""

    def __init__(self, parameters: NamedParameters) -> None:
        self.parameters = parameters
        self.values: list[Tensor] | None = None

    def keep(self) -> None:
        self.values = [p.detach().clone() for _, p in self.parameters]

    def restore(self) -> None:
        if self.values is not None:
            with torch.no_grad():
                for (_, parameter), value in zip(self.parameters, self.values, strict=True):
                    parameter.copy_(value)
