"""Corrections by earlier runs, by hand."""

import math

import pytest

from tunesmith.plan.calibrate import Earlier, correction


def runs(*measured: float, device: str = "laptop", method: str = "lora") -> list[Earlier]:
    return [Earlier(1.0, seconds, device, method) for seconds in measured]


def test_fewer_than_three_runs_say_nothing() -> None:
    assert correction([], "laptop", "lora") is None
    assert correction(runs(2, 2), "laptop", "lora") is None
    assert correction(runs(2, 2) + runs(2, device="server"), "laptop", "lora") is None


def test_the_median_drawn_towards_one() -> None:
    found = correction(runs(2, 2, 2), "laptop", "lora")
    assert found is not None
    assert found.factor == pytest.approx(2 ** (3 / 5))
    many = correction(runs(*[2.0] * 48), "laptop", "lora")
    assert many is not None
    assert many.factor == pytest.approx(2 ** (48 / 50))
    assert many.spread < found.spread  # what is left of the factor is told


def test_one_run_beside_a_busy_neighbour_changes_little() -> None:
    calm, busy = (correction(runs(1.1, 1.1, 1.1, last), "laptop", "lora") for last in (1.1, 50))
    assert calm is not None
    assert busy is not None
    assert calm.factor == busy.factor


def test_the_method_decides_where_it_has_runs_enough() -> None:
    mixed = runs(2, 2, 2) + runs(8, 8, method="full")
    lora, full = (correction(mixed, "laptop", method) for method in ("lora", "full"))
    assert lora is not None
    assert full is not None
    assert (lora.runs, lora.method) == (3, "lora")
    assert (full.runs, full.method) == (5, "")
    assert str(lora) == "3 earlier lora runs took 1.5 times as long as predicted"
    assert str(full).startswith("5 earlier runs took")


def test_the_spread_holds_four_of_five_runs() -> None:
    import random

    draw = random.Random(0)
    spread = 0.3
    many = runs(*(math.exp(draw.gauss(0.2, spread)) for _ in range(2000)))
    found = correction(many, "laptop", "lora")
    assert found is not None
    inside = [found.factor / found.spread <= run.measured <= found.factor * found.spread for run in many]
    assert sum(inside) / len(inside) == pytest.approx(0.8, abs=0.03)


def test_runs_that_cannot_be_are_left_out() -> None:
    odd = [Earlier(1.0, 0.0, "laptop", "lora"), Earlier(0.0, 1.0, "laptop", "lora")]
    odd.append(Earlier(1.0, math.inf, "laptop", "lora"))
    odd.append(Earlier(1.0, math.nan, "laptop", "lora"))
    assert correction(odd, "laptop", "lora") is None
    assert correction(odd + runs(1, 1, 1), "laptop", "lora") == correction(runs(1, 1, 1), "laptop", "lora")
