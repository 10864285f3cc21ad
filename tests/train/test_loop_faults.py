"""What the loop refuses or survives: weights that take no part, numbers that break, sources that are empty."""

import dataclasses
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import small
from tunesmith.core import parts
from tunesmith.core.batch import Batch
from tunesmith.core.errors import Diverged, MemoryNeeded, ModelError
from tunesmith.models import load as loading
from tunesmith.models.model import Model
from tunesmith.objectives.classify import PART as CLASSIFY
from tunesmith.objectives.sft import PART as SFT
from tunesmith.train.loop import Hooks, fit
from tunesmith.train.optimiser import NamedParameters, adamw

# --- What moves and what does not -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", parts.names("models.adapters"))
@pytest.mark.parametrize("kind", ["decoder", "encoder", "decoder with a head"])
def test_all_that_is_trainable_moves_and_the_rest_is_the_same_bits(
    kind: str, method: str, untied: Path, bert: Path
) -> None:
    model = (
        small.decoder(untied, method)
        if kind == "decoder"
        else small.encoder(bert if kind == "encoder" else untied, method)
    )
    before = small.weights(model)
    still = {n: p.detach().clone() for n, p in model.network.named_parameters() if not p.requires_grad}
    source = small.Passes(small.rows(8, classes=3), step=8, micro=4)
    fit(model, SFT if kind == "decoder" else CLASSIFY, source, small.plan(steps=4))
    rested = {n for n, p in model.trainable() if torch.equal(p, before[n])}
    assert rested <= set(model.may_rest) and len(rested) < len(before) / 3
    assert all(torch.equal(p, still[n]) for n, p in model.network.named_parameters() if n in still)
    assert bool(still) is not (kind == "decoder" and method in ("full", "lisa"))


def test_a_trainable_weight_without_a_gradient_stops_the_run(untied: Path) -> None:
    model = small.encoder(untied, "lora")
    model.network.lm_head.weight.requires_grad_(True)  # below the classification head it takes no part
    with pytest.raises(ModelError, match=r"No gradient reached lm_head\.weight \(1 such weights\)"):
        fit(model, CLASSIFY, small.Passes(small.rows(4, classes=3), step=4, micro=4), small.plan())


def test_a_weight_that_never_moves_stops_the_run(llama: Path) -> None:
    model = small.decoder(llama)
    last = model.trainable()[-1][0]

    def forgetful(parameters: NamedParameters, **options: Any) -> list[torch.optim.Optimizer]:
        return adamw(parameters[:-1], **options)

    with pytest.raises(ModelError) as caught:
        fit(model, SFT, small.Passes(small.rows(4), step=4, micro=4), small.plan(), Hooks(make_optimisers=forgetful))
    assert f"{last} has not moved" in str(caught.value)


def test_a_long_warm_up_of_tiny_steps_is_no_fault(llama: Path) -> None:
    """The first steps are below the last bit of a norm's weights; they move before the warm-up ends."""
    model = small.decoder(llama)
    norm = model.network.model.norm.weight
    still = []
    hooks = Hooks(on_step=lambda point, *_: still.append(bool((norm == 1).all())))
    plan = small.plan(steps=40, warmup_steps=30, learning_rate=1e-7)
    fit(model, SFT, small.Passes(small.rows(2), step=2, micro=2), plan, hooks)
    assert still[2] and not still[29]


def test_nothing_to_train_is_refused(llama: Path) -> None:
    model = loading.load(str(llama))
    model.network.requires_grad_(False)
    with pytest.raises(ModelError, match=r"Nothing to train.*target_modules"):
        fit(model, SFT, small.Passes(small.rows(2), step=2, micro=2), small.plan())


def test_a_step_of_prompts_alone_is_refused(llama: Path) -> None:
    silent = [small.spoiled(b, 0.0) for b in small.split(small.rows(2), 1)]
    with pytest.raises(ModelError, match=r"no trained token.*--show-mask"):
        fit(small.decoder(llama), SFT, small.listed(silent), small.plan())


def test_an_empty_source_is_refused(llama: Path) -> None:
    with pytest.raises(ModelError, match="source of batches is empty"):
        fit(small.decoder(llama), SFT, small.listed(), small.plan())


