"""The one loop. Methods differ in the model, the source of batches and the objective; never in a subclass.

Notable: the loss is divided once, by the weight of the whole optimiser step, so micro-batches never change the
result, not even those that are cut in two because memory ran out; a step whose loss or gradient is not finite is not
taken (never multiplied by zero), and three in a row, or more than 1% of all, end the run as diverged; the best weights
on dev are put back at the end.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from tunesmith.core.batch import Batch
from tunesmith.core.errors import Diverged, MemoryNeeded, ModelError, is_out_of_memory
from tunesmith.core.plan import Plan
from tunesmith.core.report import CurvePoint
from tunesmith.models.schedule import Schedule
from tunesmith.objectives._objective import Objective
from tunesmith.train import optimiser as optimisers_module
from tunesmith.train import state as states
from tunesmith.train.optimiser import NamedParameters
from tunesmith.train.state import Best, DevResult, Progress, Settled, Snapshot
from tunesmith.train.update import AfterBackward, InBackward, OnGradient, Update

WAY_OUT = "Lower train.learning_rate, or look at these rows."
LEANER = {
    "fast": "Set train.memory: checkpoint",
    "selective": "Set train.memory: checkpoint",
    "checkpoint": "Set method.name: lora, or train.memory: least with method.name: full",
    "least": "Lower train.batch_tokens, or set method.name: lora",
}
NO_IMPROVEMENT = "no improvement on dev"
MAX_SKIPPED_IN_A_ROW = 3
MAX_SKIPPED = 0.01  # of the planned steps; one is always forgiven
CHECK_MOVED_AT = 3  # LoRA's A has no gradient before B has moved; later still while a long warm-up takes tiny steps


class Trainable(Protocol):
    """What the loop asks of a model, beside what the objective needs. ``rates``: learning rates of single weights in
    times the plan's; ``may_rest`` names weights that some steps do not touch."""

    @property
    def rates(self) -> dict[str, float]: ...
    @property
    def schedule(self) -> Schedule: ...
    def trainable(self) -> NamedParameters: ...
    def train(self, mode: bool = True) -> None: ...
    def refresh(self) -> None: ...
    @property
    def may_rest(self) -> Collection[str]: ...
    @property
    def on_gradient(self) -> OnGradient: ...
    @property
    def device(self) -> str: ...


class Source(Protocol):
    """A source of batches with a state: tensors that a checkpoint keeps."""

    def held(self) -> dict[str, Tensor]: ...
    def restore(self, held: dict[str, Tensor]) -> None: ...


Steps = Callable[[int], Iterator[list[Batch]]]  # epoch -> optimiser steps, each a list of micro-batches
MakeOptimisers = Callable[..., list[Optimizer]]


@dataclass(frozen=True)
class Hooks:
    """Where others look in: dev evaluation, progress display, saving. ``start`` is dev's result before the first step:
    weights that never beat it are not kept. ``resume`` is where an earlier training stopped, ``source`` the source of
    batches where it has a state of its own; ``worst`` a micro-batch of the longest rows, tried before the
    first step."""

    evaluate: Callable[[], DevResult] | None = None
    start: DevResult | None = None
    on_step: Callable[[CurvePoint, int, float], None] = lambda *_: None
    on_note: Callable[[str], None] = lambda _: None
    after_step: Callable[[int, bool, Callable[[bool], Snapshot]], None] = lambda *_: None  # step, is it the last
    resume: Snapshot | None = None
    worst: Batch | None = None
    source: Source | None = None
    make_optimisers: MakeOptimisers = optimisers_module.adamw
    schedule_floor: float = 0.0


def fit(model: Trainable, objective: Objective, steps: Steps, plan: Plan, hooks: Hooks | None = None) -> Progress:
    """Train ``model`` in place and return what happened. Raises Diverged, ModelError, MemoryNeeded, and what the hooks
    raise.

    ``steps(epoch)`` yields the optimiser steps of one pass; the loop takes passes until ``plan.steps`` are done.
    """
    training = _Training(model, objective, plan, hooks or Hooks())
    model.train(True)
    training.try_worst()
    source = _endless(steps, training.state)
    try:
        while not training.is_over():  # asked first, for a step may be dear to make
            training.step(next(source))
    except Settled as end:
        training.state.stopped = str(end)
    return training.end()


