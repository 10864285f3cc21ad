"""Shapes against transformers' own code, weight by weight: published sizes and small random ones of every family."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.plan.networks import DECODERS, network, settings, skeleton, small, tensors
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from tunesmith.core import parts
from tunesmith.core.recipe import MethodRecipe
from tunesmith.models import load as loading
from tunesmith.models.model import FIRST_POSITION_AFTER_PAD
from tunesmith.models.skeleton import skeleton as bare_network
from tunesmith.plan.encoders import AFTER_PAD, ENCODERS
from tunesmith.plan.families import KNOWN, shape_of
from tunesmith.plan.known import known_models
from tunesmith.plan.targets import lora_parameters

LORA = parts.find("models.adapters", "lora")
DORA = parts.find("models.adapters", "dora")
RANDOM = [(name, seed) for name in KNOWN for seed in range(6)]
PUBLISHED = list({id(known.config): name for name, known in known_models().items()}.values())


def text_config(name: str) -> dict[str, Any]:
    known = known_models()[name]
    return {"model_type": known.model_type, **known.config.get("text_config", known.config)}


@pytest.mark.parametrize(("name", "seed"), RANDOM)
def test_weights_are_those_of_transformers_by_name_and_shape(name: str, seed: int) -> None:
    config = small(name, seed)
    shape, built = shape_of(config), network(config)
    assert tensors(shape) == {n: tuple(p.shape) for n, p in built.named_parameters()}
    assert shape.parameters == built.num_parameters()
    kinds = ("embedding", "linear", "matrix", "experts", "router", "norm", "head", "pooler", "bias")
    assert sum(shape.count(kind) for kind in kinds) == shape.parameters  # type: ignore[arg-type]
    assert shape.kind == ("encoder" if name in ENCODERS else "decoder")
    assert not shape.assumed


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_have_the_weights_of_transformers(name: str) -> None:
    shape, built = known_models()[name].shape(), network(text_config(name))
    assert tensors(shape) == {n: tuple(p.shape) for n, p in built.named_parameters()}
    assert shape.parameters == built.num_parameters()


CHOICES: list[dict[str, Any]] = [
    {"rank": 3},
    {"rank": 8, "target_modules": ("q_proj", "down_proj")},
    {"rank": 8, "target_modules": ("model.layers.0.self_attn.v_proj",), "modules_to_save": ("lm_head",)},
    {"rank": 4, "rank_pattern": {"up_proj": 2, "0.mlp.up_proj": 1}, "new_tokens": ("a", "b")},
    {"rank": 2, "new_tokens": ("a",), "modules_to_save": ("embed_tokens", "norm")},
    {"rank": 2, "target_modules": ("q_proj",), "modules_to_save": ("mlp",)},
    {"target_modules": ("q_prj",)},
    {"target_modules": ()},
    {"modules_to_save": ("nothing",)},
    {"modules_to_save": ("mlp",)},
    {"rank_pattern": {"lm_head": 2}},
]


def outcome(count: Any) -> Any:
    """A number, or the sentence of an error."""
    try:
        return count()
    except ValueError as error:
        return str(error).split(" There are")[0].split(", which has")[0].split(" (")[0]


@pytest.mark.parametrize("name", ["llama", "gemma2", "phi3", "qwen2_moe", "gpt_neox"])
def test_lora_counts_are_those_of_peft(name: str) -> None:
    config = small(name, 4)
    adapted = get_peft_model(network(config), LoraConfig(r=3, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert adapted.get_nb_trainable_parameters()[0] == lora_parameters(shape_of(config), MethodRecipe(rank=3), "it")


@pytest.mark.parametrize("name", KNOWN)
def test_lora_counts_are_those_of_the_method(name: str) -> None:
    for seed, choice in enumerate(CHOICES):
        config, method = small(name, seed), MethodRecipe(**choice)
        shape, built = shape_of(config), skeleton(config)
        assert outcome(lambda s=shape, m=method: lora_parameters(s, m, "it")) == outcome(
            lambda b=built, m=method: LORA.count(b, m)
        ), (config, choice)
        assert outcome(lambda s=shape, m=method: lora_parameters(s, m, "it", magnitude=True)) == outcome(
            lambda b=built, m=method: DORA.count(b, m)
        )


def test_a_head_of_its_own_leaves_the_output_matrix_idle() -> None:
    config = small("llama", 0) | {"tie_word_embeddings": False}
    built, method = skeleton(config), MethodRecipe(rank=2, new_tokens=("a", "b", "c"))
    built.head = True
    shape = shape_of(config)
    counted = lora_parameters(shape, method, "it", classifies=True)
    assert counted == LORA.count(built, method)
    assert lora_parameters(shape, method, "it") - counted == 3 * shape.width


def test_lora_of_llama_8b_is_the_number_that_peft_prints() -> None:
    """The example of the QLoRA notebooks: rank 16 on q, k, v, o, gate, up and down of Llama-3.1-8B."""
    shape = known_models()["meta-llama/Llama-3.1-8B"].shape()
    assert lora_parameters(shape, MethodRecipe(rank=16), "it") == 41_943_040


@pytest.mark.parametrize(("name", "seed"), [(n, s) for n in DECODERS for s in range(8)])
def test_windows_are_those_that_transformers_cache_gives_the_layers(name: str, seed: int) -> None:
    config = small(name, seed)
    assert shape_of(config).windows == windows_of_cache(config)


def windows_of_cache(config: dict[str, Any]) -> tuple[int | None, ...]:
    """Of each layer of transformers' own cache."""
    return tuple(getattr(layer, "sliding_window", None) for layer in DynamicCache(config=settings(config)).layers)


