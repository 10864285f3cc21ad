"""Money: lines, break-even, sensitivity, and a sentence for every number that cannot be."""

import math
from dataclasses import replace
from typing import Any

import pytest

from tunesmith.core.advice import Facts
from tunesmith.core.errors import RecipeError
from tunesmith.decide.economics import DAYS, HOURS, Line, Use, break_even, checked, economics, lines

USE = Use(
    prompted_in=800, prompted_out=40, tuned_in=100, tuned_out=40, tuned_seconds=0.1, train_hours=2.0,
    prompted_quality=0.6, tuned_quality=0.75,
)  # fmt: skip
PRICED = Facts(price_in=1.0, price_out=4.0, host_price=0.0)


def test_tokens_alone_are_compared_where_no_price_is_known() -> None:
    found = economics(USE, Facts())
    assert found.tokens_share == pytest.approx((800 + 160) / (100 + 160))
    assert found.quality_share == pytest.approx(0.8)
    assert (found.known, found.break_even, found.curve) == (False, None, ())
    assert found.sentence.startswith(
        "Prompting reaches 80% of the quality that is forecast of tuning (the middle of the forecast), at 369% of the "
        "cost of a call, by tokens (a written one counts as 4 read ones). "
    )
    assert "--price-in" in found.sentence


def test_where_prices_are_known_the_cost_that_is_told_is_the_money() -> None:
    """By hand: 20,000 x 30.4 calls of 700 x 0.5 + 40 x 1.5 millionths are 249.28; 730 hours and a twelfth of one of
    training at 0.8 are 584.07."""
    use = replace(USE, prompted_in=700, tuned_seconds=0.2, train_hours=1.0)
    facts = Facts(price_in=0.5, price_out=1.5, host_price=0.8, calls_per_day=20_000)
    told = economics(use, facts).sentence
    assert "at 43% of what tuning costs at 20,000 calls a day. " in told
    assert "prompting costs 249.28 a month, tuning 584.07" in told
    assert "tokens" not in told and "331%" not in told
    without = economics(use, facts.model_copy(update={"calls_per_day": None})).sentence
    assert without.startswith("Prompting reaches 80% of the quality that is forecast of tuning (the middle")
    assert "%" not in without.split(". ")[1]  # no traffic, no share of the cost


def test_tokens_weigh_as_they_are_priced_where_both_prices_are_known() -> None:
    found = economics(USE, Facts(price_in=0.5, price_out=1.0))
    assert found.tokens_share == pytest.approx((800 + 2 * 40) / (100 + 2 * 40))
    assert "a written one counts as 2 read ones" in found.sentence
    found = economics(USE, Facts(price_in=0.0, price_out=1.0))
    assert found.tokens_share == pytest.approx(1.0) and "read ones are free" in found.sentence
    assert economics(USE, Facts(price_in=0.0, price_out=0.0)).tokens_share is None


def test_a_quality_without_a_forecast_is_that_of_a_small_run() -> None:
    found = economics(replace(USE, forecast=False), Facts())
    assert "80% of the quality of the largest small run, at" in found.sentence


def test_nothing_is_compared_where_no_model_was_prompted() -> None:
    told = economics(None, PRICED).sentence
    assert told.startswith("No prompted model")
    assert "break-even" in told and "-s evaluate.rival.url=URL -s evaluate.rival.model=NAME" in told
    assert economics(None, PRICED, trained=False).sentence.startswith(
        "No small run was made, so what a tuned answer costs"
    )


@pytest.mark.parametrize("facts", [Facts(price_in=1.0, price_out=4.0), Facts(host_price=0.5)])
def test_an_unknown_price_is_not_0(facts: Facts) -> None:
    found = economics(USE, facts.model_copy(update={"calls_per_day": 1e6}))
    assert (found.known, found.break_even, found.curve) == (False, None, ())
    assert "Not all prices are known" in found.sentence


def test_a_call_is_paid_by_the_token_and_a_machine_of_ones_own_is_free() -> None:
    prompted, tuned, once = lines(USE, PRICED) or pytest.fail("no lines")
    assert prompted.call == pytest.approx((800 * 1 + 40 * 4) / 1e6)
    assert (tuned.call, once, break_even(prompted, tuned)) == (0, 0, 0)


def test_a_rented_machine_breaks_even_where_it_pays_its_rent() -> None:
    facts = Facts(price_in=1.0, price_out=4.0, host_price=0.5, calls_per_day=100_000)
    found = economics(USE, facts)
    training = 2.0 * 0.5 / 12
    assert found.break_even == pytest.approx((0.5 * HOURS + training) / (960 / 1e6 * DAYS))
    assert found.once == pytest.approx(1.0)
    assert found.prompted_month == pytest.approx(960 / 1e6 * 100_000 * DAYS)
    assert found.tuned_month == pytest.approx(0.5 * HOURS + training)
    assert found.tuned_month < found.prompted_month


def test_traffic_beyond_one_machine_rents_a_share_of_another() -> None:
    _, tuned, _ = lines(USE, Facts(price_in=1.0, host_price=0.5)) or pytest.fail("no lines")
    full = HOURS * 3600 * 0.6 / 0.1 / DAYS  # calls a day that one machine answers
    assert tuned.month(full / 2) == tuned.month(0)
    assert tuned.month(2 * full) - tuned.fixed == pytest.approx(2 * 0.5 * HOURS)


def test_retraining_is_paid_every_month_and_labels_once() -> None:
    facts = Facts(price_in=1.0, host_price=1.0, retrain_every=DAYS / 2, label_price=0.1)
    use = Use(**{name: getattr(USE, name) for name in ("prompted_in", "prompted_out", "tuned_in", "tuned_out")},
              tuned_seconds=0.1, train_hours=3.0, labels=600)  # fmt: skip
    _, tuned, once = lines(use, facts) or pytest.fail("no lines")
    assert once == pytest.approx(3.0 + 60.0)
    assert tuned.fixed == pytest.approx(63.0 / 12 + 2 * 3.0)


