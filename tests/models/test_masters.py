"""Float32 masters: small steps that bf16 weights would lose add up, and gradients add up in float32."""

from pathlib import Path

import torch

import small
from tunesmith.models import load as loading
from tunesmith.models.model import Model
from tunesmith.objectives.sft import PART as SFT
from tunesmith.train.loop import fit

TINY = 2e-5  # a bf16 weight of 0.2 cannot take a step below 0.0005


def narrow(folder: Path) -> Model:
    return small.attach(loading.load(str(folder), precision="bfloat16"), "full")


def moved(before: dict[str, torch.Tensor], model: Model) -> float:
    """Share of the large weights of the network that are no longer what they were."""
    changed = total = 0
    for name, weight in model.network.named_parameters():
        large = before[name].abs() > 0.1
        changed += int((weight != before[name])[large].sum())
        total += int(large.sum())
    return changed / total


def values(model: Model) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.network.named_parameters()}


def test_steps_too_small_for_bf16_are_not_lost(llama: Path) -> None:
    batches = small.split(small.rows(6), 6)
    steps = 60
    plain = loading.load(str(llama), precision="bfloat16")
    plain.network.requires_grad_(True)
    start = values(plain)
    optimiser = torch.optim.AdamW(plain.network.parameters(), lr=TINY, weight_decay=0.0)
    for _ in range(steps):
        (SFT.loss(plain.token_logp(batches[0]), batches[0]) / SFT.weight(batches[0])).backward()
        optimiser.step()
        optimiser.zero_grad()
    assert moved(start, plain) == 0.0  # sixty steps, and no large weight has moved at all

    model = narrow(llama)
    plan = small.plan(steps=steps, learning_rate=TINY, warmup_steps=0, clip_norm=1e9)
    progress = fit(model, SFT, small.listed(batches), plan)
    assert moved(start, model) > 0.1
    first, last = progress.curve[0].loss, progress.curve[-1].loss
    assert first is not None and last is not None and last < first


def test_the_network_is_the_rounded_master_after_each_step(llama: Path) -> None:
    model = narrow(llama)
    fit(model, SFT, small.listed(small.split(small.rows(6), 3)), small.plan(steps=3))
    own = dict(model.network.named_parameters())
    assert model.masters.of.keys() == own.keys()
    for name, master in model.masters.of.items():
        assert master.dtype == torch.float32
        assert torch.equal(own[name], master.bfloat16()), name
        assert own[name].grad is None


def test_gradients_of_micro_batches_add_up_in_float32(llama: Path) -> None:
    model = narrow(llama)
    alone = []
    for batch in small.split(small.rows(6), 2):
        SFT.loss(model.token_logp(batch), batch).backward()
        alone.append({n: p.grad.clone() for n, p in model.trainable() if p.grad is not None})
        for _, parameter in model.trainable():
            parameter.grad = None
    for batch in small.split(small.rows(6), 2):
        SFT.loss(model.token_logp(batch), batch).backward()
    for name, parameter in model.trainable():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, alone[0][name] + alone[1][name] + alone[2][name]), name


def test_float32_has_no_second_copy(llama: Path) -> None:
    model = small.attach(loading.load(str(llama)), "full")
    assert not model.masters.of
    assert {id(p) for _, p in model.trainable()} == {id(p) for p in model.network.parameters()}
