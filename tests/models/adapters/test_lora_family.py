"""The members of the LoRA family against PEFT and by hand: starts, scales, lengths, patterns, two rates."""

import math
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import small
from tunesmith.core import parts
from tunesmith.core.errors import ModelError, RecipeError
from tunesmith.models import load as loading
from tunesmith.models.adapters import olora, pissa
from tunesmith.models.adapters.lora import PART
from tunesmith.models.model import Model
from tunesmith.train.loop import fit

BATCH = small.split(small.rows(4), 4)[0]
SHORT = ("q_proj", "v_proj", "down_proj")
FAMILY = {  # our name: PEFT's settings
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
}
STARTS = {"pissa": pissa.start, "olora": olora.start}


def attached(base: Path, name: str, **options: Any) -> Model:
    return small.decoder(base, name, **{"rank": 4, "alpha": 12.0, "target_modules": SHORT, **options})


def peft_of(base: Path, **options: Any) -> Any:
    network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = {"r": 4, "lora_alpha": 12, "target_modules": list(SHORT), **options}
    return peft.get_peft_model(network, peft.LoraConfig(**settings))


def logits_of(network: Any) -> Tensor:
    with torch.no_grad():
        return network(input_ids=BATCH.ids_BT[:1]).logits  # type: ignore[no-any-return]


def assert_near(found: Tensor, expected: Tensor, bound: float = 1e-5) -> None:
    """Within ``bound`` of the largest value."""
    assert float((found - expected).detach().abs().max()) <= bound * float(expected.detach().abs().max())


def pairs(model: Model, other: Any) -> list[tuple[Tensor, Tensor]]:
    """Our trained weights beside PEFT's."""
    theirs = {n.replace(".default", ""): p for n, p in other.named_parameters() if p.requires_grad}
    found = []
    for name, layer in model.adapted.items():
        key = f"base_model.model.{name}."
        found += [(getattr(layer, f"lora_{x}"), theirs.pop(f"{key}lora_{x}.weight")) for x in "AB"]
        if layer.magnitude is not None:
            found.append((layer.magnitude.weight, theirs.pop(f"{key}lora_magnitude_vector.weight")))
    assert not theirs
    return found


def backward(model: Model, other: Any) -> None:
    model.train(True)
    other.train()
    (BATCH.weight_BT * model.token_logp(BATCH)).sum().backward()  # type: ignore[no-untyped-call]
    logp_BTV = other(input_ids=BATCH.ids_BT).logits.log_softmax(-1)
    (BATCH.weight_BT * logp_BTV.gather(-1, BATCH.target_BT[..., None])[..., 0]).sum().backward()


@pytest.mark.parametrize("name", FAMILY)
def test_forward_and_gradients_equal_peft(name: str, llama: Path) -> None:
    model, other = small.stir(attached(llama, name), size=0.1), peft_of(llama, **FAMILY[name])
    both = pairs(model, other)
    for ours, theirs in both:
        theirs.data.copy_(ours.data)
    plain = attached(llama, "lora")
    for layer, same in zip(plain.adapted.values(), model.adapted.values(), strict=True):
        layer.lora_A.data.copy_(same.lora_A.data)
        layer.lora_B.data.copy_(same.lora_B.data)
    assert_near(logits_of(model.network), logits_of(other.eval()))
    if name != "lora":  # a member that did nothing of its own would pass as well
        assert float((logits_of(model.network) - logits_of(plain.network)).abs().max()) > 0.01
    backward(model, other)
    for ours, theirs in both:
        assert ours.grad is not None and theirs.grad is not None and theirs.grad.any()
        assert_near(ours.grad, theirs.grad)


