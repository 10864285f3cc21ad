"""Published times and prices beside what this plan predicts for the same work: rows for a table, no constant tuned for
one of them.

Notable: a row states all that the prediction took for granted, for publications rarely state the job. The typical job
is one for all methods, but it is rented where each method's users rent: eight GPUs with links from a large cloud, one
GPU from a specialist, a consumer card from a marketplace. Most of the difference between the rows is that choice.
"""

from dataclasses import dataclass

from tunesmith.core.plan import Technique
from tunesmith.core.recipe import MethodRecipe
from tunesmith.plan import memory, time
from tunesmith.plan.devices import Cloud, Range, find
from tunesmith.plan.known import find as find_model
from tunesmith.plan.money import Cost, cost
from tunesmith.plan.rates import of_device
from tunesmith.plan.shape import Shape
from tunesmith.plan.trained import trained as trained_weights
from tunesmith.plan.work import Level, Rows, Work

JOB_MODEL, JOB_ROWS, JOB_LENGTH, JOB_EPOCHS = "meta-llama/Llama-2-7b-hf", 90_000, 1000, 3
JOB = f"{JOB_MODEL}, {JOB_ROWS:,} examples x {JOB_LENGTH:,} tokens x {JOB_EPOCHS} epochs, all layers, bf16"
TYPICAL: tuple[tuple[str, str, int, Cloud, Level, int, Range], ...] = (  # how many, where, memory, micro-batch, USD
    ("full", "a100-80gb", 8, "hyperscaler", "checkpoint", 4096, (100, 500)),
    ("lora", "a100-80gb", 1, "specialist", "checkpoint", 4096, (20, 50)),
    ("qlora", "rtx-4090", 1, "marketplace", "fast", 2048, (0, 10)),
    ("full", "h200", 1, "specialist", "checkpoint", 4096, (100, 500)),
)
LADDER = "torchtune's README: Llama-3.2-3B, batch 2, sequence 4096, A100 80GB"
PACKED, PLAIN = Rows(2000, 2000 * 4096, 2000 * 4096, 4096, 150), Rows(52_000, 52_000 * 110, 52_000 * 110, 512, 150)


@dataclass(frozen=True, slots=True)
class Job:
    """A row of the typical job: the middle of ``cost`` is to stand beside the published US dollars. Of the ``limit``
    bytes of a device, it needs ``peak``."""

    method: str
    where: str
    peak: int
    limit: int
    cost: Cost
    published: Range
    seconds: time.Seconds

    @property
    def comes_out(self) -> bool:
        """Whether the middle of the prediction lies within what is published."""
        middle = self.cost.middle
        return middle is not None and within((middle, middle), self.published)

    @property
    def wholly(self) -> bool:
        """Whether all of its range does."""
        return self.cost.usd is not None and within(self.cost.usd, self.published)


@dataclass(frozen=True, slots=True)
class Throughput:
    """Tokens a second, predicted and published; ``note`` is what both sides do otherwise, or was guessed."""

    what: str
    predicted: float
    published: float
    note: str

    @property
    def difference(self) -> float:
        """Of the prediction, as a share of what is published."""
        return self.predicted / self.published - 1


def within(found: Range, bounds: Range) -> bool:
    """Whether all of a range lies within another."""
    return bounds[0] <= found[0] and found[1] <= bounds[1]


def technique(shape: Shape, method: str, rank: int = 16, layers: tuple[str, ...] = ("all-linear",)) -> Technique:
    """Of full fine-tuning, or LoRA or QLoRA on ``layers``."""
    if method == "full":
        return Technique(True, shape.parameters, 1.0)
    recipe = MethodRecipe(name="lora", rank=rank, target_modules=layers)
    trained = trained_weights(shape, recipe, shape.model_type, classifies=False)
    return Technique(False, trained, 10.0, four_bits=method == "qlora")


def typical_jobs() -> list[Job]:
    """``JOB`` by each method, on the devices that the method is usually rented on; the last row is full fine-tuning
    where it fits on one device of today."""
    shape = find_model(JOB_MODEL).shape()
    tokens = JOB_ROWS * JOB_LENGTH
    rows = Rows(JOB_ROWS, tokens, tokens // 2, JOB_LENGTH, JOB_LENGTH)
    found = []
    for method, name, ranks, cloud, level, micro, published in TYPICAL:
        batch = 65_536
        steps = JOB_EPOCHS * tokens // batch
        device = find(name)
        how = technique(shape, method)
        compiled = not how.four_bits  # layers of four bits are not
        work = Work(shape, how, rows, "bfloat16", micro, batch, steps, level=level, compiled=compiled)
        seconds = time.run(work, of_device(device), ranks=ranks)
        where = f"{ranks} x {device.name}, {cloud}, memory: {level}, {micro:,} tokens at once"
        peak, dollars = memory.peak(work, device.kind, ranks=ranks), cost(seconds, device, ranks=ranks, clouds=(cloud,))
        found.append(Job(method, where, peak, device.memory, dollars, published, seconds))
    return found


def throughputs() -> list[Throughput]:
    """torchtune's ladder. Its rows are Alpaca's (about 110 tokens), of which 4096 tokens are packed into one from the
    second step on; the last two rows recompute activations."""
    shape = find_model("meta-llama/Llama-3.2-3B").shape()
    rates = of_device(find("a100-80gb"))
    bf16 = "torchtune trains bf16 weights with bf16 moments, this engine float32 masters and moments"
    ladder: tuple[tuple[str, str, Rows, int, Level, bool, float, str], ...] = (
        ("full, plain", "full", PLAIN, 220, "fast", False, 2091, f"{bf16}; 110 tokens a row are an estimate"),
        ("full, packed, compiled, chunked loss", "full", PACKED, 8192, "fast", True, 9174, bf16),
        ("LoRA", "lora", PACKED, 8192, "checkpoint", True, 8210, "its rank is not stated; 8 here"),
        ("QLoRA", "qlora", PACKED, 8192, "checkpoint", True, 8035, "its rank is not stated; 8 here"),
    )
    found = []
    for what, method, rows, batch, level, compiled, published, note in ladder:
        own = technique(shape, method, rank=8)
        work = Work(shape, own, rows, "bfloat16", batch, batch, 1, level=level, compiled=compiled)
        step = time.step(work, rates)
        found.append(Throughput(what, time.tokens_a_second(work, step), published, note))
    return found