class _Training:
    """One call of ``fit``: what its steps share."""

    def __init__(self, model: Trainable, objective: Objective, plan: Plan, hooks: Hooks) -> None:
        self.model, self.objective, self.plan, self.hooks = model, objective, plan, hooks
        self.parameters = model.trainable()
        if not self.parameters:
            raise ModelError("Nothing to train: no weight requires a gradient. Check method.target_modules.")
        self.update = _update(model, self.parameters, plan, hooks)
        self.factor_at = optimisers_module.warmup_cosine(plan.warmup_steps / max(plan.steps, 1), hooks.schedule_floor)
        moved = ((n, p) for n, p in self.parameters if n not in model.may_rest)
        self.still = [(n, p, _bits(p)) for n, p in moved]  # until all of them have moved
        self.keeper = Best(self.parameters)
        self.state = Progress(best=hooks.start)
        model.schedule.begin(plan.steps)
        if hooks.resume is not None:
            beside = model.schedule.state
            self.state = states.restore(hooks.resume, self.parameters, self.update.optimisers, self.keeper, beside)
            if hooks.source is not None:
                hooks.source.restore(hooks.resume.source)
            model.refresh()
        elif hooks.start is not None:
            self.keeper.keep()
        if self.state.step - self.state.skipped >= max(CHECK_MOVED_AT, plan.warmup_steps):
            self.still.clear()
        if self.state.stopped == NO_IMPROVEMENT and self.state.since_best < plan.patience:  # which has been raised
            self.state.stopped = Progress.stopped
        self.started = time.monotonic() - self.state.seconds

    def try_worst(self) -> None:
        """Find out whether the largest micro-batch fits before anything depends on it; no random number is used up.
        Moments do not exist yet."""
        worst = self.hooks.worst
        if worst is None or self.plan.memory == "least":  # where a backward pass is a step
            return
        weight = float(self.objective.weight(worst))
        with torch.random.fork_rng():
            while _gradients(self.model, self.objective, _cut([worst], self.state.halvings), weight) is None:
                self.update.clear()
                _halve([worst], self.state, self.plan)
                self.hooks.on_note(f"The largest micro-batch needs too much memory; cut in {2**self.state.halvings}.")
        self.update.clear()

    def is_over(self) -> bool:
        self.state.seconds = time.monotonic() - self.started
        return _share(self.plan, self.state) >= 1.0 or self.state.stopped == NO_IMPROVEMENT

    def step(self, micro_batches: list[Batch]) -> None:
        """One optimiser step and what belongs to it: the curve, a look at dev, a save."""
        state, plan, hooks, asked = self.state, self.plan, self.hooks, self.state.seconds
        self.model.schedule.before(state.step)
        states.drop_idle(self.update.optimisers)
        factor = self.factor_at(_share(plan, state))
        optimisers_module.set_factor(self.update.optimisers, factor)
        loss = _step(self.model, self.objective, micro_batches, self.update, state, plan, hooks.on_note)
        state.step += 1
        if self.still and state.step - state.skipped >= max(CHECK_MOVED_AT, plan.warmup_steps):
            _check_moved(self.still)
            self.still.clear()
        state.seconds = time.monotonic() - self.started
        rate = plan.learning_rate * factor
        point = CurvePoint(
            step=state.step,
            tokens=state.tokens,
            seconds=state.seconds,
            loss=loss,
            learning_rate=rate,
            took=state.seconds - asked,
        )
        if hooks.evaluate and (state.step % plan.eval_every == 0 or state.step == plan.steps):
            point = _evaluate(self.model, hooks, plan, state, self.keeper, point)
        _tell_of_loss(hooks, state, micro_batches, loss, self.objective, partly=plan.memory == "least")
        state.curve.append(point)
        hooks.on_step(point, plan.steps, state.tokens / max(state.seconds, 1e-9))
        last = state.step >= plan.steps or state.stopped == NO_IMPROVEMENT
        hooks.after_step(state.step, last, self.snapshot)

    def snapshot(self, copy: bool) -> Snapshot:
        beside, source = self.model.schedule.state, self.hooks.source
        taken = states.capture(self.parameters, self.update.optimisers, self.keeper, self.state, beside, copy=copy)
        return taken if source is None else taken.with_source(source.held())

    def end(self) -> Progress:
        """The best weights put back; what happened."""
        state, hooks = self.state, self.hooks
        if state.step < self.plan.steps and state.stopped == Progress.stopped:
            state.stopped = "time budget spent"
        if state.skipped == state.step:
            raise Diverged(f"No step of {state.step} had a finite loss and gradient: nothing was trained. {WAY_OUT}")
        if hooks.evaluate and (state.curve and state.curve[-1].dev_loss is None):
            state.curve[-1] = _evaluate(self.model, hooks, self.plan, state, self.keeper, state.curve[-1])
        self.model.schedule.end()
        self.keeper.restore()
        self.model.refresh()
        self.model.train(False)
        state.seconds = time.monotonic() - self.started
        return state


