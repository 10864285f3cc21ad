"""A network without its weights: the names and shapes by which a plan counts what a method would train."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from tunesmith.core.card import ModelCard
from tunesmith.plan.outline import Outline


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


def outline(model: HasNetwork) -> Outline:
    """Names and sizes of the network's weights and layers."""
    network, card = model.network, model.card
    modules = dict(network.named_modules())
    names = {id(module): name for name, module in modules.items()}
    output = network.get_output_embeddings() if card.kind == "decoder" else None
    pooler = getattr(network, "pooler", None)
    idle = {id(output)} | {id(module) for module in (pooler.modules() if pooler is not None else ())}
    lists = (name for name, m in modules.items() if isinstance(m, nn.ModuleList) and len(m) == card.layers)
    return Outline(
        model=card.name,
        architecture=card.architecture,
        weights={name: tuple(p.shape) for name, p in network.named_parameters()},
        linear={
            name: (m.out_features, m.in_features)
            for name, m in modules.items()
            if isinstance(m, nn.Linear) and id(m) not in idle
        },
        embedding=names.get(id(network.get_input_embeddings()), ""),
        output=names.get(id(output), ""),
        pooler=names.get(id(pooler), ""),
        stack=next(lists, ""),
        layers=card.layers,
        head=model.head is not None,
    )
