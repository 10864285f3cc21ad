"""The networks that shapes are compared with: transformers' own, without memory, and small random configs."""

import random
from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging

from tunesmith.core.card import ModelCard
from tunesmith.models.skeleton import Skeleton
from tunesmith.plan.encoders import ENCODERS
from tunesmith.plan.families import KNOWN, shape_of

logging.set_verbosity_error()  # about ids of tokens that a small vocabulary lacks
DECODERS = tuple(name for name in KNOWN if name not in ENCODERS)


def settings(config: dict[str, Any]) -> Any:
    """As transformers reads them."""
    return CONFIG_MAPPING[config["model_type"]].from_dict(config)


def network(config: dict[str, Any], device: str = "meta") -> Any:
    family: Any = AutoModel if config["model_type"] in ENCODERS else AutoModelForCausalLM
    with torch.device(device):
        return family.from_config(settings(config), attn_implementation="eager", experts_implementation="eager")


def card(config: dict[str, Any]) -> ModelCard:
    """A card that says of the network what a method reads there."""
    shape = shape_of(config)
    empty = dict.fromkeys(("path", "fingerprint", "tokenizer_hash", "template_hash"), "")
    numbers = {key: getattr(shape, key) for key in ("parameters", "layers", "width", "vocabulary", "context")}
    return ModelCard(name="it", kind=shape.kind, architecture=shape.model_type, **empty, **numbers)


def skeleton(config: dict[str, Any], *, head: bool = False) -> Skeleton:
    return Skeleton(network(config), card(config), head or None)


def small(model_type: str, seed: int) -> dict[str, Any]:
    """A small random config, with what the family may leave out left out at times."""
    draw = random.Random(f"{model_type} {seed}")
    heads, layers = draw.choice([2, 4, 6]), draw.randint(1, 7)
    width = heads * draw.choice([4, 6, 8])
    common = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": draw.randint(5, 40),
        "vocab_size": draw.randint(20, 90),
        "max_position_embeddings": draw.randint(16, 40),
    }
    names = {
        "gpt2": ("n_embd", "n_layer", "n_head", "n_inner", "vocab_size", "n_positions"),
        "distilbert": ("dim", "n_layers", "n_heads", "hidden_dim", "vocab_size", "max_position_embeddings"),
    }.get(model_type, tuple(common))
    config: dict[str, Any] = dict(zip(names, common.values(), strict=True))
    some: dict[str, list[Any]] = {
        "tie_word_embeddings": [True, False],
        "head_dim": [4, 10],
        "attention_bias": [True, False],
        "mlp_bias": [True, False],
        "qkv_bias": [True, False],
        "norm_bias": [True, False],
        "qk_layernorm": [True, False],
        "sliding_window": [4, 9],
        "use_sliding_window": [True, False],
        "max_window_layers": [1, 2],
        "sliding_window_pattern": [2, 3],
        "global_attn_every_n_layers": [2, 3],
        "local_attention": [4, 6],
        "decoder_sparse_step": [1, 2],
        "mlp_only_layers": [[0], []],
        "first_k_dense_replace": [0, 1, 2],
        "no_rope_layer_interval": [2, 3],
        "no_rope_layers": [[draw.randint(0, 1) for _ in range(layers)]],
        "type_vocab_size": [1, 3],
        "q_lora_rank": [5],
        "layer_types": [[draw.choice(["sliding_attention", "full_attention"]) for _ in range(layers)]],
    }
    sizes: dict[str, list[Any]] = {
        "num_key_value_heads": [1, 2, heads],
        "num_experts_per_tok": [1, 2],
        "moe_intermediate_size": [3, 6],
        "shared_expert_intermediate_size": [7, 8],
        "n_shared_experts": [1, 2],
        "kv_lora_rank": [6],
        "qk_rope_head_dim": [4],
        "qk_nope_head_dim": [6, 8],
        "v_head_dim": [5],
        "pad_token_id": [0, 1],
        "relative_attention_num_buckets": [32, 40],  # its code counts on 32 at least
        "n_group": [1],
        "topk_group": [1],
    }
    experts = {"num_experts", "num_local_experts", "n_routed_experts"} & _fields(model_type)
    chosen = {key: draw.choice(values) for key, values in some.items() if draw.random() < 0.7}
    chosen |= {key: draw.choice(values) for key, values in sizes.items()}
    if model_type == "deepseek_v3":  # where heads share nothing
        chosen["num_key_value_heads"] = heads
    chosen |= dict.fromkeys(experts, draw.choice([2, 5]))
    if "use_sliding_window" in _fields(model_type) and not chosen.get("use_sliding_window"):
        chosen.pop("layer_types", None)  # which would contradict it
    if "qk_layernorm" in chosen:  # whose norms are of the width over the heads, whatever head_dim says
        chosen.pop("head_dim", None)
    return {"model_type": model_type, **config, **{k: v for k, v in chosen.items() if k in _fields(model_type)}}


EXTRA = {  # keys that a class reads without naming them
    "gemma3_text": {"sliding_window_pattern"},
    "modernbert": {"global_attn_every_n_layers"},
    "qwen2": {"head_dim"},
    "qwen2_moe": {"head_dim"},
    "qwen3_moe": {"head_dim", "num_experts"},
    "olmo2": {"head_dim"},
    "phi3": {"head_dim"},
}
NOT = {"qwen3_moe": {"num_local_experts"}}


def _fields(model_type: str) -> set[str]:
    fields = set(CONFIG_MAPPING[model_type]().to_dict()) | EXTRA.get(model_type, set())
    return fields - NOT.get(model_type, set())
