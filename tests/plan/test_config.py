"""A config.json that cannot be trusted: each fault is a sentence with the place, the value and the way out."""

from typing import Any

import pytest
import torch
from tests.plan.networks import small
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tunesmith.core.errors import ModelError
from tunesmith.plan.families import KNOWN, shape_of

LLAMA = {
    "model_type": "llama",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 10,
    "rms_norm_eps": 1e-6,
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": None}, "x.json has no hidden_size; expected a whole number"),
        ({"num_hidden_layers": None}, "has no num_hidden_layers"),
        ({"intermediate_size": None}, "has no intermediate_size"),
        ({"hidden_size": "8"}, "field hidden_size: found '8'; expected a whole number from 1"),
        ({"hidden_size": True}, "field hidden_size: found True"),
        ({"hidden_size": 8.0}, "field hidden_size: found 8.0"),
        ({"vocab_size": 0}, "field vocab_size: found 0"),
        ({"vocab_size": -3}, "field vocab_size: found -3"),
        ({"num_hidden_layers": 10**8}, "from 1 to 10000"),
        ({"tie_word_embeddings": "yes"}, "field tie_word_embeddings: found 'yes'; expected true or false"),
        ({"num_attention_heads": 3}, "a width of 8 cannot be cut into 3 heads"),
        ({"num_key_value_heads": 3}, "2 heads cannot share 3 key-value heads"),
        (
            {"model_type": "gemma2", "layer_types": ["full_attention"], "num_key_value_heads": 1},
            "found 1 entries; expected",
        ),
        (
            {"model_type": "gemma2", "layer_types": ["full_attention", "mamba"], "num_key_value_heads": 1},
            "layer_types: found 'mamba'; expected full_attention or sliding_attention for each of the 2 layers",
        ),
        ({"model_type": "gemma2", "layer_types": 3, "num_key_value_heads": 1}, "layer_types: found 3"),
        ({"model_type": "gemma2", "layer_types": [[], []], "num_key_value_heads": 1}, r"layer_types: found \[\]"),
        ({"model_type": "qwen3_moe", "num_experts": 2, "mlp_only_layers": ["a"]}, r"mlp_only_layers: found \['a'\]"),
        (
            {"model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 3, "num_key_value_heads": 1},
            "field num_experts_per_tok: found 3; expected a whole number from 1 to 2",
        ),
        ({"model_type": "roberta", "max_position_embeddings": 2}, "has no position after its pad_token_id"),
    ],
)
def test_a_fault_is_a_sentence_with_the_way_out(change: dict[str, Any], said: str) -> None:
    base = LLAMA if change.get("model_type") != "qwen3_moe" else LLAMA | {"num_key_value_heads": 1}
    with pytest.raises(ModelError, match=said) as caught:
        shape_of(base | change, "x.json")
    assert "x.json" in str(caught.value)
    assert str(caught.value).endswith(("Fetch the model again.", "or use another."))


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_what_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(ModelError, match="expected keys"):
        shape_of(value)


def test_an_unknown_family_is_read_as_llama_and_says_so() -> None:
    known, guessed = shape_of(LLAMA), shape_of(LLAMA | {"model_type": "smollm9"})
    assert guessed.weights == known.weights
    assert guessed.assumed == (
        'The model_type "smollm9" is not known; it is taken to be built like llama, from the usual keys.',
    )
    windows = {"sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]}
    assert shape_of(LLAMA | {"model_type": "smollm9"} | windows).windows == (3, None)
    assert shape_of({k: v for k, v in LLAMA.items() if k != "model_type"}).weights == known.weights


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "qwen9"}, 'the model_type "qwen9" is not known'),
        ({"num_experts": 4}, "it has num_experts"),
        ({"moe_intermediate_size": 4}, "it has moe_intermediate_size"),
        ({"kv_lora_rank": 4}, "it has kv_lora_rank"),
        ({"mamba_d_state": 4}, "it has mamba_d_state"),
        ({"rms_norm_eps": None}, "it has no rms_norm_eps"),
        ({"hidden_act": "relu2"}, "its activation is relu2"),
        ({"hidden_size_per_layer_input": 4}, "it has hidden_size_per_layer_input"),
        ({"vocab_size": None}, "it has no vocab_size"),
    ],
)
def test_an_unknown_family_that_may_be_anything_is_refused_with_the_nearest(change: dict[str, Any], said: str) -> None:
    config = {k: v for k, v in (LLAMA | {"model_type": "qwen9", "num_experts": 2} | change).items() if v is not None}
    if "num_experts" not in change and "model_type" not in change:
        config.pop("num_experts")
    with pytest.raises(ModelError, match=said) as caught:
        shape_of(config)
    assert 'Did you mean "qwen' in str(caught.value)
    assert "modernbert" in str(caught.value)


BROKEN = {"gemma4_assistant", "hunyuan_v1_dense", "ministral"}  # their own defaults build no network
UNKNOWN = sorted((set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) & set(CONFIG_MAPPING)) - set(KNOWN) - BROKEN)
OTHER = {name: CONFIG_MAPPING[name]() for name in UNKNOWN}
ALONE = [n for n, c in OTHER.items() if c.model_type not in KNOWN and "text_config" not in c.to_dict()]
NEAR = 1e-4  # norms, and biases that Llama has not


@pytest.mark.parametrize("name", ALONE)
def test_what_is_taken_for_llama_is_nearly_that_and_all_else_is_refused(name: str) -> None:
    """Over every causal language model of transformers that is not known here."""
    config = OTHER[name]
    try:
        shape = shape_of(config.to_dict())
    except ModelError as error:
        assert "Known are: " in str(error) or "layer_types" in str(error)
        return
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config)
    assert shape.parameters == pytest.approx(network.num_parameters(), rel=NEAR)
    assert shape.assumed


def test_a_text_part_without_a_known_name_is_read_by_its_own_type() -> None:
    text = small("mistral", 1)
    shape = shape_of({"model_type": "mistral3", "text_config": text})
    assert shape.weights == shape_of(text).weights
    with pytest.raises(ModelError, match=r"text_config of config\.json"):
        shape_of({"model_type": "mistral3", "text_config": {**text, "vocab_size": 0}})


def test_a_text_part_within_thousands_of_others_is_a_sentence() -> None:
    config = text = small("mistral", 1)
    within = {"model_type": "outer", "text_config": {"model_type": "inner", "text_config": text}}
    assert shape_of(within).weights == shape_of(text).weights
    for _ in range(5000):
        config = {"text_config": config}
    with pytest.raises(ModelError, match=r"text_config of text_config of config\.json has a text_config too"):
        shape_of(config)
