"""A trained model on disk: published whole, loaded whole, refused on anything else than its own base."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import small
from tunesmith.core import parts
from tunesmith.core.errors import DataError, DiskError, ModelError
from tunesmith.models import artefact
from tunesmith.models import load as loading
from tunesmith.models.model import Model

METHODS = parts.names("models.adapters")


def tuned(base: Path, method: str, labels: tuple[str, ...] = ()) -> Model:
    model = small.base(base, method)
    if labels:
        model.add_head(labels, seed=0)
    return small.stir(small.attach(model, method))


def publish(model: Model, method: str, folder: Path) -> Path:
    artefact.publish(model, method, folder, {"README.md": "---\nlicense: apache-2.0\n---\n"})
    return folder


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("folder", ["llama", "untied", "bert"])
def test_what_was_published_comes_back_bit_for_bit(
    method: str, folder: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = tuned(request.getfixturevalue(folder), method)
    back = artefact.load(publish(model, method, tmp_path / "out"))
    assert small.comes_back(method, small.states(back), small.states(model))
    assert (tmp_path / "out" / "README.md").read_text().startswith("---")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    assert not any(m.training for m in back.modules())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("folder", ["llama", "untied", "bert"])
def test_a_head_comes_back_with_its_labels_in_their_order(
    method: str, folder: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = tuned(request.getfixturevalue(folder), method, ("zeta", "alpha", "größe"))
    back = artefact.load(publish(model, method, tmp_path / "out"))
    model.train(False)
    batch = small.split(small.rows(4), 4)[0]
    assert back.labels == ("zeta", "alpha", "größe")
    assert small.comes_back(method, back.class_logp(batch), model.class_logp(batch))


def test_the_note_says_what_it_was_trained_on(llama: Path, tmp_path: Path) -> None:
    model = tuned(llama, "lora")
    note = json.loads((publish(model, "lora", tmp_path / "out") / artefact.NOTE).read_text())
    assert note["method"] == "lora"
    assert note["base"] == str(llama)
    assert note["base_fingerprint"] == loading.fingerprint(llama)


@pytest.mark.parametrize("method", METHODS)
def test_other_weights_of_the_same_shape_are_refused(
    method: str, llama: Path, other_llama: Path, tmp_path: Path
) -> None:
    out = publish(tuned(llama, method), method, tmp_path / "out")
    with pytest.raises(ModelError) as caught:
        artefact.load(out, str(other_llama))
    sentence = str(caught.value)
    expected = ("base_fingerprint", loading.fingerprint(llama), loading.fingerprint(other_llama), str(out), "Name the")
    assert all(word in sentence for word in expected), sentence


@pytest.mark.parametrize(
    "shape", [{"num_hidden_layers": 1}, {"num_hidden_layers": 3}, {"vocab_size": 9000}, {"rms_norm_eps": 1e-3}]
)
def test_fewer_or_more_layers_another_vocabulary_and_another_config_are_refused(
    shape: dict[str, Any], llama: Path, tmp_path: Path
) -> None:
    out = publish(tuned(llama, "lora"), "lora", tmp_path / "out")
    other = small.llama(tmp_path / "other", **shape)
    with pytest.raises(ModelError, match=r"base_fingerprint .*Name the right base\."):
        artefact.load(out, str(other))


def test_the_same_base_elsewhere_is_accepted(llama: Path, tmp_path: Path) -> None:
    model = tuned(llama, "lora")
    moved = small.copy(llama, tmp_path / "moved")
    back = artefact.load(publish(model, "lora", tmp_path / "out"), str(moved))
    assert torch.equal(small.states(back), small.states(model))


def test_another_tokenizer_is_refused(llama: Path, tmp_path: Path) -> None:
    other = small.copy(llama, tmp_path / "other")
    text = json.loads((other / "tokenizer.json").read_text())
    text["model"]["merges"] = text["model"]["merges"][:-1]
    (other / "tokenizer.json").write_text(json.dumps(text))
    out = publish(tuned(llama, "lora"), "lora", tmp_path / "out")
    with pytest.raises(ModelError, match=r"tokenizer_hash .*Name the right base\."):
        artefact.load(out, str(other))


def test_another_template_is_refused(llama: Path, tmp_path: Path) -> None:
    other = small.copy(llama, tmp_path / "other")
    template = other / "chat_template.jinja"
    template.write_text(template.read_text() + "{# a space more #} ")
    out = publish(tuned(llama, "lora"), "lora", tmp_path / "out")
    with pytest.raises(ModelError, match=r"template_hash .*Name the right base\."):
        artefact.load(out, str(other))


@pytest.mark.parametrize("method", METHODS)
def test_a_flipped_byte_is_found_in_every_file(method: str, bert: Path, tmp_path: Path) -> None:
    out = publish(tuned(bert, method, ("a", "b")), method, tmp_path / "out")
    for path in sorted(p for p in out.iterdir() if p.name not in ("MANIFEST.json", artefact.NOTE)):
        data = path.read_bytes()
        changed = bytearray(data)
        changed[-1] ^= 1
        path.write_bytes(changed)
        with pytest.raises(DataError, match=f"{path.name} is damaged"):
            artefact.load(out)
        path.write_bytes(data)
    artefact.load(out)


def test_a_missing_file_is_found(llama: Path, tmp_path: Path) -> None:
    out = publish(tuned(llama, "lora"), "lora", tmp_path / "out")
    (out / "adapter_config.json").unlink()
    with pytest.raises(DataError, match=r"adapter_config\.json is named in MANIFEST\.json and missing"):
        artefact.load(out)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", METHODS)
def test_weights_that_are_not_finite_are_not_published(method: str, value: float, bert: Path, tmp_path: Path) -> None:
    model = tuned(bert, method, ("a", "b"))
    name, parameter = model.trainable()[-1]
    parameter.data.view(-1)[0] = value
    with pytest.raises(ModelError) as caught:
        publish(model, method, tmp_path / "deeper" / "out")
    assert name in str(caught.value)
    assert "not finite" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_failed_publication_keeps_the_older_one(llama: Path, tmp_path: Path) -> None:
    model = tuned(llama, "lora")
    out = publish(model, "lora", tmp_path / "out")
    older = small.states(artefact.load(out))
    small.stir(model)
    with pytest.raises(DiskError, match=r"Cannot write .*out: .*Free space"):
        artefact.publish(model, "lora", out, {".": "a name that cannot be written"})
    assert torch.equal(small.states(artefact.load(out)), older)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_an_adapter_that_changes_nothing_is_refused(llama: Path, tmp_path: Path) -> None:
    model = small.attach(loading.load(str(llama)), "lora")
    out = publish(model, "lora", tmp_path / "out")
    with pytest.raises(ModelError, match=r"does not change the model's states"):
        artefact.load(out)


def test_a_folder_of_something_else_is_refused(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no tunesmith\.json"):
        artefact.load(llama)
    with pytest.raises(ModelError, match=r"has no tunesmith\.json"):
        artefact.load(tmp_path / "nowhere")


def test_bf16_products_come_back_as_bf16(llama: Path, tmp_path: Path) -> None:
    model = loading.load(str(llama), precision="bfloat16")
    small.stir(small.attach(model, "lora"))
    back = artefact.load(publish(model, "lora", tmp_path / "out"))
    assert back.precision == "bfloat16"
    assert torch.equal(small.states(back), small.states(model))
    kept = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {t.dtype for t in kept.values()} == {torch.float32}


def test_a_full_artefact_serves_as_a_base(llama: Path, tmp_path: Path) -> None:
    model = tuned(llama, "full")
    base = loading.load(str(publish(model, "full", tmp_path / "out")))
    assert torch.equal(small.states(base), small.states(model))
    assert base.card.fingerprint != model.card.fingerprint
    assert base.card.tokenizer_hash == model.card.tokenizer_hash
    assert base.card.template_hash == model.card.template_hash
    assert base.card.parameters == model.card.parameters


@pytest.mark.parametrize("kind", ["LoraConfig", "IA3Config", "LoHaConfig"])
def test_an_adapter_made_elsewhere_is_taken_up_and_what_is_not_proven_is_told(
    kind: str, llama: Path, tmp_path: Path
) -> None:
    made = AutoModelForCausalLM.from_pretrained(llama)
    options = {"feedforward_modules": []} if kind == "IA3Config" else {"r": 4}
    config = getattr(peft, kind)(target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM", **options)
    theirs = peft.get_peft_model(made, config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    theirs.save_pretrained(tmp_path)
    model, told = artefact.adopt(tmp_path, str(llama))
    ids_1T = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert torch.allclose(model.network(ids_1T).logits, theirs(ids_1T).logits, rtol=1e-4, atol=1e-4)
    assert "names no fingerprint of its base" in told


def test_an_adapter_made_elsewhere_for_another_shape_is_refused(llama: Path, tmp_path: Path) -> None:
    wide = small.llama(tmp_path / "wide", hidden_size=64)
    parts.find("models.adapters", "lora").save(small.stir(small.decoder(wide, "lora")), tmp_path)
    with pytest.raises(ModelError, match=r"the base needs"):
        artefact.adopt(tmp_path, str(llama))
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(ModelError, match=r"expected an adapter in PEFT's format"):
        artefact.adopt(tmp_path, str(llama))
