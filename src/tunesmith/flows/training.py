"""From a loaded base to trained weights: attach the method, run the loop, prove what it left.

Notable: the method is attached before the baselines are measured, so that a rank or a layer that does not fit is
refused at once; the baselines then run with the adapter off. After training, the base is asked again with the adapter
off and must give the very same states as before: frozen weights stayed frozen, and the base that baselines were
measured on is the one that is tuned.
"""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tunesmith.core import parts, seeds
from tunesmith.core.batch import Batch
from tunesmith.core.errors import DataError, ModelError
from tunesmith.core.report import CurvePoint, RolloutPoint
from tunesmith.data.batches import Steps, collate, cut, in_order
from tunesmith.flows.checkpointing import Checkpointing
from tunesmith.flows.prepare import Prepared
from tunesmith.flows.rewarding import begin_from
from tunesmith.flows.rollouts import dev_rewards, rollouts
from tunesmith.flows.watch import Noting, Watcher
from tunesmith.models.actor_critic import ActorCritic
from tunesmith.models.adapters._method import Method
from tunesmith.models.adapters.full import check_dense
from tunesmith.models.adapters.lora import targets
from tunesmith.models.allocator import release_freed_memory
from tunesmith.models.head_start import better_mean, class_means
from tunesmith.models.machine import PeakMemory
from tunesmith.models.model import Model, adapters_off
from tunesmith.models.scores import Score, weight_scores
from tunesmith.objectives._objective import Objective
from tunesmith.records.folder import RunFolder
from tunesmith.train.loop import Hooks, fit
from tunesmith.train.optimiser import adamw, adamw_8bit
from tunesmith.train.state import DevResult, Progress, Snapshot

COMPILED_BOUND = {"float32": 1e-4, "bfloat16": 2e-2}
ALIKE = 1e-3  # of a loss or a norm: sums without a fixed order, as a GPU has them; masks of dropout differ by more
HEAD_ROWS = 10_000  # rows that set the head's start
SCORED_TOKENS = 16_384  # of training rows, by whose gradient a method chooses its weights
SCORED_ROWS = 64  # one by one, whose gradients are squared
MOST_NOTES = 40  # of a training, in its report
TRIAL_TOKENS = 4096  # of the batch on which compiled layers are proven: memory has not been tried yet


@dataclass(frozen=True)
class Trained:
    progress: Progress
    trainable: int
    compile_seconds: float
    saves: tuple[float, ...] = ()  # seconds each
    save_bytes: int = 0
    notes: tuple[str, ...] = ()
    peak_bytes: int | None = None
    peak_of: str = ""


def attach(model: Model, prepared: Prepared) -> None:
    """Put head and method onto ``model``; its answers stay the base's while adapters are off. Raises RecipeError."""
    recipe, seed = prepared.recipe, prepared.plan.seed
    if prepared.uses_head:
        model.add_head(prepared.labels, seed=seeds.stream(seed, "head"))
    method: Method = parts.find("models.adapters", recipe.method.name)
    if method.score is not None:
        model.scores = scores(model, prepared, method.score)
    if recipe.start is None:
        method.attach(model, recipe.method, seeds.stream(seed, "adapter"))
    else:
        begin_from(model, recipe)
    trained = sum(p.numel() for _, p in trainee(model, prepared).trainable())
    if trained != prepared.plan.trainable:
        raise ModelError(
            f"method.name: {method.name} trains {trained:,} weights; the plan counted {prepared.plan.trainable:,}. The "
            "plan is wrong: please report it."
        )


def scores(model: Model, prepared: Prepared, score: Score) -> dict[str, Tensor]:
    """What ``score`` says of each weight of the base's wanted layers, by the first training rows in a random order."""
    objective = prepared.objective
    names = targets(model, prepared.recipe.method.target_modules)
    check_dense(model)
    start_head(model, prepared)
    rows = list(prepared.train_rows)
    random.Random(seeds.stream(prepared.plan.seed, "scores")).shuffle(rows)
    one_by_one = score == "fisher"

    def batches() -> Iterator[Batch]:
        left = SCORED_ROWS if one_by_one else SCORED_TOKENS
        for group in cut(rows, 1 if one_by_one else min(SCORED_TOKENS, prepared.plan.micro_tokens)):
            batch = collate(group, model.tokenizer.pad_token_id or 0)
            if left <= 0:
                return
            if float(objective.weight(batch)) > 0:
                left -= 1 if one_by_one else batch.tokens
                yield batch

    def loss(batch: Batch) -> Tensor:
        made = objective.loss(getattr(model, objective.needs)(batch), batch.to(model.device))
        return made / objective.weight(batch)

    return weight_scores(model, names, loss, batches(), score)


