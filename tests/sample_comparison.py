"""A comparison of many methods with hostile texts, for the tests of its renderers and for looking at the page."""

import random

import sample_report as sample
from tunesmith.core.comparison import Attempt, Comparison, MethodResult, Outcome
from tunesmith.core.report import Estimate, Forgetting

METHODS = ("full", "partial", "bitfit", "lora", "qlora", "dora", "rslora", "lora_plus", "pissa", "ia3", "vera", "oft")


def outcome(quality: float, lost: float, peak: int, weights: int) -> Outcome:
    difference = Estimate(value=lost, low=lost - 0.02, high=lost + 0.02, n=64)
    before = Estimate(value=1.9, low=1.8, high=2.0, n=64)
    return Outcome(
        score=sample.estimate(quality), baseline="nearest_neighbour", baseline_score=sample.estimate(0.486),
        decision="SHIP" if quality > 0.6 else "NOT ENOUGH EVIDENCE",
        forgetting=Forgetting(before=before, after=before, difference=difference, sentence="It forgot."),
        learning_rate=2e-4, loss=0.3, dev_loss=0.4, trainable_parameters=weights, peak_bytes=peak,
        peak_of="resident memory of the process while training", seconds=75.0, total_seconds=110.0,
        tokens_per_second=1600.0,
    )  # fmt: skip


def method(name: str, seeds: int = 2) -> MethodResult:
    rng = random.Random(name)
    quality, lost, weights = rng.uniform(0.4, 0.9), rng.uniform(0, 0.3), rng.randrange(1000, 9_000_000)
    peak = rng.randrange(600, 1400) << 20
    done = [outcome(quality + 0.01 * s, lost, peak, weights) for s in range(seeds)]
    attempts = [
        Attempt(method=name, seed=s, run_id=f"20260301-14150{s}-{name}", status="done", outcome=o)
        for s, o in enumerate(done)
    ]
    return MethodResult(
        name=name, attempts=tuple(attempts), quality=sample.estimate(quality), gain=sample.estimate(quality - 0.486),
        behind=Estimate(value=-0.02, low=-0.05, high=0.01, n=214), forgetting=done[0].forgetting.difference,  # type: ignore[union-attr]
        trainable_parameters=weights, peak_bytes=peak, seconds=75.0, tokens_per_second=1600.0,
    )  # fmt: skip


def build(names: tuple[str, ...] = METHODS) -> Comparison:
    """``names``, the best first, and one method that broke."""
    done = sorted((method(name) for name in names), key=lambda m: -(m.quality or sample.estimate(0)).value)
    done[:1] = [m.model_copy(update={"behind": None}) for m in done[:1]]
    error = Attempt(method="hra", seed=0, run_id="20260301-141599-hra", status="failed", error=sample.SCRIPT)
    report = sample.build()
    return Comparison(
        id="ab12cd34ef", created="2026-03-01T14:18:40Z", recipe=report.recipe, model="tunesmith-base",
        metric="exact_match", seeds=(0, 1), test_rows=214, test_hash="c0ffee0123456789",
        methods=(*done, MethodResult(name="hra", attempts=(error,), left_out=("method.alpha",))),
        environment=report.environment, notes=("Values are means over the seeds.", sample.BIDI),
    )  # fmt: skip
