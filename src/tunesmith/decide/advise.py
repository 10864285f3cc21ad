"""From evidence to advice: prompt, retrieve, tune, collect more data, or not enough evidence.

Notable: the first rule of ``RULES`` that holds decides, and the advice carries it word for word. The costly error is to
tune where prompting wins, so tuning has to be ahead in the lower limit of an 80% forecast, and in its middle by a
difference worth having, as a verdict would have it; every other doubt ends in another word. Weights are shown beside
the reasons and never added up.
"""

from collections.abc import Callable
from typing import NamedTuple

from tunesmith.core.advice import Advice, Curve, Decision, Economics, Evidence, Reason, Strength
from tunesmith.decide.learning_curve import FEWEST
from tunesmith.decide.lists import PROMPTED, RETRIEVED, best, by_name, lists, stale
from tunesmith.decide.wording import gained, gained_band, money_of, rows_of, shown, time_of

WORTH = 0.02  # the smallest gain worth having (of a perplexity: as a share), where evaluate.min_gain is 0
FEWEST_ROWS = 118  # to train on: the least that give three sizes to run (learning_curve.sizes)
FEWEST_SCORED = 40
LIKELY = 0.5  # share of the curves that overtake within reach
SAFE = 2.0  # times the break-even that traffic must be at least, before money alone speaks for tuning
LEAST_SAVED = 50.0  # a month, in the currency of the prices: about what an hour's work on a model of one's own costs
STRENGTH: dict[Strength, int] = {"strong": 3, "medium": 2, "weak": 1, "none": 0}


class Rule(NamedTuple):
    """``holds`` for which evidence, the decision, and both in words."""

    name: str
    holds: Callable[[Evidence, Economics], bool]
    decision: Callable[[Evidence], Decision]
    words: str


def least_gain(min_gain: float, bar: float, *, higher_is_better: bool) -> float:
    """The smallest gain worth having: in the metric's own units, of a perplexity as a share of ``bar``, which is what
    the best way without training has. ``min_gain`` is evaluate.min_gain, in the metric's own units as a verdict takes
    it; at 0, which a recipe has that names none, it is ``WORTH``.

    >>> least_gain(0.05, 0.6, higher_is_better=True), least_gain(0.5, 20.0, higher_is_better=False)
    (0.05, 0.025)
    """
    if not min_gain:
        return WORTH
    return min_gain if higher_is_better else min_gain / bar


def untrained(evidence: Evidence) -> Decision:
    """The best way without training: of the two, the one that scored better; neither where none beats the constant
    answer."""
    found = best(evidence, (*PROMPTED, RETRIEVED, "majority"))
    if found is None or found.name == "majority":
        return "collect more data" if _reachable(evidence) else "not enough evidence"
    return "retrieve" if found.name == RETRIEVED else "prompt"


def _works(evidence: Evidence) -> bool:
    return untrained(evidence) in ("prompt", "retrieve")


def _reachable(evidence: Evidence) -> bool:
    return evidence.curve is not None and evidence.curve.within_reach >= LIKELY


def begun(evidence: Evidence) -> bool:
    """Whether the largest small run has learned something of the inputs: its whole 95% interval lies above the constant
    answer. Runs that have not sit on a plateau that says nothing of where it ends."""
    constant, tuned = best(evidence, ("majority",)), evidence.tuned
    if constant is None or tuned is None or not evidence.higher_is_better:
        return True
    return tuned.score.low > constant.score.value


def _behind(evidence: Evidence) -> bool:
    """Whether the best way without training is shown to be above the constant answer and the largest small run of three
    sizes (higher is better, see ``begun``)."""
    found, tuned, constant = best(evidence, (*PROMPTED, RETRIEVED)), evidence.tuned, best(evidence, ("majority",))
    if found is None or tuned is None or constant is None or len({p.rows for p in evidence.points}) < FEWEST:
        return False
    return found.score.low > max(tuned.score.high, constant.score.value)


