"""Every ``auto`` of a recipe becomes a number with its reason. Arithmetic on a model card and row lengths; no torch.

Notable: learning rates follow one curve in the number of parameters, fitted by eye through published settings (1e-3
at 10M, 1.5e-5 at 8B, for full fine-tuning) and ten times that for LoRA ("LoRA Without Regret", 2025), bounded at
5e-3; a rule of thumb, and said so.
"""

from collections.abc import Callable, Sequence

from tunesmith.core.card import ModelCard
from tunesmith.core.plan import Plan
from tunesmith.core.recipe import Recipe

STEPS_PER_EPOCH = 60
SMALLEST_BATCH, LARGEST_BATCH = 512, 16_384
MICRO_TOKENS = 4096
EVALUATIONS = 10


def learning_rate(card: ModelCard, method: str) -> tuple[float, str]:
    """(peak rate, reason)."""
    full = 1e-3 * (1e7 / max(card.parameters, 1)) ** 0.63
    if card.kind == "encoder":
        full *= 0.5
    if method == "full":
        return _round(
            min(full, 1e-3)
        ), f"rule of thumb for full fine-tuning of {card.parameters / 1e6:.1f}M parameters ({card.kind})"
    return _round(
        min(10 * full, 5e-3)
    ), f"10 x the full fine-tuning rate for {card.parameters / 1e6:.1f}M parameters, at most 5e-3"


def _round(rate: float) -> float:
    return float(f"{rate:.1e}")


def resolve(
    recipe: Recipe,
    card: ModelCard,
    lengths: Sequence[int],
    per_epoch: Callable[[int, int], int],
    *,
    fast_bfloat16: bool,
) -> Plan:
    """The plan for training rows of these token ``lengths``; ``per_epoch(batch_tokens, max_length)`` counts steps of
    one pass."""
    train, reasons = recipe.train, {}
    total = max(sum(lengths), 1)
    longest = max(lengths, default=1)

    rate, reasons["learning_rate"] = learning_rate(card, recipe.method.name)
    if train.learning_rate != "auto":
        rate, reasons["learning_rate"] = train.learning_rate, "set in the recipe"

    max_length = min(card.context, longest)
    reasons["max_length"] = f"the longest row has {longest} tokens, the context is {card.context}"
    if train.max_length != "auto":
        max_length, reasons["max_length"] = (
            min(train.max_length, card.context),
            f"set in the recipe, context {card.context}",
        )

    batch = min(LARGEST_BATCH, max(SMALLEST_BATCH, total // STEPS_PER_EPOCH))
    reasons["batch_tokens"] = (
        f"{total} tokens a pass over about {STEPS_PER_EPOCH} steps, within {SMALLEST_BATCH} to {LARGEST_BATCH}"
    )
    if train.batch_tokens != "auto":
        batch, reasons["batch_tokens"] = train.batch_tokens, "set in the recipe"
    micro = max(min(batch, MICRO_TOKENS), max_length)
    reasons["micro_tokens"] = "what stands in memory at once; more is accumulated, which never changes the result"

    passes = per_epoch(batch, max_length)
    steps = max(1, round(train.epochs * passes))
    reasons["steps"] = f"{train.epochs:g} epochs of {passes} steps"
    warmup = max(1, round(train.warmup * steps)) if train.warmup else 0
    reasons["warmup_steps"] = f"{train.warmup:.0%} of the steps"
    every = max(1, min(passes, steps // EVALUATIONS))
    reasons["eval_every"] = f"about {EVALUATIONS} looks at dev a run, at least one an epoch"

    precision = train.precision
    reasons["precision"] = "set in the recipe"
    if precision == "auto":
        precision = "bfloat16" if fast_bfloat16 else "float32"
        has = "has" if fast_bfloat16 else "has no"
        reasons["precision"] = f"this machine {has} bf16 instructions; trained weights, moments and loss stay float32"
    if recipe.budget.time is not None:
        reasons["seconds"] = "budget.time; the learning rate anneals to the end of it"
    return Plan(
        learning_rate=rate,
        epochs=train.epochs,
        steps=steps,
        warmup_steps=warmup,
        batch_tokens=batch,
        micro_tokens=micro,
        eval_every=every,
        patience=train.patience,
        weight_decay=train.weight_decay,
        clip_norm=train.clip_norm,
        precision=precision,
        max_length=max_length,
        seconds=recipe.budget.time,
        seed=train.seed,
        reasons=reasons,
    )
