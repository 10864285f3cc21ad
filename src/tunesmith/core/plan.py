"""A plan: every ``auto`` of a recipe resolved to a number, each with its reason; and the machine it is made for."""

from dataclasses import dataclass
from typing import Literal

from tunesmith.core.noun import Noun


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a run takes place. ``memory`` is that of the processor or of the GPU in bytes, None where unknown;
    ``eight_bit``: whether bitsandbytes is there; ``ranks``: so many of them share weights and tokens."""

    device: Literal["cpu", "cuda"]
    memory: int | None
    fast_bfloat16: bool
    eight_bit: bool = False
    ranks: int = 1


@dataclass(frozen=True, slots=True)
class Technique:
    """What a plan must know of a method: whether it trains the network's own weights, how many weights in all, the
    learning rate that suits it, in times that of full fine-tuning, at most ``most_rate``, whether the base is held in
    four bits, and what its layers keep for their way back beside those of LoRA, in times the outputs of all linear
    layers (below 0: they keep less)."""

    full: bool
    trained: int
    rate: float
    most_rate: float = 2e-3
    four_bits: bool = False
    keeps: float = 0.0


class Plan(Noun):
    """What the loop does. ``batch_tokens`` counts real tokens an optimiser step; ``micro_tokens`` those in memory at
    once. ``peak_bytes`` and ``step_seconds`` are what training is foreseen to need, the seconds before any correction
    by earlier runs, and ``device`` whose rates these come from; None where nothing is known of it."""

    learning_rate: float
    epochs: float
    steps: int
    warmup_steps: int
    trainable: int = 0
    batch_tokens: int
    micro_tokens: int
    eval_every: int
    patience: int
    weight_decay: float
    clip_norm: float
    precision: Literal["float32", "bfloat16"]
    memory: Literal["fast", "selective", "checkpoint", "least"]
    moments: Literal["float32", "int8"] = "float32"
    compiled: bool = False
    max_length: int
    seconds: float | None
    save_seconds: float = 120.0
    seed: int
    peak_bytes: int | None = None
    step_seconds: float | None = None
    device: str | None = None
    reasons: dict[str, str]
