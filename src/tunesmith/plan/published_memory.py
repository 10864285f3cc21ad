"""Published figures of memory beside what this plan says of the same work; no constant is tuned for one of them.

Notable: publications rarely state the whole job, so each row says what was taken for granted, and many differ from us
by what they do (moments in bf16 or eight bits, masters or none), not by how well one counts.
"""

from dataclasses import dataclass
from math import inf
from typing import Literal

from tunesmith.plan.devices import Range
from tunesmith.plan.known import find
from tunesmith.plan.memory import FOUR_BITS, peak
from tunesmith.plan.published import PACKED, PLAIN, technique, within
from tunesmith.plan.work import Level, Precision, Rows, Work

Unit = Literal["GB", "GiB", "bits a weight"]
BYTES: dict[Unit, float] = {"GB": 1e9, "GiB": 2**30}
ONCE_QUANTISED = 4 + 32 / 64  # bits a weight: NF4 with a float32 scale for each 64, which are not quantised again
SEVEN, SIXTY_FIVE = "meta-llama/Llama-2-7b-hf", "huggyllama/llama-65b"
THREE, ALL = "meta-llama/Llama-3.2-3B", ("all-linear",)
ONE = Rows(10_000, 10_000 * 512, 10_000 * 256, 512, 512)
GRID = Rows(20_000, 20_000 * 210, 20_000 * 210, 768, 250)  # all tokens are trained
RULE, PAPER = "LlamaFactory's README, rule of thumb", "QLoRA's paper"
RECOMPUTED = "one row of 512 tokens at a time, activations recomputed"
KNOWN: tuple[tuple[str, str, str, int, Range, str], ...] = (  # model, method, tokens at once, GB, as they are said
    ("7B", SEVEN, "full", 8192, (80, inf), "80 and more"),
    ("7B", SEVEN, "lora", 8192, (15, 25), "about 20"),
    ("7B", SEVEN, "qlora", 8192, (7.5, 12.5), "about 10"),
    ("65B", SIXTY_FIVE, "qlora", 2048, (0, 48), "within 48"),
)


@dataclass(frozen=True, slots=True)
class Memory:
    """In ``unit``, as it is published: predicted and stated."""

    what: str
    source: str
    predicted: float
    published: float
    unit: Unit
    note: str

    @property
    def difference(self) -> float:
        """Of the prediction, as a share of what is published."""
        return self.predicted / self.published - 1


@dataclass(frozen=True, slots=True)
class Known:
    """A row of the table that everyone knows, GB: the ``middle`` is of ``tokens`` at once, the ``range`` of half and
    twice as many. ``bounds`` are those ``published``, "about" being a quarter either way."""

    what: str
    tokens: int
    range: Range
    middle: float
    bounds: Range
    published: str

    @property
    def comes_out(self) -> bool:
        """Whether the middle of the prediction lies within what is published."""
        return within((self.middle, self.middle), self.bounds)

    @property
    def wholly(self) -> bool:
        """Whether all of its range does."""
        return within(self.range, self.bounds)


def memories() -> list[Memory]:
    """In the order of the publications."""
    return [*_rule_of_thumb(), *_grid(), *_ladder(), *_paper()]