def _no_curve(evidence: Evidence, _: Economics) -> bool:
    return evidence.curve is None or evidence.scored < FEWEST_SCORED or not evidence.bars


def _pays(evidence: Evidence, _: Economics) -> bool:
    return evidence.curve is not None and _ahead(evidence.curve)


def _ahead(curve: Curve) -> bool:
    return curve.gain.value >= curve.worth and curve.gain.low80 > curve.least


def _saves(evidence: Evidence, costs: Economics) -> bool:
    calls, even, curve = evidence.facts.calls_per_day, costs.break_even, evidence.curve
    if curve is None or calls is None or even is None or not costs.known:
        return False
    prompted = best(evidence, (*PROMPTED, RETRIEVED, "majority"))
    saved = (costs.prompted_month or 0.0) - (costs.tuned_month or 0.0)
    cheap = calls >= SAFE * even and saved >= LEAST_SAVED  # a machine that is free breaks even at 0 calls
    return cheap and prompted is not None and prompted.name in PROMPTED and curve.gain.low80 >= -curve.worth


def _never(evidence: Evidence, _: Economics) -> bool:
    return evidence.curve is not None and evidence.curve.gain.high80 < evidence.curve.worth


def _leans(evidence: Evidence, _: Economics) -> bool:
    return evidence.curve is not None and evidence.curve.gain.value >= evidence.curve.worth


RULES: tuple[Rule, ...] = (
    Rule(
        "too few rows",
        lambda e, _: e.rows < FEWEST_ROWS,
        lambda _: "collect more data",
        f"Fewer than {FEWEST_ROWS} rows to train on give no learning curve.",
    ),
    Rule(
        "facts change",
        lambda e, _: stale(e) and _works(e),
        untrained,
        "Facts that change weekly or daily, faster than the model would be trained anew, are looked up or prompted.",
    ),
    Rule(
        "prototype",
        lambda e, _: bool(e.facts.prototype) and _works(e),
        untrained,
        "A prototype is prompted: its task is not settled, and an instruction changes in a minute.",
    ),
    Rule(
        "not begun and behind",
        lambda e, _: not begun(e) and _works(e) and _behind(e),
        untrained,
        "The largest of small runs of three sizes is not shown to be above the constant answer, and the 95% interval "
        "of the best way without training is above both: what works is used until runs on more rows begin to learn.",
    ),
    Rule(
        "not begun",
        lambda e, _: not begun(e),
        lambda _: "not enough evidence",
        "The largest small run is not shown to be above the constant answer: it has not begun to learn from the "
        "inputs, and no curve says when runs on more rows would.",
    ),
    Rule(
        "no curve",
        _no_curve,
        lambda _: "not enough evidence",
        f"Without runs of three sizes, {FEWEST_SCORED} rows to score on and something to beat nothing is forecast.",
    ),
    Rule(
        "gain",
        _pays,
        lambda _: "tune",
        "The middle of the 80% forecast of the gain on all rows is a difference worth having, and its lower limit is "
        "above what evaluate.min_gain asks for (0 where it names nothing).",
    ),
    Rule(
        "saving",
        _saves,
        lambda _: "tune",
        "Tuning is not worse by a difference worth having (lower limit of the 80% forecast), traffic is at least "
        f"{SAFE:g} times that at which it becomes the cheaper way, and at least {LEAST_SAVED:g} a month is saved: less "
        "does not pay for looking after a model.",
    ),
    Rule(
        "more data, clearly",
        lambda e, c: _never(e, c) and _reachable(e),
        lambda _: "collect more data",
        "Even the upper limit of the 80% forecast is below a difference worth having, and most curves reach it within "
        "ten times the rows at hand.",
    ),
    Rule(
        "no gain",
        _never,
        untrained,
        "Even the upper limit of the 80% forecast is below a difference worth having, and most curves do not reach it "
        "within ten times the rows at hand.",
    ),
    Rule(
        "open",
        _leans,
        lambda _: "not enough evidence",
        "The middle of the 80% forecast is worth having, but its lower limit is not above what evaluate.min_gain asks "
        "for (0 where it names nothing): a run can tell.",
    ),
    Rule(
        "more data, likely",
        lambda e, _: _reachable(e),
        lambda _: "collect more data",
        "The middle of the forecast is below a difference worth having, and most curves reach it within ten times the "
        "rows at hand.",
    ),
    Rule(
        "no likely gain",
        lambda *_: True,
        untrained,
        "The middle of the forecast is below a difference worth having, and most curves do not reach it within ten "
        "times the rows at hand.",
    ),
)


