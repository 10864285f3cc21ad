"""Published figures of memory beside what this plan says of the same work; no constant is tuned for one of them.

Notable: publications rarely state the whole job, so each row says what was taken for granted, and many differ from us
by what they do (moments in bf16 or eight bits, masters or none), not by how well one counts.
"""

from dataclasses import dataclass

from tunesmith.plan.known import find
from tunesmith.plan.memory import peak
from tunesmith.plan.published import PACKED, technique
from tunesmith.plan.work import Level, Precision, Rows, Work

GB, GIB = 1e9, 2**30
THREE, ALL = "meta-llama/Llama-3.2-3B", ("all-linear",)
ONE = Rows(10_000, 10_000 * 512, 10_000 * 256, 512, 512)
GRID = Rows(20_000, 20_000 * 210, 20_000 * 210, 768, 250)  # all tokens are trained
RULE = "LlamaFactory's README, rule of thumb"
RECOMPUTED = "one row of 512 tokens at a time, activations recomputed"


@dataclass(frozen=True, slots=True)
class Memory:
    """Gigabytes as published (``unit`` bytes), predicted and stated."""

    what: str
    source: str
    predicted: float
    published: float
    note: str

    @property
    def difference(self) -> float:
        """Of the prediction, as a share of what is published."""
        return self.predicted / self.published - 1


def memories() -> list[Memory]:
    """In the order of the publications."""
    return [*_rule_of_thumb(), *_grid(), *_ladder(), _paper()]


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
        "7B": "meta-llama/Llama-2-7b-hf",
        "14B": "Qwen/Qwen2.5-14B",
        "30B": "Qwen/Qwen2.5-32B",
        "70B": "meta-llama/Llama-2-70b-hf",
    }
    told = {"full": (120, 240, 600, 1200), "lora": (16, 32, 64, 160), "qlora": (6, 12, 24, 48)}
    return [
        Memory(f"{size}, {method}", RULE, _peak(model, method, ONE, 512, "checkpoint") / GB, figure, RECOMPUTED)
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
            _peak(THREE, method, GRID, 4 * 768, "fast", rank or 16, ("q_proj", "v_proj")) / GB,
            figure,
            f"four rows of 768 tokens, nothing recomputed; {note}",
        )
        for method, rank, figure, note in rows
    ]


def _ladder() -> list[Memory]:
    bf16 = "torchtune trains bf16 weights with bf16 moments, this engine float32 masters and moments"
    rows: tuple[tuple[str, str, Level, float, str], ...] = (
        ("full, packed, compiled, chunked loss", "full", "fast", 42.9, bf16),
        ("LoRA", "lora", "checkpoint", 8.5, "its rank is not stated; 8 here"),
        ("QLoRA", "qlora", "checkpoint", 4.6, "its rank is not stated; 8 here"),
    )
    return [
        Memory(
            f"Llama-3.2-3B, {what}",
            "torchtune's ladder, batch 2, sequence 4096",
            _peak(THREE, method, PACKED, 8192, level, rank=8) / GIB,
            figure,
            note,
        )
        for what, method, level, figure, note in rows
    ]


def _paper() -> Memory:
    found = _peak("huggyllama/llama-65b", "qlora", ONE, 512, "checkpoint", rank=64) / GB
    return Memory("65B, QLoRA", "QLoRA's paper: fits one GPU of 48 GB", found, 48, f"rank 64; {RECOMPUTED}")
