"""Every rule at its boundary; the costly error stays out; the lists hold every item."""

from dataclasses import replace
from typing import Any

import pytest

import sample_advice as sample
from tunesmith.core.advice import Advice, Bar, Curve, Decision, Facts, Quality, Variety
from tunesmith.decide.advise import FEWEST_ROWS, FEWEST_SCORED, RULES, WORTH, advise, least_gain
from tunesmith.decide.economics import Use, economics
from tunesmith.decide.lists import AGAINST, FOR, lists, steps

NEAREST = (Bar(name="nearest_neighbour", score=sample.estimate(0.6), tokens_in=0, tokens_out=0),)
NONE_WORKS = (
    Bar(name="majority", score=sample.estimate(0.5), tokens_in=0, tokens_out=0),
    Bar(name="zero_shot", score=sample.estimate(0.4), tokens_in=90, tokens_out=9),
)


TWO_SIZES = tuple(p for p in sample.evidence().points if p.rows <= 120)


def looked_up(value: float) -> tuple[Bar, ...]:
    found = Bar(name="nearest_neighbour", score=sample.estimate(value), tokens_in=0, tokens_out=0)
    return (found, Bar(name="majority", score=sample.estimate(0.31), tokens_in=0, tokens_out=0))


def tuned(value: float) -> Bar:
    return Bar(name="tuned", score=sample.estimate(value), tokens_in=120, tokens_out=40)


def varied(**changes: Any) -> Variety:
    return sample.VARIETY.model_copy(update=changes)


def decided(use: Use | None = sample.USE, **changes: Any) -> tuple[Decision, str]:
    evidence = sample.evidence(**changes)
    found = advise(evidence, economics(use, evidence.facts))
    return found.decision, found.rule.split(":")[0]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rows": FEWEST_ROWS - 1}, ("collect more data", "too few rows")),
        ({"rows": FEWEST_ROWS}, ("tune", "gain")),
        ({"curve": None}, ("not enough evidence", "no curve")),
        ({"scored": FEWEST_SCORED - 1}, ("not enough evidence", "no curve")),
        ({"scored": FEWEST_SCORED}, ("tune", "gain")),
        ({"bars": ()}, ("not enough evidence", "no curve")),
        ({"curve": sample.curve(0.0501, 0.05)}, ("tune", "gain")),  # the lower limit is just a gain
        ({"curve": sample.curve(0.0499, 0.05)}, ("not enough evidence", "open")),
        ({"curve": sample.curve(0.0201, 0.01)}, ("tune", "gain")),  # the middle is just worth having
        ({"curve": sample.curve(0.0199, 0.01)}, ("collect more data", "more data, likely")),
        ({"curve": sample.curve(0.0701, 0.05, least=0.02)}, ("tune", "gain")),  # as the recipe asks
        ({"curve": sample.curve(0.0699, 0.05, least=0.02)}, ("not enough evidence", "open")),
        ({"curve": sample.curve(-0.0301, 0.05, within=0.49)}, ("prompt", "no gain")),
        ({"curve": sample.curve(-0.0301, 0.05, within=0.5)}, ("collect more data", "more data, clearly")),
        ({"curve": sample.curve(-0.0299, 0.05, within=0.49)}, ("prompt", "no likely gain")),
        ({"curve": sample.curve(0.0199, 0.05, within=0.5)}, ("collect more data", "more data, likely")),
        ({"curve": sample.curve(-0.1, 0.05, within=0.1), "bars": NEAREST}, ("retrieve", "no gain")),
        ({"curve": sample.curve(-0.1, 0.05, within=0.1), "bars": NONE_WORKS}, ("not enough evidence", "no gain")),
        ({"tuned": tuned(0.26)}, ("prompt", "not begun and behind")),  # with the constant answer at 0.31
        ({"tuned": tuned(0.3599)}, ("prompt", "not begun and behind")),
        ({"tuned": tuned(0.3601)}, ("tune", "gain")),
        ({"tuned": tuned(0.26), "bars": looked_up(0.3599)}, ("not enough evidence", "not begun")),
        ({"tuned": tuned(0.26), "bars": looked_up(0.3601)}, ("retrieve", "not begun and behind")),
        ({"tuned": tuned(0.4), "bars": NONE_WORKS}, ("not enough evidence", "not begun")),
        (
            {"tuned": tuned(0.1), "bars": looked_up(0.359)},
            ("not enough evidence", "not begun"),
        ),  # it is not shown to work
        ({"tuned": tuned(0.26), "points": TWO_SIZES}, ("not enough evidence", "not begun")),
        ({"tuned": tuned(0.26), "facts": Facts(prototype=True)}, ("prompt", "prototype")),
        ({"facts": Facts(facts_change="weekly")}, ("prompt", "facts change")),
        ({"facts": Facts(facts_change="weekly", retrain_every=7)}, ("tune", "gain")),
        ({"facts": Facts(facts_change="daily", retrain_every=7)}, ("prompt", "facts change")),
        ({"facts": Facts(facts_change="monthly")}, ("tune", "gain")),
        ({"facts": Facts(facts_change="daily"), "bars": NONE_WORKS}, ("tune", "gain")),  # nothing else works
        ({"facts": Facts(prototype=True)}, ("prompt", "prototype")),
        ({"facts": Facts(prototype=True), "bars": NEAREST}, ("retrieve", "prototype")),
        ({"facts": Facts(prototype=False)}, ("tune", "gain")),
    ],
)
def test_rules(changes: dict[str, Any], expected: tuple[str, str]) -> None:
    assert decided(**changes) == expected