def train(
    model: Model,
    prepared: Prepared,
    watch: Watcher,
    folder: RunFolder,
    kept: Checkpointing,
    resume: Snapshot | None = None,
) -> Trained:
    """Tune ``model``, to which the method is attached, in place by the plan; from ``resume`` on, where that is given.

    Raises Diverged, ModelError, MemoryNeeded, DiskError, Interrupted.
    """
    recipe, plan, watch, peak = prepared.recipe, prepared.plan, Noting(watch), PeakMemory()
    method = parts.find("models.adapters", recipe.method.name)
    objective, trained = prepared.objective, trainee(model, prepared)
    if not any(r.trained for r in prepared.train_rows) and objective.needs == "token_logp":
        raise DataError("No token of any training row would be trained. Look at tunesmith check --show-mask.")
    pad = model.tokenizer.pad_token_id or 0
    steps = Steps(
        prepared.train_rows, batch_tokens=plan.batch_tokens, micro_tokens=plan.micro_tokens, pad_id=pad, seed=plan.seed
    )
    first = next(steps(0))[0]
    model.check_packing(first)
    for told in model.slower():
        watch.note(told)
    with adapters_off(model):
        before = probe(model)
        usual = _apart(before, probe(model))  # 0, but on a device whose sums have no fixed order
        start_head(model, prepared)
    if plan.memory != "fast":
        model.recompute(2 if plan.memory == "selective" else 1)
    compiling = _compiled(model, objective, first, watch) if plan.compiled else 0.0
    hooks = _hooks(model, objective, prepared, watch, folder, kept, resume)

    def tell(point: RolloutPoint) -> None:
        folder.append_rollout(point)
        folder.beat()

    if prepared.company is not None:
        source = rollouts(model, prepared, tell, watch.note)
        hooks = replace(hooks, source=source, worst=None)
    torch.manual_seed(seeds.stream(plan.seed, "dropout"))
    with kept.guarded():
        progress = fit(trained, objective, steps if hooks.source is None else source, plan, hooks)
    peak_bytes = peak.bytes()
    kept.saver.grant(progress.step)
    if method.is_adapter:
        with adapters_off(model):
            if not _apart(before, probe(model)) <= 10 * usual:
                raise ModelError(
                    "With the adapter off the base no longer gives its old states: frozen weights have moved."
                )
    count = sum(p.numel() for _, p in trained.trainable())
    size = kept.last.bytes if kept.last else 0
    saves, notes = tuple(kept.saver.saves), tuple(watch.notes[:MOST_NOTES])
    return Trained(progress, count, compiling, saves, size, notes, peak_bytes, peak.what)


def trainee(model: Model, prepared: Prepared) -> Model | ActorCritic:
    """What the loop trains: the model, with its critic where it has one."""
    critic = None if prepared.company is None else prepared.company.critic
    return model if critic is None else ActorCritic(model, critic)


def _hooks(
    model: Model,
    objective: Objective,
    prepared: Prepared,
    watch: Watcher,
    folder: RunFolder,
    kept: Checkpointing,
    resume: Snapshot | None,
) -> Hooks:
    plan, pad = prepared.plan, model.tokenizer.pad_token_id or 0

    def on_step(point: CurvePoint, total: int, speed: float) -> None:
        folder.append_metric(point.model_dump(mode="json", exclude=None if point.answers else {"answers"}))
        folder.beat()
        watch.step(point, total, speed)

    def look() -> DevResult:
        told = dev_result(model, objective, prepared, pad) if prepared.company is None else dev_rewards(model, prepared)
        release_freed_memory()  # larger batches than those of training leave holes that nothing fits
        return told

    model.train(False)
    longest = sorted(prepared.train_rows, key=lambda r: r.size, reverse=True)
    return Hooks(
        evaluate=look if prepared.dev_rows else None,
        start=look() if prepared.dev_rows and resume is None else None,
        on_step=on_step,
        on_note=watch.note,
        after_step=kept.after_step,
        resume=resume,
        worst=collate(cut(longest, plan.micro_tokens)[0], pad) if model.device != "cpu" else None,
        make_optimisers=adamw_8bit if plan.moments == "int8" else adamw,
    )


def _compiled(model: Model, objective: Objective, batch: Batch, watch: Watcher) -> float:
    """Seconds that compiling took."""
    started = time.monotonic()
    why = compile_layers(model, objective, batch)
    seconds = time.monotonic() - started
    watch.note(f"Layers run uncompiled: {why}." if why else f"Layers compiled in {seconds:.0f} s.")
    return seconds


