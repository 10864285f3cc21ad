"""Every ``auto`` of a recipe becomes a number with its reason. Arithmetic on a model card and row lengths; no torch.

Notable: learning rates follow one curve in the number of parameters, fitted by eye through published settings (1e-3
at 10M, 1.5e-5 at 8B, for full fine-tuning) and ten times that for LoRA ("LoRA Without Regret", 2025), bounded at
2e-3; a rule of thumb, and said so. Where what is compared adds up over an answer's tokens (DPO and its kin), the rate
falls with the answers' mean length.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from tunesmith.core.card import ModelCard
from tunesmith.core.plan import Machine, Plan, Technique
from tunesmith.core.recipe import Recipe
from tunesmith.plan import memory, time
from tunesmith.plan.rates import Rates
from tunesmith.plan.shape import Shape
from tunesmith.plan.work import Level, Precision, Rollouts, Rows, Work

STEPS_PER_EPOCH = 60
SHORT_ANSWER = 20  # tokens; so long are the pairs on which the rates of what adds up over answers were seen to teach
SMALLEST_BATCH, LARGEST_BATCH = 512, 16_384
MICRO_TOKENS = {
    "cpu": 1024,
    "cuda": 16_384,
}  # a processor is as fast with little in memory; faster, where memory is slow
MOST_LOOKS = 10
LOOK_SHARE, LOOK_COST = 0.1, 1 / 3  # of the training's work, where two looks allow; a forward pass costs a third
EAGER_RATE = {"cpu": 3e11, "cuda": 2e14}  # operations a second in bf16 without compiling, as a rule of thumb
COMPILE_SECONDS, COMPILE_GAIN = {"cpu": 60, "cuda": 40}, 0.3
SAVE_SECONDS, WHY_SAVES = 120.0, "at most 2% of the time is spent on it"
WHY_MOMENTS = "part of train.memory: least, with bitsandbytes: two bytes a weight instead of eight"
WHY_SECONDS = "budget.time; the learning rate anneals to the end of it"
SEARCH = "nearest_neighbour"
SET = "set in the recipe"


@dataclass(frozen=True)
class Data:
    """What there is to train on. ``lengths``: tokens of each row, or of rows that are compared with each other, what
    they begin with alike once; ``widths``: the longest row of each of these, where they are several. ``trained`` of all
    tokens are in the loss, ``longest`` in one row. ``per_epoch(batch_tokens, max_length)`` counts steps of one pass,
    ``dev_tokens`` are what one look at dev computes. ``outputs`` of a head, 0 without one; ``reference``: the base is
    asked for all of them first; ``answers``: (tokens before it, its own) of each, where what is compared adds up over
    them."""

    lengths: Sequence[int]
    per_epoch: Callable[[int, int], int]
    dev_tokens: int
    trained: int
    longest: int
    unit: int = 1
    outputs: int = 0
    reference: bool = False
    rollouts: Rollouts | None = None
    answers: Sequence[tuple[int, int]] = ()
    widths: Sequence[int] = ()

    def cut(self, longest: int) -> "Data":
        """With rows of at most so many tokens."""
        lengths = [min(n, longest * self.unit) for n in self.lengths]
        share = sum(lengths) / max(sum(self.lengths), 1)
        return replace(
            self,
            lengths=lengths,
            dev_tokens=int(share * self.dev_tokens),
            trained=int(share * self.trained),
            longest=min(self.longest, longest),
            answers=[(before, min(own, longest - before)) for before, own in self.answers if before < longest],
            widths=[min(n, longest) for n in self.widths],
        )

    def work(self, shape: Shape, technique: Technique, precision: Precision, batch: int, steps: int) -> Work:
        """To train on it in ``steps`` of ``batch`` tokens, each in one piece."""
        return Work(
            shape,
            technique,
            self.rows,
            precision,
            micro_tokens=batch,
            batch_tokens=batch,
            steps=steps,
            outputs=self.outputs,
            reference=self.reference,
            looks=self.dev_tokens > 0,
            rollouts=self.rollouts,
        )

    @property
    def answer_tokens(self) -> float:
        """The mean; 0 where it does not matter."""
        return sum(own for _, own in self.answers) / max(len(self.answers), 1)

    @cached_property
    def rows(self) -> Rows:
        counts = Counter(self.lengths)
        tokens = sum(self.lengths)
        typical = sum(count * n * n for n, count in counts.items()) // max(tokens, 1)
        typical = max(1, min(typical, self.longest))
        largest = max(counts, default=1)
        units = () if self.rollouts else self._units(counts)
        return Rows(len(self.lengths), tokens, self.trained, self.longest, typical, self.unit, largest, units)

    def _units(self, counts: Counter[int]) -> tuple[tuple[int, int, int], ...]:
        """As ``Rows`` has them."""
        widest = dict.fromkeys(counts, 0 if self.widths else self.longest)
        for n, width in zip(self.lengths, self.widths, strict=bool(self.widths)):
            widest[n] = max(widest[n], width)
        return tuple((n, min(n, widest[n]), counts[n]) for n in sorted(counts, reverse=True) if n)


def dev_rows(train: int) -> int:
    """How many rows of dev are looked at during training, at most: more would cost time and tell nothing new.

    >>> dev_rows(10), dev_rows(2000), dev_rows(100_000)
    (100, 500, 1000)
    """
    return min(1000, max(100, train // 4))


def learning_rate(card: ModelCard, times: float = 1.0, most: float = 2e-3) -> tuple[float, str]:
    """(peak rate, reason); ``times`` that of full fine-tuning, at most ``most``."""
    full = 1e-3 * (1e7 / max(card.parameters, 1)) ** 0.63
    if card.kind == "encoder":
        full *= 0.5
    size = f"{card.parameters / 1e6:.1f}M parameters ({card.kind})"
    if times == 1:
        return _round(min(full, 1e-3)), f"rule of thumb for full fine-tuning of {size}, at most 1e-3"
    return _round(min(times * full, most)), f"{times:g} x the full fine-tuning rate for {size}, at most {most:g}"


def _round(rate: float) -> float:
    return float(f"{rate:.1e}")


def resolve(
    recipe: Recipe,
    card: ModelCard,
    data: Data,
    *,
    shape: Shape,
    machine: Machine,
    technique: Technique,
    rates: Rates | None = None,
) -> tuple[Plan, Work]:
    """The plan for training ``data``, and the work that it is, on a device of these ``rates``. Raises MemoryNeeded."""
    train, lengths, dev_tokens = recipe.train, data.lengths, data.dev_tokens
    rate, why_rate = _rate(recipe, card, technique, data)
    max_length, why_length = _max_length(recipe, card, lengths)
    batch, why_batch = _batch_tokens(recipe, lengths)
    precision, why_precision = _precision(recipe, machine.fast_bfloat16)
    passes = data.per_epoch(batch, max_length)
    steps = max(1, round(train.epochs * passes))
    compiled, why_compiled = _compiled(recipe, card, machine, technique, precision, sum(lengths))
    work = data.work(shape, technique, precision, batch, steps)
    work, why_level = _lean(recipe, machine, replace(work, compiled=compiled))
    moments = "int8" if work.small_moments else "float32"
    looks, why_looks = _looks(train.epochs, sum(lengths), dev_tokens)
    reasons = {
        "learning_rate": why_rate,
        "max_length": why_length,
        "batch_tokens": why_batch,
        "micro_tokens": "what stands in memory at once; more is accumulated, which never changes the result",
        "steps": f"{train.epochs:g} epochs of {passes} steps",
        "warmup_steps": f"{train.warmup:.0%} of the steps",
        "eval_every": why_looks,
        "precision": why_precision,
        "memory": why_level,
        "compiled": why_compiled,
    } | _reasons_of_options(recipe, moments)
    plan = Plan(
        learning_rate=rate,
        epochs=train.epochs,
        steps=steps,
        warmup_steps=max(1, round(train.warmup * steps)) if train.warmup else 0,
        trainable=technique.trained,
        batch_tokens=batch,
        micro_tokens=work.micro_tokens,
        eval_every=max(1, min(passes, steps // looks)),
        patience=train.patience,
        weight_decay=train.weight_decay,
        clip_norm=train.clip_norm,
        precision=precision,
        memory=work.level,
        moments=moments,
        compiled=compiled,
        max_length=max_length,
        seconds=recipe.budget.time,
        save_seconds=SAVE_SECONDS if train.save_every == "auto" else train.save_every,
        seed=train.seed,
        reasons=reasons,
        **_foreseen(work, machine, rates),
    )
    return plan, work


def _foreseen(work: Work, machine: Machine, rates: Rates | None) -> dict[str, Any]:
    """What the plan says of its own needs."""
    held = None if rates is None else rates.process_bytes
    found: dict[str, Any] = {"peak_bytes": memory.peak(work, machine.device, held, machine.ranks)}
    if rates is not None:
        step = time.step(work, rates, ranks=machine.ranks).total
        found |= {"step_seconds": float(f"{step:.4g}"), "device": rates.name}
    return found


def _rate(recipe: Recipe, card: ModelCard, technique: Technique, data: Data) -> tuple[float, str]:
    wanted, tokens = recipe.train.learning_rate, data.answer_tokens
    if wanted != "auto":
        return wanted, SET
    rate, why = learning_rate(card, technique.rate, technique.most_rate)
    if tokens <= SHORT_ANSWER:
        return rate, why
    why = f"{why}; times {SHORT_ANSWER} over {tokens:.0f}: what is compared adds up over the tokens of an answer"
    return _round(rate * SHORT_ANSWER / tokens), why


def _reasons_of_options(recipe: Recipe, moments: str) -> dict[str, str]:
    """Of when it saves, and of what most plans do not have."""
    found = {"save_seconds": WHY_SAVES if recipe.train.save_every == "auto" else SET}
    found |= {"moments": WHY_MOMENTS} if moments == "int8" else {}
    return found | ({"seconds": WHY_SECONDS} if recipe.budget.time is not None else {})


def _looks(epochs: float, tokens: int, dev_tokens: int) -> tuple[int, str]:
    """(looks at dev a run, reason)."""
    affordable = int(LOOK_SHARE * epochs * tokens / max(LOOK_COST * dev_tokens, 1))
    looks = max(2, min(MOST_LOOKS, affordable))
    share = looks * LOOK_COST * dev_tokens / max(epochs * tokens, 1)
    return looks, f"about {looks} looks at dev a run, at least one an epoch: {share:.0%} of the training's work"


def _max_length(recipe: Recipe, card: ModelCard, lengths: Sequence[int]) -> tuple[int, str]:
    if recipe.train.max_length != "auto":
        return min(recipe.train.max_length, card.context), f"set in the recipe, context {card.context}"
    longest = max(lengths, default=1)
    return min(card.context, longest), f"the longest row has {longest} tokens, the context is {card.context}"


def _batch_tokens(recipe: Recipe, lengths: Sequence[int]) -> tuple[int, str]:
    if recipe.train.batch_tokens != "auto":
        return recipe.train.batch_tokens, SET
    total = sum(lengths)
    bounds = f"within {SMALLEST_BATCH} to {LARGEST_BATCH}"
    batch = min(LARGEST_BATCH, max(SMALLEST_BATCH, total // STEPS_PER_EPOCH))
    return batch, f"{total} tokens a pass over about {STEPS_PER_EPOCH} steps, {bounds}"


def _precision(recipe: Recipe, fast_bfloat16: bool) -> tuple[Literal["float32", "bfloat16"], str]:
    if recipe.train.precision != "auto":
        return recipe.train.precision, SET
    rest = "trained weights, moments and loss stay float32"
    if fast_bfloat16:
        return "bfloat16", f"this machine has bf16 instructions; {rest}"
    return "float32", "this machine has no bf16 instructions"


def _compiled(
    recipe: Recipe, card: ModelCard, machine: Machine, technique: Technique, precision: str, tokens: int
) -> tuple[bool, str]:
    """(whether layers are compiled, reason) for a training of ``tokens`` a pass."""
    wanted = recipe.train.compile
    if technique.four_bits:
        return False, "layers of four bits are not compiled"
    if wanted != "auto":
        return wanted == "always", SET
    work = recipe.train.epochs * tokens * card.parameters * (6 if technique.full else 4)
    if machine.device == "cpu" and precision == "float32":
        return False, "float32 layers on a processor ran slower compiled where it was measured"
    seconds, cost = work / EAGER_RATE[machine.device], COMPILE_SECONDS[machine.device]
    pays = COMPILE_GAIN * seconds > cost
    told = f"about {seconds:,.0f} s of training would save {COMPILE_GAIN:.0%}, compiling takes about {cost} s"
    return pays, f"{told}: it {'pays' if pays else 'does not pay'}"


def _lean(recipe: Recipe, machine: Machine, work: Work) -> tuple[Work, str]:
    """The work at the level of thrift that fits, and why."""
    named = recipe.evaluate.baselines
    searches = recipe.task != "prefer" if named == "auto" else SEARCH in named
    work = replace(work, micro_tokens=min(work.batch_tokens, MICRO_TOKENS[machine.device]), searches=searches)
    level, micro, why = _memory(recipe, machine, replace(work, small_moments=machine.eight_bit))
    return replace(work, level=level, micro_tokens=micro, small_moments=level == "least" and machine.eight_bit), why


def room(recipe: Recipe, machine: Machine) -> int | None:
    """Bytes that training may take: those of the machine, or fewer where budget.memory caps them; None where neither is
    known."""
    return min((n for n in (recipe.budget.memory, machine.memory) if n is not None), default=None)


def _memory(recipe: Recipe, machine: Machine, work: Work) -> tuple[Level, int, str]:
    """(level, tokens in memory at once, reason)."""
    longest = work.rows.largest  # of what must stand in memory at once: a row, or a row with its others
    micro, wanted = max(work.micro_tokens, longest), recipe.train.memory
    limit = room(recipe, machine)
    if wanted != "auto":
        micro = max(work.batch_tokens, longest) if wanted == "least" else micro
        asked = replace(work, level=wanted, micro_tokens=micro, small_moments=work.small_moments and wanted == "least")
        memory.refuse(limit, asked, machine.device, machine.ranks)
        return wanted, micro, SET
    if limit is None:
        return "fast", micro, "how much memory this machine has is not known; set budget.memory"
    return memory.choose(limit, work, machine.device, machine.ranks)