def test_the_model_is_left_in_evaluation_mode_and_counts_are_right(bert: Path) -> None:
    model, held = small.encoder(bert), small.rows(6, classes=3)
    progress = fit(model, CLASSIFY, small.Passes(held, step=3, micro=2), small.plan(steps=4))
    assert not any(m.training for m in model.modules())
    assert progress.step == 4 and progress.skipped == 0
    assert progress.tokens == 2 * sum(len(r.ids) for r in held)
    assert [p.step for p in progress.curve] == [1, 2, 3, 4]
    assert progress.stopped == "all steps done"


# --- Numbers that break ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("method", parts.names("models.adapters"))
def test_a_step_with_a_broken_loss_is_not_taken(method: str, value: float, llama: Path) -> None:
    model, good = small.decoder(llama, method), small.split(small.rows(4), 2)
    after: list[dict[str, Tensor]] = [small.weights(model)]
    notes: list[str] = []
    hooks = Hooks(on_step=lambda *_: after.append(small.weights(model)), on_note=notes.append)
    steps = small.listed(good, [good[0], small.spoiled(good[1], value)], good, good, good, good)
    progress = fit(model, SFT, steps, small.plan(steps=6, warmup_steps=0), hooks)
    changed = [any(not torch.equal(a[n], b[n]) for n in a) for a, b in pairwise(after)]
    assert changed == [True, False, True, True, True, True]
    assert [p.loss is None for p in progress.curve] == [False, True, False, False, False, False]
    assert progress.skipped == 1
    told = "Step 2: loss or gradient was not finite; the step was not taken. Its rows: row 0, row 1, row 2, row 3."
    assert notes == [told]
    assert all(torch.isfinite(t).all() for t in after[-1].values())


def test_a_finite_loss_with_a_broken_gradient_is_not_taken(llama: Path) -> None:
    """sqrt has an infinite slope at zero."""
    model = small.decoder(llama)
    before = small.weights(model)
    steep = dataclasses.replace(SFT, loss=lambda logp, batch: SFT.loss(logp, batch) + (0.0 * logp.sum()).sqrt())
    with pytest.raises(Diverged, match="nothing was trained"):
        fit(model, steep, small.Passes(small.rows(2), step=2, micro=2), small.plan(steps=1, warmup_steps=0))
    assert all(torch.equal(p, before[n]) for n, p in model.trainable())


def test_three_broken_steps_in_a_row_end_the_run(llama: Path) -> None:
    model, good = small.decoder(llama), small.split(small.rows(4), 4)
    bad = [small.spoiled(good[0])]
    before = small.weights(model)
    with pytest.raises(Diverged) as caught:
        fit(model, SFT, small.listed(bad), small.plan(steps=500))
    sentence = str(caught.value)
    assert all(w in sentence for w in ("3 steps in a row", "step 3", "row 0, row 1", "Lower train.learning_rate"))
    assert caught.value.exit_code == 5
    assert all(torch.equal(p, before[n]) for n, p in model.trainable())


def test_more_than_one_percent_of_broken_steps_end_the_run_and_one_is_forgiven(llama: Path) -> None:
    good = small.split(small.rows(4), 4)
    bad = [small.spoiled(good[0])]
    source = small.listed(*[good] * 30, bad, *[good] * 30, bad, *[good] * 200)
    progress = fit(small.decoder(llama, "lora"), SFT, source, small.plan(steps=200))
    assert progress.skipped == 2  # of 200: one percent, and no more
    with pytest.raises(Diverged, match=r"in 2 of 62 steps \(step 62; learning rate up to 0.01; rows row 0, row 1"):
        fit(small.decoder(llama, "lora"), SFT, source, small.plan(steps=199))


def test_a_loss_far_above_the_usual_is_told_with_its_rows(llama: Path) -> None:
    model, good = small.decoder(llama), small.split(small.rows(4), 4)
    (wild,) = small.split(small.rows(2, seed=9), 2)
    wild = dataclasses.replace(wild, target_BT=wild.target_BT + 4000)  # tokens that never come elsewhere
    notes: list[str] = []
    plan = small.plan(steps=121, learning_rate=1e-2)
    fit(model, SFT, small.listed(*[good] * 120, [wild]), plan, Hooks(on_note=notes.append))
    assert len(notes) == 1
    assert notes[0].startswith("Step 121: the loss is ")
    assert notes[0].endswith("Its rows: row 0, row 1.")


