"""From answers to a forecast: what rows have in common, whole units, perplexities, and too few sizes."""

import numpy as np
import pytest

from tunesmith.core.report import Prediction
from tunesmith.evaluate.systems import Ruler, system_result
from tunesmith.flows.curve import curve
from tunesmith.flows.trials import Answered

ROWS = 200


def ruler(metric: str = "exact_match", units: tuple[int, ...] | None = None) -> Ruler:
    return Ruler(("yes",) * ROWS, (metric,), 0, units=units)


def answered(right: np.ndarray, rows: int = 0, seed: int = 0, metric: str = "exact_match") -> Answered:
    """A system that is right on these rows, or finds each reference so likely."""
    if metric == "perplexity":
        told = tuple(Prediction(id=str(i), answer="", nll=float(x), nll_tokens=1) for i, x in enumerate(right))
    else:
        told = tuple(Prediction(id=str(i), answer="yes" if x else "no") for i, x in enumerate(right))
    system = system_result("tuned" if rows else "few_shot", told, ruler(metric), seconds=1.0)
    return Answered(system=system, predictions=told, rows=rows, seed=seed)


def share(value: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(ROWS) < value


TRIALS = [answered(share(v, n), n) for v, n in ((0.4, 50), (0.5, 100), (0.58, 200), (0.64, 400))]


def test_a_rising_curve_is_forecast_above_its_last_point_and_below_one() -> None:
    found = curve(TRIALS, answered(share(0.4, 7)), ruler(), rows=1000, test_rows=100, worth=0.02)
    assert found is not None
    assert 0.58 < found.at_full.value < 0.9
    assert found.gain.low80 > 0.02 and found.chance > 0.9
    assert found.in_report.high80 - found.in_report.low80 > found.at_full.high80 - found.at_full.low80
    assert found.overtakes.value < 400
    assert {p.rows for p in found.places} >= {1000, 10_000}


@pytest.mark.parametrize("metric", ["exact_match", "token_f1"])
def test_the_report_s_score_is_off_by_chance_as_the_forecast_is_and_not_as_the_last_run(metric: str) -> None:
    """In the order in which they are made the last run is a small one; 0.04 varies a sixth of what 0.6 does."""
    runs = [answered(share(v, n + 1), n) for v, n in ((0.02, 50), (0.04, 100), (0.3, 200), (0.5, 400))]
    runs += [answered(share(v, n), n, seed=1) for v, n in ((0.02, 50), (0.04, 100))]
    found = curve(runs, answered(share(0.4, 7)), ruler(metric), rows=600, test_rows=20, worth=0.02)
    assert found is not None
    whole, alone = ((b.high80 - b.low80) / 2 / 1.2816 for b in (found.in_report, found.at_full))
    value = found.at_full.value
    assert 0.5 < value < 0.8
    assert whole**2 - alone**2 == pytest.approx(value * (1 - value) / 20, rel=0.25)


def test_a_share_near_one_is_hardly_off_by_chance() -> None:
    runs = [answered(share(v, n), n) for v, n in ((0.3, 50), (0.6, 100), (0.9, 200))]
    found = curve(runs, answered(share(0.4, 7)), ruler(), rows=20_000, test_rows=50, worth=0.02)
    assert found is not None
    assert found.in_report.low80 > found.at_full.low80 - 0.04  # as wide as at 0.9 it would be 0.05


def test_a_high_bar_is_not_overtaken() -> None:
    found = curve(TRIALS, answered(share(0.95, 7)), ruler(), rows=1000, test_rows=100, worth=0.02)
    assert found is not None
    assert found.gain.high80 < 0.02
    assert found.within_reach < 0.5


def test_fewer_units_make_wider_bands() -> None:
    alone, together = (
        curve(TRIALS, answered(share(0.4, 7)), ruler(units=units), rows=1000, test_rows=100, worth=0.02)
        for units in (None, tuple(i // 20 for i in range(ROWS)))
    )
    assert alone is not None and together is not None
    assert together.rows == alone.rows
    one, other = (np.sort(share(v, 1))[::-1] for v in (0.4, 0.6))  # right rows side by side: units differ much
    sorted_ = [answered(x, n) for x, n in ((one, 50), (one, 100), (other, 200))]
    widths = []
    for units in (None, tuple(i // 20 for i in range(ROWS))):
        found = curve(sorted_, answered(one), ruler(units=units), rows=1000, test_rows=100, worth=0.02)
        assert found is not None
        widths.append(found.at_full.high80 - found.at_full.low80)
    assert widths[1] > widths[0]


def test_a_perplexity_is_lower_where_it_is_better() -> None:
    runs = [answered(np.full(ROWS, v), n, metric="perplexity") for v, n in ((3.0, 50), (2.8, 100), (2.65, 200))]
    bar = answered(np.full(ROWS, 3.2), metric="perplexity")
    found = curve(runs, bar, ruler("perplexity"), rows=1000, test_rows=100, worth=0.02)
    assert found is not None
    assert 9 < found.at_full.low95 <= found.at_full.low80 < found.at_full.value < np.exp(2.66)
    assert found.gain.low80 > 0.3  # a share of the bar's perplexity


def test_two_sizes_are_no_curve() -> None:
    bar = answered(share(0.4, 7))
    assert curve(TRIALS[:2], bar, ruler(), rows=1000, test_rows=100, worth=0.02) is None
    twice = [*TRIALS[:2], TRIALS[0].model_copy(update={"seed": 1})]
    assert curve(twice, bar, ruler(), rows=1000, test_rows=100, worth=0.02) is None


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_rows_all_alike_leave_room_for_doubt(value: float) -> None:
    runs = [answered(np.full(ROWS, bool(value)), n) for n in (50, 100, 200)]
    found = curve(runs, answered(share(0.5, 7)), ruler(), rows=1000, test_rows=100, worth=0.02)
    assert found is not None
    assert found.at_full.high95 > found.at_full.low95
