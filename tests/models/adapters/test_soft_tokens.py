"""Prompt and prefix tuning beside the plain network and PEFT."""

from pathlib import Path

import peft
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import small
from tunesmith.core.errors import RecipeError
from tunesmith.core.example import Message
from tunesmith.core.recipe import MethodRecipe
from tunesmith.data.batches import collate
from tunesmith.generate.local import LocalModel
from tunesmith.generate.sampler import Sampling, sample
from tunesmith.models.adapters import prefix, prompt
from tunesmith.models.model import Model, adapters_off
from tunesmith.plan import targets

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12], [13]]
SOFT = ("prefix", "prompt")


def saved(folder: Path, name: str, target: Path, **options: object) -> Model:
    model = small.stir(small.decoder(folder, name, **options))
    (prompt if name == "prompt" else prefix).save(model, target)
    return model


def test_peft_gives_the_same_logits(llama: Path, tmp_path: Path) -> None:
    model = saved(llama, "prompt", tmp_path)
    theirs = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), str(tmp_path)).eval()
    row = small.rows(1)[0]
    batch = collate([row], 0)
    with torch.no_grad():
        logits_TV = theirs(input_ids=batch.ids_BT).logits[0, 4:]
        own_BT = model.token_logp(batch)
    wanted_T = logits_TV.log_softmax(-1).gather(-1, batch.target_BT[0][:, None])[:, 0]
    trained = batch.weight_BT[0] > 0
    assert trained.any() and torch.allclose(own_BT[0][trained], wanted_T[trained], atol=1e-5)


def by_hand(folder: Path, model: Model, ids: list[int]) -> Tensor:
    """Logits of the last place by the plain network, which reads the prefix from a cache of keys and values."""
    from transformers import DynamicCache
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    cache = DynamicCache(config=plain.config)
    for i, layer in enumerate(model.network.model.layers):
        key, value = (getattr(layer.self_attn, n).rows.view(1, 4, 2, 8).transpose(1, 2) for n in ("k_proj", "v_proj"))
        cos, sin = plain.model.rotary_emb(value, torch.arange(4)[None])
        cache.update(apply_rotary_pos_emb(key, key, cos, sin)[0], value, i)
    return plain(input_ids=torch.tensor([ids]), past_key_values=cache).logits[0, -1]  # type: ignore[no-any-return]


@torch.no_grad()
def test_a_prefix_is_what_a_cache_of_keys_and_values_is(llama: Path, tmp_path: Path) -> None:
    model = saved(llama, "prefix", tmp_path)
    for ids in PROMPTS:
        row_1T, length = torch.tensor([ids]), torch.tensor([len(ids)])
        logits_V = model.network.lm_head(model.hidden(row_1T, length))[-1]
        assert torch.allclose(logits_V, by_hand(llama, model, ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", SOFT)
@torch.no_grad()
def test_the_sampler_sees_what_training_saw(name: str, llama: Path) -> None:
    model = small.stir(small.decoder(llama, name, rank=18))  # long enough to be computed once for all rows
    answers = sample(model, PROMPTS, Sampling(max_new_tokens=6, stop_ids=()))
    for ids, answer in zip(PROMPTS, answers, strict=True):
        for t, token in enumerate(answer):
            so_far = torch.tensor([[*ids, *answer[:t]]])
            logits_V = model.network.lm_head(model.hidden(so_far, torch.tensor([so_far.shape[1]])))[-1]
            assert int(logits_V.argmax()) == token
    with adapters_off(model):
        assert sample(model, PROMPTS, Sampling(max_new_tokens=6, stop_ids=())) != answers


@pytest.mark.parametrize("name", SOFT)
def test_labels_after_a_prompt_are_scored_as_whole_rows(name: str, llama: Path) -> None:
    model = small.stir(small.decoder(llama, name))
    local, asked = LocalModel(model), (Message(role="user", content="hi"),)
    assert local.context == model.card.context - 4
    (table,) = local.label_logp([asked], ["yes", "no way"])
    whole = local.likelihood([asked] * 2, ["yes", "no way"])
    assert table == pytest.approx([x.logp for x in whole], abs=1e-3)


@pytest.mark.parametrize("folder", ["llama", "gemma2", "bert"])
@pytest.mark.parametrize("name", SOFT)
def test_rows_of_a_batch_do_not_see_each_other(name: str, folder: str, request: pytest.FixtureRequest) -> None:
    model = small.stir(small.decoder(request.getfixturevalue(folder), name))
    held = small.rows(4)
    alone = torch.cat([small.states(model, [row]) for row in held])
    assert torch.allclose(small.states(model, held), alone, atol=1e-5, rtol=1e-4)


def test_a_family_without_known_keys_and_values_is_told(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "KEYS_AND_VALUES", ("kv",))
    with pytest.raises(RecipeError, match=r"LlamaForCausalLM has no layers for keys and values .* Use method.name"):
        prefix.attach(small.base(llama), MethodRecipe(name="prefix"), 0)


@torch.no_grad()
def test_a_prompt_begins_as_embeddings_of_tokens_also_where_these_are_scaled(gemma2: Path) -> None:
    model = small.decoder(gemma2, "prompt")
    rows, plain = model.network.get_input_embeddings().rows, small.base(gemma2)
    ids = prompt.drawn(plain, 4, 0)
    assert torch.allclose(rows, plain.network.get_input_embeddings()(ids))
    assert not torch.allclose(rows, plain.network.get_input_embeddings().weight[ids])
