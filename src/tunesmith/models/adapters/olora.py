"""OLoRA (Büyükakyüz, 2024): LoRA that starts from the first columns of the QR decomposition of each weight matrix."""

import torch
from torch import Tensor

from tunesmith.models.adapters.lora import family


def start(weight_OI: Tensor, rank: int, _scale: float, _generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A [R, I] and B [O, R], B with orthonormal columns.

    >>> a, b = start(torch.tensor([[3.0, 0.0], [4.0, 0.0]]), 1, 1.0, torch.Generator())
    >>> (b @ a).round(decimals=3).abs()
    tensor([[3., 0.],
            [4., 0.]])
    """
    q, r = torch.linalg.qr(weight_OI)
    return r[:rank], q[:, :rank]


PART = family("olora", start=start)
