"""An advice as one HTML page and as a summary for the terminal: the decision, why, and what each way would cost."""

import math
from typing import Any

import yaml
from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from tunesmith.core.advice import Advice, Band, Bar, Economics, Evidence, Reason
from tunesmith.present.charts import Series
from tunesmith.present.html import markup, rendered
from tunesmith.present.logarithmic import Chart, Shown, logarithmic, money
from tunesmith.present.terminal import plain_table
from tunesmith.present.words import PLAIN, clean, count, duration, interval, metric_name, one_line, score

TONES = {"tune": "ship", "prompt": "hold", "retrieve": "hold", "collect more data": "unsure"}
STYLES = {"ship": "green", "hold": "yellow", "unsure": "white"}
MOST_REASONS = 4
MORE = "What 1,000 more rows bring"
INPUTS = {
    "price_in": "price of tokens read",
    "price_out": "price of tokens written",
    "host_price": "price of the machine",
    "label_price": "price of a label",
    "retrain_every": "days until it is trained anew",
    "prompted_in": "tokens of a prompt",
    "prompted_out": "tokens of a prompted answer",
    "tuned_in": "tokens that the tuned model reads",
    "tuned_out": "tokens of a tuned answer",
    "tuned_seconds": "time of a tuned answer",
    "train_hours": "time of training",
    "labels": "labels to pay for",
}


def render_advice(found: Advice) -> str:
    """``found`` as a page of its own, readable offline."""
    evidence, recipe = found.evidence, found.recipe
    shown = {} if recipe is None else recipe.model_dump(mode="json")
    values: dict[str, Any] = {
        "a": found,
        "e": evidence,
        "tone": TONES.get(found.decision, "unsure"),
        "metric": metric_name(evidence.metric),
        "reasons": found.reasons[:MOST_REASONS],
        "lists": [(name, [(r, said(r)) for r in items]) for name, items in found.lists.items()],
        "ways": ways(evidence),
        "forecasts": forecasts(evidence),
        "runs": [
            (p, score(evidence.metric, p.score.value), interval(evidence.metric, p.score)) for p in evidence.points
        ],
        "costs": costs(found.economics),
        "sensitivity": [
            (INPUTS.get(s.name, s.name), calls(s.halved), calls(s.doubled)) for s in found.economics.sensitivity
        ],
        "curve": markup(curve_chart(evidence)),
        "cost_chart": markup(cost_chart(found.economics, evidence.facts.calls_per_day)),
        "time": duration(found.seconds),
        "recipe": yaml.safe_dump(shown, sort_keys=False, allow_unicode=True),
    }
    return rendered("advice.html.j2", values)


def said(reason: Reason) -> str:
    """The side and the weight of a reason in words.

    >>> said(Reason(topic="x", side="for", strength="strong", sentence="."))
    'strongly for'
    """
    if not reason.measured:
        return "not known"
    if reason.side == "neutral":
        return "neither"
    return f"{ {'strong': 'strongly ', 'medium': '', 'weak': 'weakly '}.get(reason.strength, '') }{reason.side}"


def calls(value: float | None) -> str:
    """A break-even traffic.

    >>> calls(None), calls(0.0), calls(1234.5)
    ('never', 'always', '1,234 calls a day')
    """
    if value is None:
        return "never"
    return f"{value:,.0f} calls a day" if value else "always"


def band(metric: str, found: Band, limit: int = 80) -> str:
    """The limits of a forecast."""
    low, high = (found.low80, found.high80) if limit == 80 else (found.low95, found.high95)
    return f"{score(metric, low)} to {score(metric, high)}"


def ways(evidence: Evidence) -> list[tuple[Bar, str, str, str, str]]:
    """Each way without training and the largest small run: score, interval, tokens and time of one answer."""
    metric = evidence.metric
    sign = 1 if evidence.higher_is_better else -1
    bars = sorted(evidence.bars, key=lambda b: -sign * b.score.value)
    if evidence.tuned is not None:
        largest = max(p.rows for p in evidence.points)
        bars.append(evidence.tuned.model_copy(update={"name": f"{evidence.method} on {largest:,} rows"}))
    return [
        (
            bar,
            score(metric, bar.score.value),
            interval(metric, bar.score),
            f"{count(round(bar.tokens_in))} + {count(round(bar.tokens_out))}" if bar.tokens_in else "none",
            "-" if bar.seconds is None else duration(bar.seconds),
        )
        for bar in bars
    ]


def forecasts(evidence: Evidence) -> list[tuple[str, str, str, str]]:
    """What is forecast: a name, the middle, and the limits of 80% and of 95%."""
    curve, metric = evidence.curve, evidence.metric
    if curve is None:
        return []
    name = metric_name(metric)
    rows = [
        (f"{name} of a run on all {curve.rows:,} rows", curve.at_full, score),
        (f"{name} that its report shows on {evidence.test_rows:,} test rows", curve.in_report, score),
        ("Gain on the best way without training", curve.gain, _gain),
        (MORE, curve.more, _gain),
        (f"Rows at which tuning is {_gain(metric, curve.worth)} ahead", curve.overtakes, _rows),
    ]
    return [
        (told, how(metric, b.value), _limits(how, metric, b.low80, b.high80), _limits(how, metric, b.low95, b.high95))
        for told, b, how in rows
    ]