@pytest.mark.parametrize("name", [n for n in FAMILY if n != "lora"])
def test_files_go_both_ways_with_equal_logits(name: str, llama: Path, tmp_path: Path) -> None:
    model = small.stir(attached(llama, name))
    PART.save(model, tmp_path)
    fresh = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    assert_near(logits_of(model.network), logits_of(peft.PeftModel.from_pretrained(fresh, tmp_path).eval()))
    other = peft_of(llama, **FAMILY[name]).eval()
    for parameter in (p for _, p in other.named_parameters() if p.requires_grad):
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    theirs = tmp_path / "theirs"
    other.save_pretrained(theirs)
    back = loading.load(str(llama))
    PART.load(back, theirs)
    assert_near(logits_of(back.network), logits_of(other))


@pytest.mark.parametrize("name", STARTS)
def test_a_start_equals_peft_s_in_values_and_gradients(name: str, llama: Path) -> None:
    """Which takes it out of the base's weights instead of subtracting it."""
    model, other = attached(llama, name), peft_of(llama, init_lora_weights=name)
    base = loading.load(str(llama))
    assert torch.equal(logits_of(model.network), logits_of(base.network))
    for name_, layer in model.adapted.items():
        assert torch.equal(layer.base.weight, base.network.get_submodule(name_).weight)
        theirs = other.get_submodule(f"base_model.model.{name_}")
        a, b = theirs.lora_A["default"].weight, theirs.lora_B["default"].weight
        assert_near((layer.lora_B @ layer.lora_A).detach(), (b @ a).detach(), 1e-3)
        layer.begin_at(a.detach(), b.detach())  # the sign of a singular vector is free
    backward(model, other)
    for ours, their in pairs(model, other):
        assert ours.grad is not None and their.grad is not None and their.grad.any()
        assert_near(ours.grad, their.grad, 1e-4)


@pytest.mark.parametrize("name", STARTS)
def test_a_trained_start_is_plain_lora_of_twice_the_rank_on_the_untouched_base(
    name: str, llama: Path, tmp_path: Path
) -> None:
    model = small.stir(attached(llama, name))
    PART.save(model, tmp_path)
    fresh = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    other = peft.PeftModel.from_pretrained(fresh, tmp_path).eval()
    assert other.peft_config["default"].r == 8
    assert_near(logits_of(model.network), logits_of(other), 1e-4)


def test_pissa_is_the_best_approximation_of_its_rank() -> None:
    weight_OI = torch.randn(30, 40, generator=torch.Generator().manual_seed(0))
    a, b = pissa.start(weight_OI, 5, 2.0, torch.Generator().manual_seed(1))
    u, s, vh = torch.linalg.svd(weight_OI, full_matrices=False)
    best = (u[:, :5] * s[:5]) @ vh[:5]
    assert float((2.0 * b @ a - best).norm()) <= 0.02 * float(best.norm())


def test_olora_starts_from_orthonormal_columns() -> None:
    weight_OI = torch.randn(30, 40, generator=torch.Generator().manual_seed(0))
    a, b = olora.start(weight_OI, 5, 2.0, torch.Generator())
    assert torch.allclose(b.T @ b, torch.eye(5), atol=1e-5)
    assert torch.allclose(b @ (b.T @ weight_OI), b @ a, atol=1e-4)


def test_dora_s_norm_is_that_of_the_sum_and_is_not_stale(llama: Path) -> None:
    model = small.stir(attached(llama, "dora"), size=0.3)
    layer = next(iter(model.adapted.values()))

    def norm() -> Tensor:
        return (layer.base.weight + layer.scale * layer.lora_B @ layer.lora_A).detach().norm(dim=1)

    model.train(False)
    assert torch.allclose(layer.magnitude.norm_O(), norm(), rtol=1e-5)
    with torch.no_grad():
        layer.lora_B += 1
    assert torch.allclose(layer.magnitude.norm_O(), norm(), rtol=1e-5)
    layer.lora_B.data -= 0.5  # unseen by autograd, as by an optimiser of others
    model.train(False)
    assert torch.allclose(layer.magnitude.norm_O(), norm(), rtol=1e-5)