@pytest.mark.parametrize("name", DECODERS)
def test_windows_that_the_file_does_not_list_follow_the_pattern_of_the_family(name: str) -> None:
    config = {k: v for k, v in small(name, 0).items() if k not in ("layer_types", "no_rope_layers")}
    wanted = {"num_hidden_layers": 7, "sliding_window": 4, "use_sliding_window": True, "max_window_layers": 4}
    config |= {key: value for key, value in wanted.items() if key in config or hasattr(settings(config), key)}
    assert shape_of(config).windows == windows_of_cache(config)


@pytest.mark.parametrize("seed", range(6))
def test_windows_of_modernbert_are_those_of_its_layers(seed: int) -> None:
    config = small("modernbert", seed)
    theirs = settings(config)
    wide = [kind == "full_attention" for kind in theirs.layer_types]
    assert shape_of(config).windows == tuple(None if w else theirs.local_attention for w in wide)


@pytest.mark.parametrize("name", DECODERS)
def test_a_token_leaves_in_the_cache_what_transformers_keeps_of_it(name: str) -> None:
    config = small(name, 1)
    shape = shape_of(config)
    built = network(config, device="cpu").eval()
    kept = built(torch.zeros(1, 3, dtype=torch.long), use_cache=True).past_key_values
    numbers = sum(layer.keys.numel() + layer.values.numel() for layer in kept.layers)
    assert shape.cache_bytes(3, 2) == 2 * numbers


def test_the_cache_of_a_window_stops_growing() -> None:
    config = small("gemma2", 0) | {"sliding_window": 4, "num_hidden_layers": 2, "layer_types": None}
    shape = shape_of(config)
    assert shape.windows == (4, None)
    assert shape.cache_bytes(10, 4) == 4 * shape.cached * (4 + 10)
    assert shape_of(small("bert", 0)).cache_bytes(10) == 0