def advise(evidence: Evidence, costs: Economics) -> Advice:
    """The decision by the first rule that holds, with all reasons."""
    rule = next(r for r in RULES if r.holds(evidence, costs))
    decision = rule.decision(evidence)
    both = lists(evidence, costs)
    heard = [*_forecasts(evidence), *(r for items in both.values() for r in items if r.side != "neutral")]
    reasons = tuple(sorted(heard, key=lambda r: -STRENGTH[r.strength]))
    return Advice(
        decision=decision,
        sentence=_sentence(decision, evidence, costs) + _unprompted(decision, evidence) + _too_slow(decision, evidence),
        rule=f"{rule.name}: {rule.words}",
        next=_next(decision, evidence),
        reasons=reasons,
        lists=both,
        evidence=evidence,
        economics=costs,
    )


def _forecasts(evidence: Evidence) -> list[Reason]:
    curve, bar = evidence.curve, best(evidence, (*PROMPTED, RETRIEVED, "majority"))
    if curve is None or bar is None:
        return []
    metric, gain = evidence.metric, curve.gain
    low, high = (shown(metric, v) for v in (curve.at_full.low80, curve.at_full.high80))
    told = (
        f"On all {curve.rows:,} rows {evidence.method} is forecast to score {shown(metric, curve.at_full.value)} "
        f"(80%: {low} to {high}), the best way without training ({bar.name}) scores {shown(metric, bar.score.value)}: "
        f"{gained_band(metric, gain)}."
    )
    sure = gain.low95 >= curve.worth or gain.high95 < curve.worth
    if not _ahead(curve) and curve.worth <= gain.high80:
        return [Reason(topic="forecast", side="neutral", strength="medium", sentence=told)]
    side = "for" if _ahead(curve) else "against"
    return [
        Reason.model_validate(
            {"topic": "forecast", "side": side, "strength": "strong" if sure else "medium", "sentence": told}
        )
    ]


def _sentence(decision: Decision, evidence: Evidence, costs: Economics) -> str:
    curve, metric = evidence.curve, evidence.metric
    bar = best(evidence, (*PROMPTED, RETRIEVED, "majority"))
    bars = "" if bar is None else f"{bar.name} scores {shown(metric, bar.score.value)} on {evidence.scored:,} rows"
    if curve is None or bar is None:
        told = f"{decision.capitalize()}: {evidence.rows:,} rows to train on, {evidence.scored:,} to score on"
        return f"{told}: no forecast can be made.{f' Without training {bars}.' if bars else ''}"
    at = f"{evidence.method} on all {curve.rows:,} rows"
    if decision == "tune":
        gain = gained_band(metric, curve.gain)
        return f"Tune: {at} is expected to gain {gain} on {bar.name}.{_training(evidence, costs)}"
    if decision in ("prompt", "retrieve"):
        head = "Prompt" if decision == "prompt" else "Retrieve"
        return f"{head}: {bars}; {at} is expected to be {gained_band(metric, curve.gain)} away from it."
    if decision == "collect more data":
        reach = f"{rows_of(curve.overtakes.low80)} to {rows_of(curve.overtakes.high80)}"
        wanted = f"about {rows_of(curve.overtakes.value)} rows are needed (80%: {reach})"
        missing = "how many rows would do cannot be told" if curve.within_reach < LIKELY else wanted
        worth = gained(metric, curve.worth)
        return f"Collect more data: {bars}; for a gain of {worth} {missing}, {evidence.rows:,} are there."
    chance = f"{curve.chance:.0%} of the forecasts gain at least {gained(metric, curve.worth)}"
    return f"Not enough evidence: {chance}; {at} is expected to gain {gained_band(metric, curve.gain)} on {bar.name}."


