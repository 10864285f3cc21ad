"""From a ``config.json`` to the shape of its network, in microseconds and without weights.

Notable: an unknown ``model_type`` is read as Llama only where the file has all of Llama's keys and none that tells of
something else (experts, other kinds of layers, an activation that goes without a gate), and the shape says so; else it
is an error, for a plan that is wrong by a factor is worse than none.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import ModelError, did_you_mean
from tunesmith.plan.config import Config
from tunesmith.plan.encoders import ENCODERS
from tunesmith.plan.llama_like import LLAMA_LIKE, UNKNOWN, llama_like
from tunesmith.plan.older import OLDER
from tunesmith.plan.shape import Shape, Weight

if TYPE_CHECKING:  # a shape needs no pydantic
    from tunesmith.core.card import ModelCard

KNOWN = tuple(sorted([*LLAMA_LIKE, *OLDER, *ENCODERS]))
MOST_NESTED = 2  # text parts inside each other; models have one
NESTED = {"gemma3": "gemma3_text"}  # what the text part is called where it does not say
USUAL = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
OTHERWISE = re.compile(
    r"expert|moe|lora_rank|ssm|mamba|conv|linear_(num|key|value)|recurrent|rwkv|encoder_layers|cross_attention|cycles"
    r"|per_layer|shared_layers|k_eq_v|vision_config|audio_config"
)
GATED = ("silu", "swish", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh")


def shape_of(config: object, where: str = "config.json", inside: int = 0) -> Shape:
    """The shape of the network that ``config``, the content of the file ``where``, describes; ``inside`` so many other
    networks that have a text part. Raises ModelError.

    >>> shape = shape_of({"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
    ...                   "num_hidden_layers": 32, "num_attention_heads": 32})
    >>> shape.parameters, shape.cache_bytes(1)
    (6738415616, 524288)
    """
    if not isinstance(config, Mapping):
        raise ModelError(f"model: {where} holds a {type(config).__name__}; expected keys. Fetch the model again.")
    text = config.get("text_config")
    if isinstance(text, Mapping):
        if inside == MOST_NESTED:
            raise ModelError(
                f"model: {where} has a text_config too; expected {MOST_NESTED} of them inside each other at most. "
                "Fetch the model again."
            )
        outer = config.get("model_type")
        own = {"model_type": NESTED.get(str(outer), outer)}
        if "tie_word_embeddings" in config:
            own["tie_word_embeddings"] = config["tie_word_embeddings"]
        shape = shape_of({**own, **text}, f"text_config of {where}", inside + 1)
        note = f"{outer}: the text part alone is counted; what reads images or sound is left out."
        return replace(shape, assumed=(*shape.assumed, note))
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in KNOWN:
        return _known(config, model_type, where)
    return _assumed(config, model_type, where)


def shape_like(card: "ModelCard", config: object) -> Shape:
    """The shape by ``config``; where that is of no family that is known, one with the counts of ``card``, its layers
    built like llama's, which is said in ``assumed``."""
    try:
        return shape_of(config, card.name)
    except ModelError:
        table = card.vocabulary * card.width
        inner = max(1, (card.parameters - table) // card.layers)
        heads = max(1, card.width // 64)
        every = tuple(range(card.layers))
        weights = (
            Weight("embedding", (card.vocabulary, card.width), "embedding"),
            Weight("layers.{}", (max(1, inner // card.width), card.width), "linear", every),
        )
        note = f"{card.architecture} is of no family that is known; its layers are taken to be built like llama's."
        return Shape(
            "unknown",
            card.kind,
            card.vocabulary,
            card.width,
            card.layers,
            heads,
            heads,
            card.width // heads,
            card.width // heads,
            max(1, (inner - 4 * card.width**2) // (3 * card.width)),
            card.context,
            True,
            (None,) * card.layers,
            2 * card.width,
            weights,
            assumed=(note,),
        )


def _known(values: Mapping[str, Any], model_type: str, where: str) -> Shape:
    if model_type in LLAMA_LIKE:
        departure, defaults = LLAMA_LIKE[model_type]
        return llama_like(Config(values, defaults, where), model_type, departure)
    build, defaults = (OLDER | ENCODERS)[model_type]
    return build(Config(values, defaults, where), model_type)


def _assumed(values: Mapping[str, Any], model_type: object, where: str) -> Shape:
    """As Llama, where that is likely. Raises ModelError."""
    missing = [key for key in USUAL if key not in values]
    missing += [] if "rms_norm_eps" in values else ["rms_norm_eps"]  # which tells Llama's kin from older layouts
    odd = sorted(key for key in values if OTHERWISE.search(key))
    activation = values.get("hidden_act") or values.get("hidden_activation") or "silu"
    if missing or odd or activation not in GATED:
        why = f"it has {odd[0]}" if odd else f"it has no {missing[0]}" if missing else f"its activation is {activation}"
        raise ModelError(
            f'model: {where}: the model_type "{model_type}" is not known, and it cannot be read as llama: {why}.'
            f"{did_you_mean(str(model_type), KNOWN)} Known are: {', '.join(KNOWN)}. Name a model of one of these."
        )
    shape = llama_like(Config(values, {"max_position_embeddings": 2048}, where), str(model_type), UNKNOWN)
    note = f'The model_type "{model_type}" is not known; it is taken to be built like llama, from the usual keys.'
    return replace(shape, assumed=(note,))
