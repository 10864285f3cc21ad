"""What prompting and tuning cost at a given traffic, and where one becomes the cheaper way.

Notable: a way is a line, so that the whole of it can be read: money a month = fixed + traffic x a call. Tokens of the
prompted model are bought by the million, for the tuned one a machine is rented by the hour; where either price is not
known nothing is compared, for an unknown price is not 0. One machine answers as many calls as its time allows, and
traffic beyond is a share of a further one. What is spent once (training, labels) is spread over ``HORIZON`` months;
what is spent again and again (retraining) is monthly. The money that a user has spent on labels already is spent in
either case and is not counted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from tunesmith.core.advice import CostPoint, Economics, Facts, Sensitivity
from tunesmith.core.errors import RecipeError
from tunesmith.decide.wording import rows_of

DAYS, HOURS = 30.4, 730.0  # a month
HORIZON = 12.0  # months over which what is spent once is spread
BUSY = 0.6  # of a rented machine's time that answers calls
WRITTEN = 4.0  # what a written token costs in times of a read one, where prices are not known
UNPROMPTED = (
    "No prompted model was measured whose tokens are known, so what prompting reaches at which cost, and the "
    "break-even, are open. -s evaluate.rival.url=URL -s evaluate.rival.model=NAME asks one behind an OpenAI-compatible "
    "endpoint."
)
UNTUNED = "No small run was made, so what a tuned answer costs, and the break-even, are open."
CHEAPEST, DEAREST = 1.0, 1e8  # calls a day of the chart
CHANGES = {"never": math.inf, "yearly": 365.0, "monthly": 30.4, "weekly": 7.0, "daily": 1.0}  # days between changes
FLAGS = {
    "calls_per_day": ("--calls-per-day", "a number of calls of at least 0", "1000"),
    "latency": ("--latency", "seconds above 0", "0.5"),
    "label_price": ("--label-price", "a price of at least 0", "0.25"),
    "price_in": ("--price-in", "a price of a million tokens of at least 0", "0.5"),
    "price_out": ("--price-out", "a price of a million tokens of at least 0", "1.5"),
    "host_price": ("--host-price", "a price of an hour of at least 0", "0.8"),
    "retrain_every": ("--retrain-every", "days above 0", "30"),
}
ABOVE_ZERO = {"latency", "retrain_every"}
SMALLEST, LARGEST = 1e-6, 1e9  # of these numbers


def checked(facts: Facts) -> Facts:
    """``facts`` where every number can be one. Raises RecipeError naming the flag, what was found and what is
    expected."""
    for name, (flag, wanted, such_as) in FLAGS.items():
        value = getattr(facts, name)
        if value is None:
            continue
        least = SMALLEST if name in ABOVE_ZERO else 0.0
        if not least <= value <= LARGEST:
            most = f" and at most {LARGEST:,.0f}" if value > LARGEST else ""
            raise RecipeError(f"{flag} is {value:g}; expected {wanted}{most}, such as {flag} {such_as}.")
    if facts.facts_change is not None and facts.facts_change not in CHANGES:
        raise RecipeError(f"--facts-change is {facts.facts_change}; expected one of {', '.join(CHANGES)}.")
    return facts


def unpriced(facts: Facts) -> tuple[str, ...]:
    """The prices that are missing for money to be told; one price of tokens gives the other (``lines``).

    >>> unpriced(Facts()), unpriced(Facts(price_in=0.5)), unpriced(Facts(price_out=1.5, host_price=0.8))
    (('price_in', 'price_out', 'host_price'), ('host_price',), ())
    """
    tokens = ("price_in", "price_out") if facts.price_in is None and facts.price_out is None else ()
    return (*tokens, "host_price") if facts.host_price is None else tokens


@dataclass(frozen=True, slots=True)
class Use:
    """What an answer takes on each side, and what tuning takes once. Tokens and seconds are those of one answer;
    ``labels`` are examples that are still to be paid for, None where their number cannot be told. A quality is in the
    metric's own units; the tuned one is the middle of a forecast, or that of the largest small run where ``forecast``
    is false. ``rival`` says that the prompted model is that of evaluate.rival, and not the base at hand."""

    prompted_in: float
    prompted_out: float
    tuned_in: float
    tuned_out: float
    tuned_seconds: float
    train_hours: float
    labels: float | None = 0.0
    prompted_quality: float | None = None
    tuned_quality: float | None = None
    forecast: bool = True
    rival: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and (not math.isfinite(value) or value < 0) and "quality" not in field.name:
                raise RecipeError(
                    f"economics: {field.name} is {value:g}; expected a finite number of at least 0. Measure it again, "
                    "or leave the prices out."
                )


@dataclass(frozen=True, slots=True)
class Line:
    """Money a month: ``fixed`` + ``call`` x calls a month, but at least ``least``."""

    fixed: float
    call: float
    least: float = 0.0

    def month(self, calls_per_day: float) -> float:
        """
        >>> Line(fixed=10.0, call=0.01).month(100)
        40.4
        """
        return self.fixed + max(self.least, self.call * calls_per_day * DAYS)


def lines(use: Use, facts: Facts) -> tuple[Line, Line, float] | None:
    """(prompted, tuned, what tuning costs once); None where the prompted model's tokens or the tuned model's machine
    have no price. Labels without a number or a price are in none of it, and ``Economics.assumes`` says so."""
    price_in, price_out, hour = facts.price_in, facts.price_out, facts.host_price
    if hour is None or unpriced(facts):
        return None
    price_in = price_out / WRITTEN if price_in is None and price_out is not None else price_in or 0.0
    price_out = WRITTEN * price_in if price_out is None else price_out
    training, labels = use.train_hours * hour, (use.labels or 0.0) * (facts.label_price or 0.0)
    again = training * DAYS / facts.retrain_every if facts.retrain_every is not None else 0.0
    fixed = (training + labels) / HORIZON + again
    prompted = Line(0.0, (use.prompted_in * price_in + use.prompted_out * price_out) / 1e6)
    return prompted, Line(fixed, hour * use.tuned_seconds / 3600 / BUSY, least=hour * HOURS), training + labels


def break_even(prompted: Line, tuned: Line) -> float | None:
    """The calls a day from which on tuning is the cheaper way: 0 where it always is, None where it never is.

    >>> break_even(Line(0.0, 0.02), Line(30.4, 0.01))
    100.0
    >>> break_even(Line(0.0, 0.01), Line(30.4, 0.02)), break_even(Line(0.0, 0.02), Line(0.0, 0.01))
    (None, 0.0)
    """
    if tuned.call > prompted.call or (tuned.call == prompted.call and tuned.fixed + tuned.least > prompted.fixed):
        return None
    if tuned.month(0) <= prompted.month(0):
        return 0.0
    at_least = (tuned.fixed + tuned.least - prompted.fixed) / (prompted.call * DAYS) if prompted.call else math.inf
    if at_least * DAYS * tuned.call <= tuned.least:  # the machine is not full there
        return at_least
    gap = prompted.call - tuned.call
    return (tuned.fixed - prompted.fixed) / (gap * DAYS) if gap else None


def economics(use: Use | None, facts: Facts, *, trained: bool = True) -> Economics:
    """Costs of both ways, the break-even with its sensitivity, and the points of a chart; of nothing where no model
    was prompted, or no small run was ``trained``. Raises RecipeError for numbers that cannot be."""
    checked(facts)
    if use is None:
        return Economics(sentence=UNPROMPTED if trained else UNTUNED)
    read, written = _weights(facts)
    of_prompted = read * use.prompted_in + written * use.prompted_out
    of_tuned = read * use.tuned_in + written * use.tuned_out
    tokens = of_prompted / of_tuned if of_tuned and of_prompted else None
    reached = use.prompted_quality
    quality = reached / use.tuned_quality if reached is not None and use.tuned_quality else None
    found = lines(use, facts)
    if found is None:
        told = "Not all prices are known; --price-in, --price-out and --host-price turn this into money."
        sentence = _reached(use, quality, _of_tokens(tokens, read, written)) + told
        return Economics(tokens_share=tokens, quality_share=quality, sentence=sentence)
    prompted, tuned, once = found
    even, calls = break_even(prompted, tuned), facts.calls_per_day
    return Economics(
        tokens_share=tokens,
        quality_share=quality,
        sentence=_reached(use, quality, _of_month(prompted, tuned, calls)) + _of_money(prompted, tuned, even, calls),
        assumes=_assumes(use, facts),
        known=True,
        prompted_call=prompted.call,
        tuned_call=tuned.call if calls is None or not calls else tuned.month(calls) / (calls * DAYS),
        prompted_month=None if calls is None else prompted.month(calls),
        tuned_month=None if calls is None else tuned.month(calls),
        once=once,
        break_even=even,
        curve=_chart(prompted, tuned, even, calls),
        sensitivity=sensitivity(use, facts),
    )


def sensitivity(use: Use, facts: Facts) -> tuple[Sensitivity, ...]:
    """The break-even with each input halved and doubled; those that change nothing are left out."""
    given = facts.model_dump(exclude_none=True)
    inputs: dict[str, float] = {n: given[n] for n in FLAGS if n in given and n not in ("calls_per_day", "latency")}
    of_use = ("prompted_in", "prompted_out", "tuned_seconds", "train_hours", "labels")
    base, found = _even(use, facts, {}), []
    for name, value in [*inputs.items(), *((n, getattr(use, n)) for n in of_use)]:
        if not value:
            continue
        halved, doubled = (_even(use, facts, {name: times * value}) for times in (0.5, 2.0))
        if (halved, doubled) != (base, base):
            found.append(Sensitivity(name=name, halved=halved, doubled=doubled))
    return tuple(found)


def _even(use: Use, facts: Facts, changed: Mapping[str, float]) -> float | None:
    of_use: dict[str, Any] = {name: value for name, value in changed.items() if hasattr(use, name)}
    of_facts = {name: value for name, value in changed.items() if name not in of_use}
    found = lines(replace(use, **of_use), facts.model_copy(update=of_facts))
    return None if found is None else break_even(found[0], found[1])


def _chart(prompted: Line, tuned: Line, even: float | None, calls: float | None) -> tuple[CostPoint, ...]:
    """Four powers of ten around what matters."""
    centre = math.log10(min(max(even or calls or 1000.0, 10 * CHEAPEST), DEAREST))
    start, steps = max(0.0, round(centre) - 2.0), 40
    places = [10 ** (start + 4 * k / steps) for k in range(steps + 1)]
    return tuple(CostPoint(calls_per_day=x, prompted=prompted.month(x), tuned=tuned.month(x)) for x in places)


def _weights(facts: Facts) -> tuple[float, float]:
    """What a read and a written token weigh against each other: as their prices do where both are known."""
    if facts.price_in is None or facts.price_out is None:
        return 1.0, WRITTEN
    return facts.price_in, facts.price_out


def _reached(use: Use, quality: float | None, cost: str) -> str:
    """What prompting reaches and at which ``cost``; empty where neither is known."""
    if quality is None:
        return f"Prompting answers {cost}. " if cost else ""
    of = "that is forecast of tuning (the middle of the forecast)" if use.forecast else "of the largest small run"
    return f"Prompting reaches {100 * quality:.0f}% of the quality {of}{f', {cost}' if cost else ''}. "


def _of_tokens(tokens: float | None, read: float, written: float) -> str:
    """The cost where no money tells it.

    >>> _of_tokens(4.0, 0.5, 1.5)
    'at 400% of the cost of a call, by tokens (a written one counts as 3 read ones)'
    """
    if tokens is None:
        return ""
    counted = f"a written one counts as {written / read:.3g} read ones" if read else "read ones are free"
    return f"at {100 * tokens:.0f}% of the cost of a call, by tokens ({counted})"


def _of_month(prompted: Line, tuned: Line, calls: float | None) -> str:
    """The cost in money, which depends on traffic; empty where that is not known or tuning costs nothing."""
    if calls is None or not tuned.month(calls):
        return ""
    share = prompted.month(calls) / tuned.month(calls)
    return f"at {100 * share:.0f}% of what tuning costs at {calls:,.0f} calls a day"


def _assumes(use: Use, facts: Facts) -> str:
    """What the money takes for granted, and what is not in it."""
    told = []
    if facts.host_price:
        told.append(
            "The hours of training and the seconds of a tuned answer are those of this machine, which answers one at a "
            f"time; the rented one is taken to be as fast and to answer {BUSY:.0%} of its time. Faster, or with "
            "answers in batches, it makes tuning cheaper; slower, dearer."
        )
    if not use.rival:
        told.append(
            "The prices of tokens are charged for the prompt of the base at hand, whose quality it is too: a larger "
            "model at these prices may answer better and count other tokens (evaluate.rival asks one)."
        )
    if facts.price_in is None or facts.price_out is None:
        told.append(f"Only one price of tokens is known; a written one is taken to cost {WRITTEN:g} times a read one.")
    if use.labels is None:
        told.append("No labels are counted: how many more tuning needs to be ahead cannot be told.")
    elif use.labels and facts.label_price is None:
        told.append(f"The {rows_of(use.labels)} labels that tuning needs to be ahead are not counted (--label-price).")
    return " ".join(told)


def _of_money(prompted: Line, tuned: Line, even: float | None, calls: float | None) -> str:
    if even is None:
        told = "Tuning is never the cheaper way at these prices."
    elif even == 0:
        told = "Tuning is the cheaper way at any traffic."
    else:
        told = f"Tuning is the cheaper way from {even:,.0f} calls a day on."
    if calls is None:
        return told
    month = f"prompting costs {prompted.month(calls):,.2f} a month, tuning {tuned.month(calls):,.2f}"
    return f"{told} At {calls:,.0f} a day {month}."
