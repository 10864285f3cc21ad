"""A network without its weights: the names and shapes by which a plan counts what a method would train."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from tunesmith.core.card import ModelCard


class HasNetwork(Protocol):
    """What tells names and shapes: a loaded model, or a skeleton. ``head`` is None without a classification head."""

    network: Any
    card: ModelCard

    @property
    def head(self) -> Any: ...


@dataclass
class Skeleton:
    network: Any
    card: ModelCard
    head: Any = None


def skeleton(card: ModelCard, config: Any, *, head: bool) -> Skeleton:
    """By the family's own code on no device: no memory and no time is spent on weights."""
    from transformers import AutoModel, AutoModelForCausalLM

    family: Any = AutoModelForCausalLM if card.kind == "decoder" else AutoModel
    with torch.device("meta"):
        return Skeleton(family.from_config(config), card, head or None)
