"""A frozen linear layer whose weight may be held in four bits (NF4, Dettmers et al., 2023), by bitsandbytes.

Notable: the dense weight exists for one product at a time; the backward pass makes it again instead of keeping it. So
does the LoRA layer. Adapted layers never call bitsandbytes' own forward pass, which on some processors repacks the
weight when it first answers.
Legend: N tokens, I inputs, O outputs.
"""

from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.models.few_bits import SCRATCH, dequantised


def bits_of(layer: nn.Linear) -> Any:
    """How the layer's weight is quantised, or None where it is dense."""
    return getattr(layer.weight, "quant_state", None)


def dense(weight: Tensor, bits: Any) -> Tensor:
    """The weight [O, I] as it is multiplied by."""
    return weight if bits is None else dequantised(weight, bits)


def passing_dense(weight: Tensor, bits: Any) -> Tensor:
    """The same for one product: it is overwritten by the next."""
    return weight if bits is None else SCRATCH.dense(weight, bits)


class _FrozenLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bits: Any, bias_O: Tensor | None) -> Tensor:
        ctx.weight, ctx.bits = weight, bits
        return nn.functional.linear(x, passing_dense(weight, bits), bias_O)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return grads[0] @ passing_dense(ctx.weight, ctx.bits), None, None, None


def frozen_linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """``x W^T + bias`` for ``x`` shaped [..., I]; no gradient reaches the layer."""
    bits = bits_of(layer)
    if bits is None:
        out: Tensor = layer(x)
        return out
    found: Tensor = _FrozenLinear.apply(x, layer.weight, bits, layer.bias)  # type: ignore[no-untyped-call]
    return found