def compile_layers(model: Model, objective: Objective, batch: Batch) -> str | None:
    """Compile the layers of ``model`` and prove on rows of one micro-batch that its loss and its gradient stay what
    they were, and that as many weights have one. Where that fails the layers are left plain, and the reason is
    returned. With dropout no two passes are alike, and half as much again is let pass."""
    while len(batch.length_B) > 1 and int(batch.length_B.sum()) > TRIAL_TOKENS:
        batch = max(batch.halves(), key=lambda half: float(objective.weight(half)))
    model.train(True)
    plain, again = (_trial(model, objective, batch, seed) for seed in (0, 1))
    try:
        if not model.compile():
            return f"{model.card.architecture} has no list of {model.card.layers} layers of one kind"
        model.train(True)
        compiled = _trial(model, objective, batch, 0)
    except (RuntimeError, OSError, ImportError) as error:  # no compiler, or code that it cannot take
        model.compile_no_more()
        _clear(model)  # a backward pass may have come half way
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    measures = zip(("a loss", "a gradient", "a number of gradients"), plain, again, compiled, strict=True)
    for what, one, twin, other in measures:
        size, apart = max(abs(one), float(what == "a loss")), abs(twin - one)
        near = 0.0 if what == "a number of gradients" else COMPILED_BOUND[model.precision] * size
        if not abs(other - one) <= (near + 2 * apart if apart <= ALIKE * size else 0.5 * size):
            model.compile_no_more()
            return f"compiled they give {what} of {other:.6g} where plain ones give {one:.6g}"
    return None


def _trial(model: Model, objective: Objective, batch: Batch, seed: int) -> tuple[float, float, float]:
    """(loss a unit of weight, norm of its gradient, weights that have one) of one micro-batch, leaving no gradient
    behind."""
    torch.manual_seed(seed)
    loss = objective.loss(getattr(model, objective.needs)(batch), batch.to(model.device)) / objective.weight(batch)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [p for _, p in model.trainable()]
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm, count = torch.nn.utils.get_total_norm(gradients), sum(bool(g.any()) for g in gradients)
    _clear(model)
    return float(loss.detach()), float(norm), float(count)


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def _clear(model: Model) -> None:
    for _, parameter in model.trainable():
        parameter.grad = None


@torch.no_grad()
def start_head(model: Model, prepared: Prepared) -> None:
    """Set the head, where there is one, to the nearest class mean of the untouched base's features, or to what tells
    better from worse answers by their means, on at most ``HEAD_ROWS`` rows."""
    if model.head is None:
        return
    features, labels = [], []
    pad = model.tokenizer.pad_token_id or 0
    for batch in in_order(prepared.train_rows[:HEAD_ROWS], budget=2 * prepared.plan.micro_tokens, pad_id=pad):
        features.append(model.features(batch))
        labels.append(batch.label_B.to(model.device))
    feature_ND = torch.cat(features)
    if prepared.objective.needs == "score":
        model.head.score.weight.copy_(better_mean(feature_ND[0::2], feature_ND[1::2])[None])
        return
    weight_CD, bias_C = class_means(feature_ND, torch.cat(labels), len(model.labels))
    model.head.score.weight.copy_(weight_CD)
    model.head.score.bias.copy_(bias_C)


@torch.no_grad()
def probe(model: Model) -> Tensor:
    """Hidden states of a fixed row: the fingerprint of what the base computes."""
    ids_BT = torch.arange(5, 29, device=model.device)[None] % model.card.vocabulary
    model.train(False)
    return model.hidden(ids_BT, torch.tensor([24], device=model.device)).clone()


@torch.no_grad()
def dev_result(model: Model, objective: Objective, prepared: Prepared, pad: int) -> DevResult:
    """Loss a unit of weight on dev; classes are ranked by error rate first, then by loss."""
    loss = weight = wrong = 0.0
    for batch in in_order(prepared.dev_rows, budget=2 * prepared.plan.micro_tokens, pad_id=pad):
        moved = batch.to(model.device)
        logp = getattr(model, objective.needs)(batch)
        loss += float(objective.loss(logp, moved))
        weight += float(objective.weight(batch))
        if objective.needs == "class_logp":
            wrong += float((logp.argmax(-1) != moved.label_B).sum())
    mean = loss / max(weight, 1e-9)
    return DevResult(mean, (wrong / weight, mean) if objective.needs == "class_logp" else (mean,))