# --- Memory that runs out -------------------------------------------------------------------------------------------


class Tight:
    """A model that has no memory for more than ``most`` rows at a time."""

    def __init__(self, model: Model, most: int) -> None:
        self.model, self.most, self.seen, self.training = model, most, [], []
        self.own = model.token_logp

    def __call__(self, batch: Batch) -> Tensor:
        self.seen.append(len(batch.length_B))
        self.training.append(self.model.network.training)
        if len(batch.length_B) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.own(batch)


@pytest.mark.parametrize("method", parts.names("models.adapters"))
def test_memory_that_runs_out_halves_the_micro_batch_and_the_step_stays_the_same(method: str, llama: Path) -> None:
    held, ends = small.rows(12), []
    for most in (99, 2):
        model, notes = small.decoder(llama, method), []
        tight = Tight(model, most)
        model.token_logp = tight  # type: ignore[method-assign]
        plan = small.plan(steps=5, warmup_steps=0, learning_rate=1e-3)
        progress = fit(model, SFT, small.Passes(held, step=12, micro=8), plan, Hooks(on_note=notes.append))
        ends.append((small.weights(model), [p.loss for p in progress.curve], progress))
    (plain, losses, one), (halved, others, other) = ends
    assert others == pytest.approx(losses, rel=1e-6)
    assert all(torch.allclose(halved[n], plain[n], atol=1e-5) for n in plain)
    assert (one.halvings, other.halvings) == (0, 2)
    assert (other.tokens, other.trained_tokens) == (one.tokens, one.trained_tokens)
    assert notes == [
        "Step 1: out of memory; micro-batches are cut in 2 from here on.",
        "Step 1: out of memory; micro-batches are cut in 4 from here on.",
    ]
    assert tight.seen[:3] == [8, 4, 2]  # found out once, not in every step
    assert max(tight.seen[3:]) == 2


def test_the_worst_micro_batch_is_tried_in_training_mode_before_the_first_step(llama: Path) -> None:
    held = small.rows(12)
    model, notes = small.decoder(llama, "lora"), []
    tight = Tight(model, 5)
    model.token_logp = tight  # type: ignore[method-assign]
    hooks = Hooks(worst=small.split(held, 12)[0], on_note=notes.append)
    fit(model, SFT, small.Passes(held, step=12, micro=3), small.plan(steps=4), hooks)
    assert tight.seen[:3] == [12, 6, 3]
    assert notes == [f"The largest micro-batch needs too much memory; cut in {n}." for n in (2, 4)]
    assert max(tight.seen[3:]) <= 3
    assert all(tight.training)


def test_the_trial_of_the_worst_micro_batch_changes_nothing(llama: Path) -> None:
    held, ends = small.rows(12), []
    for worst in (None, small.split(held, 12)[0]):
        model = small.decoder(llama, "lora", dropout=0.2)
        torch.manual_seed(1)
        fit(model, SFT, small.Passes(held, step=12, micro=3), small.plan(steps=4), Hooks(worst=worst))
        ends.append(small.weights(model))
    assert all(torch.equal(ends[0][n], ends[1][n]) for n in ends[0])


def test_no_memory_for_one_row_is_a_sentence_with_ways_out(llama: Path) -> None:
    model = small.decoder(llama)
    before = small.weights(model)
    model.token_logp = Tight(model, 0)  # type: ignore[method-assign]
    with pytest.raises(MemoryNeeded) as caught:
        fit(model, SFT, small.Passes(small.rows(4), step=4, micro=4), small.plan())
    told = str(caught.value)
    assert caught.value.exit_code == 4
    assert all(
        w in told for w in ("one row at a time", "train.memory: checkpoint", "train.max_length", "smaller model")
    )
    assert all(torch.equal(p, before[n]) for n, p in model.trainable())


def test_an_error_that_is_not_of_memory_comes_through(llama: Path) -> None:
    model = small.decoder(llama)

    def broken(_: Batch) -> Tensor:
        raise RuntimeError("shapes do not fit")

    model.token_logp = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        fit(model, SFT, small.Passes(small.rows(4), step=4, micro=4), small.plan())
