"""What is measured: the model's shape, the data's size, and each configuration of either side.

Notable: with LoRA, TRL's four are float32, bf16 autocast, bf16 weights, and bf16 weights with packing; each runs with
gradient checkpointing on, which is TRL's default, and off, which is faster and larger. With QLoRA they are float32,
bf16, and float32 whose adapters are cast from the bf16 that TRL makes of them, for which it has no setting. With GRPO
they differ in how many prompts are answered at once as well: few need no pads, many fill a matrix product. ``--quick``
replaces every size by a tiny one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Shape = dict[str, Any]
RANK = 16
CONTEXT = 8192


def shape(width: int, inner: int, layers: int, heads: int, groups: int, vocabulary: int = 49_152) -> Shape:
    """A Llama of SmolLM2's kind: heads of 64, tied embeddings, rope theta 100,000."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": 64,
        "max_position_embeddings": CONTEXT,
        "rope_theta": 100_000.0,
        "rms_norm_eps": 1e-5,
        "initializer_range": 0.041666666666666664,
        "tie_word_embeddings": True,
    }


SHAPES = {  # by size in millions of weights; the last two are SmolLM2's own
    "10M": shape(128, 384, 16, 2, 1),
    "38M": shape(384, 1024, 12, 6, 2),
    "135M": shape(576, 1536, 30, 9, 3),
    "360M": shape(960, 2560, 32, 15, 5),
}
TINY = shape(64, 128, 2, 2, 1, vocabulary=2048)


@dataclass(frozen=True)
class Sizes:
    """How much is run. ``rows`` an optimiser step; ``steps`` hold two of warm-up.

    Four rows a step let all parts end within 35 minutes or so where a step of TRL runs 100 tokens a second.
    """

    shape: Shape
    name: str
    rows: int = 4
    micro_rows: int = 2  # of TRL, in memory at once: faster than 1, 4 and 8 where this was written
    steps: int = 22
    compile: str = "auto"  # of ours
    books: int = 30_000_000  # characters that the tokenizer is trained on, beside GSM8K
    encoder_rows: int | None = None  # None: all of them
    encoder_probe: int = 14  # steps of each candidate of the peer before the epoch
    growth_shapes: Mapping[str, Shape] = field(default_factory=lambda: SHAPES)
    growth_lengths: tuple[int, ...] = (128, 256, 512, 1024, 2048, 4096)
    growth_length: int = 512  # of the sweep over sizes; one of growth_lengths
    growth_tokens: int = 4096  # a step
    qlora_steps: int = 8  # two of them warm up
    dpo_pairs: int = 2  # a step
    dpo_steps: int = 6  # two of them warm up
    prompts: int = 64
    longest_new: int = 192  # tokens that an answer may have
    online_prompts: int = 8  # a step
    online_answers: int = 8  # to each prompt
    online_new: int = 64  # tokens that one may have
    online_ends: int = 64  # each so many tokens of the vocabulary one ends an answer
    online_steps: int = 3  # one of them warms up: each takes minutes
    memory_shapes: tuple[str, ...] = ("135M", "360M")
    memory_length: int = 32  # tokens of the one row that a step holds


FULL_SIZES = Sizes(SHAPES["135M"], "135M")
QUICK_SIZES = Sizes(
    TINY,
    "tiny",
    steps=5,
    books=200_000,
    encoder_rows=192,
    encoder_probe=3,
    growth_shapes={"tiny": TINY, "wider": shape(128, 256, 2, 2, 1, vocabulary=2048)},
    growth_lengths=(128, 256),
    growth_length=128,
    growth_tokens=256,
    qlora_steps=4,
    dpo_steps=4,
    prompts=8,
    longest_new=12,
    online_prompts=2,
    online_new=12,
    online_ends=16,
    memory_shapes=("tiny",),
)


