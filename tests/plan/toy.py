"""A network small enough to be worked out by hand, and a machine with round numbers."""

from typing import Any

from tunesmith.core.plan import Technique
from tunesmith.plan.rates import Rates
from tunesmith.plan.shape import Shape, Weight
from tunesmith.plan.work import Rows, Work

FAST = 1e30  # no time at all
LINEAR = Weight("layers.{}.mlp.up", (8, 4), "linear", layers=(0, 1))
NORM = Weight("layers.{}.norm", (4,), "norm", layers=(0, 1))
EMBEDDING = Weight("embed", (10, 4), "embedding")


def shape(**changes: Any) -> Shape:
    """Two layers of one linear weight (8 x 4), one head of 4, a vocabulary of 10."""
    told: dict[str, Any] = {
        "model_type": "toy",
        "kind": "decoder",
        "vocabulary": 10,
        "width": 4,
        "layers": 2,
        "heads": 1,
        "key_value_heads": 1,
        "head_width": 4,
        "value_width": 4,
        "inner_width": 8,
        "context": 64,
        "tied": True,
        "windows": (None, None),
        "cached": 8,
        "weights": (EMBEDDING, LINEAR, NORM),
    }
    return Shape(**(told | changes))


def rates(**changes: Any) -> Rates:
    """1000 products a second of any width, and all else for nothing."""
    told: dict[str, Any] = {
        "name": "toy",
        "kind": "cpu",
        "products": {"float32": ((1, 1000.0), (2, 1000.0))},
        "bandwidth": FAST,
        "passing": FAST,
        "overhead": 0.0,
        "source": "table",
    }
    return Rates(**(told | changes))


def work(**changes: Any) -> Work:
    """Ten rows of 8 tokens, half of them in the loss, one step of two rows."""
    told: dict[str, Any] = {
        "shape": shape(),
        "technique": FULL,
        "rows": Rows(10, 80, 40, 8, 8),
        "precision": "float32",
        "micro_tokens": 16,
        "batch_tokens": 16,
        "steps": 5,
    }
    return Work(**(told | changes))


FULL = Technique(True, 112, 1.0)  # 40 + 64 + 8
LORA = Technique(False, 48, 10.0)  # rank 2: 2 x (8 + 4) in two layers
