"""Bytes that training needs, by part, and the level of thrift that fits: arithmetic on a model card; no torch.

Notable: one dial. Each level gives up some speed for memory: ``fast`` keeps every activation; ``selective`` recomputes
those of every second layer, ``checkpoint`` those of all (Chen et al., 2016); ``least`` also steps each weight as soon
as its gradient is whole, so that the gradients of all weights never stand side by side, and keeps its moments in eight
bits where bitsandbytes is there (Dettmers et al., 2022).
Legend: a layer's activations are counted in floats a token.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from tunesmith.core.card import ModelCard
from tunesmith.core.errors import MemoryNeeded

Level = Literal["fast", "selective", "checkpoint", "least"]
LEVELS: tuple[Level, ...] = get_args(Level)
BESIDES = 600 << 20  # the interpreter, the libraries and their buffers
HEADROOM = 0.85  # of the limit: the estimate is rough
MOMENTS = 8  # bytes a trained weight: two float32 numbers
FOUR_BITS = 0.53  # bytes a weight, with the doubly quantised scales of blocks of 64
SMALL_MOMENTS = 2.1  # two bytes and the scales of their blocks; those of the embedding stay float32


@dataclass(frozen=True, slots=True)
class Training:
    """What the bytes depend on. ``trained`` counts weights. ``narrow``: the network's weights and activations are bf16;
    ``keeps_best``: a copy of the best trained weights lies in the same memory; ``four_bits``: the weights inside the
    layers are NF4."""

    card: ModelCard
    full: bool
    trained: int
    narrow: bool
    eight_bit: bool = False
    keeps_best: bool = False
    four_bits: bool = False


def needed(of: Training, *, micro_tokens: int, level: Level = "fast") -> dict[str, int]:
    """Bytes by part."""
    card, size = of.card, 2 if of.narrow else 4
    inner = max(card.parameters - card.vocabulary * card.width, card.parameters // 2)
    trained = of.trained
    largest = max(card.vocabulary * card.width, inner // max(card.layers, 1))
    kept = {"fast": 1.0, "selective": 0.5}.get(level, 1 / card.layers)
    a_layer = 4.4 * card.width + 1.33 * inner / card.layers / card.width
    moments = MOMENTS * trained
    if level == "least" and of.eight_bit and of.full:
        moments = int(SMALL_MOMENTS * inner + MOMENTS * (trained - inner))
    inputs = 0 if level == "fast" else card.width * card.layers
    return {
        "weights": int((FOUR_BITS if of.four_bits else size) * inner + size * (card.parameters - inner)),
        "moments": moments + (4 * trained if of.full and of.narrow else 0),
        "gradients": 4 * (min(trained, largest) if level == "least" else trained),
        "best": 4 * trained if of.keeps_best else 0,
        "activations": int(size * micro_tokens * (kept * card.layers * a_layer + inputs)),
        "besides": BESIDES,
    }


def choose(limit: int, of: Training, *, batch_tokens: int, micro_tokens: int, longest: int) -> tuple[Level, int, str]:
    """(level, tokens in memory at once, reason): the first that fits into ``limit`` bytes. Smaller micro-batches come
    before recomputing, which costs a third more time; ``least`` takes a step in one piece. Raises MemoryNeeded where
    nothing fits."""
    sizes = [max(longest, micro_tokens // n) for n in (1, 2, 4)]
    ways: list[tuple[Level, int]] = [("fast", n) for n in dict.fromkeys(sizes)]
    ways += [("selective", sizes[-1]), ("checkpoint", sizes[-1])]
    if of.full:
        ways.append(("least", max(longest, batch_tokens)))
    told: list[str] = []
    for level, tokens in ways:
        total = sum(needed(of, micro_tokens=tokens, level=level).values())
        told.append(f"{level} {total / 2**30:.1f} GiB with {tokens} tokens at once")
        if total <= HEADROOM * limit:
            break
    room = f"{HEADROOM:.0%} of {limit / 2**30:.2g} GiB by a rough estimate: {', '.join(told)}"
    if total > limit:
        smaller = " train.batch_tokens or" if of.full else ""
        raise MemoryNeeded(
            f"memory: nothing fits {room}. Raise budget.memory where the machine has more, lower{smaller} "
            "train.max_length, or take a smaller model."
        )
    fits = total <= HEADROOM * limit
    return level, tokens, f"the first that fits {room}" if fits else f"the least; tight for {room}"