def test_money_alone_speaks_for_tuning_only_where_nothing_is_lost_and_traffic_is_far_above_the_break_even() -> None:
    even = economics(sample.USE, Facts(price_in=1.0, price_out=4.0, host_price=0.5)).break_even
    assert even is not None

    def asked(times: float, low80: float, bars: tuple[Bar, ...] | None = None) -> str:
        facts = Facts(price_in=1.0, price_out=4.0, host_price=0.5, calls_per_day=times * even)
        more = {} if bars is None else {"bars": bars}
        return decided(facts=facts, curve=sample.curve(low80 + 0.05, 0.05, within=0.1), **more)[1]

    assert asked(2.01, -WORTH) == "saving"
    assert asked(1.99, -WORTH) != "saving"
    assert asked(2.01, -WORTH - 0.001) != "saving"
    assert asked(2.01, -WORTH, NEAREST) != "saving"  # what is looked up costs nothing


@pytest.mark.parametrize(("calls", "expected"), [(1.0, "no gain"), (1670.0, "no gain"), (1690.0, "saving")])
def test_a_saving_of_next_to_nothing_does_not_speak_for_tuning(calls: float, expected: str) -> None:
    """On a free machine tuning is cheaper at any traffic; 0.00098 a call are 50 a month at 1,678 calls a day."""
    facts = Facts(price_in=1.0, price_out=4.0, host_price=0.0, calls_per_day=calls)
    assert economics(sample.USE, facts).break_even == 0
    assert decided(facts=facts, curve=sample.curve(0.0, 0.015, within=0.1))[1] == expected


def test_the_smallest_gain_worth_having_is_the_recipe_s_in_the_metric_s_units() -> None:
    assert least_gain(0.0, 0.6, higher_is_better=True) == least_gain(0.0, 20.0, higher_is_better=False) == WORTH
    assert least_gain(0.1, 0.6, higher_is_better=True) == 0.1
    assert least_gain(0.1, 20.0, higher_is_better=False) == pytest.approx(0.005)


def test_a_price_of_tokens_alone_never_speaks_for_tuning() -> None:
    """What hosting and training cost is not known then, and is not 0."""
    for calls in (1.0, 1e9):
        facts = Facts(price_in=0.5, calls_per_day=calls)
        assert decided(facts=facts, curve=sample.curve(0.0, 0.015, within=0.3)) == ("prompt", "no gain")


def test_every_rule_can_decide() -> None:
    found = {decided(**changes)[1] for changes in (
        {"rows": 1}, {"curve": None}, {"tuned": tuned(0.2)}, {"tuned": tuned(0.26), "bars": looked_up(0.3)},
        {"facts": Facts(facts_change="daily")}, {"facts": Facts(prototype=True)}, {},
        {"facts": Facts(price_in=1, host_price=1, calls_per_day=1e9), "curve": sample.curve(0.01, 0.02)},
        {"curve": sample.curve(-0.1)}, {"curve": sample.curve(-0.1, within=0)}, {"curve": sample.curve(0.03)},
        {"curve": sample.curve(0.01)}, {"curve": sample.curve(0.01, within=0)},
    )}  # fmt: skip
    assert found == {rule.name for rule in RULES}


