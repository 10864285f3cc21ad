"""Full fine-tuning leaves a plain transformers folder."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import small
from tunesmith.core.errors import ModelError
from tunesmith.models import load as loading
from tunesmith.models.adapters.full import PART
from tunesmith.models.model import Model

IDS_BT = torch.arange(5, 29)[None]


def saved(base: Path, folder: Path) -> Model:
    model = small.stir(small.attach(loading.load(str(base)), "full"))
    folder.mkdir()
    PART.save(model, folder)
    return model


@pytest.mark.parametrize("folder", ["llama", "untied", "gemma2"])
def test_plain_transformers_gives_the_same_logits(folder: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base: Path = request.getfixturevalue(folder)
    model = saved(base, tmp_path / "out")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        assert torch.equal(plain(IDS_BT).logits, model.network(IDS_BT).logits)
    text = "user asks <|im_end|> and größe"
    assert AutoTokenizer.from_pretrained(tmp_path / "out")(text).input_ids == model.tokenizer(text).input_ids
    assert plain.config.use_cache


def test_plain_transformers_gives_the_same_states_of_an_encoder(bert: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    model = saved(bert, tmp_path / "out")
    plain = AutoModel.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        assert torch.equal(plain(IDS_BT).last_hidden_state, model.network(IDS_BT).last_hidden_state)


def test_tied_embeddings_stay_tied_through_training_saving_and_loading(llama: Path, tmp_path: Path) -> None:
    model = saved(llama, tmp_path / "out")
    assert "lm_head.weight" not in load_file(tmp_path / "out" / "model.safetensors")
    back = loading.load(str(llama))
    PART.load(back, tmp_path / "out")
    for network in (model.network, back.network):
        assert network.get_output_embeddings().weight is network.get_input_embeddings().weight
    assert torch.equal(back.network.lm_head.weight, model.network.lm_head.weight)
    assert not torch.equal(back.network.lm_head.weight, loading.load(str(llama)).network.lm_head.weight)


def test_an_untied_head_that_is_missing_is_an_error(untied: Path, tmp_path: Path) -> None:
    saved(untied, tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    save_file({n: t for n, t in load_file(path).items() if n != "lm_head.weight"}, path)
    with pytest.raises(ModelError, match=r"do not match base: 1 names differ, such as lm_head\.weight"):
        PART.load(loading.load(str(untied)), tmp_path / "out")


def test_weights_under_other_names_are_an_error(llama: Path, tmp_path: Path) -> None:
    saved(llama, tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    save_file({f"other.{n}": t for n, t in load_file(path).items()}, path)
    with pytest.raises(ModelError, match="do not match"):
        PART.load(loading.load(str(llama)), tmp_path / "out")


def test_a_folder_without_weights_is_an_error(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="do not match base: 21 names differ"):
        PART.load(loading.load(str(llama)), tmp_path)


def test_every_weight_is_trained_but_an_unused_pooler(llama: Path, bert: Path) -> None:
    decoder = small.attach(loading.load(str(llama)), "full")
    assert {n for n, _ in decoder.trainable()} == {n for n, _ in decoder.network.named_parameters()}
    encoder = small.attach(loading.load(str(bert)), "full")
    left = {n for n, _ in encoder.network.named_parameters()} - {n for n, _ in encoder.trainable()}
    assert left == {"pooler.dense.weight", "pooler.dense.bias"}


def test_below_a_head_an_output_matrix_of_its_own_is_left_alone(untied: Path, llama: Path) -> None:
    model, tied = loading.load(str(untied)), loading.load(str(llama))
    for one in (model, tied):
        one.add_head(["a", "b"], seed=0)
        small.attach(one, "full")
    left = {n for n, _ in model.network.named_parameters()} - {n for n, _ in model.trainable()}
    assert left == {"lm_head.weight"}
    assert "model.embed_tokens.weight" in {n for n, _ in tied.trainable()}


def test_half_precision_weights_become_float32_masters(llama: Path) -> None:
    model = loading.load(str(llama))
    model.network.bfloat16()
    small.attach(model, "full")
    assert {p.dtype for _, p in model.trainable()} == {torch.float32}
