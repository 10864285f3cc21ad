"""A comparison of methods as one HTML page and as a table for the terminal: both show the same cells."""

import math
from collections import Counter

import yaml
from rich.console import Group, RenderableType
from rich.text import Text

from tunesmith.core.comparison import Comparison, MethodResult
from tunesmith.core.report import Estimate
from tunesmith.present.html import markup, rendered
from tunesmith.present.scatter import Chart, Dot, scatter
from tunesmith.present.terminal import plain_table
from tunesmith.present.words import (
    LOWER_IS_BETTER,
    PLAIN,
    bytes_of,
    clean,
    count,
    difference,
    duration,
    interval,
    metric_name,
    one_line,
    score,
)

NONE = "-"
Cell = tuple[str, str]  # the value, and what is said below it


def columns(found: Comparison) -> list[str]:
    lower = " (lower is better)" if found.metric in LOWER_IS_BETTER else ""
    return [
        f"{metric_name(found.metric)}{lower}",
        "against the best baseline",
        "against the best method",
        "forgetting, bits per byte",
        "trained weights",
        "peak memory",
        "training",
        "tokens/s",
        "verdicts",
    ]


def cells(found: Comparison, method: MethodResult) -> list[Cell]:
    """One cell a column."""
    if method.quality is None:
        return [("no result", ""), *[(NONE, "")] * 7, ("", "")]
    scores = [o.score.value for o in method.outcomes]
    spread = f"seeds {score(found.metric, min(scores))} to {score(found.metric, max(scores))}"
    below = interval(found.metric, method.quality) + (f"; {spread}" if len(scores) > 1 else "")
    baselines = ", ".join(dict.fromkeys(o.baseline for o in method.outcomes))
    decisions = Counter(o.decision for o in method.outcomes)
    assert method.seconds is not None and method.tokens_per_second is not None  # as it has a quality
    return [
        (score(found.metric, method.quality.value), below),
        _change(found.metric, method.gain, baselines),
        _change(found.metric, method.behind) if method.behind else ("the best", ""),
        _forgetting(method.forgetting),
        (count(method.trainable_parameters or 0), ""),
        (bytes_of(method.peak_bytes) if method.peak_bytes is not None else "not known", ""),
        (duration(method.seconds), ""),
        (count(round(method.tokens_per_second)), ""),
        ("", "; ".join(f"{n} x {decision}" for decision, n in decisions.items())),
    ]


def _change(metric: str, estimate: Estimate | None, against: str = "") -> Cell:
    if estimate is None:
        return NONE, ""
    low, high = (difference(metric, v).removesuffix(" points") for v in (estimate.low, estimate.high))
    return difference(metric, estimate.value), f"{low} to {high}" + (f"; {one_line(against, 60)}" if against else "")


def _forgetting(lost: Estimate | None) -> Cell:
    return (NONE, "") if lost is None else (f"{lost.value:+.3f}", f"{lost.low:+.3f} to {lost.high:+.3f}")


def failures(found: Comparison) -> list[str]:
    """A sentence for each run without a result."""
    return [
        f"{a.method}, seed {a.seed}: {a.status}{f' ({a.run_id})' if a.run_id else ''}. {one_line(a.error, 500)}"
        for method in found.methods
        for a in method.attempts
        if a.outcome is None
    ]


def level(found: Comparison) -> tuple[float, str] | None:
    """The best baseline of the first run with a result: its value and its name."""
    first = next((o for method in found.methods for o in method.outcomes), None)
    if first is None or not math.isfinite(first.baseline_score.value):
        return None
    return first.baseline_score.value, f"the best baseline, {one_line(first.baseline, 40)}"


def charts(found: Comparison) -> dict[str, str]:
    """Quality over peak memory, and quality over forgetting; empty where there is nothing to show."""
    name, percent = metric_name(found.metric), found.metric not in PLAIN
    done = [(method, method.quality) for method in found.methods if method.quality is not None]
    best = found.methods[0].name if found.methods else ""

    def dots(which: dict[str, Estimate]) -> list[Dot]:
        return [Dot(one_line(m.name, 24), which[m.name], q, m.name == best) for m, q in done if m.name in which]

    peaks = {m.name: _exact(m.peak_bytes / 2**30) for m, _ in done if m.peak_bytes is not None}
    lost = {m.name: m.forgetting for m, _ in done if m.forgetting is not None}
    memory, more = Chart(f"{name} and peak memory", "peak memory, GiB", name), "bits per byte more on general text"
    return {
        "memory": scatter(memory, dots(peaks), percent=percent, line=level(found)),
        "lost": scatter(Chart(f"{name} and forgetting", more, name), dots(lost), percent=percent, line=level(found)),
    }


def _exact(value: float) -> Estimate:
    return Estimate(value=value, low=value, high=value, n=1)


def render_comparison(found: Comparison) -> str:
    """``found`` as a page of its own, readable offline."""
    peaks = sorted({o.peak_of for method in found.methods for o in method.outcomes if o.peak_of})
    values = {
        "c": found,
        "metric": metric_name(found.metric),
        "columns": columns(found),
        "rows": [(method, cells(found, method)) for method in found.methods],
        "failures": failures(found),
        "peaks": "; ".join(peaks),
        "runs": [(m.name, [a for a in m.attempts if a.run_id]) for m in found.methods],
        "recipe": yaml.safe_dump(found.recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
    }
    return rendered("compare.html.j2", values | {name: markup(svg) for name, svg in charts(found).items()})


def comparison_summary(found: Comparison) -> RenderableType:
    """The table, narrow enough for 80 columns, what failed, and what the numbers are."""
    table = plain_table(f"Methods on {count(found.test_rows)} locked test rows, {len(found.seeds)} seed(s)")
    table.add_column("method, verdicts")
    for name in (metric_name(found.metric), "against the baseline", "forgetting", "memory, time, weights"):
        table.add_column(name, justify="right", min_width=12)
    for method in found.methods:
        quality, gain, _, lost, weights, peak, spent, _, verdicts = cells(found, method)
        measured = [f"{value.removesuffix(' points')}\n{below.split(';')[0]}" for value, below in (quality, gain, lost)]
        told = [f"{one_line(method.name, 24)}\n{verdicts[1]}", *measured, f"{peak[0]}\n{spent[0]}\n{weights[0]}"]
        table.add_row(*(Text(text.strip()) for text in told))
    failed = [Text(clean(line, 600), style="red") for line in failures(found)]
    return Group(table, *failed, *(Text(clean(note, 800), style="dim") for note in found.notes))