def well_known() -> list[Known]:
    """What everyone says of 7B and 65B: rows of 512 tokens, rank 16 on all linear layers, activations recomputed."""
    found = []
    for size, model, method, tokens, bounds, said in KNOWN:
        peaks = [_peak(model, method, ONE, n, "checkpoint") / BYTES["GB"] for n in (tokens // 2, tokens, 2 * tokens)]
        found.append(Known(f"{size}, {method}", tokens, (peaks[0], peaks[2]), peaks[1], bounds, said))
    return found


def _peak(
    model: str, method: str, rows: Rows, micro: int, level: Level, rank: int = 16, layers: tuple[str, ...] = ALL
) -> int:
    """Bytes on a GPU, bf16."""
    shape = find(model).shape()
    precision: Precision = "bfloat16"
    work = Work(shape, technique(shape, method, rank, layers), rows, precision, micro, micro, 100, level=level)
    return peak(work, "cuda")


def _rule_of_thumb() -> list[Memory]:
    models = {
        "7B": SEVEN,
        "14B": "Qwen/Qwen2.5-14B",
        "30B": "Qwen/Qwen2.5-32B",
        "70B": "meta-llama/Llama-2-70b-hf",
    }
    told = {"full": (120, 240, 600, 1200), "lora": (16, 32, 64, 160), "qlora": (6, 12, 24, 48)}
    return [
        Memory(f"{size}, {method}", RULE, _peak(model, method, ONE, 512, "checkpoint") / 1e9, figure, "GB", RECOMPUTED)
        for method, figures in told.items()
        for (size, model), figure in zip(models.items(), figures, strict=True)
    ]


def _grid() -> list[Memory]:
    """Four rows of at most 768 tokens a step and adapters on queries and values, as the grid's own files tell. Its
    figure is the most that was reserved at any moment of a run."""
    bf16 = "bf16 weights and moments there, float32 masters and moments here"
    most = "queries and values; theirs is the most reserved in a run, all logits at once; 99% of its steps ended below"
    rows = (("full", 0, 38.9, bf16), ("lora", 32, 22.3, f"{most} 17.8"), ("lora", 64, 22.6, f"{most} 18.0"))
    return [
        Memory(
            f"Llama-3.2-3B, {method}{f', rank {rank}' if rank else ''}",
            "PEFT's grid, MetaMathQA",
            _peak(THREE, method, GRID, 4 * 768, "fast", rank or 16, ("q_proj", "v_proj")) / BYTES["GB"],
            figure,
            "GB",
            f"four rows of 768 tokens, nothing recomputed; {note}",
        )
        for method, rank, figure, note in rows
    ]


def _ladder() -> list[Memory]:
    bf16 = "torchtune trains bf16 weights with bf16 moments, this engine float32 masters and moments"
    short = "two rows at once, the longest of 512 tokens"
    ladder: tuple[tuple[str, str, Rows, int, Level, float, str], ...] = (
        ("full, plain", "full", PLAIN, 1024, "fast", 25.5, f"{short}; {bf16}"),
        ("full, packed, compiled, chunked loss", "full", PACKED, 8192, "fast", 42.9, bf16),
        ("LoRA", "lora", PACKED, 8192, "checkpoint", 8.5, "its rank is not stated; 8 here"),
        ("QLoRA", "qlora", PACKED, 8192, "checkpoint", 4.6, "its rank is not stated; 8 here"),
    )
    return [
        Memory(
            f"Llama-3.2-3B, {what}",
            "torchtune's ladder, batch 2, sequence 4096",
            _peak(THREE, method, rows, micro, level, rank=8) / BYTES["GiB"],
            figure,
            "GiB",
            note,
        )
        for what, method, rows, micro, level, figure, note in ladder
    ]


def _paper() -> list[Memory]:
    """That it fits the card, and what the second quantisation saves: of the scales of the first."""
    needed = _peak(SIXTY_FIVE, "qlora", ONE, 512, "checkpoint", rank=64)
    card = (
        f"a need ({needed / BYTES['GB']:.1f} GB) beside a limit: a card of 48 GB holds 48 GiB (51.5 GB), or less where "
        f"error correction takes some of it; rank 64; {RECOMPUTED}"
    )
    saved = ONCE_QUANTISED - 8 * FOUR_BITS
    scales = "one scale for each 64 weights, in eight bits instead of 32, and one in float32 for each 256 of them"
    return [
        Memory("65B, QLoRA: on one card of 48 GB", PAPER, needed / BYTES["GiB"], 48, "GiB", card),
        Memory("saved by double quantisation", PAPER, saved, 0.37, "bits a weight", scales),
    ]
