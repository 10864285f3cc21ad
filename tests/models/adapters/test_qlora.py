"""QLoRA: LoRA over four bits equals LoRA over the same weights made dense; what is quantised, and what is refused."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import small
from tunesmith.core.errors import ModelError, RecipeError
from tunesmith.models import few_bits
from tunesmith.models import load as loading
from tunesmith.models.adapters.lora import PART as LORA
from tunesmith.models.adapters.qlora import PART
from tunesmith.models.frozen_linear import bits_of, dense, frozen_linear
from tunesmith.models.model import Model, adapters_off

bitsandbytes = pytest.importorskip("bitsandbytes")
BATCH = small.split(small.rows(4), 4)[0]


def linear(model: Model) -> dict[str, nn.Linear]:
    return {n: m for n, m in model.network.named_modules() if isinstance(m, nn.Linear)}


def over_dense(quantised: Model, folder: Path) -> Model:
    """The same base with every four-bit weight written out."""
    model = loading.load(str(folder))
    with torch.no_grad():
        for name, layer in linear(quantised).items():
            if bits_of(layer) is not None:
                model.network.get_submodule(name).weight.copy_(dense(layer.weight, bits_of(layer)))
    return model


def gradients(model: Model) -> dict[str, Tensor]:
    model.train(True)
    (BATCH.weight_BT * model.token_logp(BATCH)).sum().backward()  # type: ignore[no-untyped-call]
    return {n: p.grad for n, p in model.trainable() if p.grad is not None}


@pytest.mark.parametrize("folder", ["llama", "untied", "bert"])
def test_linear_layers_are_quantised_and_nothing_else(folder: str, request: pytest.FixtureRequest) -> None:
    base = request.getfixturevalue(folder)
    model, whole = loading.load(str(base), four_bits=True), loading.load(str(base))
    output = model.network.get_output_embeddings()
    for name, layer in linear(model).items():
        theirs = whole.network.get_submodule(name).weight
        if layer is output:
            assert torch.equal(layer.weight, theirs)
            continue
        found = dense(layer.weight, bits_of(layer))
        assert layer.weight.dtype == torch.uint8 and layer.weight.numel() == theirs.numel() // 2
        assert 0 < float((found - theirs).abs().mean()) < 0.2 * float(theirs.abs().mean())
    embedding = model.network.get_input_embeddings().weight
    assert torch.equal(embedding, whole.network.get_input_embeddings().weight)


@pytest.mark.parametrize("folder", ["llama", "bert"])
def test_states_and_gradients_equal_lora_over_the_dense_weights(folder: str, request: pytest.FixtureRequest) -> None:
    base = request.getfixturevalue(folder)
    ours = loading.load(str(base), four_bits=True)
    theirs = over_dense(ours, base)
    for model, part in ((ours, PART), (theirs, LORA)):
        small.attach(model, part.name)
        small.stir(model)
    torch.testing.assert_close(small.states(ours), small.states(theirs), rtol=1e-5, atol=1e-6)
    with adapters_off(ours), adapters_off(theirs):
        torch.testing.assert_close(small.states(ours), small.states(theirs), rtol=1e-5, atol=1e-6)
    if folder == "llama":
        found, expected = gradients(ours), gradients(theirs)
        assert found.keys() == expected.keys() and len(found) == 28
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_no_dense_weight_is_kept_for_the_backward_pass(dropout: float, llama: Path) -> None:
    model = small.decoder(llama, "qlora", dropout=dropout)
    kept: list[Tensor] = []
    model.train(True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        model.token_logp(BATCH)
    shapes = {(m.out_features, m.in_features) for n, m in linear(model).items() if "lm_head" not in n}
    assert not [t.shape for t in kept if tuple(t.shape) in shapes and t.dtype == torch.float32 and not t.requires_grad]


def test_a_frozen_layer_of_four_bits_passes_its_gradient_on(llama: Path) -> None:
    layer = next(m for n, m in linear(loading.load(str(llama), four_bits=True)).items() if "down_proj" in n)
    x = torch.randn(2, 3, layer.in_features, requires_grad=True)
    weight = dense(layer.weight, bits_of(layer))
    y = frozen_linear(x, layer)
    torch.testing.assert_close(y, x @ weight.T)
    (found,) = torch.autograd.grad(y.square().sum(), x)
    torch.testing.assert_close(found, (2 * x @ weight.T) @ weight)


def test_bf16_weights_are_quantised_for_bf16(llama: Path) -> None:
    model = small.attach(loading.load(str(llama), four_bits=True, precision="bfloat16"), "qlora")
    assert model.network.get_input_embeddings().weight.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for _, p in model.trainable())
    assert small.states(model).dtype == torch.bfloat16


def test_without_bitsandbytes_it_is_refused(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_bits, "has_bitsandbytes", lambda: False)
    with pytest.raises(ModelError, match=r"qlora needs bitsandbytes.*tunesmith\[quantized\].*lora"):
        loading.load(str(llama), four_bits=True)


def test_a_dora_on_four_bits_has_the_norms_of_the_dense_weights(llama: Path) -> None:
    model = small.attach(loading.load(str(llama), four_bits=True), "dora")
    for layer in model.adapted.values():
        norm = dense(layer.base.weight, bits_of(layer.base)).norm(dim=1)
        torch.testing.assert_close(layer.magnitude.weight.detach(), norm)


def test_a_base_that_was_quantised_before_takes_adapters_and_nothing_else(llama: Path, tmp_path: Path) -> None:
    model = small.base(llama, "qlora")
    model.network.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    adapted = small.decoder(tmp_path, "lora")
    assert torch.equal(small.states(adapted), small.states(model))
    assert len(adapted.trainable()) == 28
    for name in ("full", "lisa", "partial", "bitfit"):
        with pytest.raises(RecipeError, match=r"is held in few bits; .* cannot be trained or weighed"):
            small.decoder(tmp_path, name)
