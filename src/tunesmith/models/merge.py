"""An adapter taken into the weights: a plain transformers network, for as long as it is needed.

Notable: nothing is subtracted to get back. The adapted layers are taken out, plain ones stand in for them, and
afterwards they return with their weights untouched, so the model is the same bit for bit. Sums are made in float32 and
rounded once, to the type of the base.
Legend: I inputs, O outputs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.core.errors import ModelError
from tunesmith.models.frozen_linear import bits_of
from tunesmith.models.lora_layer import LoraLinear
from tunesmith.models.model import Model


@contextmanager
def merged(model: Model) -> Iterator[Any]:
    """The network with its adapter inside its weights. The adapted layers' weights are held twice meanwhile.

    Raises ModelError for a base in four bits: what its weights are is a choice (``on_dense_weights``).
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if _in_four_bits(model):
        raise ModelError(f"{model.card.name} is held in four bits; a merge needs dense weights. Make it dense first.")
    ours: dict[str, LoraLinear] = {n: m for n, m in model.network.named_modules() if isinstance(m, LoraLinear)}
    theirs: dict[str, Any] = {n: m for n, m in model.network.named_modules() if isinstance(m, BaseTunerLayer)}
    kept = [(p, p.data) for other in theirs.values() for p in other.get_base_layer().parameters()]
    try:
        for name, layer in ours.items():
            _put(model.network, name, plain(layer))
        for parameter, data in kept:
            parameter.data = data.clone()
        for name, other in theirs.items():
            other.merge()
            _put(model.network, name, other.get_base_layer())
        yield model.network
    finally:
        for name, adapted in {**ours, **theirs}.items():
            _put(model.network, name, adapted)
        for other in theirs.values():
            other.merged_adapters.clear()
        for parameter, data in kept:
            parameter.data = data


def on_dense_weights(model: Model) -> None:
    """Write four-bit weights out, for good: the merge base of QLoRA, for the adapter was trained against these.

    Raises ModelError for PEFT's layers, which know their base in four bits alone.
    """
    if not _in_four_bits(model):
        return
    if model.wrapped is not None:
        kind = next(iter(model.wrapped.peft_config.values())).peft_type.value
        raise ModelError(
            f"{kind} by PEFT cannot be merged into {model.card.name}, which is held in four bits. Use --to peft, or "
            "train on the model that it was quantised from."
        )
    model.network.dequantize()


def _in_four_bits(model: Model) -> bool:
    return any(bits_of(m) is not None for m in model.network.modules() if isinstance(m, nn.Linear))


@torch.no_grad()
def plain(layer: LoraLinear) -> nn.Linear:
    """One linear layer that answers as the adapted one does where nothing is dropped out."""
    a_RI, b_OR = layer.plain()
    weight_OI = layer.weight_OI() + layer.scale * (b_OR @ a_RI)
    if layer.magnitude is not None:
        weight_OI *= layer.magnitude.gain_O()[:, None]
    return _linear(weight_OI.to(layer.base.weight.dtype), layer.base.bias)


def _linear(weight_OI: Tensor, bias_O: Any) -> nn.Linear:
    outputs, inputs = weight_OI.shape
    layer = nn.Linear(inputs, outputs, bias=bias_O is not None, device="meta")
    layer.weight = nn.Parameter(weight_OI, requires_grad=False)
    layer.bias = bias_O
    return layer


def _put(network: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, layer)