@pytest.mark.parametrize(
    ("prompted", "tuned", "expected"),
    [
        (Line(0, 0.02), Line(30.4, 0.01), 100.0),
        (Line(0, 0.01), Line(0, 0.02), None),  # dearer a call
        (Line(0, 0.01), Line(5, 0.01), None),  # as dear a call, and something fixed
        (Line(0, 0.02), Line(0, 0.01), 0.0),
        (Line(0, 0.02), Line(0, 0.01, least=608.0), 1000.0),  # below a full machine
        (Line(0, 0.0), Line(10, 0.0), None),
        (Line(0, 0.0), Line(0, 0.0), 0.0),
        (Line(0, 0.0105), Line(30.4, 0.01, least=304.0), 2000.0),  # above one
    ],
)
def test_break_even(prompted: Line, tuned: Line, expected: float | None) -> None:
    found = break_even(prompted, tuned)
    assert found == (None if expected is None else pytest.approx(expected))
    if found:
        assert tuned.month(found) == pytest.approx(prompted.month(found))
        assert tuned.month(2 * found) < prompted.month(2 * found)


def test_never_and_always_are_words() -> None:
    dear = economics(USE, Facts(price_in=0.001, price_out=0.0, host_price=50.0, calls_per_day=10))
    assert dear.break_even is None
    assert "never the cheaper way" in dear.sentence
    assert "at any traffic" in economics(USE, PRICED).sentence


def test_sensitivity_says_which_inputs_move_the_break_even() -> None:
    found = {s.name: s for s in economics(USE, Facts(price_in=1.0, price_out=4.0, host_price=0.5)).sensitivity}
    base = economics(USE, Facts(price_in=1.0, price_out=4.0, host_price=0.5)).break_even or 0
    assert found["host_price"].doubled == pytest.approx(2 * base, rel=0.01)
    assert (found["prompted_in"].halved or 0) > base > (found["prompted_in"].doubled or 0)
    assert "tuned_in" not in found  # a rented machine is paid by the hour


def test_the_chart_crosses_at_the_break_even() -> None:
    found = economics(USE, Facts(price_in=1.0, price_out=4.0, host_price=0.5))
    below = [p for p in found.curve if p.calls_per_day < (found.break_even or 0)]
    above = [p for p in found.curve if p.calls_per_day > (found.break_even or 0)]
    assert below and above
    assert all(p.tuned > p.prompted for p in below)
    assert all(p.tuned < p.prompted for p in above)


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"calls_per_day": -3.0}, "--calls-per-day is -3; expected a number of calls of at least 0"),
        ({"calls_per_day": math.nan}, "--calls-per-day is nan"),
        ({"price_in": math.inf}, "--price-in is inf"),
        ({"latency": 0.0}, "--latency is 0; expected seconds above 0, such as --latency 0.5"),
        ({"retrain_every": 0.0}, "--retrain-every is 0"),
        ({"label_price": -0.1}, "--label-price is -0.1"),
        ({"host_price": -1.0}, "--host-price is -1"),
        ({"host_price": 1e308}, "--host-price is 1e\\+308; expected a price of an hour of at least 0 and at most"),
        ({"retrain_every": 1e-300}, "--retrain-every is 1e-300; expected days above 0, such as"),
    ],
)
def test_absurd_facts_are_sentences(facts: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        checked(Facts(**facts))


@pytest.mark.parametrize("name", ["prompted_in", "tuned_seconds", "train_hours", "labels"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_absurd_measures_are_sentences(name: str, value: float) -> None:
    good = {"prompted_in": 1.0, "prompted_out": 1.0, "tuned_in": 1.0, "tuned_out": 1.0, "tuned_seconds": 1.0}
    with pytest.raises(RecipeError, match=f"economics: {name} is"):
        Use(**(good | {"train_hours": 1.0} | {name: value}))


def test_the_money_says_what_it_takes_for_granted() -> None:
    facts = Facts(price_in=1.0, price_out=4.0, host_price=0.5)
    told = economics(USE, facts).assumes
    assert "those of this machine, which answers one at a time; the rented one is taken to be as fast" in told
    assert "charged for the prompt of the base at hand, whose quality it is too" in told
    assert "the base at hand" not in economics(replace(USE, rival=True), facts).assumes
    assert "this machine" not in economics(USE, PRICED).assumes  # nothing is paid by its hours
    assert economics(USE, Facts()).assumes == ""  # no money is told


def test_labels_that_cannot_be_counted_or_have_no_price_are_said_to_be_left_out() -> None:
    facts = Facts(price_in=1.0, price_out=4.0, host_price=0.5, label_price=0.1)
    assert "No labels are counted: how many more" in economics(replace(USE, labels=None), facts).assumes
    assert "labels" not in economics(replace(USE, labels=600), facts).assumes
    without = facts.model_copy(update={"label_price": None})
    told = economics(replace(USE, labels=600), without).assumes
    assert "The 600 labels that tuning needs to be ahead are not counted" in told
    assert "labels" not in economics(USE, without).assumes


def test_the_price_of_tokens_that_is_not_given_follows_from_the_other_and_is_not_0() -> None:
    told = [economics(USE, Facts(price_in=p, price_out=q, host_price=0.5)) for p, q in ((1.0, None), (None, 4.0))]
    assert told[0].prompted_call == told[1].prompted_call == pytest.approx((800 + 4 * 40) / 1e6)
    assert all("a written one is taken to cost 4 times a read one" in found.assumes for found in told)