@pytest.mark.parametrize("name", KNOWN)
def test_operations_are_those_that_torch_counts(name: str) -> None:
    """Torch counts the whole square of the attention, so windows and the causal half are compared in numbers below."""
    config = small(name, 2) | {"attn_implementation": "eager"}
    shape, tokens = shape_of(config), 7
    built = network(config, device="cpu").eval()
    ids = torch.zeros(1, tokens, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        built(ids, **({} if name in ENCODERS else {"use_cache": False}))
    square = 2 * shape.layers * shape.heads * (shape.head_width + shape.value_width) * tokens
    pooler = 2 * shape.count("pooler") / tokens  # of one token, and not part of the plan
    rotation = counter.get_total_flops() / tokens - square - pooler
    matrices = shape.forward_flops(tokens) - shape.attention_flops(tokens)
    assert 0 <= rotation - matrices <= shape.layers * shape.head_width  # angles of the positions, a product each


def test_operations_by_hand() -> None:
    config = {"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 3}
    shape = shape_of(config | {"intermediate_size": 16, "vocab_size": 10, "num_key_value_heads": 1})
    matrices = 3 * (8 * 8 * 2 + 2 * 4 * 8 + 3 * 8 * 16) + 10 * 8
    assert shape.forward_flops(6) == 2 * matrices + 4 * 3 * 2 * 4 * 3  # half of six tokens
    half = shape_of(config | {"model_type": "mistral", "intermediate_size": 16, "sliding_window": 4} | MIXED)
    looked_at = (4 * 2 + 4 * 4) / 8  # four tokens see two on average, then four see four
    assert half.attention_flops(8) == 4 * 3 * 2 * 4 * looked_at
    mixed = shape_of(config | {"model_type": "mixtral", "intermediate_size": 16, "vocab_size": 10} | MIXED)
    matrices = 3 * (8 * 8 * 2 + 2 * 4 * 8 + 2 * 3 * 8 * 16 + 5 * 8) + 10 * 8
    assert mixed.forward_flops(6) - mixed.attention_flops(6) == 2 * matrices
    assert mixed.parameters - mixed.active_parameters == 3 * 3 * 3 * 8 * 16  # three of five rest
    assert shape.active_parameters == shape.parameters


MIXED = {"num_local_experts": 5, "num_experts_per_tok": 2, "num_key_value_heads": 1}


def test_positions_after_the_pad_are_those_that_the_model_counts() -> None:
    assert set(AFTER_PAD) == set(FIRST_POSITION_AFTER_PAD)
    for name in AFTER_PAD:
        config = small(name, 0)
        assert shape_of(config).context == config["max_position_embeddings"] - config["pad_token_id"] - 1


def test_a_text_part_is_read_alone_and_the_shape_says_so() -> None:
    text = {k: v for k, v in small("gemma3_text", 3).items() if k != "model_type"}
    shape = shape_of({"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 4}})
    assert shape.parameters == network({"model_type": "gemma3_text", **text}).num_parameters()
    assert shape.model_type == "gemma3_text"
    assert shape.assumed == ("gemma3: the text part alone is counted; what reads images or sound is left out.",)


def test_shapes_of_any_size_need_neither_torch_nor_time() -> None:
    code = (
        "import sys, json, time; begin = time.perf_counter()\n"
        "from tunesmith.plan.families import shape_of\n"
        "shape = shape_of(json.loads(sys.argv[1])); n = shape.parameters, len(shape.linear_layers())\n"
        "took = time.perf_counter() - begin\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pydantic', 'safetensors'} & set(sys.modules)\n"
        "print(json.dumps([n, took, sorted(heavy)]))"
    )
    config = json.dumps(text_config("meta-llama/Llama-3.1-405B"))
    done = subprocess.run([sys.executable, "-c", code, config], capture_output=True, text=True, check=True)
    counts, took, heavy = json.loads(done.stdout)
    assert counts == [405_853_388_800, 126 * 7]
    assert heavy == []
    assert took < 0.5


@pytest.mark.parametrize("module", ["shape", "config", "families", "known"])
def test_no_heavy_library_is_imported(module: str) -> None:
    code = (
        f"import sys, tunesmith.plan.{module}; print(*sorted({{'torch', 'transformers', 'numpy'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_bundled_base_has_the_parameters_of_its_card() -> None:
    card, config, _ = loading.card_of("bundled")
    shape = shape_of(json.loads((Path(card.path) / "config.json").read_text("utf-8")))
    found = (shape.kind, shape.parameters, shape.layers, shape.width, shape.vocabulary, shape.context)
    assert found == (card.kind, card.parameters, card.layers, card.width, card.vocabulary, card.context)
    assert lora_parameters(shape, MethodRecipe(), card.name) == LORA.count(
        bare_network(card, config, head=False), MethodRecipe()
    )


def test_encoders_are_encoders_to_the_loader_too() -> None:
    assert set(ENCODERS) <= set(loading.ENCODERS)
    assert not set(DECODERS) & set(loading.ENCODERS)
