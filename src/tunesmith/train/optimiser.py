"""Optimisers and the learning-rate schedule.

Notable: the schedule is a function of progress (0 to 1), not of a step count, so that a run under a time budget
anneals to the end of its budget instead of stopping at a high rate.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from tunesmith.models.few_bits import adamw_of_eight_bits

SMALLEST_8BIT = 4096  # weights; below this bitsandbytes keeps float32 moments itself
NamedParameters = list[tuple[str, nn.Parameter]]


def adamw(parameters: NamedParameters, *, learning_rate: float, weight_decay: float) -> list[Optimizer]:
    """AdamW (Loshchilov and Hutter, 2019), betas 0.9 and 0.999; biases, norms and other vectors do not decay."""
    groups = [
        {"params": [p for _, p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for _, p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, fused=True)]


def adamw_8bit(parameters: NamedParameters, *, learning_rate: float, weight_decay: float) -> list[Optimizer]:
    """AdamW with moments of eight bits in blocks of 256 (Dettmers et al., 2022), by bitsandbytes. Embeddings, vectors
    and small matrices keep float32 moments: they are few, or take rare and large steps."""
    small = [(n, p) for n, p in parameters if p.ndim < 2 or p.numel() < SMALLEST_8BIT or "embed" in n]
    chosen = {id(p) for _, p in small}
    large = [p for _, p in parameters if id(p) not in chosen]
    rates = {"learning_rate": learning_rate, "weight_decay": weight_decay}
    made = [adamw_of_eight_bits(large, **rates)] if large else []
    return made + (adamw(small, **rates) if small else [])


def muon(parameters: NamedParameters, *, learning_rate: float, weight_decay: float) -> list[Optimizer]:
    """Muon (Jordan et al., 2024) for the matrices inside the layers, AdamW for embeddings and vectors. For pre-
    training."""
    inner = [p for name, p in parameters if p.ndim == 2 and "embed" not in name and "lm_head" not in name]
    chosen = {id(p) for p in inner}
    outer = [p for _, p in parameters if id(p) not in chosen]
    return [
        torch.optim.Muon(
            inner, lr=learning_rate, weight_decay=weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(outer, lr=learning_rate, weight_decay=0.0, betas=(0.9, 0.95), fused=True),
    ]


def warmup_cosine(warmup: float, floor: float = 0.0) -> Callable[[float], float]:
    """Linear rise over the first ``warmup`` share, then half a cosine down to ``floor``. Returns progress -> factor.

    >>> rate = warmup_cosine(0.5)
    >>> [round(rate(p), 3) for p in (0.0, 0.25, 0.5, 0.75, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    def factor(progress: float) -> float:
        if progress < warmup:
            return progress / warmup
        done = (min(progress, 1.0) - warmup) / (1.0 - warmup) if warmup < 1.0 else 1.0
        return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * done))

    return factor


def set_factor(optimisers: Iterable[Optimizer], factor: float) -> None:
    """Scale each group's own peak rate (remembered at the first call) by ``factor``."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            peak: Any = group.setdefault("peak_lr", group["lr"])
            group["lr"] = peak * factor
