"""The update within the backward pass: the steps of the plain rule, and no gradient left standing."""

import math
from pathlib import Path

import pytest
import torch

import small
from tunesmith.core.errors import ModelError
from tunesmith.models import load as loading
from tunesmith.models.model import Model
from tunesmith.objectives.sft import PART as SFT
from tunesmith.train.loop import Hooks, fit

BATCH = small.split(small.rows(6), 6)


def trained(folder: Path, memory: str, precision: str = "float32", **changes: object) -> tuple[Model, list[float]]:
    model = small.attach(loading.load(str(folder), precision=precision), "full")  # type: ignore[arg-type]
    plan = small.plan(**{"steps": 12, "learning_rate": 1e-3, "clip_norm": 1e9, "memory": memory, **changes})
    progress = fit(model, SFT, small.listed(BATCH), plan)
    return model, [p.loss for p in progress.curve if p.loss is not None]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_without_clipping_both_rules_give_the_same_weights(llama: Path, precision: str) -> None:
    whole, losses = trained(llama, "fast", precision)
    least, others = trained(llama, "least", precision)
    assert others == losses
    assert losses[-1] < losses[0] - 0.3
    for (name, ours), (_, theirs) in zip(least.trainable(), whole.trainable(), strict=True):
        assert torch.equal(ours, theirs), name


def test_no_gradient_stands_after_the_backward_pass(llama: Path) -> None:
    model = small.attach(loading.load(str(llama)), "full")
    alive: list[int] = []
    own = model.refresh

    def watched() -> None:
        alive.append(sum(p.grad is not None for _, p in model.trainable()))
        own()

    model.refresh = watched  # type: ignore[method-assign]
    fit(model, SFT, small.listed(BATCH), small.plan(steps=2, memory="least"))
    assert alive == [0, 0, 0]


def test_each_tensor_is_clipped_by_its_share_so_that_the_whole_stays_below_clip_norm(llama: Path) -> None:
    """With plain SGD of rate 1 the step of the network is its clipped gradient."""
    model = small.attach(loading.load(str(llama)), "full")
    before = small.weights(model)
    hooks = Hooks(make_optimisers=lambda parameters, **_: [torch.optim.SGD([p for _, p in parameters], lr=1.0)])
    fit(model, SFT, small.listed(BATCH), small.plan(steps=1, warmup_steps=0, memory="least", clip_norm=0.01), hooks)
    moved = {n: float((p.detach() - before[n]).double().norm()) for n, p in model.trainable()}
    total = sum(p.numel() for _, p in model.trainable())
    for name, parameter in model.trainable():
        assert 0 < moved[name] <= 0.01 * math.sqrt(parameter.numel() / total) * 1.001, name
    assert math.sqrt(sum(m * m for m in moved.values())) <= 0.0101


def test_a_gradient_that_is_not_finite_moves_nothing_and_counts_as_skipped(llama: Path) -> None:
    model = small.attach(loading.load(str(llama)), "full")
    broken = [small.spoiled(BATCH[0])]
    after: list[dict[str, torch.Tensor]] = []
    hooks = Hooks(on_step=lambda *_: after.append(small.weights(model)))
    progress = fit(model, SFT, small.listed(BATCH, broken), small.plan(steps=3, memory="least"), hooks)
    assert progress.skipped == 1
    assert all(torch.equal(after[1][n], w) for n, w in after[0].items())
    assert not all(torch.equal(after[2][n], w) for n, w in after[1].items())


def test_a_second_micro_batch_is_refused(llama: Path) -> None:
    model = small.attach(loading.load(str(llama)), "full")
    with pytest.raises(ModelError, match="steps of one micro-batch"):
        fit(model, SFT, small.listed(small.split(small.rows(6), 3)), small.plan(memory="least"))
