"""Shapes against transformers' own code, weight by weight: published sizes and small random ones of every family."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.plan.networks import DECODERS, network, settings, small
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from tunesmith.models import load as loading
from tunesmith.models.model import FIRST_POSITION_AFTER_PAD
from tunesmith.plan.encoders import AFTER_PAD, ENCODERS
from tunesmith.plan.families import KNOWN, shape_of
from tunesmith.plan.known import known_models

RANDOM = [(name, seed) for name in KNOWN for seed in range(6)]
PUBLISHED = list({id(known.config): name for name, known in known_models().items()}.values())


def text_config(name: str) -> dict[str, Any]:
    known = known_models()[name]
    return {"model_type": known.model_type, **known.config.get("text_config", known.config)}


@pytest.mark.parametrize(("name", "seed"), RANDOM)
def test_weights_are_those_of_transformers_by_name_and_shape(name: str, seed: int) -> None:
    config = small(name, seed)
    shape, built = shape_of(config), network(config)
    assert shape.tensors() == {n: tuple(p.shape) for n, p in built.named_parameters()}
    assert shape.parameters == built.num_parameters()
    kinds = ("embedding", "linear", "matrix", "experts", "router", "norm", "head", "pooler", "bias")
    assert sum(shape.count(kind) for kind in kinds) == shape.parameters  # type: ignore[arg-type]
    assert shape.kind == ("encoder" if name in ENCODERS else "decoder")
    assert not shape.assumed


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_have_the_weights_of_transformers(name: str) -> None:
    shape, built = known_models()[name].shape(), network(text_config(name))
    assert shape.tensors() == {n: tuple(p.shape) for n, p in built.named_parameters()}
    assert shape.parameters == built.num_parameters()


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


@pytest.mark.parametrize("module", ["shape", "config", "families", "known", "trained", "objectives"])
def test_no_heavy_library_is_imported(module: str) -> None:
    code = (
        f"import sys, tunesmith.plan.{module}; print(*sorted({{'torch', 'transformers', 'numpy'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_bundled_base_has_the_parameters_of_its_card() -> None:
    card, _, _ = loading.card_of("bundled")
    shape = shape_of(json.loads((Path(card.path) / "config.json").read_text("utf-8")))
    found = (shape.kind, shape.parameters, shape.layers, shape.width, shape.vocabulary, shape.context)
    assert found == (card.kind, card.parameters, card.layers, card.width, card.vocabulary, card.context)


def test_encoders_are_encoders_to_the_loader_too() -> None:
    assert set(ENCODERS) <= set(loading.ENCODERS)
    assert not set(DECODERS) & set(loading.ENCODERS)
