"""Weights of four bits and moments of eight: the one file that imports bitsandbytes, which is optional."""

import math
import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tunesmith.core.errors import ModelError
from tunesmith.models.machine import default_device
from tunesmith.plan.here import has_bitsandbytes


def in_four_bits(precision: str, device: str | None) -> dict[str, Any]:
    """What transformers is told, so that it quantises each weight as it is read. Raises ModelError."""
    if not has_bitsandbytes():
        raise ModelError(
            "method.name: qlora needs bitsandbytes, which is not installed. pip install 'tunesmith[quantized]', or use "
            "method.name: lora."
        )
    from transformers import BitsAndBytesConfig

    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    return {"dtype": dtype, "quantization_config": config, "device_map": {"": device or default_device()}}


def let_go_of_the_file(network: nn.Module) -> None:
    """Copy what was not quantised: in the file's own type it lies in the file's pages, and a single such weight keeps
    the whole file in the process."""
    for parameter in network.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.clone()


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


class Scratch(threading.local):
    """Where a processor makes dense weights, one after the other in the same memory. Blocks that come and go by the
    hundred in each step left holes in the heap, larger than the model was.

    A byte holds two weights, so both are looked up at once and then scaled, which gives the bits of bitsandbytes' own
    answer; on a processor that one cannot write into memory that is there.
    """

    def __init__(self) -> None:
        self.held: dict[torch.dtype, Tensor] = {}

    def room(self, count: int, dtype: torch.dtype) -> Tensor:
        if dtype not in self.held or self.held[dtype].numel() < count:
            self.held[dtype] = torch.empty(count, dtype=dtype)
        return self.held[dtype][:count]

    def dense(self, weight: Tensor, bits: Any) -> Tensor:
        """As ``dequantised``, until the next call."""
        count = math.prod(bits.shape)
        plain = bits.nested and bits.quant_type == "nf4" and weight.dtype == torch.uint8
        if not plain or weight.device.type != "cpu" or count % bits.blocksize:
            return dequantised(weight, bits)
        from bitsandbytes.functional import dequantize_blockwise

        scale = dequantize_blockwise(bits.absmax, bits.state2) + bits.offset
        byte = self.room(count // 2, torch.int32).copy_(weight.data.view(-1))
        pairs = self.room(count // 2, torch.float64)
        torch.index_select(pairs_of(bits.code), 0, byte, out=pairs)
        numbers = pairs.view(torch.float32).view(-1, bits.blocksize).mul_(scale[:, None]).view(bits.shape)
        return numbers if bits.dtype == torch.float32 else self.room(count, bits.dtype).view(bits.shape).copy_(numbers)


SCRATCH = Scratch()


def pairs_of(code: Tensor) -> Tensor:
    """The two float32 numbers of each byte, the first from its upper half, as one float64."""
    byte = torch.arange(256)
    return torch.stack([code[byte >> 4], code[byte & 15]], dim=1).view(torch.float64)[:, 0]


def adamw_of_eight_bits(parameters: list[Any], *, learning_rate: float, weight_decay: float) -> Optimizer:
    """AdamW whose moments are eight bits in blocks of 256 (Dettmers et al., 2022)."""
    from bitsandbytes.optim.adamw import AdamW8bit

    made: Optimizer = AdamW8bit(parameters, lr=learning_rate, weight_decay=weight_decay)  # type: ignore[no-untyped-call]
    return made
