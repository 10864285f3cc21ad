"""Decoders of layouts that are older than Llama's: Phi, GPT-NeoX, GPT-2.

Notable: their linear layers have biases, so an output matrix that is tied may still have one of its own (Phi).
"""

from collections.abc import Callable
from typing import Any

from tunesmith.plan.config import Config
from tunesmith.plan.llama_like import ATTENTION, MLP, TWO, Size, ends
from tunesmith.plan.shape import Shape, Weight


def phi(config: Config, model_type: str) -> Shape:
    """Phi-1 to Phi-2: biases everywhere, one norm a layer."""
    width = config.number("hidden_size")
    heads, grouped, head = config.heads(width)
    size = Size(config.layers(), width, heads, grouped, head, head, config.number("intermediate_size"))
    weights = [
        *ends(
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
    size = Size(config.layers(), width, heads, heads, head, head, config.number("intermediate_size"))
    bias, layer = config.flag("attention_bias"), "gpt_neox.layers.{}."
    weights = [
        *ends(config, "gpt_neox.embed_in", Weight("gpt_neox.final_layer_norm", (width,), "norm", bias=width)),
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
    size = Size(config.layers(), width, heads, heads, head, head, config.optional("n_inner") or 4 * width)

    def matrix(name: str, outputs: int, inputs: int) -> Weight:
        return Weight(f"transformer.h.{{}}.{name}", (outputs, inputs), "matrix", size.every, outputs)

    weights = [
        *ends(config, "transformer.wte", Weight("transformer.ln_f", (width,), "norm", bias=width)),
        Weight("transformer.wpe", (config.number("n_positions", "max_position_embeddings"), width), "embedding"),
        matrix("attn.c_attn", 3 * width, width),
        matrix("attn.c_proj", width, width),
        matrix("mlp.c_fc", size.inner, width),
        matrix("mlp.c_proj", width, size.inner),
        size.norm("transformer.h.{}.ln_1", width, True),
        size.norm("transformer.h.{}.ln_2", width, True),
    ]
    return _plain(config, model_type, size, weights)


def _plain(config: Config, model_type: str, size: Size, weights: list[Weight]) -> Shape:
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


OLDER: dict[str, tuple[Callable[[Config, str], Shape], dict[str, Any]]] = {
    "phi": (phi, {"vocab_size": 51200, "max_position_embeddings": 2048}),
    "gpt_neox": (gpt_neox, {"vocab_size": 50432, "max_position_embeddings": 2048, "attention_bias": True}),
    "gpt2": (gpt2, {"vocab_size": 50257, "n_positions": 1024, "tie_word_embeddings": True}),
}
