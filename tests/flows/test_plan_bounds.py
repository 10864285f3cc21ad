"""What a plan is held to, and what it says where it cannot be."""

import pytest
from tests.flows.test_plan import recipe

from tunesmith.core.plan import Machine
from tunesmith.flows import plan as module
from tunesmith.flows.plan import Asked, plan
from tunesmith.plan.devices import find
from tunesmith.plan.rates import of_device


@pytest.mark.parametrize("probed", [False, True])
def test_bounds_that_nothing_is_known_for_are_told(monkeypatch: pytest.MonkeyPatch, probed: bool) -> None:
    """Of a processor at hand no cost is known, and before a probe no time."""
    rates = of_device(find("Intel Xeon Platinum 8480+")) if probed else None
    monkeypatch.setattr(module, "here", lambda _: (Machine("cpu", 64 << 30, False), None, rates, []))
    told = plan(recipe(budget={"time": "10m"}), Asked(rows=100, tokens=100, usd=5.0, fit=True)).assumed
    name = rates.name if rates else "cpu"
    assert any(f"No cost and no energy is foreseen: {name} has no row" in one and "--device" in one for one in told)
    assert "--usd is 5 and was not checked for 1 of 1 choices: no cost is known." in told
    assert (f"budget.time is 600 s and was not checked for {name}: no time is foreseen." in told) != probed
    bounded = plan(recipe(budget={"time": "10m"}), Asked("h100", rows=100, tokens=100, usd=5.0, fit=True)).assumed
    assert not any("not checked" in one or "No cost" in one for one in bounded)
