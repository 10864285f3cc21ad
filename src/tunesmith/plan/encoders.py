"""The encoders whose shape is known: BERT and its kin, DistilBERT, MPNet, ModernBERT.

Notable: names and numbers are those of ``AutoModel``, without the head for masked words that published files hold; the
pooler is counted where the family builds one, though nothing here uses it.
"""

from collections.abc import Callable
from typing import Any, Literal

from tunesmith.core.errors import ModelError
from tunesmith.plan.config import Config
from tunesmith.plan.shape import Shape, Weight

BERT = {
    "embeddings": ("embeddings.word_embeddings", "embeddings.position_embeddings", "embeddings.LayerNorm"),
    "attention": tuple(
        f"encoder.layer.{{}}.attention.{n}" for n in ("self.query", "self.key", "self.value", "output.dense")
    ),
    "mlp": ("encoder.layer.{}.intermediate.dense", "encoder.layer.{}.output.dense"),
    "norms": ("encoder.layer.{}.attention.output.LayerNorm", "encoder.layer.{}.output.LayerNorm"),
}
MPNET = BERT | {
    "attention": tuple(f"encoder.layer.{{}}.attention.attn.{n}" for n in "qkvo"),
    "norms": ("encoder.layer.{}.attention.LayerNorm", "encoder.layer.{}.output.LayerNorm"),
}
DISTILBERT = BERT | {
    "attention": tuple(f"transformer.layer.{{}}.attention.{n}_lin" for n in ("q", "k", "v", "out")),
    "mlp": ("transformer.layer.{}.ffn.lin1", "transformer.layer.{}.ffn.lin2"),
    "norms": ("transformer.layer.{}.sa_layer_norm", "transformer.layer.{}.output_layer_norm"),
}
AFTER_PAD = ("roberta", "xlm-roberta", "camembert", "mpnet")  # their first position is pad_token_id + 1


def bert_like(config: Config, model_type: str) -> Shape:
    """BERT and its kin: biases everywhere, learned positions. Raises ModelError."""
    names = {"mpnet": MPNET, "distilbert": DISTILBERT}.get(model_type, BERT)
    width, inner = config.number("hidden_size", "dim"), config.number("intermediate_size", "hidden_dim")
    every = tuple(range(config.layers()))
    words, positions, norm = names["embeddings"]

    def linear(name: str, outputs: int, inputs: int) -> Weight:
        return Weight(name, (outputs, inputs), "linear", every, outputs)

    weights = [
        Weight(words, (config.number("vocab_size"), width), "embedding"),
        Weight(positions, (config.number("max_position_embeddings"), width), "embedding"),
        Weight(norm, (width,), "norm", bias=width),
        *(linear(name, width, width) for name in names["attention"]),
        linear(names["mlp"][0], inner, width),
        linear(names["mlp"][1], width, inner),
        *(Weight(name, (width,), "norm", every, width) for name in names["norms"]),
    ]
    if model_type == "mpnet":
        buckets = (config.number("relative_attention_num_buckets"), config.number("num_attention_heads"))
        weights.append(Weight("encoder.relative_attention_bias", buckets, "embedding"))
    elif model_type != "distilbert":
        kinds = (config.number("type_vocab_size"), width)
        weights.append(Weight("embeddings.token_type_embeddings", kinds, "embedding"))
    if model_type != "distilbert":
        weights.append(Weight("pooler.dense", (width, width), "pooler", bias=width))
    return _shape(config, model_type, (width, inner), (None,) * len(every), weights)


def modernbert(config: Config, model_type: str) -> Shape:
    """ModernBERT: one matrix for q, k, v, one for both halves of a gated MLP; two of three layers have a window."""
    width, inner, layers = config.number("hidden_size"), config.number("intermediate_size"), config.layers()
    every = tuple(range(layers))
    attention, mlp, norm = (config.flag(key) for key in ("attention_bias", "mlp_bias", "norm_bias"))

    def weight(
        name: str, shape: tuple[int, ...], kind: Literal["linear", "norm"], biased: bool, first: int = 0
    ) -> Weight:
        return Weight(f"layers.{{}}.{name}", shape, kind, every[first:], shape[0] if biased else 0)

    weights = [
        Weight("embeddings.tok_embeddings", (config.number("vocab_size"), width), "embedding"),
        Weight("embeddings.norm", (width,), "norm", bias=width if norm else 0),
        Weight("final_norm", (width,), "norm", bias=width if norm else 0),
        weight("attn.Wqkv", (3 * width, width), "linear", attention),
        weight("attn.Wo", (width, width), "linear", attention),
        weight("mlp.Wi", (2 * inner, width), "linear", mlp),
        weight("mlp.Wo", (width, inner), "linear", mlp),
        weight("attn_norm", (width,), "norm", norm, first=1),  # the embedding's norm serves the first layer
        weight("mlp_norm", (width,), "norm", norm),
    ]
    window, wide = config.number("local_attention"), config.number("global_attn_every_n_layers")
    sliding = config.sliding(layers) or [bool(i % wide) for i in range(layers)]
    return _shape(config, model_type, (width, inner), tuple(window if s else None for s in sliding), weights)


def _shape(
    config: Config, model_type: str, widths: tuple[int, int], windows: tuple[int | None, ...], weights: list[Weight]
) -> Shape:
    width, inner = widths
    heads, _, head = config.heads(width)
    context = config.number("max_position_embeddings")
    if model_type in AFTER_PAD:
        context -= config.count("pad_token_id") + 1
    if context < 1:
        raise ModelError(f"model: {config.where} has no position after its pad_token_id. Fetch the model again.")
    return Shape(
        model_type=model_type,
        kind="encoder",
        vocabulary=config.number("vocab_size"),
        width=width,
        layers=len(windows),
        heads=heads,
        key_value_heads=heads,
        head_width=head,
        value_width=head,
        inner_width=inner,
        context=context,
        tied=True,
        windows=windows,
        cached=0,
        weights=tuple(weights),
    )


WORDS = {"vocab_size": 30522, "max_position_embeddings": 512}
MODERN = {"vocab_size": 50368, "max_position_embeddings": 8192, "local_attention": 128, "global_attn_every_n_layers": 3}
ENCODERS: dict[str, tuple[Callable[[Config, str], Shape], dict[str, Any]]] = {  # each with its defaults
    "bert": (bert_like, {**WORDS, "type_vocab_size": 2}),
    "roberta": (bert_like, {**WORDS, "vocab_size": 50265, "type_vocab_size": 2, "pad_token_id": 1}),
    "xlm-roberta": (bert_like, {**WORDS, "type_vocab_size": 2, "pad_token_id": 1}),
    "camembert": (bert_like, {**WORDS, "type_vocab_size": 2, "pad_token_id": 1}),
    "distilbert": (bert_like, WORDS),
    "mpnet": (bert_like, {**WORDS, "vocab_size": 30527, "pad_token_id": 1, "relative_attention_num_buckets": 32}),
    "modernbert": (modernbert, MODERN),
}
