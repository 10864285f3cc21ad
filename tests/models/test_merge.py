"""Merging beside the conformance test: what is trained beside an adapter, bf16, four bits."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import small
from tunesmith.core.errors import ModelError
from tunesmith.models import load as loading
from tunesmith.models.merge import merged, on_dense_weights


@pytest.mark.parametrize("folder", ["llama", "untied"])
@pytest.mark.parametrize("options", [{"new_tokens": ("<sql>", "<end>")}, {"modules_to_save": ("embed_tokens", "norm")}])
def test_what_is_trained_beside_the_adapter_is_in_the_merged_folder(
    folder: str, options: dict[str, tuple[str, ...]], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = small.stir(small.decoder(request.getfixturevalue(folder), "lora", **options))
    model.train(False)
    last = model.card.vocabulary - 1
    ids_1T = torch.tensor([[1, 7, 9, last, 5, last - 1]])
    with torch.no_grad():
        wanted = model.network(ids_1T).logits
        with merged(model) as network:
            network.save_pretrained(tmp_path)
        fresh = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        assert fresh.config.vocab_size == last + 1
        assert torch.allclose(fresh(ids_1T).logits, wanted, rtol=1e-4, atol=1e-4)
        assert torch.equal(model.network(ids_1T).logits, wanted)


def test_bf16_sums_are_rounded_once(llama: Path) -> None:
    model = small.stir(small.attach(loading.load(str(llama), precision="bfloat16"), "lora"))
    name, layer = next(iter(model.adapted.items()))
    exact = layer.base.weight.float() + layer.scale * layer.lora_B @ layer.lora_A
    with merged(model) as network:
        weight = network.get_submodule(name).weight
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, exact.bfloat16())


def test_a_base_in_four_bits_is_not_merged_into_unasked(llama: Path) -> None:
    model = small.decoder(llama, "qlora")
    with pytest.raises(ModelError, match=r"held in four bits"), merged(model):
        pass


def test_peft_over_four_bits_says_that_it_does_not_merge(llama: Path, tmp_path: Path) -> None:
    base = small.base(llama, "qlora")
    base.network.save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"OFT by PEFT cannot be merged into .* Use --to peft"):
        on_dense_weights(small.decoder(tmp_path, "oft"))


def test_whatever_happens_inside_the_model_comes_back(llama: Path) -> None:
    model = small.stir(small.decoder(llama, "ia3"))
    states = small.states(model)
    with pytest.raises(KeyboardInterrupt), merged(model):
        raise KeyboardInterrupt
    assert torch.equal(small.states(model), states)
