"""Weights of four bits and moments of eight: the one file that imports bitsandbytes, which is optional."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tunesmith.core.errors import ModelError
from tunesmith.models.machine import default_device, has_bitsandbytes


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


def adamw_of_eight_bits(parameters: list[Any], *, learning_rate: float, weight_decay: float) -> Optimizer:
    """AdamW whose moments are eight bits in blocks of 256 (Dettmers et al., 2022)."""
    from bitsandbytes.optim.adamw import AdamW8bit

    made: Optimizer = AdamW8bit(parameters, lr=learning_rate, weight_decay=weight_decay)  # type: ignore[no-untyped-call]
    return made