def _limits(how: Any, metric: str, low: float, high: float) -> str:
    first = how(metric, low)
    if first == how(metric, high):
        return str(first)
    return (
        f"{first.removesuffix(' points')} to {how(metric, high)}" if how is _gain else f"{first} to {how(metric, high)}"
    )


def _gain(metric: str, value: float) -> str:
    return f"{100 * value:+.1f}{'%' if metric in PLAIN else ' points'}"


def _rows(_: str, value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else "out of reach"


def costs(found: Economics) -> list[tuple[str, str, str]]:
    """What a call and a month cost, prompted and tuned; empty where prices are not known."""
    if not found.known:
        return []
    rows = [("A call", money(found.prompted_call), money(found.tuned_call))]
    if found.prompted_month is not None:
        rows.append(("A month", money(found.prompted_month), money(found.tuned_month)))
    return [*rows, ("Once, before the first call", money(0.0), money(found.once))]


def curve_chart(evidence: Evidence) -> str:
    """Scores over rows: what was measured, the forecast with its 80% band, and the ways without training."""
    curve, metric = evidence.curve, evidence.metric
    dots = tuple((float(p.rows), p.score) for p in evidence.points)
    levels = tuple((b.score.value, one_line(b.name, 30)) for b in evidence.bars)
    name = f"{metric_name(metric)}{'' if evidence.higher_is_better else ' (lower is better)'}"
    note = f"dots: small runs with 95% intervals on {count(evidence.scored)} held-back rows; dashed: without training"
    chart = Chart("Learning curve", note, "training rows", name, percent=metric not in PLAIN)
    if curve is None:
        return logarithmic(chart, Shown(dots=dots, levels=levels))
    middle = Series(
        "forecast of one run, with its 80% band", tuple((p.rows, p.score.value) for p in curve.places), "series-a"
    )
    around = tuple((float(p.rows), p.score.low80, p.score.high80) for p in curve.places)
    return logarithmic(chart, Shown((middle,), around, dots, levels, (curve.rows, f"all {curve.rows:,} rows")))


def cost_chart(found: Economics, traffic: float | None) -> str:
    """Money a month over traffic, both ways; empty where prices are not known."""
    lines = (
        Series("prompted", tuple((p.calls_per_day, p.prompted) for p in found.curve), "series-b"),
        Series("tuned", tuple((p.calls_per_day, p.tuned) for p in found.curve), "series-a"),
    )
    mark = None
    if found.break_even:
        mark = (found.break_even, f"break-even {found.break_even:,.0f}")
    elif traffic:
        mark = (traffic, f"expected {traffic:,.0f}")
    note = "both axes are logarithmic" + (f"; {traffic:,.0f} calls a day are expected" if traffic else "")
    return logarithmic(Chart("Cost a month", note, "calls a day", "money a month", tall=True), Shown(lines, mark=mark))


def advice_summary(found: Advice) -> RenderableType:
    """The decision with its rule, the ways side by side, and the reasons that weigh most."""
    evidence, tone = found.evidence, TONES.get(found.decision, "unsure")
    lines = Text()
    lines.append(found.decision.upper(), style=f"bold {STYLES[tone]}")
    lines.append(f"\n{clean(found.sentence, 800)}\n{clean(found.next, 400)}\n")
    if (curve := evidence.curve) is not None:
        metric, more = evidence.metric, curve.more
        near = _limits(_gain, metric, more.low80, more.high80)
        lines.append(f"{MORE}: {_gain(metric, more.value)} (80%: {near}).\n")
    lines.append("\n")
    lines.append(f"Rule: {clean(found.rule, 400)}\n", style="dim")
    lines.append(f"Cost: {clean(found.economics.sentence, 600)}")
    if found.economics.assumes:
        lines.append(f"\n{clean(found.economics.assumes, 900)}", style="dim")
    panel = Panel(lines, title="Advice", box=box.ROUNDED, border_style=STYLES[tone])
    parts: list[RenderableType] = [_table(evidence), panel] if evidence.bars else [panel]
    for name, items in found.lists.items():
        table = plain_table(name.capitalize())
        table.add_column("", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("", ratio=1)
        table.show_header = False
        for reason in items:
            table.add_row(Text(reason.topic), Text(said(reason)), Text(clean(reason.sentence, 600)))
        parts.append(table)
    return Group(*parts, *(Text(clean(note, 400), style="dim") for note in found.notes))


def _table(evidence: Evidence) -> RenderableType:
    table = plain_table(f"Without training, and small runs, on {count(evidence.scored)} rows held back from train")
    table.add_column("way", no_wrap=True)
    for name in (metric_name(evidence.metric), "95% interval", "tokens in + out", "one answer"):
        table.add_column(name, justify="right")
    for bar, value, around, tokens, spent in ways(evidence):
        table.add_row(*map(Text, (one_line(bar.name, 30), value, around, tokens, spent)))
    if (curve := evidence.curve) is not None:
        at = f"{evidence.method} on {curve.rows:,} rows (forecast, 80%)"
        row = (
            one_line(at, 40),
            score(evidence.metric, curve.at_full.value),
            band(evidence.metric, curve.at_full),
            "",
            "",
        )
        table.add_row(*map(Text, row), style="bold")
    return table
