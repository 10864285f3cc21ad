"""Cost and energy by hand."""

import pytest

from tunesmith.plan.devices import find
from tunesmith.plan.money import cost
from tunesmith.plan.time import Seconds

HOURS = Seconds({"products": 5400.0}, 3600.0, 7200.0, "by a probe")


def test_hours_times_prices() -> None:
    found = cost(HOURS, find("a100-80gb"), clouds=("specialist",))
    assert found.hours == (1, 2)
    assert found.usd == pytest.approx((1.2, 5.4))
    assert found.middle == pytest.approx(1.5 * 1.95)
    eight = cost(HOURS, find("a100-80gb"), clouds=("specialist",), ranks=8)
    assert eight.usd == pytest.approx((9.6, 43.2))
    anywhere = cost(HOURS, find("a100-80gb"))
    assert anywhere.usd == pytest.approx((0.6, 10.2))


def test_watts_times_hours() -> None:
    found = cost(HOURS, find("a100-80gb"))
    assert found.kwh == pytest.approx((1.4 * 0.5 * 0.4, 2 * 1.4 * 0.4))
    assert cost(HOURS, find("8-vcpu")).kwh is None


def test_what_is_owned_costs_its_electricity() -> None:
    found = cost(HOURS, find("laptop"))
    assert found.kwh == pytest.approx((0.0105, 0.042))
    assert found.usd == pytest.approx((0.00105, 0.0168))
    assert found.middle is not None
    assert found.usd[0] < found.middle < found.usd[1]
    elsewhere = cost(HOURS, find("3060"), clouds=("hyperscaler",))
    assert "is not rented out by a hyperscaler: its electricity" in elsewhere.assumed[-1]


def test_where_nothing_is_known_nothing_is_said() -> None:
    found = cost(HOURS, find("8-vcpu"), clouds=("marketplace",))
    assert found.usd is found.middle is found.kwh is None
    assert found.assumed[-1].startswith("price: none is known")


def test_assumptions_are_sentences_with_their_numbers() -> None:
    basis, energy, price = cost(HOURS, find("a100"), ranks=2, clouds=("marketplace", "specialist")).assumed
    assert basis == "by a probe"
    assert energy == "energy: 2 x 400 W at 50% to 100%, and 40% more for what stands around it"
    assert price == (
        "price: 2 x NVIDIA A100 80GB SXM at 0.60 to 2.70 USD an hour, on demand (marketplace or specialist, as of "
        "2026-03), training alone"
    )
