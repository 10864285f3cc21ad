"""What a layer keeps for the backward pass, in numbers a token.

Notable: nothing is guessed: the coefficients in ``activations.json`` are counted on the networks of transformers as our
engine runs them, with every weight trained and with LoRA on every linear layer, in float32 and bf16
(``tests/plan/saved.py``, which the tests run again on other sizes). Attention of packed rows is our own function and is
counted here: above ``SHORT_ROW`` tokens a row it keeps queries, keys, values, result and one number a head; below it
(on a CPU) the shares of each token in each other.
Legend: a number has 4 bytes in float32 and 2 in bf16.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from tunesmith.plan.shape import Shape
from tunesmith.plan.work import Precision

Device = Literal["cpu", "cuda"]
SHORT_ROW: dict[Precision, int] = {"bfloat16": 512, "float32": 192}  # as in models/packing.py; a test compares them
SIZES = ("width", "queries", "key_values", "inner", "heads", "key_value_heads", "shares", "routed", "read", "experts",
         "one")  # fmt: skip
FEED_FORWARD = ("inner", "routed", "read", "experts")
SCORES, FUSED, NORMS = "attention (scores kept)", "attention (fused kernel)", "norms and linear inputs"
LIKE = {  # whose coefficients a family borrows that is not counted: built alike, or with sizes of its own
    "camembert": "roberta",
    "xlm-roberta": "roberta",
    "granite": "llama",
    "smollm3": "llama",
    "olmo3": "olmo2",
    "deepseek_v3": "qwen2_moe",
}


@cache
def _table() -> dict[str, Any]:
    text = (resources.files("tunesmith.plan") / "activations.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def sizes(shape: Shape, row: int) -> dict[str, float]:
    """What the numbers that a token leaves in a layer are proportional to, in rows of ``row`` tokens. Layers of a
    mixture have ``routed`` (active experts x their inner width) and ``read`` (active experts x width) in place of
    ``inner``; where only some layers are such, the mean over all."""
    experts = shape.experts
    share = len(experts.layers) / shape.layers if experts else 0.0
    dense = shape.inner_width * (1 - share)
    return {
        "width": shape.width,
        "queries": shape.heads * shape.head_width,
        "key_values": shape.key_value_heads * shape.head_width,
        "inner": dense + (share * experts.shared_width if experts else 0),
        "heads": shape.heads,
        "key_value_heads": shape.key_value_heads,
        "shares": shape.heads * row,
        "routed": share * experts.active * experts.inner_width if experts else 0,
        "read": share * experts.active * shape.width if experts else 0,
        "experts": share * experts.count if experts else 0,
        "one": 1,
    }


@dataclass(frozen=True, slots=True)
class Held:
    """A batch in memory: ``tokens`` (what rows begin with alike counts once), as many as ``padded`` with each row as
    wide as the ``longest``; or bounds on several batches."""

    tokens: int
    padded: int
    longest: int


def packed_attention(shape: Shape, held: Held, precision: Precision, device: Device) -> float:
    """Numbers that one layer's attention keeps of a batch.

    >>> from tunesmith.plan.families import shape_of
    >>> shape = shape_of({"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
    ...                   "num_attention_heads": 2, "num_key_value_heads": 1})
    >>> packed_attention(shape, Held(10, 10, 10), "float32", "cpu")  # 10 x (2 x 8 + 2 x 4 + 2 x 10)
    440
    """
    queries, key_values = shape.heads * shape.head_width, shape.key_value_heads * shape.head_width
    if _scores(held, precision, device):
        return held.tokens * queries + held.padded * (queries + 2 * key_values + shape.heads * held.longest)
    own = 0 if held.padded == held.tokens else held.tokens * queries  # the result without its pads
    return own + held.padded * (2 * queries + 2 * key_values + shape.heads * (2 if precision == "bfloat16" else 1))


def kept_by_kind(
    shape: Shape, held: Held, precision: Precision, device: Device, adapted: float | None
) -> dict[str, float]:
    """Numbers that one layer (the mean of all) keeps of a batch, told apart by the size that they are proportional to:
    of heads (attention, by the path it takes), of the feed-forward network's inner width, and of the layer's own width
    (norms, what linear layers read); and adapters. Where a family's heads have the layer's width, only what our own
    attention keeps can be told from the rest. ``adapted``: the ranks of a layer's adapters, all together; None where
    the network's own weights are trained."""
    family = _table()[_counted(shape)]
    own = family[f"{'full' if adapted is None else 'adapter'}, {precision}"]
    proportional = sizes(shape, held.longest)
    tokens = held.tokens if family["packs"] else held.padded
    a_kernel = not own.get("shares") and not (family["packs"] and _scores(held, precision, device))
    attention = FUSED if a_kernel else SCORES
    of_heads = {"shares"} if own.get("key_values") == own["width"] else {"shares", "queries", "key_values"}
    found = dict.fromkeys((attention, "feed-forward", NORMS, "adapters"), 0.0)
    for name, times in own.items():
        kind = "feed-forward" if name in FEED_FORWARD else attention if name in of_heads else NORMS
        found[kind] += tokens * times * proportional[name]
    found["adapters"] = tokens * (adapted or 0.0)
    if family["packs"]:
        found[attention] += packed_attention(shape, held, precision, device)
    return found


def _scores(held: Held, precision: Precision, device: Device) -> bool:
    """Whether attention of packed rows keeps the share of each token in each other."""
    return device == "cpu" and held.longest <= SHORT_ROW[precision]


def packs(shape: Shape) -> bool:
    """Whether the engine leaves the pads of this family out."""
    return bool(_table()[_counted(shape)]["packs"])


def _counted(shape: Shape) -> str:
    """The family whose coefficients hold."""
    name = LIKE.get(shape.model_type, shape.model_type)
    return name if name in _table() else "bert" if shape.kind == "encoder" else "llama"