def test_dora_leaves_a_bias_alone(bert: Path) -> None:
    """Twice the length is twice the product, not twice the bias."""
    model = small.encoder(bert, "dora")
    layer = next(m for m in model.adapted.values() if m.base.bias is not None)
    layer.magnitude.weight.data *= 2
    x = torch.randn(3, layer.base.in_features)
    expected = 2 * (layer.base(x) - layer.base.bias) + layer.base.bias
    assert_near(layer(x), expected)


def test_patterns_give_layers_ranks_and_alphas_of_their_own(llama: Path, tmp_path: Path) -> None:
    model = attached(
        llama, "lora", rank_pattern={"q_proj": 2, "layers.1.mlp.down_proj": 6}, alpha_pattern={"v_proj": 3.0}
    )
    ranks = {n: len(layer.lora_A) for n, layer in model.adapted.items()}
    assert ranks["model.layers.0.self_attn.q_proj"] == ranks["model.layers.1.self_attn.q_proj"] == 2
    assert (ranks["model.layers.0.mlp.down_proj"], ranks["model.layers.1.mlp.down_proj"]) == (4, 6)
    scales = {n.rsplit(".", 1)[-1]: layer.scale for n, layer in model.adapted.items() if ".0." in n}
    assert scales == {"q_proj": 6.0, "v_proj": 0.75, "down_proj": 3.0}
    small.stir(model)
    PART.save(model, tmp_path)
    fresh = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    assert_near(logits_of(model.network), logits_of(peft.PeftModel.from_pretrained(fresh, tmp_path).eval()))
    back = loading.load(str(llama))
    PART.load(back, tmp_path)
    assert torch.equal(logits_of(model.network), logits_of(back.network))


def test_peft_s_patterns_are_read(llama: Path, tmp_path: Path) -> None:
    other = peft_of(
        llama, rank_pattern={"q_proj": 2, r"layers\.1\.mlp\.down_proj": 6}, alpha_pattern={"^model.layers.0": 1}
    )
    for parameter in (p for _, p in other.named_parameters() if p.requires_grad):
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    other.eval().save_pretrained(tmp_path)
    model = loading.load(str(llama))
    PART.load(model, tmp_path)
    assert_near(logits_of(model.network), logits_of(other))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank_pattern": {"q_prj": 2}}, ('method.rank_pattern: "q_prj" matches no adapted layer', '"q_proj"?')),
        ({"alpha_pattern": {"k_proj": 2.0}}, ('method.alpha_pattern: "k_proj" matches no adapted layer', "v_proj")),
        ({"rank_pattern": {"v_proj": 17}}, ("method.rank_pattern is 17", "self_attn.v_proj of base has 16 dimensions")),
    ],
)
def test_a_pattern_that_fits_nothing_is_refused(options: dict[str, Any], words: tuple[str, ...], llama: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        attached(llama, "lora", **options)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_rank_of_zero_in_a_pattern_of_a_file_is_refused(llama: Path, tmp_path: Path) -> None:
    PART.save(small.stir(attached(llama, "lora")), tmp_path)
    small.edit_json(tmp_path / "adapter_config.json", rank_pattern={"q_proj": 0})
    with pytest.raises(ModelError, match="rank_pattern is 0"):
        PART.load(loading.load(str(llama)), tmp_path)


def test_b_learns_faster_than_a_by_the_ratio(llama: Path) -> None:
    """The first step of Adam is the learning rate, whatever the gradient."""
    model = attached(llama, "lora_plus", b_rate=9.0)
    small.stir(model, size=0.01)  # so that A has a gradient
    before = small.weights(model)
    rate = 1e-3
    fit(
        model,
        parts.find("objectives", "sft"),
        small.listed([BATCH]),
        small.plan(steps=1, learning_rate=rate, warmup_steps=0),
    )
    moved = {n: float((p - before[n]).detach().abs().median()) for n, p in model.trainable()}
    peak = rate * 0.5 * (1 + math.cos(math.pi / 2))
    for name, size in moved.items():
        assert size == pytest.approx(peak * (3 if name.endswith("lora_B") else 1 / 3), rel=0.05), name
