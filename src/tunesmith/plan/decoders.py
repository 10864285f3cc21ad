"""The decoders whose shape is known: Llama and what departs from it, and three older layouts.

Notable: a family is one line that says how it departs from Llama, after transformers' own modelling files, whose names
of weights are used; the tests compare them. Experts lie in one tensor a layer there, so no adapter of ours takes them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith.plan.config import Config
from tunesmith.plan.shape import Experts, Shape, Weight

Windows = Callable[[Config, int], tuple[int | None, ...]]
TWO = ("input_layernorm", "post_attention_layernorm")
AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")
FOUR = ("input_layernorm", *AFTER, "pre_feedforward_layernorm")
ATTENTION = "model.layers.{}.self_attn."
MLP = "model.layers.{}.mlp."


def _everywhere(config: Config, layers: int) -> tuple[int | None, ...]:
    return (config.optional("sliding_window"),) * layers


def _nowhere(_config: Config, layers: int) -> tuple[int | None, ...]:
    return (None,) * layers


def _as_told(config: Config, layers: int) -> tuple[int | None, ...]:
    return _by_kind(config, layers, [False] * layers)


def _by_kind(config: Config, layers: int, default: list[bool]) -> tuple[int | None, ...]:
    """A window in the layers that slide, by the file or else by ``default``."""
    window = config.optional("sliding_window")
    return tuple(window if slides else None for slides in config.sliding(layers) or default)


def _alternating(config: Config, layers: int) -> tuple[int | None, ...]:
    """All but the last of each ``sliding_window_pattern`` layers."""
    pattern = config.number("sliding_window_pattern", "_sliding_window_pattern")
    return _by_kind(config, layers, [bool((i + 1) % pattern) for i in range(layers)])


def _late(config: Config, layers: int) -> tuple[int | None, ...]:
    """Where ``use_sliding_window`` is set: from layer ``max_window_layers`` on."""
    if not config.flag("use_sliding_window"):
        return _nowhere(config, layers)
    return _by_kind(config, layers, [i >= config.count("max_window_layers") for i in range(layers)])


def _odd(config: Config, layers: int) -> tuple[int | None, ...]:
    """Where ``use_sliding_window`` is set: every other layer below ``max_window_layers``."""
    if not config.flag("use_sliding_window"):
        return _nowhere(config, layers)
    first = config.count("max_window_layers")
    return _by_kind(config, layers, [i % 2 == 0 and i < first for i in range(layers)])


def _if_used(config: Config, layers: int) -> tuple[int | None, ...]:
    return _everywhere(config, layers) if config.flag("use_sliding_window") else _nowhere(config, layers)


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
    windows: Windows = _nowhere


@dataclass(frozen=True, slots=True)
class _Size:
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
    width = config.number("hidden_size")
    if like.latent:
        heads, head = config.number("num_attention_heads"), config.number("qk_nope_head_dim")
        grouped, head, value = heads, head + config.number("qk_rope_head_dim"), config.number("v_head_dim")
        cached = config.number("kv_lora_rank") + config.number("qk_rope_head_dim")
    else:
        heads, grouped, head = config.heads(width)
        value, cached = head, 2 * grouped * head
    size = _Size(config.layers(), width, heads, grouped, head, value, config.number("intermediate_size"))
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
            *_ends(config, "model.embed_tokens", Weight("model.norm", (width,), "norm")),
            *attention,
            *norms,
            *_mlp(config, size, like, experts),
        ),
        experts=experts,
    )


def _ends(config: Config, embedding: str, norm: Weight, *, head_bias: bool = False) -> list[Weight]:
    """The embedding, the last norm, and the output matrix where it is a weight of its own."""
    rows = (config.number("vocab_size"), config.number("hidden_size", "n_embd"))
    found = [Weight(embedding, rows, "embedding"), norm]
    if not config.flag("tie_word_embeddings"):
        found.append(Weight("lm_head", rows, "head", bias=rows[0] if head_bias else 0))
    elif head_bias:
        found.append(Weight("lm_head", (0, rows[1]), "head", bias=rows[0]))  # the bias alone is its own
    return found


def _attention(config: Config, size: _Size, like: Departure) -> list[Weight]:
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


def _latent(config: Config, size: _Size) -> list[Weight]:
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


def _experts(config: Config, size: _Size, like: Departure) -> Experts | None:
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
    return Experts(count, min(config.number("num_experts_per_tok"), count), inner, shared, layers)


def _mlp(config: Config, size: _Size, like: Departure, experts: Experts | None) -> list[Weight]:
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


def phi(config: Config, model_type: str) -> Shape:
    """Phi-1 to Phi-2: biases everywhere, one norm a layer."""
    width = config.number("hidden_size")
    heads, grouped, head = config.heads(width)
    size = _Size(config.layers(), width, heads, grouped, head, head, config.number("intermediate_size"))
    weights = [
        *_ends(
            config, "model.embed_tokens", Weight("model.final_layernorm", (width,), "norm", bias=width), head_bias=True
        ),
        *(size.linear(f"{ATTENTION}{n}_proj", (heads if n == "q" else grouped) * head, width, True) for n in "qkv"),
        size.linear(ATTENTION + "dense", width, heads * head, True),
        size.linear(MLP + "fc1", size.inner, width, True),
        size.linear(MLP + "fc2", width, size.inner, True),
        size.norm("model.layers.{}.input_layernorm", width, True),
    ]
    if config.flag("qk_layernorm"):
        weights += [size.norm(f"{ATTENTION}{n}_layernorm", width // heads, True) for n in "qk"]
    return _plain(config, model_type, size, weights)


def gpt_neox(config: Config, model_type: str) -> Shape:
    """GPT-NeoX and Pythia."""
    width = config.number("hidden_size")
    heads, _, head = config.heads(width)
    size = _Size(config.layers(), width, heads, heads, head, head, config.number("intermediate_size"))
    bias, layer = config.flag("attention_bias"), "gpt_neox.layers.{}."
    weights = [
        *_ends(config, "gpt_neox.embed_in", Weight("gpt_neox.final_layer_norm", (width,), "norm", bias=width)),
        size.linear(layer + "attention.query_key_value", 3 * width, width, bias),
        size.linear(layer + "attention.dense", width, width, bias),
        size.linear(layer + "mlp.dense_h_to_4h", size.inner, width, True),
        size.linear(layer + "mlp.dense_4h_to_h", width, size.inner, True),
        *(size.norm(layer + name, width, True) for name in TWO),
    ]
    return _plain(config, model_type, size, weights)


def gpt2(config: Config, model_type: str) -> Shape:
    """GPT-2: positions are learned, and its matrices are no linear layers of torch."""
    width = config.number("n_embd", "hidden_size")
    heads, _, head = config.heads(width)
    size = _Size(config.layers(), width, heads, heads, head, head, config.optional("n_inner") or 4 * width)

    def matrix(name: str, outputs: int, inputs: int) -> Weight:
        return Weight(f"transformer.h.{{}}.{name}", (outputs, inputs), "matrix", size.every, outputs)

    weights = [
        *_ends(config, "transformer.wte", Weight("transformer.ln_f", (width,), "norm", bias=width)),
        Weight("transformer.wpe", (config.number("n_positions", "max_position_embeddings"), width), "embedding"),
        matrix("attn.c_attn", 3 * width, width),
        matrix("attn.c_proj", width, width),
        matrix("mlp.c_fc", size.inner, width),
        matrix("mlp.c_proj", width, size.inner),
        size.norm("transformer.h.{}.ln_1", width, True),
        size.norm("transformer.h.{}.ln_2", width, True),
    ]
    return _plain(config, model_type, size, weights)


def _plain(config: Config, model_type: str, size: _Size, weights: list[Weight]) -> Shape:
    return Shape(
        model_type=model_type,
        kind="decoder",
        vocabulary=config.number("vocab_size"),
        width=size.width,
        layers=size.layers,
        heads=size.heads,
        key_value_heads=size.grouped,
        head_width=size.head,
        value_width=size.value,
        inner_width=size.inner,
        context=config.number("n_positions", "max_position_embeddings"),
        tied=config.flag("tie_word_embeddings"),
        windows=(None,) * size.layers,
        cached=2 * size.grouped * size.head,
        weights=tuple(weights),
    )


QWEN = {"vocab_size": 151936, "max_position_embeddings": 32768, "sliding_window": 4096, "max_window_layers": 28}
GEMMA = {"vocab_size": 256000, "max_position_embeddings": 8192, "tie_word_embeddings": True, "head_dim": 256}
MOE = {"decoder_sparse_step": 1}
LLAMA = Departure(mlp_bias="mlp_bias")
UNKNOWN = Departure(mlp_bias="mlp_bias", windows=_as_told)
PLAIN = Departure(qkv_bias=False, o_bias=False, windows=_everywhere)
LLAMA_LIKE: dict[str, tuple[Departure, dict[str, Any]]] = {  # each with its defaults
    "llama": (LLAMA, {"vocab_size": 32000, "max_position_embeddings": 2048}),
    "mistral": (
        PLAIN,
        {"vocab_size": 32000, "max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
    ),
    "mixtral": (
        Departure(qkv_bias=False, o_bias=False, experts="mixtral", windows=_everywhere),
        {"vocab_size": 32000, "max_position_embeddings": 131072, "num_key_value_heads": 8, "num_experts_per_tok": 2},
    ),
    "qwen2": (Departure(qkv_bias=True, o_bias=False, windows=_late), {**QWEN, "num_key_value_heads": 32}),
    "qwen3": (Departure(qk_norm="head", windows=_late), {**QWEN, "num_key_value_heads": 32, "head_dim": 128}),
    "qwen2_moe": (
        Departure(qkv_bias="qkv_bias", o_bias=False, experts="qwen", windows=_odd),
        {**QWEN, **MOE, "num_key_value_heads": 16, "qkv_bias": True, "num_experts": 60, "num_experts_per_tok": 4}
        | {"moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632},
    ),
    "qwen3_moe": (
        Departure(qk_norm="head", experts="qwen", windows=_if_used),
        {**QWEN, **MOE, "num_key_value_heads": 4, "num_experts_per_tok": 8, "moe_intermediate_size": 768},
    ),
    "gemma": (Departure(), {**GEMMA, "num_key_value_heads": 16}),
    "gemma2": (
        Departure(norms=FOUR, windows=_alternating),
        {**GEMMA, "num_attention_heads": 8, "num_key_value_heads": 4, "sliding_window": 4096}
        | {"sliding_window_pattern": 2},
    ),
    "gemma3_text": (
        Departure(norms=FOUR, qk_norm="head", windows=_alternating),
        {**GEMMA, "vocab_size": 262208, "max_position_embeddings": 131072, "num_attention_heads": 8}
        | {"num_key_value_heads": 4, "sliding_window": 4096, "sliding_window_pattern": 6},
    ),
    "phi3": (
        Departure(qkv_bias=False, o_bias=False, fused=True, windows=_everywhere),
        {"vocab_size": 32064, "max_position_embeddings": 4096},
    ),
    "olmo2": (Departure(qk_norm="all", norms=AFTER), {"vocab_size": 50304, "max_position_embeddings": 2048}),
    "deepseek_v3": (
        Departure(latent=True, experts="deepseek"),
        {"vocab_size": 129280, "max_position_embeddings": 4096, "n_routed_experts": 256, "n_shared_experts": 1}
        | {"num_experts_per_tok": 8, "first_k_dense_replace": 3, "moe_intermediate_size": 2048, "kv_lora_rank": 512}
        | {"q_lora_rank": 1536, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128},
    ),
}
OTHERS: dict[str, tuple[Callable[[Config, str], Shape], dict[str, Any]]] = {
    "phi": (phi, {"vocab_size": 51200, "max_position_embeddings": 2048}),
    "gpt_neox": (gpt_neox, {"vocab_size": 50432, "max_position_embeddings": 2048, "attention_bias": True}),
    "gpt2": (gpt2, {"vocab_size": 50257, "n_positions": 1024, "tie_word_embeddings": True}),
}