def _training(evidence: Evidence, costs: Economics | None = None) -> str:
    """What training takes on this machine, and costs where an hour has a price: with the labels where ``costs`` count
    some. Empty where no training was timed."""
    if not evidence.train_seconds:
        return ""
    told = f" Training takes about {time_of(evidence.train_seconds)} on this machine"
    price = evidence.train_seconds / 3600 * (evidence.facts.host_price or 0.0)
    if price:
        told += f" and costs {money_of(price)}"
    if costs is not None and costs.once - price >= 0.01:
        told += f" ({money_of(costs.once)} with the labels that it still needs)"
    return f"{told}."


def _unprompted(decision: Decision, evidence: Evidence) -> str:
    """What prompting is where the base reads no prompt."""
    if decision != "prompt" or not by_name(evidence, best(evidence, PROMPTED)):
        return ""
    return (
        " An encoder reads no prompt: here it is the label whose name is most similar to the text by embedding, "
        "without training."
    )


def _too_slow(decision: Decision, evidence: Evidence) -> str:
    """The condition that an advice has whose answers take longer than is wanted. It is no rule: the seconds are this
    machine's and not those of what will answer, and a longer prompt of the same base would be no faster."""
    wanted = evidence.facts.latency
    way = {"tune": evidence.tuned, "prompt": best(evidence, PROMPTED)}.get(decision)
    if wanted is None or way is None or way.seconds is None or way.seconds <= wanted:
        return ""
    return (
        f" This holds only where it is served faster than here: one answer takes {time_of(way.seconds)}, asked alone, "
        f"and at most {time_of(wanted)} is wanted."
    )


def _next(decision: Decision, evidence: Evidence) -> str:
    curve = evidence.curve
    if decision == "tune":
        told = "Next: tunesmith run RECIPE. Its verdict is made on the locked test, which was not looked at here."
        method = f"The method, {evidence.method}, is the recipe's; no other was tried here"
        return (
            f"{told} {method}: tunesmith compare RECIPE --methods {evidence.method},... compares methods on these rows."
        )
    if decision == "prompt" and by_name(evidence, best(evidence, PROMPTED)):
        return "Next: compare each text with the names of the labels, as zero_shot did here; ask again with more rows."
    if decision == "prompt":
        return "Next: write the prompt that won here into the product, and ask again when there are more rows."
    if decision == "retrieve":
        return "Next: build an index of the rows; a tuned model may still help to phrase what was found."
    if decision == "collect more data" and evidence.rows < FEWEST_ROWS:
        return f"Next: label more rows, until {FEWEST_ROWS} are there to train on, and ask again."
    if decision == "collect more data":
        needed = curve.overtakes.value if curve is not None and curve.within_reach >= LIKELY else 0.0
        extra = max(0.0, needed - evidence.rows)
        return (
            f"Next: label about {rows_of(extra)} more rows and ask again."
            if extra
            else "Next: label more rows and ask again."
        )
    if evidence.scored < FEWEST_SCORED or not evidence.points:  # time is not what was short: the first is always made
        return "Next: the notes say why no small run gave a score; mend that, or add rows, and ask again."
    if len({p.rows for p in evidence.points}) < FEWEST:
        told = "give them more time (--time) where that was short, and ask again."
        return f"Next: the notes say which small runs were left out; {told}"
    return f"Next: a whole run (tunesmith run RECIPE) decides it on the locked test.{_training(evidence)}"
