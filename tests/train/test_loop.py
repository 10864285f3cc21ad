"""The loop: against a plain one, whatever the micro-batches, when numbers break, when dev stops improving, in time.

Legend: B sequences, T tokens.
"""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import small
from tunesmith.core import parts
from tunesmith.core.batch import Batch
from tunesmith.core.report import CurvePoint
from tunesmith.data.batches import Steps
from tunesmith.models import load as loading
from tunesmith.models import packing
from tunesmith.models.model import Model
from tunesmith.objectives.classify import PART as CLASSIFY
from tunesmith.objectives.sft import PART as SFT
from tunesmith.train import loop
from tunesmith.train.loop import Hooks, fit
from tunesmith.train.optimiser import NamedParameters
from tunesmith.train.state import DevResult

# --- One step, whatever the micro-batches ---------------------------------------------------------------------------


class Watched(torch.optim.SGD):
    """Takes no step; remembers the norm of the gradient that it is given."""

    norms: list[float]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        squares = [p.grad.double().square().sum() for g in self.param_groups for p in g["params"]]
        self.norms.append(math.sqrt(float(sum(squares))))


def loss_and_norm(
    model: Model, objective: Any, micro_batches: list[Batch], clip_norm: float = 1e9
) -> tuple[float, float]:
    """What the loop makes of one step: the loss, and the gradient's norm after clipping."""
    watched: list[Watched] = []

    def make(parameters: NamedParameters, **_: Any) -> list[torch.optim.Optimizer]:
        watched.append(Watched([p for _, p in parameters], lr=0.0))
        watched[0].norms = []
        return [*watched]

    hooks = Hooks(make_optimisers=make)
    progress = fit(model, objective, small.listed(micro_batches), small.plan(steps=1, clip_norm=clip_norm), hooks)
    assert progress.curve[0].loss is not None
    return progress.curve[0].loss, watched[0].norms[0]


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_one_batch_of_8_equals_8_of_1_and_unequal_ones(kind: str, llama: Path, bert: Path) -> None:
    objective = SFT if kind == "decoder" else CLASSIFY
    model = small.decoder(llama) if kind == "decoder" else small.encoder(bert)
    for module in model.network.modules():  # dropout draws anew for each shape
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = 0.0
    held = small.rows(8, classes=3)
    lengths = sorted(len(r.ids) for r in held)
    assert lengths[-1] > 3 * lengths[0]
    whole = loss_and_norm(model, objective, small.split(held, 8))
    cuts = [
        small.split(held, 1),
        small.split(held, 2),
        [*small.split(held[:3], 3), *small.split(held[3:4], 1), *small.split(held[4:], 4)],
        [*small.split(held[5:], 3), *small.split(held[:5], 5)],
    ]
    for cut in cuts:
        assert loss_and_norm(model, objective, cut) == pytest.approx(whole, rel=1e-6)
    means = [loss_and_norm(model, objective, [part])[0] for part in small.split(held, 1)]
    if kind == "decoder":
        assert sum(means) / 8 != pytest.approx(whole[0], rel=1e-3)  # the mean of means is another number


def test_the_loss_is_a_mean_over_the_weight_of_the_step(llama: Path) -> None:
    model, held = small.decoder(llama), small.rows(6)
    found, _ = loss_and_norm(model, SFT, small.split(held, 2))
    (batch,) = small.split(held, 6)
    with torch.no_grad():
        logp_BTV = model.network(input_ids=batch.ids_BT).logits.log_softmax(-1)
    logp_BT = logp_BTV.gather(-1, batch.target_BT[..., None])[..., 0]
    expected = -(logp_BT * batch.weight_BT).sum() / batch.weight_BT.sum()
    assert found == pytest.approx(float(expected), rel=1e-6)


def test_a_micro_batch_without_a_trained_token_changes_nothing(llama: Path) -> None:
    model, held = small.decoder(llama), small.rows(4)
    silent = small.spoiled(small.split(held, 4)[0], 0.0)
    alone = loss_and_norm(model, SFT, small.split(held, 4))
    assert loss_and_norm(model, SFT, [silent, *small.split(held, 4)]) == pytest.approx(alone, rel=1e-6)


