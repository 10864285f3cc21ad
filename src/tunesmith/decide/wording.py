"""Numbers as the sentences of an advice show them."""

import math

from tunesmith.core.advice import Band, Facts

PLAIN = ("perplexity",)


def shown(metric: str, value: float) -> str:
    """
    >>> shown("accuracy", 0.8754), shown("perplexity", 12.345)
    ('87.5%', '12.35')
    """
    return f"{value:.2f}" if metric in PLAIN else f"{100 * value:.1f}%"


def gained(metric: str, value: float) -> str:
    """A gain over a baseline, which is a share of its value where the metric is no percentage.

    >>> gained("accuracy", 0.031), gained("perplexity", 0.25)
    ('+3.1 points', '+25.0%')
    """
    return f"{100 * value:+.1f}{'%' if metric in PLAIN else ' points'}"


def gained_band(metric: str, found: Band) -> str:
    """
    >>> gained_band("accuracy", Band(value=0.05, low80=0.02, high80=0.08, low95=0.0, high95=0.1))
    '+5.0 points (80% of the forecasts: +2.0 to +8.0)'
    """
    low, high = (gained(metric, v).removesuffix(" points") for v in (found.low80, found.high80))
    return f"{gained(metric, found.value)} (80% of the forecasts: {low} to {high})"


def money_of(value: float) -> str:
    """
    >>> money_of(1234.5), money_of(0.004)
    ('1,234.50', 'less than 0.01')
    """
    return f"{value:,.2f}" if value >= 0.01 else "less than 0.01"


def rows_of(value: float) -> str:
    """A number of rows, no more exact than it is known.

    >>> rows_of(1234), rows_of(87.4), rows_of(float("inf"))
    ('1,200', '87', 'more than can be told')
    """
    if not math.isfinite(value):
        return "more than can be told"
    digits = max(0, len(str(round(value))) - 2)
    return f"{round(value, -digits):,.0f}"


def unknown(facts: Facts, what: str, *names: str) -> str:
    """That ``what``, which is the facts ``names``, is not known: a person left it open, or nobody was asked and these
    flags would have told.

    >>> unknown(Facts(asked=("price_in", "host_price")), "Prices", "price_in", "host_price")
    'Prices asked: unknown.'
    >>> unknown(Facts(), "", "calls_per_day")
    'Not given: unknown (--calls-per-day).'
    """
    if set(names) <= set(facts.asked or ()):
        return f"{what} asked: unknown." if what else "Asked: unknown."
    flags = ", ".join(f"--{name.replace('_', '-')}" for name in names)
    return f"{what} not given: unknown ({flags})." if what else f"Not given: unknown ({flags})."


def time_of(seconds: float) -> str:
    """
    >>> time_of(0.0123), time_of(3.21), time_of(400), time_of(9000)
    ('12 ms', '3.2 s', '7 min', '2.5 h')
    """
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