@dataclass(frozen=True)
class Peer:
    """One way of running TRL's SFTTrainer. ``leaner`` names the same with gradient checkpointing, where this is
    without; ``cast``: QLoRA's adapters are made float32 behind the trainer's back; ``precompute``: DPO's reference is
    computed before the first step."""

    name: str
    weights: str
    autocast: bool = False
    packing: bool = False
    cast: bool = False
    precompute: bool = False
    leaner: str | None = None

    def spec(self) -> dict[str, Any]:
        kept = ("weights", "autocast", "packing", "cast", "precompute")
        return {name: getattr(self, name) for name in kept} | {"checkpointing": self.leaner is None}


def _both(name: str, weights: str, **options: Any) -> tuple[Peer, Peer]:
    """With gradient checkpointing, as TRL comes, and without."""
    first = Peer(f"trl_{name}", weights, **options)
    return first, Peer(f"{first.name}_no_checkpointing", weights, leaner=first.name, **options)


LORA_PEERS = (
    *_both("float32", "float32"),
    *_both("bf16_autocast", "float32", autocast=True),
    *_both("bf16_weights", "bfloat16"),
    *_both("bf16_weights_packing", "bfloat16", packing=True),
)
GROWTH_PEERS = (128, 512, "10M", "tiny")  # lengths and sizes at which TRL is run too
FULL_PEERS = (*_both("float32", "float32"), *_both("bf16_weights", "bfloat16"))
QLORA_CAST = Peer("trl_float32_cast_no_checkpointing", "float32", cast=True, leaner="trl_float32")
QLORA_PEERS = (*_both("float32", "float32"), QLORA_CAST, *_both("bf16", "bfloat16"))
DPO_PEERS = (
    *_both("float32", "float32"),
    _both("float32_precomputed", "float32", precompute=True)[1],
    *_both("bf16_weights", "bfloat16"),
)


@dataclass(frozen=True)
class Online:
    """One way of running TRL's GRPOTrainer. ``prompts`` are answered at once (None: all of a step) and padded to the
    longest of them; ``rows`` are trained at once. ``leaner`` names one that is not much slower."""

    name: str
    weights: str = "float32"
    autocast: bool = False
    checkpointing: bool = False
    rows: int = 8
    prompts: int | None = None
    leaner: str | None = None

    def spec(self) -> dict[str, Any]:
        kept = ("weights", "autocast", "checkpointing", "prompts")
        return {name: getattr(self, name) for name in kept} | {"micro_rows": self.rows}


ONLINE_PEERS = (
    Online("trl_2_prompts_no_checkpointing", prompts=2),  # of float32, by whose answers ours are checked
    Online("trl_1_prompt_no_checkpointing", prompts=1),
    Online("trl_float32_no_checkpointing"),
)
ONLINE_BF16_PEERS = (
    Online("trl_bf16_autocast_no_checkpointing", autocast=True),
    Online("trl_bf16_weights_no_checkpointing", weights="bfloat16"),
)
ONLINE_LEANEST = Online("trl_bf16_weights_1_prompt_2_rows", weights="bfloat16", checkpointing=True, rows=2, prompts=1)


def online_peers(*, fast_bfloat16: bool) -> tuple[Online, ...]:
    """What can be TRL's fastest first, for what is slower than a third of it is stopped; its leanest last.

    Left out is what can be neither: float32 with checkpointing computes more than without and holds more than bf16
    weights; two rows at once without it are smaller products of the same padded width; continuous batching pads and
    trains as all prompts at once do and writes more slowly than ``generate`` (part ``sampler``); bf16 is the fastest
    only where the processor has instructions for it.
    """
    return (*ONLINE_PEERS, *(ONLINE_BF16_PEERS if fast_bfloat16 else ()), ONLINE_LEANEST)


ENCODER_PEERS = (  # name, rows in memory at once, bf16 autocast
    ("trainer_16", 16, False),
    ("trainer_32", 32, False),
    ("trainer_64", 64, False),
    ("trainer_64_bf16_autocast", 64, True),
)
