"""Weights of four bits and moments of eight: the one file that imports bitsandbytes, which is optional."""

from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def dequantised(weight: Tensor, bits: Any) -> Tensor:
    """The dense weight of one that was quantised as ``bits`` says."""
    from bitsandbytes.functional import dequantize_4bit

    found: Tensor = dequantize_4bit(weight.data, bits)
    return found


def four_bits_and_back(weight: Tensor) -> Tensor:
    """What is left of a dense weight once it was held in four bits as a base is."""
    from bitsandbytes.functional import quantize_4bit

    held, bits = quantize_4bit(weight.contiguous(), quant_type="nf4", compress_statistics=True)
    return dequantised(held, bits).to(weight.dtype)


def adamw_of_eight_bits(parameters: list[Any], *, learning_rate: float, weight_decay: float) -> Optimizer:
    """AdamW whose moments are eight bits in blocks of 256 (Dettmers et al., 2022)."""
    from bitsandbytes.optim.adamw import AdamW8bit

    made: Optimizer = AdamW8bit(parameters, lr=learning_rate, weight_decay=weight_decay)  # type: ignore[no-untyped-call]
    return made