def test_tuning_is_never_advised_where_the_forecast_is_behind() -> None:
    for gain in (-0.5, -0.1, 0.0, 0.019):
        for near in (0.0, 0.01, 0.2):
            for within in (0.0, 1.0):
                assert decided(curve=sample.curve(gain, near, within=within))[0] != "tune"


def test_both_lists_hold_every_item_and_what_only_the_user_knows_says_so() -> None:
    evidence = sample.evidence()
    both = lists(evidence, economics(sample.USE, evidence.facts))
    assert (len(both["for tuning"]), len(both["against tuning"])) == (len(FOR), len(AGAINST)) == (7, 6)
    asked = {r.topic for items in both.values() for r in items if not r.measured}
    assert asked == {"high volume", "cost at scale", "prototyping", "fast-changing facts"}
    for items in both.values():
        assert all(r.sentence and not r.sentence[0].islower() for r in items)
        assert all("unknown" in r.sentence for r in items if not r.measured)


def test_what_was_not_asked_names_its_flag_and_what_was_asked_does_not() -> None:
    def told(facts: Facts) -> dict[str, str]:
        evidence = sample.evidence(facts=facts)
        both = lists(evidence, economics(sample.USE, facts))
        return {r.topic: r.sentence for items in both.values() for r in items}

    prices = ("price_in", "price_out", "host_price")
    asked = told(Facts(asked=("calls_per_day", "facts_change", "prototype", "latency", *prices)))
    assert asked["high volume"] == asked["prototyping"] == asked["fast-changing facts"] == "Asked: unknown."
    assert asked["cost at scale"].endswith("Prices asked: unknown. Traffic asked: unknown.")
    assert asked["latency"].endswith("What is wanted was asked: unknown.")
    silent = told(Facts())
    assert "asked" not in " ".join(silent.values()).lower()
    assert silent["high volume"] == "Not given: unknown (--calls-per-day)."
    assert silent["latency"].endswith("What is wanted was not given: unknown (--latency).")
    assert "Prices not given: unknown (--price-in, --price-out, --host-price)." in silent["cost at scale"]
    assert "(--host-price)" in told(Facts(price_in=1.0, calls_per_day=5))["cost at scale"]
    assert told(Facts(facts_change="weekly"))["fast-changing facts"].endswith("not given: unknown (--retrain-every).")


@pytest.mark.parametrize(
    ("topic", "changes", "expected"),
    [
        ("high volume", {"facts": Facts(calls_per_day=10_000)}, ("for", "strong")),
        ("high volume", {"facts": Facts(calls_per_day=9_999)}, ("for", "medium")),
        ("high volume", {"facts": Facts(calls_per_day=99)}, ("against", "weak")),
        ("latency", {"facts": Facts(latency=0.1)}, ("for", "strong")),
        ("latency", {"facts": Facts(latency=0.3)}, ("neutral", "none")),
        ("latency", {"facts": Facts(latency=0.01)}, ("against", "medium")),
        ("latency", {}, ("for", "weak")),
        ("prompt length", {}, ("for", "weak")),
        ("consistent behaviour", {}, ("for", "strong")),
        ("special vocabulary", {}, ("for", "medium")),
        ("private patterns", {}, ("for", "strong")),
        ("broad task", {}, ("neutral", "none")),
        ("broad task", {"variety": varied(answers=490, agree=0.16)}, ("against", "strong")),
        ("inconsistent inputs", {"variety": varied(torn=0.1)}, ("against", "strong")),
        ("inconsistent inputs", {"variety": varied(doubted=0.03)}, ("against", "medium")),
        ("little data", {}, ("neutral", "none")),
        ("little data", {"curve": sample.curve(overtakes=1300)}, ("against", "medium")),
        ("little data", {"curve": sample.curve(overtakes=2500)}, ("against", "strong")),
        ("little data", {"curve": sample.curve(within=0.4)}, ("against", "strong")),
        ("data quality", {}, ("neutral", "none")),  # 47 of 1,600 rows
        ("data quality", {"quality": Quality(rows=100, found={"contradictions": 3})}, ("against", "medium")),
        ("data quality", {"quality": Quality(rows=100, found={"lengths": 10})}, ("neutral", "none")),
        ("data quality", {"quality": Quality(rows=100, found={"exact_duplicates": 90})}, ("neutral", "none")),
        ("prototyping", {"facts": Facts(prototype=True)}, ("against", "strong")),
        ("fast-changing facts", {"facts": Facts(facts_change="daily")}, ("against", "strong")),
        ("fast-changing facts", {"facts": Facts(facts_change="yearly")}, ("neutral", "none")),
    ],
)  # fmt: skip
def test_items(topic: str, changes: dict[str, Any], expected: tuple[str, str]) -> None:
    evidence = sample.evidence(**changes)
    both = lists(evidence, economics(sample.USE, evidence.facts))
    (found,) = (r for items in both.values() for r in items if r.topic == topic)
    assert (found.side, found.strength) == expected, found.sentence