def _share(plan: Plan, state: Progress) -> float:
    """Progress at the middle of the coming step, or the share of the time spent where that is more. The first step is
    always taken."""
    by_steps = (state.step + 0.5) / plan.steps
    return by_steps if plan.seconds is None or state.step == 0 else max(by_steps, state.seconds / plan.seconds)


def _endless(steps: Steps, state: Progress) -> Iterator[list[Batch]]:
    """The steps from ``state.epoch`` and ``state.place`` on; both are those of the step that is yielded."""
    while True:
        for micro_batches in islice(steps(state.epoch), state.place, None):
            state.place += 1
            yield micro_batches
        if state.place == 0:
            raise ModelError("The source of batches is empty: no row is left to train on.")
        state.epoch, state.place = state.epoch + 1, 0


def _step(
    model: Trainable,
    objective: Objective,
    micro_batches: list[Batch],
    update: Update,
    state: Progress,
    plan: Plan,
    note: Callable[[str], None],
) -> float | None:
    """One optimiser step; the loss a unit of weight, or None when it was not finite and the step was not taken."""
    weight = sum(float(objective.weight(b)) for b in micro_batches)
    if weight <= 0:
        raise ModelError("A step has no trained token: its rows are all prompt. Run tunesmith check --show-mask.")
    while (total := _gradients(model, objective, _cut(micro_batches, state.halvings), weight)) is None:
        update.clear()
        _halve(micro_batches, state, plan)
        note(f"Step {state.step + 1}: out of memory; micro-batches are cut in {2**state.halvings} from here on.")
    state.tokens += sum(b.tokens for b in micro_batches)
    state.trained_tokens += sum(int((b.weight_BT > 0).sum()) for b in micro_batches)
    sizes: list[float] = torch.stack([total, update.norm().double()]).tolist()  # the one wait for the device in a step
    finite = all(map(math.isfinite, sizes))
    if finite:
        state.skipped_in_a_row = 0
        update.step()
        model.schedule.after(state.step)
        model.refresh()
    update.clear()
    if not finite:
        state.skipped += 1
        state.skipped_in_a_row += 1
        _stop_when_diverged(micro_batches, state, plan)
        return None
    return sizes[0]


def _gradients(model: Trainable, objective: Objective, micro_batches: list[Batch], weight: float) -> Tensor | None:
    """Forward and backward over a step; its loss, or None where memory ran out."""
    total = torch.zeros((), dtype=torch.float64, device=model.device)
    try:
        for batch in micro_batches:
            loss = objective.loss(getattr(model, objective.needs)(batch), batch.to(model.device)) / weight
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach().double()
        beside = model.schedule.penalty()
        if beside is not None:
            beside.backward()  # type: ignore[no-untyped-call]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    return total


def _cut(micro_batches: list[Batch], halvings: int) -> list[Batch]:
    for _ in range(halvings):
        micro_batches = [half for batch in micro_batches for half in batch.halves()]
    return micro_batches


