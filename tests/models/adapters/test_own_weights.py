"""Modules that are trained whole beside an adapter, and new tokens whose rows alone are trained."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

import small
from tunesmith.core.errors import ModelError, RecipeError
from tunesmith.data.batches import collate
from tunesmith.models.adapters.lora import PART as LORA
from tunesmith.models.model import Model, adapters_off
from tunesmith.objectives.classify import PART as CLASSIFY
from tunesmith.objectives.sft import PART as SFT
from tunesmith.train.loop import fit

NEW = ("<sql>", "<table>")
FIRST = small.VOCABULARY


def rows_with_new() -> list[Any]:
    return [replace(r, ids=(*r.ids[:-2], FIRST + i % 2, r.ids[-1])) for i, r in enumerate(small.rows(6))]


def trained(folder: Path, **options: Any) -> Model:
    model = small.decoder(folder, "lora", **options)
    rows = rows_with_new() if "new_tokens" in options else small.rows(6)
    fit(model, SFT, small.Passes(rows, step=3, micro=3), small.plan(steps=6, learning_rate=3e-3))
    return model


def logits(network: Any, ids: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = network(input_ids=ids).logits
    return found


IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])
BESIDE = [{"modules_to_save": ("embed_tokens",)}, {"modules_to_save": ("lm_head", "norm")}, {"new_tokens": NEW}]


@pytest.mark.parametrize("folder", ["llama", "untied"])
@pytest.mark.parametrize("options", BESIDE, ids=["embedding", "head and norm", "new tokens"])
def test_it_comes_back_here_and_in_peft(
    options: dict[str, Any], folder: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    base: Path = request.getfixturevalue(folder)
    model = trained(base, **options)
    LORA.save(model, tmp_path)
    ids = torch.cat([IDS, torch.tensor([[FIRST, FIRST + 1]])], 1) if "new_tokens" in options else IDS
    wanted = logits(model.network, ids)
    back = small.base(base, "lora")
    LORA.load(back, tmp_path)
    assert torch.equal(logits(back.network, ids), wanted)
    with adapters_off(back), adapters_off(model):
        assert torch.equal(logits(back.network, IDS)[..., :FIRST], logits(small.base(base).network, IDS))
        assert torch.equal(logits(model.network, IDS)[..., :FIRST], logits(small.base(base).network, IDS))
    assert torch.equal(logits(back.network, ids), wanted)
    plain = AutoModelForCausalLM.from_pretrained(base)
    if "new_tokens" in options:
        plain.resize_token_embeddings(FIRST + 2, mean_resizing=False)
    theirs = peft.PeftModel.from_pretrained(plain, str(tmp_path)).eval()
    assert torch.allclose(logits(theirs, ids), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("folder", ["llama", "untied"])
def test_of_new_tokens_their_rows_alone_are_trained(folder: str, request: pytest.FixtureRequest) -> None:
    base: Path = request.getfixturevalue(folder)
    model = small.decoder(base, "lora", new_tokens=NEW)
    tables = {n: p for n, p in model.trainable() if "lora_" not in n}
    assert {tuple(p.shape) for p in tables.values()} == {(2, 32)} and len(tables) == (1 if folder == "llama" else 2)
    start = [t.weight.detach().clone() for t in (model.network.get_input_embeddings(), model.network.lm_head)]
    fit(model, SFT, small.Passes(rows_with_new(), step=3, micro=3), small.plan(steps=6, weight_decay=0.1))
    for table, old in zip((model.network.get_input_embeddings(), model.network.lm_head), start, strict=True):
        assert torch.equal(table.weight[:FIRST], old[:FIRST])
        assert (table.weight[FIRST:] != old[FIRST:]).any(1).all()


def test_a_new_token_is_read_as_one_and_begins_as_the_mean_of_its_pieces(llama: Path) -> None:
    plain = small.base(llama)
    pieces = plain.tokenizer("<sql>", add_special_tokens=False).input_ids
    model = small.decoder(llama, "lora", new_tokens=NEW)
    assert len(pieces) > 1 and model.tokenizer("<sql>", add_special_tokens=False).input_ids == [FIRST]
    mean = plain.network.get_input_embeddings().weight[pieces].mean(0)
    assert torch.allclose(model.network.get_input_embeddings().weight[FIRST], mean)
    assert model.card.vocabulary == FIRST + 2


def test_the_gradient_of_a_row_is_that_of_the_whole_table(llama: Path) -> None:
    batch = collate(rows_with_new(), 0)
    model = small.decoder(llama, "lora", new_tokens=NEW)
    SFT.loss(model.token_logp(batch), batch).backward()  # type: ignore[no-untyped-call]
    plain = small.decoder(llama, "lora", new_tokens=NEW)
    table = plain.network.get_input_embeddings().weight
    ids_BT = batch.ids_BT
    real_BT = torch.arange(ids_BT.shape[1]) < batch.length_B[:, None]
    out = plain.network(input_ids=ids_BT, attention_mask=real_BT.long())
    logp = out.logits.log_softmax(-1).gather(-1, batch.target_BT[..., None])[..., 0]
    (whole,) = torch.autograd.grad(-(logp * batch.weight_BT).sum(), table)
    rows = next(p for n, p in model.trainable() if "embed" in n)
    assert rows.grad is not None and torch.allclose(rows.grad, whole[FIRST:], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"new_tokens": ("the",)}, ("method.new_tokens: 'the' is known already",)),
        ({"new_tokens": (" ",)}, ("is empty",)),
        ({"new_tokens": ("<a>", "<a>")}, ("stands there twice",)),
        ({"modules_to_save": ("lm_haed",)}, ('"lm_haed" matches no module', 'Did you mean "lm_head"?')),
        ({"modules_to_save": ("mlp",)}, ('"mlp" holds model.layers.0.mlp.', "has an adapter")),
    ],
)
def test_what_cannot_be_is_a_sentence(options: dict[str, Any], words: tuple[str, ...], llama: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        small.decoder(llama, "lora", **options)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_copies_of_a_tied_weight_that_differ_are_refused(llama: Path, tmp_path: Path) -> None:
    LORA.save(trained(llama, modules_to_save=("embed_tokens",)), tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    assert "base_model.model.lm_head.weight" in load_file(path)
    small.edit_tensor(path, "base_model.model.lm_head.weight", 7.0)
    with pytest.raises(ModelError, match="two different copies of a weight"):
        LORA.load(small.base(llama), tmp_path)


def test_weights_beside_the_adapter_that_are_missing_are_told(llama: Path, tmp_path: Path) -> None:
    LORA.save(trained(llama, modules_to_save=("norm",)), tmp_path)
    small.edit_json(tmp_path / "adapter_config.json", modules_to_save=["norm", "input_layernorm"])
    with pytest.raises(ModelError, match=r"do not match .*: model\.layers\.0\.input_layernorm\.weight"):
        LORA.load(small.base(llama), tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["trainable_token_indices"] is None


def test_below_a_head_the_output_matrix_is_no_part(untied: Path) -> None:
    model = small.encoder(untied, "lora", new_tokens=NEW)
    fit(model, CLASSIFY, small.Passes(small.rows(6, classes=3), step=3, micro=3), small.plan(steps=4))
    assert {tuple(p.shape) for n, p in model.trainable() if "embed" in n or "lm_head" in n} == {(2, 32)}
    with pytest.raises(RecipeError, match=r'"lm_head" is the output matrix, which takes no part below a'):
        small.encoder(untied, "lora", modules_to_save=("lm_head",))


def test_rows_above_the_vocabulary_are_a_sentence(llama: Path, tmp_path: Path) -> None:
    model = small.decoder(llama, "lora", new_tokens=NEW)
    LORA.save(small.stir(model), tmp_path)
    (tmp_path / "new_tokens.json").unlink()
    with pytest.raises(ModelError, match=r"trains the rows of tokens up to 8193; .* has 8192 tokens"):
        LORA.load(small.base(llama), tmp_path)