def test_what_the_checks_found_and_how_much_repeats_is_said_with_its_numbers() -> None:
    def told(**changes: Any) -> dict[str, str]:
        evidence = sample.evidence(**changes)
        return {r.topic: r.sentence for r in lists(evidence, economics(None, evidence.facts))["against tuning"]}

    assert told()["data quality"] == (
        "Of 1,600 rows 12 repeat an earlier row, 47 give different answers to the same input. 3 more could not be read "
        "and were left out. More was found by: private_data. tunesmith check RECIPE names the rows."
    )
    clean = told(quality=Quality(rows=90))["data quality"]
    assert clean == "Of 90 rows none repeats or contradicts another or is too long."
    assert (
        "Something was found by: private_data."
        in told(quality=Quality(rows=90, found={"private_data": 1}))["data quality"]
    )
    assert told(quality=None)["data quality"] == "Not looked at."
    repeated = told(variety=varied(repeated=0.25, torn=0.1))["inconsistent inputs"]
    assert repeated.startswith("25.0% of the rows nearly repeat another, and 10.0% of those have another answer; ")


def test_what_tuning_saves_of_a_prompt_is_a_sentence_with_its_number() -> None:
    def told(**changes: Any) -> str:
        evidence = sample.evidence(**changes)
        both = lists(evidence, economics(None, evidence.facts))
        return next(r.sentence for r in both["for tuning"] if r.topic == "prompt length")

    reads = "A call of few_shot reads 820 tokens and one of the tuned model "
    assert told() == f"{reads}120: tuning saves 700 a call (85%)."
    assert told(tuned=tuned(0.6).model_copy(update={"tokens_in": 830.0})) == f"{reads}830: tuning saves none."
    assert told(tuned=None) == told(bars=NEAREST) == "No prompt was measured beside a small run's."


@pytest.mark.parametrize(
    ("latency", "curve", "bars", "told"),
    [
        (0.079, sample.curve(), {}, "one answer takes 80 ms, asked alone, and at most 79 ms is wanted."),
        (0.08, sample.curve(), {}, ""),
        (0.1, sample.curve(-0.1, within=0.1), {}, "takes 200 ms, asked alone, and at most 100 ms is wanted."),
        (0.1, sample.curve(-0.1, within=0.1), {"bars": NEAREST}, ""),  # what is looked up was not timed
        (None, sample.curve(), {}, ""),
    ],
)
def test_an_advice_whose_answers_are_too_slow_here_says_its_condition(
    latency: float | None, curve: Curve, bars: dict[str, Any], told: str
) -> None:
    evidence = sample.evidence(facts=Facts(latency=latency), curve=curve, **bars)
    sentence = advise(evidence, economics(sample.USE, evidence.facts)).sentence
    assert ("This holds only where it is served faster than here: " in sentence) == bool(told)
    assert sentence.endswith(told)


def test_an_encoder_is_not_told_to_write_a_prompt() -> None:
    """Its zero_shot takes the label with the nearest name; no prompt exists that could go into a product."""
    named = Bar(name="zero_shot", score=sample.estimate(0.54), tokens_in=0, tokens_out=0, seconds=0.01)
    asked = named.model_copy(update={"tokens_in": 90})
    bars = looked_up(0.4)

    def told(bar: Bar) -> Advice:
        curve = sample.curve(-0.1, within=0.1)
        evidence = sample.evidence(task="classify", metric="accuracy", bars=(bar, *bars), curve=curve)
        return advise(evidence, economics(None, evidence.facts))

    encoder, decoder = told(named), told(asked)
    assert encoder.decision == decoder.decision == "prompt"
    assert "An encoder reads no prompt: here it is the label whose name is most similar" in encoder.sentence
    assert encoder.next.startswith("Next: compare each text with the names of the labels")
    assert "prompt" not in encoder.next and "write the prompt" in decoder.next
    assert "encoder" not in decoder.sentence
    said = {r.topic: r.sentence for r in encoder.lists["for tuning"]}
    assert said["private patterns"].startswith("The names of the labels alone score 54.0%")