def _halve(micro_batches: list[Batch], state: Progress, plan: Plan) -> None:
    """Cut finer from now on. Raises MemoryNeeded where rows stand alone already, or a step must be one piece."""
    rows = max(b.units for b in _cut(micro_batches, state.halvings))
    if rows == 1 or plan.memory == "least":
        raise MemoryNeeded(
            f"out of memory in step {state.step + 1} with {'one row' if rows == 1 else 'one step'} at a time. "
            f"{LEANER[plan.memory]}, lower train.max_length (now {plan.max_length}), or take a smaller model."
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    state.halvings += 1


def _stop_when_diverged(micro_batches: list[Batch], state: Progress, plan: Plan) -> None:
    many = state.skipped > max(1.0, MAX_SKIPPED * plan.steps)
    if state.skipped_in_a_row < MAX_SKIPPED_IN_A_ROW and not many:
        return
    in_a_row = state.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW
    often = f"{MAX_SKIPPED_IN_A_ROW} steps in a row" if in_a_row else f"in {state.skipped} of {state.step + 1} steps"
    losses = ", ".join("none" if p.loss is None else f"{p.loss:.3g}" for p in state.curve[-20:])
    raise Diverged(
        f"Loss or gradient was not finite {often} (step {state.step + 1}; learning rate up to "
        f"{plan.learning_rate:.2g}; rows {_rows(micro_batches)}; the losses before: {losses or 'none'}). {WAY_OUT}"
    )


def _rows(micro_batches: list[Batch]) -> str:
    names = list(dict.fromkeys(i for b in micro_batches for i in b.example_ids))
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "unnamed"


def _tell_of_loss(
    hooks: Hooks,
    state: Progress,
    micro_batches: list[Batch],
    loss: float | None,
    objective: Objective,
    *,
    partly: bool,
) -> None:
    if loss is None:
        taken = "was taken for finite gradients alone" if partly else "was not taken"
        told = f"loss or gradient was not finite; the step {taken}. Its rows: {_rows(micro_batches)}."
        hooks.on_note(f"Step {state.step}: {told}")
        return
    before = [p.loss for p in state.curve[-states.SPIKE_WINDOW :] if p.loss is not None]
    usual = states.spike(before, loss)
    if usual is not None and objective.unit != "answer":  # whose loss is about 0 whatever is learned
        hooks.on_note(
            f"Step {state.step}: the loss is {loss:.3g}, the median of the last {len(before)} steps {usual:.3g}. Its "
            f"rows: {_rows(micro_batches)}."
        )


def _evaluate(
    model: Trainable, hooks: Hooks, plan: Plan, state: Progress, keeper: Best, point: CurvePoint
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
        if state.since_best >= plan.patience and state.stopped == Progress.stopped:
            state.stopped = NO_IMPROVEMENT
    return point.model_copy(update={"dev_loss": result.loss, "answers": result.answers})


def _update(model: Trainable, parameters: NamedParameters, plan: Plan, hooks: Hooks) -> Update:
    def make(parameters: NamedParameters) -> list[Optimizer]:
        by_rate: dict[float, NamedParameters] = {}
        for name, parameter in parameters:
            by_rate.setdefault(model.rates.get(name, 1.0), []).append((name, parameter))
        each = partial(hooks.make_optimisers, weight_decay=plan.weight_decay)
        return [one for times, held in by_rate.items() for one in each(held, learning_rate=times * plan.learning_rate)]

    if plan.memory == "least":
        return InBackward(parameters, make, plan.clip_norm, model.on_gradient)
    return AfterBackward(parameters, make(parameters), plan.clip_norm)


def _bits(weight: Tensor) -> int:
    """A sum over the bits of a weight: it tells whether any of them has changed, without keeping a copy."""
    whole = torch.int32 if weight.element_size() == 4 else torch.int16 if weight.element_size() == 2 else torch.int64
    return int(weight.detach().contiguous().view(whole).sum(dtype=torch.int64))


def _check_moved(start: list[tuple[str, torch.nn.Parameter, int]]) -> None:
    still = [name for name, p, old in start if p.requires_grad and _bits(p) == old]
    if still:
        raise ModelError(
            f"{still[0]} has not moved in the first steps ({len(still)} such weights): "
            "it is trained in name only. "
            "Leave it out of method.target_modules, or raise train.learning_rate."
        )
