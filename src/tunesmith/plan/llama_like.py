"""Llama and the decoders that depart from it.

Notable: a family is one line that says how it departs from Llama, after transformers' own modelling files, whose names
of weights are used; the tests compare them. Experts lie in one tensor a layer there, so no adapter of ours takes them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith.plan import windows
from tunesmith.plan.config import Config
from tunesmith.plan.shape import Experts, Shape, Weight

Windows = Callable[[Config, int], tuple[int | None, ...]]
TWO = ("input_layernorm", "post_attention_layernorm")
AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")
FOUR = ("input_layernorm", *AFTER, "pre_feedforward_layernorm")
ATTENTION = "model.layers.{}.self_attn."
MLP = "model.layers.{}.mlp."


@dataclass(frozen=True, slots=True)
class Departure:
    """How a family departs from Llama. A bias is fixed, or named by its key; ``qk_norm``: norms of queries and keys, a
    head or all heads at once; ``fused``: one matrix for q, k, v and one for gate and up; ``latent``: keys and values
    are made from a narrow vector (DeepSeek-V2, 2024, section 2.1); ``experts`` names the layout."""

    qkv_bias: bool | str = "attention_bias"
    o_bias: bool | str = "attention_bias"
    mlp_bias: bool | str = False
    qk_norm: Literal["", "head", "all"] = ""
    norms: tuple[str, ...] = TWO
    fused: bool = False
    latent: bool = False
    experts: Literal["", "mixtral", "qwen", "deepseek"] = ""
    windows: Windows = windows.nowhere


@dataclass(frozen=True, slots=True)
class Size:
    """The numbers that the weights are built from."""

    layers: int
    width: int
    heads: int
    grouped: int
    head: int
    value: int
    inner: int

    @property
    def every(self) -> tuple[int, ...]:
        return tuple(range(self.layers))

    def linear(self, name: str, outputs: int, inputs: int, bias: bool = False) -> Weight:
        """A linear layer of each layer."""
        return Weight(name, (outputs, inputs), "linear", self.every, outputs if bias else 0)

    def norm(self, name: str, width: int, bias: bool = False) -> Weight:
        return Weight(name, (width,), "norm", self.every, width if bias else 0)


def llama_like(config: Config, model_type: str, like: Departure) -> Shape:
    """The shape of a network that is built like Llama but for what ``like`` says. Raises ModelError."""
    width = config.number("hidden_size")
    if like.latent:
        heads, head = config.number("num_attention_heads"), config.number("qk_nope_head_dim")
        grouped, head, value = heads, head + config.number("qk_rope_head_dim"), config.number("v_head_dim")
        cached = config.number("kv_lora_rank") + config.number("qk_rope_head_dim")
    else:
        heads, grouped, head = config.heads(width)
        value, cached = head, 2 * grouped * head
    size = Size(config.layers(), width, heads, grouped, head, value, config.number("intermediate_size"))
    experts = _experts(config, size, like)
    attention = _latent(config, size) if like.latent else _attention(config, size, like)
    norms = [size.norm(f"model.layers.{{}}.{name}", width) for name in like.norms]
    return Shape(
        model_type=model_type,
        kind="decoder",
        vocabulary=config.number("vocab_size"),
        width=width,
        layers=size.layers,
        heads=heads,
        key_value_heads=grouped,
        head_width=head,
        value_width=value,
        inner_width=size.inner,
        context=config.number("max_position_embeddings"),
        tied=config.flag("tie_word_embeddings"),
        windows=like.windows(config, size.layers),
        cached=cached,
        weights=(
            *ends(config, "model.embed_tokens", Weight("model.norm", (width,), "norm")),
            *attention,
            *norms,
            *_mlp(config, size, like, experts),
        ),
        experts=experts,
    )


def ends(config: Config, embedding: str, norm: Weight, *, head_bias: bool = False) -> list[Weight]:
    """The embedding, the last norm, and the output matrix where it is a weight of its own."""
    rows = (config.number("vocab_size"), config.number("hidden_size", "n_embd"))
    found = [Weight(embedding, rows, "embedding"), norm]
    if not config.flag("tie_word_embeddings"):
        found.append(Weight("lm_head", rows, "head", bias=rows[0] if head_bias else 0))
    elif head_bias:
        found.append(Weight("lm_head", (0, rows[1]), "head", bias=rows[0]))  # the bias alone is its own
    return found


def _attention(config: Config, size: Size, like: Departure) -> list[Weight]:
    q, kv, bias = size.heads * size.head, size.grouped * size.head, config.flag(like.qkv_bias)
    if like.fused:
        found = [size.linear(ATTENTION + "qkv_proj", q + 2 * kv, size.width, bias)]
    else:
        found = [size.linear(f"{ATTENTION}{n}_proj", q if n == "q" else kv, size.width, bias) for n in "qkv"]
    found.append(size.linear(ATTENTION + "o_proj", size.width, q, config.flag(like.o_bias)))
    if like.qk_norm:
        widths = (size.head, size.head) if like.qk_norm == "head" else (q, kv)
        found += [size.norm(f"{ATTENTION}{n}_norm", w) for n, w in zip("qk", widths, strict=True)]
    return found


def _latent(config: Config, size: Size) -> list[Weight]:
    narrow, rank, bias = config.number("kv_lora_rank"), config.optional("q_lora_rank"), config.flag("attention_bias")
    position, q = config.number("qk_rope_head_dim"), size.heads * size.head
    found = [size.linear(ATTENTION + "q_proj", q, size.width)]
    if rank is not None:
        found = [
            size.linear(ATTENTION + "q_a_proj", rank, size.width, bias),
            size.norm(ATTENTION + "q_a_layernorm", rank),
            size.linear(ATTENTION + "q_b_proj", q, rank),
        ]
    return [
        *found,
        size.linear(ATTENTION + "kv_a_proj_with_mqa", narrow + position, size.width, bias),
        size.norm(ATTENTION + "kv_a_layernorm", narrow),
        size.linear(ATTENTION + "kv_b_proj", size.heads * (size.head - position + size.value), narrow),
        size.linear(ATTENTION + "o_proj", size.width, size.heads * size.value, bias),
    ]


def _experts(config: Config, size: Size, like: Departure) -> Experts | None:
    if not like.experts:
        return None
    if like.experts == "mixtral":
        count, inner, shared, layers = config.number("num_local_experts", "num_experts"), size.inner, 0, size.every
    elif like.experts == "deepseek":
        count, inner = config.number("n_routed_experts", "num_local_experts"), config.number("moe_intermediate_size")
        shared, first = inner * config.count("n_shared_experts"), config.count("first_k_dense_replace")
        layers = tuple(i for i in size.every if i >= first)
    else:
        count, inner = config.number("num_experts", "num_local_experts"), config.number("moe_intermediate_size")
        shared, step = config.count("shared_expert_intermediate_size"), config.number("decoder_sparse_step")
        dense = config.numbers("mlp_only_layers")
        layers = tuple(i for i in size.every if i not in dense and (i + 1) % step == 0)
    return Experts(count, config.number("num_experts_per_tok", most=count), inner, shared, layers)


def _mlp(config: Config, size: Size, like: Departure, experts: Experts | None) -> list[Weight]:
    """The dense layers' and the mixture's."""
    mixed = experts.layers if experts else ()
    dense, bias = tuple(i for i in size.every if i not in mixed), config.flag(like.mlp_bias)
    found = []
    if dense and like.fused:
        found = [Weight(MLP + "gate_up_proj", (2 * size.inner, size.width), "linear", dense)]
        found.append(Weight(MLP + "down_proj", (size.width, size.inner), "linear", dense))
    elif dense:
        found = _gated(MLP, size.width, size.inner, dense, bias=bias)
    if experts and mixed:
        count, inner = experts.count, experts.inner_width
        found += [
            Weight(MLP + "gate", (count, size.width), "router", mixed),
            Weight(MLP + "experts.gate_up_proj", (count, 2 * inner, size.width), "experts", mixed),
            Weight(MLP + "experts.down_proj", (count, size.width, inner), "experts", mixed),
        ]
        if experts.shared_width:
            name = "shared_expert" if like.experts == "qwen" else "shared_experts"
            found += _gated(f"{MLP}{name}.", size.width, experts.shared_width, mixed)
        if like.experts == "qwen" and experts.shared_width:
            found.append(Weight(MLP + "shared_expert_gate", (1, size.width), "linear", mixed))
    return found


def _gated(prefix: str, width: int, inner: int, layers: tuple[int, ...], *, bias: bool = False) -> list[Weight]:
    return [
        Weight(prefix + "gate_proj", (inner, width), "linear", layers, inner if bias else 0),
        Weight(prefix + "up_proj", (inner, width), "linear", layers, inner if bias else 0),
        Weight(prefix + "down_proj", (width, inner), "linear", layers, width if bias else 0),
    ]


QWEN = {"vocab_size": 151936, "max_position_embeddings": 32768, "sliding_window": 4096, "max_window_layers": 28}
GEMMA = {"vocab_size": 256000, "max_position_embeddings": 8192, "tie_word_embeddings": True, "head_dim": 256}
MOE = {"decoder_sparse_step": 1}
LLAMA = Departure(mlp_bias="mlp_bias")
UNKNOWN = Departure(mlp_bias="mlp_bias", windows=windows.as_told)
PLAIN = Departure(qkv_bias=False, o_bias=False, windows=windows.everywhere)
LLAMA_LIKE: dict[str, tuple[Departure, dict[str, Any]]] = {  # each with its defaults
    "llama": (LLAMA, {"vocab_size": 32000, "max_position_embeddings": 2048}),
    "granite": (LLAMA, {"vocab_size": 32000, "max_position_embeddings": 2048}),
    "smollm3": (
        Departure(mlp_bias="mlp_bias", windows=windows.without_positions),
        {"vocab_size": 128256, "max_position_embeddings": 32768, "num_key_value_heads": 4, "tie_word_embeddings": True}
        | {"no_rope_layer_interval": 4},
    ),
    "mistral": (
        PLAIN,
        {"vocab_size": 32000, "max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
    ),
    "mixtral": (
        Departure(qkv_bias=False, o_bias=False, experts="mixtral", windows=windows.everywhere),
        {"vocab_size": 32000, "max_position_embeddings": 131072, "num_key_value_heads": 8, "num_experts_per_tok": 2},
    ),
    "qwen2": (Departure(qkv_bias=True, o_bias=False, windows=windows.late), {**QWEN, "num_key_value_heads": 32}),
    "qwen3": (Departure(qk_norm="head", windows=windows.late), {**QWEN, "num_key_value_heads": 32, "head_dim": 128}),
    "qwen2_moe": (
        Departure(qkv_bias="qkv_bias", o_bias=False, experts="qwen", windows=windows.odd),
        {**QWEN, **MOE, "num_key_value_heads": 16, "qkv_bias": True, "num_experts": 60, "num_experts_per_tok": 4}
        | {"moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632},
    ),
    "qwen3_moe": (
        Departure(qk_norm="head", experts="qwen", windows=windows.if_used),
        {**QWEN, **MOE, "num_key_value_heads": 4, "num_experts_per_tok": 8, "moe_intermediate_size": 768},
    ),
    "gemma": (Departure(), {**GEMMA, "num_key_value_heads": 16}),
    "gemma2": (
        Departure(norms=FOUR, windows=windows.alternating),
        {**GEMMA, "num_attention_heads": 8, "num_key_value_heads": 4, "sliding_window": 4096}
        | {"sliding_window_pattern": 2},
    ),
    "gemma3_text": (
        Departure(norms=FOUR, qk_norm="head", windows=windows.alternating),
        {**GEMMA, "vocab_size": 262208, "max_position_embeddings": 131072, "num_attention_heads": 8}
        | {"num_key_value_heads": 4, "sliding_window": 4096, "sliding_window_pattern": 6},
    ),
    "phi3": (
        Departure(qkv_bias=False, o_bias=False, fused=True, windows=windows.everywhere),
        {"vocab_size": 32064, "max_position_embeddings": 4096},
    ),
    "olmo2": (Departure(qk_norm="all", norms=AFTER), {"vocab_size": 50304, "max_position_embeddings": 2048}),
    "olmo3": (
        Departure(qk_norm="all", norms=AFTER, windows=windows.alternating),
        {"vocab_size": 50304, "max_position_embeddings": 2048, "sliding_window": 4096, "sliding_window_pattern": 4},
    ),
    "deepseek_v3": (
        Departure(latent=True, experts="deepseek"),
        {"vocab_size": 129280, "max_position_embeddings": 4096, "n_routed_experts": 256, "n_shared_experts": 1}
        | {"num_experts_per_tok": 8, "first_k_dense_replace": 3, "moe_intermediate_size": 2048, "kv_lora_rank": 512}
        | {"q_lora_rank": 1536, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128},
    ),
}
