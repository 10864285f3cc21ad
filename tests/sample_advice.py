"""Evidence and advice to test rules and renderers on, and to look at."""

import math
from typing import Any

import sample_report as sample
from tunesmith.core.advice import Advice, Band, Bar, Curve, CurvePlace, CurvePoint, Evidence, Facts, Quality, Variety
from tunesmith.core.report import Estimate
from tunesmith.decide.advise import advise
from tunesmith.decide.economics import Use, economics

VARIETY = Variety(
    rows=500, answers=12, repeated=0.04, agree=0.6, chance=0.15, torn=0.02, doubted=0.01, types=0.2, pieces=1.3
)
QUALITY = Quality(rows=1600, left_out=3, found={"exact_duplicates": 12, "contradictions": 47, "private_data": 2})
USE = Use(
    prompted_in=820, prompted_out=40, tuned_in=120, tuned_out=40, tuned_seconds=0.08, train_hours=0.1,
    prompted_quality=0.52, tuned_quality=0.66,
)  # fmt: skip


def around(value: float, near: float, far: float) -> Band:
    return Band(value=value, low80=value - near, high80=value + near, low95=value - far, high95=value + far)


def estimate(value: float, half: float = 0.05, n: int = 200) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half, n=n)


def curve(
    gain: float = 0.12, near: float = 0.05, *, overtakes: float = 300.0, within: float = 0.97, least: float = 0.0
) -> Curve:
    top = 0.54 + gain
    places = [(60, top - 0.3), (120, top - 0.2), (250, top - 0.12), (500, top - 0.06), (1240, top), (5000, top + 0.05)]
    return Curve(
        rows=1240, at_full=around(top, near, 1.6 * near), gain=around(gain, near, 1.6 * near),
        in_report=around(top, 1.3 * near, 2 * near), more=around(0.03, 0.02, 0.04),
        overtakes=Band(
            value=overtakes, low80=overtakes / 2, high80=overtakes * 3, low95=overtakes / 3, high95=math.inf
        ),
        within_reach=within, chance=0.9, worth=0.02, least=least,
        places=tuple(CurvePlace(rows=n, score=around(y, 0.01 + abs(n - 250) / 30000, 0.02 + abs(n - 250) / 20000))
                     for n, y in places),
    )  # fmt: skip


def evidence(**changes: Any) -> Evidence:
    points = ((60, 0, 0.36), (60, 1, 0.33), (120, 0, 0.45), (250, 0, 0.53), (500, 0, 0.6))
    found: dict[str, Any] = {
        "task": "generate", "metric": "json_field_accuracy", "method": "lora", "rows": 1240, "scored": 200,
        "test_rows": 180,
        "points": tuple(CurvePoint(rows=n, seed=s, score=estimate(y), steps=20, seconds=9.0) for n, s, y in points),
        "bars": (
            Bar(name="majority", score=estimate(0.31), tokens_in=0, tokens_out=0),
            Bar(name="zero_shot", score=estimate(0.2), tokens_in=150, tokens_out=40, seconds=0.1),
            Bar(name="few_shot", score=estimate(0.54), tokens_in=820, tokens_out=40, seconds=0.2),
            Bar(name="nearest_neighbour", score=estimate(0.49), tokens_in=0, tokens_out=0),
        ),
        "tuned": Bar(name="tuned", score=estimate(0.6), tokens_in=120, tokens_out=40, seconds=0.08),
        "curve": curve(), "variety": VARIETY, "quality": QUALITY, "train_seconds": 360.0,
    }  # fmt: skip
    return Evidence(**(found | changes))


def build(facts: Facts | None = None, **changes: Any) -> Advice:
    """An advice with hostile texts in its names."""
    known = facts or Facts(calls_per_day=20_000, price_in=0.5, price_out=1.5, host_price=0.4, prototype=False)
    found = advise(evidence(facts=known, **changes), economics(USE, known))
    report = sample.build()
    return found.model_copy(
        update={
            "id": "ab12cd34ef", "created": "2026-03-01T14:18:40Z", "recipe": report.recipe, "model": sample.SCRIPT,
            "environment": report.environment, "notes": ("Scored on rows held back from train.", sample.BIDI),
            "seconds": 245.0,
        }
    )  # fmt: skip
