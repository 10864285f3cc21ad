"""Adapters by name on one base: folders of ours and of PEFT's, and what cannot stand beside others."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import small
from tunesmith.core.errors import ModelError
from tunesmith.models import artefact, many
from tunesmith.models import load as loading
from tunesmith.models.adapters import _lora_files as lora_files
from tunesmith.models.lora_stack import Update
from tunesmith.models.model import Model, adapters_off

IDS_BT = torch.arange(5, 25).view(2, 10)


def written(base: Path, folder: Path, method: str = "lora", **options: Any) -> Model:
    """An adapter in ``folder``, and the model that has it alone."""
    model = small.stir(small.decoder(base, method, **options))
    artefact.publish(model, method, folder, {})
    return model


@torch.no_grad()
def logits(model: Model, *names: str | None) -> Tensor:
    if not names:
        return model.network(input_ids=IDS_BT).logits  # type: ignore[no-any-return]
    with many.stack_of(model).rows(names, IDS_BT.shape[1]):
        return model.network(input_ids=IDS_BT).logits  # type: ignore[no-any-return]


def near(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_folders_of_other_ranks_and_layers_and_rslora_answer_side_by_side(llama: Path, tmp_path: Path) -> None:
    alone = {
        "plain": written(llama, tmp_path / "a"),
        "root": written(llama, tmp_path / "b", "rslora", rank=7, alpha=3.0, target_modules=("q_proj", "down_proj")),
        "doubled": written(llama, tmp_path / "c", "pissa", rank=2),
    }
    base = loading.load(str(llama))
    before = logits(base)
    for name, letter in zip(alone, "abc", strict=True):
        many.put(base, name, tmp_path / letter)
    for first, second in (("plain", "root"), ("root", None), ("doubled", "plain")):
        rows = [before if n is None else logits(alone[n]) for n in (first, second)]
        assert near(logits(base, first, second), torch.stack([rows[0][0], rows[1][1]]))
    assert not near(logits(alone["root"]), before)
    assert torch.equal(logits(base), before)  # outside of rows
    with adapters_off(base):
        assert torch.equal(logits(base, "plain", "root"), before)


def test_what_peft_wrote_is_read_with_its_patterns(llama: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = peft.LoraConfig(
        r=4, lora_alpha=12, target_modules=["q_proj", "v_proj"], use_rslora=True, rank_pattern={"v_proj": 2}
    )
    theirs: Any = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32), config)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter += 0.2 * torch.randn(parameter.shape)
        expected = theirs.eval()(input_ids=IDS_BT).logits
    theirs.save_pretrained(tmp_path)
    base = loading.load(str(llama))
    many.put(base, "theirs", tmp_path)
    assert near(logits(base, "theirs", "theirs"), expected)
    assert not near(logits(base), expected)


def test_live_weights_are_taken_as_they_are_now(llama: Path) -> None:
    tuned, base = small.stir(small.decoder(llama, "lora")), loading.load(str(llama))
    many.put(base, "now", {n: Update(*one.plain(), one.scale) for n, one in lora_files.layers(tuned).items()})
    found = logits(base, "now", "now")
    assert near(found, logits(tuned))
    small.stir(tuned, seed=1)
    assert torch.equal(logits(base, "now", "now"), found)
    many.drop(base, "now")
    assert many.stack_of(base).names == ()


def test_a_base_in_four_bits_has_them_too(llama: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    alone = written(llama, tmp_path / "a", "qlora")
    base = loading.load(str(llama), four_bits=True)
    many.put(base, "q", tmp_path / "a")
    assert near(logits(base, "q", "q"), logits(alone))


def spoil(folder: Path, **changes: Any) -> None:
    """Change PEFT's settings in a folder that nobody published."""
    (folder / artefact.NOTE).unlink()
    small.edit_json(folder / "adapter_config.json", **changes)


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("dora", {}, "has use_dora: it changes more of the base"),
        ("lora", {"modules_to_save": ("norm",)}, "has modules_to_save"),
        ("lora", {"new_tokens": ("<a>",)}, "has trainable_token_indices"),
    ],
)
def test_what_is_more_than_an_update_is_refused(
    method: str, options: dict[str, Any], said: str, llama: Path, tmp_path: Path
) -> None:
    written(llama, tmp_path / "a", method, **options)
    (tmp_path / "a" / artefact.NOTE).unlink()
    base = loading.load(str(llama))
    with pytest.raises(ModelError, match=said):
        many.put(base, "x", tmp_path / "a")
    assert base.stack is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"r": 5}, r"is \[4, 32\], the base needs \[5, 32\]"),
        ({"target_modules": ["q_proj"]}, "do not match"),
        ({"target_modules": ["nothing"]}, "do not match"),
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
    ],
)
def test_settings_that_do_not_fit_the_weights_are_refused(
    changes: dict[str, Any], said: str, llama: Path, tmp_path: Path
) -> None:
    written(llama, tmp_path / "a")
    spoil(tmp_path / "a", **changes)
    with pytest.raises(ModelError, match=said):
        many.put(loading.load(str(llama)), "x", tmp_path / "a")


def test_weights_that_cannot_be_read_are_a_sentence(llama: Path, tmp_path: Path) -> None:
    written(llama, tmp_path / "a")
    (tmp_path / "a" / artefact.NOTE).unlink()
    (tmp_path / "a" / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors cannot be read"):
        many.put(loading.load(str(llama)), "x", tmp_path / "a")


def test_an_adapter_of_another_base_or_with_a_head_is_refused(llama: Path, other_llama: Path, tmp_path: Path) -> None:
    written(llama, tmp_path / "a")
    with pytest.raises(ModelError, match="base_fingerprint"):
        many.put(loading.load(str(other_llama)), "x", tmp_path / "a")
    classes = small.stir(small.encoder(llama, "lora"))
    artefact.publish(classes, "lora", tmp_path / "b", {})
    assert "labels" in json.loads((tmp_path / "b" / artefact.NOTE).read_text())
    with pytest.raises(ModelError, match="names classes with a head of its own"):
        many.put(loading.load(str(llama)), "x", tmp_path / "b")


def test_a_base_that_has_an_adapter_of_its_own_takes_no_others(llama: Path, tmp_path: Path) -> None:
    tuned = written(llama, tmp_path / "a")
    with pytest.raises(ModelError, match="has an adapter already"):
        many.put(tuned, "x", tmp_path / "a")
    base = loading.load(str(llama))
    with pytest.raises(ModelError, match="none was put onto"):
        many.drop(base, "x")
    many.put(base, "x", tmp_path / "a")
    with pytest.raises(ModelError, match='No adapter called "xx" is on the base'):
        many.drop(base, "xx")
