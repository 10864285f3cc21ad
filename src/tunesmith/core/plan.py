"""A plan: every ``auto`` of a recipe resolved to a number, each with its reason."""

from typing import Literal

from tunesmith.core.noun import Noun


class Plan(Noun):
    """What the loop does. ``batch_tokens`` counts real tokens an optimiser step; ``micro_tokens`` those in memory at
    once."""

    learning_rate: float
    epochs: float
    steps: int
    warmup_steps: int
    batch_tokens: int
    micro_tokens: int
    eval_every: int
    patience: int
    weight_decay: float
    clip_norm: float
    precision: Literal["float32", "bfloat16"]
    max_length: int
    seconds: float | None
    seed: int
    reasons: dict[str, str]