def test_the_gradient_is_clipped_as_one_vector(llama: Path) -> None:
    model, batches = small.decoder(llama), small.split(small.rows(4), 4)
    _, whole = loss_and_norm(model, SFT, batches)
    assert loss_and_norm(model, SFT, batches, clip_norm=whole / 3)[1] == pytest.approx(whole / 3, rel=1e-4)
    assert loss_and_norm(model, SFT, batches, clip_norm=whole * 3)[1] == pytest.approx(whole, rel=1e-6)


# --- The whole loop against a plain one -----------------------------------------------------------------------------


def plain_loop(network: Any, batches: list[Batch], steps: int, warmup: int, rate: float) -> list[float]:
    """What any reader would write: transformers, torch's AdamW, cross-entropy over all logits."""
    network.train()
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=rate)
    losses = []
    for step in range(steps):
        done = (step + 0.5) / steps
        rising, falling = done * steps / warmup, (done - warmup / steps) / (1 - warmup / steps)
        factor = rising if rising < 1 else 0.5 * (1 + math.cos(math.pi * falling))
        for group in optimiser.param_groups:
            group["lr"] = rate * factor
        batch = batches[step % len(batches)]
        logits_BTV = network(input_ids=batch.ids_BT).logits
        nll_BT = torch.nn.functional.cross_entropy(logits_BTV.transpose(1, 2), batch.target_BT, reduction="none")
        loss = (nll_BT * batch.weight_BT).sum() / batch.weight_BT.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("attention", ["products", "sdpa"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_twenty_steps_equal_a_plain_loop(
    method: str, attention: str, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With LoRA: PEFT's, from the same A."""
    import peft
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(packing, "SHORT_ROW", {torch.float32: 10**6 if attention == "products" else 0})
    held = small.rows(24)
    plan = small.plan(steps=20, warmup_steps=4, learning_rate=3e-3, weight_decay=0.1)
    model = small.decoder(llama, method)
    network: Any = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    if method == "lora":
        network = peft.get_peft_model(network, peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    theirs = {
        n.removeprefix("base_model.model.").replace(".default.weight", ""): p for n, p in network.named_parameters()
    }
    both = [(n, p, theirs[n]) for n, p in model.trainable()]
    start = {}
    for name, ours, their in both:
        their.data.copy_(ours.data)
        start[name] = ours.detach().clone()
    progress = fit(model, SFT, small.Passes(held, step=8, micro=3), plan)
    losses = plain_loop(network, small.split(held, 8), steps=20, warmup=4, rate=3e-3)
    assert [p.loss for p in progress.curve] == pytest.approx(losses, rel=1e-5)
    assert losses[-1] < losses[0] - 0.1
    for name, ours, their in both:
        moved = float((their - start[name]).detach().abs().max())
        assert float((ours - their).detach().abs().max()) <= 1e-3 * moved, name


def test_lora_learns_in_the_loop(llama: Path) -> None:
    progress = fit(
        small.decoder(llama, "lora"), SFT, small.Passes(small.rows(8), step=8, micro=4), small.plan(steps=20)
    )
    losses = [p.loss for p in progress.curve if p.loss is not None]
    assert losses[-1] < losses[0] - 0.5


def test_an_encoder_learns_its_labels_in_the_loop(bert: Path) -> None:
    model, held = small.encoder(bert), small.rows(24, classes=3)
    fit(model, CLASSIFY, small.Passes(held, step=12, micro=6), small.plan(steps=40, learning_rate=3e-3))
    with torch.no_grad():
        found = model.class_logp(small.split(held, 24)[0]).argmax(-1).tolist()
    assert found == [r.label for r in held]


# --- Dev ------------------------------------------------------------------------------------------------------------


def scripted(model: Model, losses: list[float], kept: list[dict[str, Tensor]]) -> Callable[[], DevResult]:
    """Dev results in this order; the weights at each are kept."""
    left = iter(losses)

    def evaluate() -> DevResult:
        assert not model.network.training
        kept.append(small.weights(model))
        loss = next(left)
        return DevResult(loss, (loss,))

    return evaluate


def run_scripted(folder: Path, losses: list[float], **plan: Any) -> tuple[Model, Any, list[dict[str, Tensor]]]:
    model = small.decoder(folder, "lora")
    kept: list[dict[str, Tensor]] = []
    fields = {"steps": 20, "eval_every": 2, "patience": 3, **plan}
    source = small.Passes(small.rows(4), step=4, micro=4)
    progress = fit(model, SFT, source, small.plan(**fields), Hooks(evaluate=scripted(model, losses, kept)))
    return model, progress, kept


def same(model: Model, weights: dict[str, Tensor]) -> bool:
    return all(torch.equal(p, weights[n]) for n, p in model.trainable())


def test_the_best_weights_on_dev_come_back_and_patience_ends_the_run(llama: Path) -> None:
    model, progress, kept = run_scripted(llama, [3.0, 1.0, 2.0, 1.5, 1.2, 0.1])
    assert (progress.step, progress.best_step, progress.stopped) == (10, 4, "no improvement on dev")
    assert progress.best is not None and progress.best.loss == 1.0
    assert same(model, kept[1]) and not same(model, kept[-1])
    assert [p.dev_loss for p in progress.curve] == [None, 3.0, None, 1.0, None, 2.0, None, 1.5, None, 1.2]


def test_weights_that_never_beat_the_start_are_not_kept(llama: Path) -> None:
    model = small.decoder(llama, "lora")
    before = small.weights(model)
    worse = iter([DevResult(3.0, (3.0,)), DevResult(2.5, (2.5,)), DevResult(4.0, (4.0,)), DevResult(9.0, (9.0,))])
    hooks = Hooks(evaluate=lambda: next(worse), start=DevResult(2.0, (2.0,)))
    source = small.Passes(small.rows(4), step=4, micro=4)
    progress = fit(model, SFT, source, small.plan(steps=8, eval_every=2, patience=4), hooks)
    assert (progress.best_step, progress.best) == (0, DevResult(2.0, (2.0,)))
    assert same(model, before)


def test_an_improvement_starts_patience_anew(llama: Path) -> None:
    model, progress, kept = run_scripted(llama, [3.0, 4.0, 4.0, 2.0, 4.0, 4.0, 1.0, 5.0, 5.0, 0.5])
    assert (progress.step, progress.best_step, progress.stopped) == (20, 20, "all steps done")
    assert same(model, kept[-1])


def test_dev_is_asked_once_more_at_the_end(llama: Path) -> None:
    model, progress, kept = run_scripted(llama, [3.0, 2.0], steps=5, eval_every=3)
    assert [p.dev_loss for p in progress.curve] == [None, None, 3.0, None, 2.0]
    assert same(model, kept[-1])


def test_a_dev_loss_that_is_not_finite_is_never_the_best(llama: Path) -> None:
    model, progress, kept = run_scripted(llama, [math.nan, 2.0, math.nan, 3.0], steps=8)
    assert progress.best_step == 4
    assert same(model, kept[1])


def test_the_rank_decides_and_not_the_loss(llama: Path) -> None:
    model = small.decoder(llama, "lora")
    results = iter([DevResult(1.0, (0.5, 1.0)), DevResult(2.0, (0.1, 2.0)), DevResult(0.5, (0.3, 0.5))])
    seen: list[int] = []
    keep = lambda _step, _last, snapshot: seen.append(snapshot(False).progress["best_step"])  # noqa: E731
    hooks = Hooks(evaluate=lambda: next(results), after_step=keep)
    source = small.Passes(small.rows(4), step=4, micro=4)
    progress = fit(model, SFT, source, small.plan(steps=3, eval_every=1), hooks)
    assert progress.best_step == 2
    assert seen == [1, 2, 2]


# --- Time and rate --------------------------------------------------------------------------------------------------


def rates(curve: list[CurvePoint]) -> list[float]:
    return [p.learning_rate / 1e-2 for p in curve if p.learning_rate is not None]


def test_the_rate_of_each_step_is_that_of_its_middle(llama: Path) -> None:
    source = small.Passes(small.rows(2), step=2, micro=2)
    progress = fit(small.decoder(llama), SFT, source, small.plan(steps=6, warmup_steps=2))
    falling = [0.5 * (1 + math.cos(math.pi * (s + 0.5) / 4)) for s in range(4)]
    assert rates(progress.curve) == pytest.approx([0.25, 0.75, *falling])


@pytest.mark.parametrize("warmup", [0, 1])
def test_a_run_of_one_step_moves(warmup: int, llama: Path) -> None:
    model = small.decoder(llama)
    before = small.weights(model)
    progress = fit(model, SFT, small.Passes(small.rows(2), step=2, micro=2), small.plan(steps=1, warmup_steps=warmup))
    assert rates(progress.curve) == [pytest.approx(0.5)]
    assert not any(torch.equal(p, before[n]) for n, p in model.trainable())


def test_a_time_budget_ends_the_run_annealed(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock on which each step takes one second, ten steps fit into ten seconds."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def tick(*_: object) -> None:
        clock.now += 1.0

    source = small.Passes(small.rows(2), step=2, micro=2)
    plan = small.plan(steps=1000, warmup_steps=0, seconds=10.0)
    progress = fit(small.decoder(llama), SFT, source, plan, Hooks(on_step=tick))
    assert (progress.step, progress.stopped, progress.seconds) == (10, "time budget spent", 10.0)
    falling = [0.5 * (1 + math.cos(math.pi * s / 10)) for s in range(10)]
    assert rates(progress.curve) == pytest.approx(falling, abs=1e-5)


def test_a_budget_that_is_not_spent_changes_nothing(llama: Path) -> None:
    runs = []
    for seconds in (None, 1e6):
        model = small.decoder(llama)
        fit(model, SFT, small.Passes(small.rows(2), step=2, micro=2), small.plan(steps=4, seconds=seconds))
        runs.append(small.weights(model))
    assert all(torch.equal(runs[0][n], runs[1][n]) for n in runs[0])


def test_the_smallest_budget_still_takes_one_step_and_asks_dev(llama: Path) -> None:
    model, progress, kept = run_scripted(llama, [3.0], steps=1000, seconds=1e-9)
    assert (progress.step, progress.stopped) == (1, "time budget spent")
    assert progress.curve[0].dev_loss == 3.0
    assert same(model, kept[0])


# --- Repeatable -----------------------------------------------------------------------------------------------------


def seeded_run(
    folder: Path, method: str, seed: int, *, noise: int, classes: int
) -> tuple[dict[str, Tensor], list[float]]:
    """Weights, and the mean loss of each of two epochs. Head, adapter, dropout and order are drawn by ``seed``;
    ``noise`` is what happened before."""
    torch.manual_seed(noise)
    model = small.base(folder, method)
    if classes:
        model.add_head(small.LABELS, seed=seed)
    reads = parts.find("models.adapters", method).reads
    small.attach(model, method, seed=seed, **({"dropout": 0.2} if "dropout" in reads else {}))
    torch.manual_seed(seed)
    steps = Steps(small.rows(20, classes=classes), batch_tokens=100, micro_tokens=50, pad_id=0, seed=seed)
    epoch = steps.per_epoch()
    plan = small.plan(steps=2 * epoch, learning_rate=2e-3 if classes else 1e-2)
    progress = fit(model, CLASSIFY if classes else SFT, steps, plan)
    losses = [p.loss or 0.0 for p in progress.curve]
    return small.weights(model), [sum(losses[:epoch]) / epoch, sum(losses[epoch:]) / epoch]


@pytest.mark.parametrize(
    ("kind", "method"),
    [*(("decoder", name) for name in parts.names("models.adapters")), ("encoder", "full"), ("encoder", "lora")],
)
def test_each_method_learns_and_two_runs_of_one_seed_give_the_same_bits(
    kind: str, method: str, llama: Path, bert: Path
) -> None:
    folder, classes = (llama, 0) if kind == "decoder" else (bert, 3)
    first, losses = seeded_run(folder, method, 7, noise=1, classes=classes)
    second, _ = seeded_run(folder, method, 7, noise=2, classes=classes)
    other, _ = seeded_run(folder, method, 8, noise=1, classes=classes)
    assert losses[1] < losses[0]
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert any(not torch.equal(first[n], other[n]) for n in first)


@pytest.mark.shared
def test_stories260k_learns_by_lora_within_twenty_steps(shared_folder: Path) -> None:
    from tunesmith.core.batch import TokenRow

    model = loading.load(str(shared_folder / "models" / "stories260K"))
    small.attach(model, "lora", rank=8)
    names = ("Ben", "Mia", "Sam", "Zoe")
    texts = [f"Ticket from {n}: my card does not work. Answer: card_not_working {n}" for n in names]
    held = []
    for text in texts:
        ids = tuple(model.tokenizer(text).input_ids)
        held.append(TokenRow(ids, (1.0,) * len(ids), -1, text))
    plan = small.plan(steps=20, learning_rate=5e-3)
    progress = fit(model, SFT, small.Passes(held, step=4, micro=2), plan)
    losses = [p.loss for p in progress.curve if p.loss is not None]
    assert losses[0] > 2.0
    assert losses[-1] < 0.7 * losses[0]