def test_reasons_come_strongest_first_and_the_forecast_is_one_of_them() -> None:
    found = sample.build()
    order = {"strong": 0, "medium": 1, "weak": 2, "none": 3}
    assert [order[r.strength] for r in found.reasons] == sorted(order[r.strength] for r in found.reasons)
    assert found.reasons[0].topic == "forecast"
    assert "66.0%" in found.reasons[0].sentence and "few_shot" in found.reasons[0].sentence


def test_lower_is_better_turns_the_order_round() -> None:
    bars = tuple(
        Bar(name=name, score=sample.estimate(value), tokens_in=9, tokens_out=9)
        for name, value in (("zero_shot", 20.0), ("few_shot", 30.0))
    )
    evidence = sample.evidence(metric="perplexity", higher_is_better=False, bars=bars)
    assert "zero_shot) scores 20.00" in advise(evidence, economics(None, evidence.facts)).reasons[0].sentence


def test_an_advice_comes_back_from_json_and_says_what_is_next() -> None:
    for changes in ({}, {"curve": None}, {"curve": sample.curve(-0.1)}, {"curve": sample.curve(-0.1, within=0)}):
        found = sample.build(**changes)
        assert type(found).model_validate_json(found.model_dump_json()) == found
        assert found.next.startswith("Next: ")
        assert found.sentence


@pytest.mark.parametrize(
    ("changes", "helps"),
    [
        (
            {"rows": FEWEST_ROWS - 1, "scored": 0, "points": (), "curve": None},
            f"until {FEWEST_ROWS} are there to train on",
        ),
        ({"points": (), "curve": None}, "why no small run gave a score"),
        ({"scored": FEWEST_SCORED - 1, "points": (), "curve": None}, "why no small run gave a score"),
        ({"points": TWO_SIZES, "curve": None}, "more time (--time) where that was short"),
        ({"tuned": tuned(0.4), "bars": NONE_WORKS, "curve": None}, "a whole run"),  # more time brings no more runs
    ],
)
def test_the_next_step_is_one_that_helps(changes: dict[str, Any], helps: str) -> None:
    found = sample.build(**changes)
    assert helps in found.next
    assert ("--time" in found.next) == ("--time" in helps)


def test_tuning_names_the_method_as_the_recipe_s_and_the_verb_that_compares() -> None:
    told = "The method, dora, is the recipe's; no other was tried here: tunesmith compare RECIPE --methods dora,... "
    assert f"{told}compares methods on these rows." in sample.build(method="dora").next
    assert "compare" not in sample.build(method="dora", curve=sample.curve(-0.1, within=0)).next


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (Facts(), "Training takes about 2.0 h on this machine."),
        (Facts(host_price=0.0), "Training takes about 2.0 h on this machine."),
        (Facts(host_price=0.75), "Training takes about 2.0 h on this machine and costs 1.50."),  # no price of tokens
        (Facts(host_price=0.001), "Training takes about 2.0 h on this machine and costs less than 0.01."),
    ],
)
def test_training_is_told_in_money_where_an_hour_has_a_price(facts: Facts, told: str) -> None:
    def found(**changes: Any) -> Advice:
        evidence = sample.evidence(facts=facts, train_seconds=7200.0, **changes)
        return advise(evidence, economics(None, facts))

    assert found().sentence.endswith(told)
    unsure = found(curve=sample.curve(0.03))
    assert unsure.decision == "not enough evidence" and unsure.next.endswith(told)
    assert "Training takes" not in sample.build(train_seconds=None).sentence


def test_labels_to_be_paid_for_are_told_beside_the_training() -> None:
    facts = Facts(price_in=1.0, price_out=4.0, host_price=1.0, label_price=2.0)
    use = replace(sample.USE, train_hours=2.0, labels=30.0)
    found = advise(sample.evidence(facts=facts, train_seconds=7200.0), economics(use, facts))
    assert found.sentence.endswith("and costs 2.00 (62.00 with the labels that it still needs).")


def test_steps_hold_at_their_edges() -> None:
    assert [steps(x, 0.5, 0.2, 0.1) for x in (0.5, 0.49, 0.2, 0.19, 0.1, 0.09)] == [
        "strong", "medium", "medium", "weak", "weak", "none",
    ]  # fmt: skip
