"""PiSSA (Meng et al., 2024): LoRA that starts from the largest singular vectors of each weight matrix.

Notable: by randomised projection (Halko et al., 2011) with 16 rounds, as the paper's fast variant; exact within
rounding where the spectrum falls, and hundreds of times cheaper than a whole decomposition of a large matrix.
"""

import torch
from torch import Tensor

from tunesmith.models.adapters.lora import family

ROUNDS = 16
MORE = 8  # directions beside those that are wanted


def start(weight_OI: Tensor, rank: int, scale: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A [R, I] and B [O, R] with ``scale B A`` the best approximation of ``weight_OI`` of that rank.

    >>> a, b = start(torch.diag(torch.tensor([4.0, 1.0])), 1, 2.0, torch.Generator().manual_seed(0))
    >>> (2 * b @ a).round(decimals=3).abs()
    tensor([[4., 0.],
            [0., 0.]])
    """
    wide = min(rank + MORE, *weight_OI.shape)
    probe = torch.randn(weight_OI.shape[1], wide, generator=generator).to(weight_OI)
    basis = torch.linalg.qr(weight_OI @ probe).Q
    for _ in range(ROUNDS):
        basis = torch.linalg.qr(weight_OI @ torch.linalg.qr(weight_OI.T @ basis).Q).Q
    u, s, vh = torch.linalg.svd(basis.T @ weight_OI, full_matrices=False)
    root = (s[:rank] / scale).sqrt()
    return root[:, None] * vh[:rank], (basis @ u[:, :rank]) * root


PART = family("pissa", start=start)
