"""Bytes that training needs, by part, and the level of thrift that fits: arithmetic on a model card; no torch.

Notable: one dial. Each level gives up some speed for memory: ``fast`` keeps every activation; ``selective`` recomputes
those of every second layer, ``checkpoint`` those of all (Chen et al., 2016); ``least`` also steps each weight as soon
as its gradient is whole, so that the gradients of all weights never stand side by side, and keeps its moments in eight
bits where bitsandbytes is there (Dettmers et al., 2022).
Legend: a layer's activations are counted in floats a token.
"""

from typing import Literal, get_args

from tunesmith.core.card import ModelCard
from tunesmith.core.errors import MemoryNeeded

Level = Literal["fast", "selective", "checkpoint", "least"]
LEVELS: tuple[Level, ...] = get_args(Level)
BESIDES = 600 << 20  # the interpreter, the libraries and their buffers
HEADROOM = 0.85  # of the limit: the estimate is rough
MOMENTS = 8  # bytes a trained weight: two float32 numbers
SMALL_MOMENTS = 2.1  # two bytes and the scales of their blocks; those of the embedding stay float32


def needed(
    card: ModelCard,
    *,
    full: bool,
    rank: int,
    narrow: bool,
    micro_tokens: int,
    level: Level = "fast",
    eight_bit: bool = False,
) -> dict[str, int]:
    """Bytes by part. ``narrow``: the network's weights and activations are bf16."""
    size = 2 if narrow else 4
    inner = max(card.parameters - card.vocabulary * card.width, card.parameters // 2)
    trained = card.parameters if full else 20 * card.width * card.layers * rank
    largest = max(card.vocabulary * card.width, inner // max(card.layers, 1))
    kept = {"fast": 1.0, "selective": 0.5}.get(level, 1 / card.layers)
    a_layer = 4.4 * card.width + 1.33 * inner / card.layers / card.width
    moments = MOMENTS * trained
    if level == "least" and eight_bit:
        moments = int(SMALL_MOMENTS * inner + MOMENTS * (trained - inner)) if full else moments
    inputs = 0 if level == "fast" else card.width * card.layers
    return {
        "weights": size * card.parameters,
        "moments": moments + (4 * trained if full and narrow else 0),
        "gradients": 4 * (min(trained, largest) if level == "least" else trained),
        "activations": int(size * micro_tokens * (kept * card.layers * a_layer + inputs)),
        "besides": BESIDES,
    }


def choose(
    limit: int, card: ModelCard, *, full: bool, rank: int, narrow: bool, micro_tokens: int, eight_bit: bool = False
) -> tuple[Level, str]:
    """(the first level that fits into ``limit`` bytes, and the reason). Raises MemoryNeeded where none does."""
    totals: dict[Level, int] = {}
    for level in LEVELS if full else LEVELS[:-1]:
        parts = needed(
            card, full=full, rank=rank, narrow=narrow, micro_tokens=micro_tokens, level=level, eight_bit=eight_bit
        )
        totals[level] = sum(parts.values())
        if totals[level] <= HEADROOM * limit:
            break
    told = ", ".join(f"{level} {total / 2**30:.1f} GiB" for level, total in totals.items())
    room = f"{HEADROOM:.0%} of {limit / 2**30:.2g} GiB by a rough estimate: {told}"
    if totals[level] > limit:
        raise MemoryNeeded(
            f"memory: nothing fits {room}. Raise budget.memory where the machine has more, lower train.max_length, or "
            "take a smaller model."
        )
    return level, f"the first that fits {room}" if totals[level] <= HEADROOM * limit else f"the least; tight for {room}"
