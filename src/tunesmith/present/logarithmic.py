"""A chart over a logarithmic x: lines, a band around one, measured dots with whiskers, and dashed levels.

Notable: learning curves and traffic span powers of ten, which a plain axis would press into a corner. Points that are
not finite, and on a logarithmic axis those that are not above 0, are left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.core.report import Estimate
from tunesmith.present.charts import LEGEND_LETTER, LEGEND_LINE, Series
from tunesmith.present.svg import WIDTH, Axes, drawing, element, tick_texts, ticks, words
from tunesmith.present.words import plain

LEVEL_LINE = 15.0  # room of a level's name


@dataclass(frozen=True)
class Chart:
    """``percent``: y is a share; ``tall``: y is logarithmic as well."""

    title: str
    note: str
    x_name: str
    y_name: str
    percent: bool = False
    tall: bool = False


@dataclass(frozen=True)
class Shown:
    """What is drawn. ``band`` is (x, low, high) around a line; ``dots`` are measured at their x; ``levels`` are values
    of y with their names, ``mark`` is an x with its text."""

    lines: tuple[Series, ...] = ()
    band: tuple[tuple[float, float, float], ...] = ()
    dots: tuple[tuple[float, Estimate], ...] = ()
    levels: tuple[tuple[float, str], ...] = ()
    mark: tuple[float, str] | None = None


def logarithmic(chart: Chart, shown: Shown) -> str:
    """The chart; empty where nothing is to be drawn."""
    band = [p for p in shown.band if all(map(math.isfinite, p)) and p[0] > 0]
    dots = [(x, e) for x, e in shown.dots if x > 0 and math.isfinite(e.value)]
    levels = [(y, name) for y, name in shown.levels if _able(chart, y)]
    lines = [
        Series(s.name, tuple(p for p in s.points if p[0] > 0 and _able(chart, p[1])), s.style) for s in shown.lines
    ]
    lines = [s for s in lines if s.points]
    xs = [p[0] for s in lines for p in s.points] + [x for x, _ in dots] + [p[0] for p in band]
    ys = [p[1] for s in lines for p in s.points] + [v for _, e in dots for v in (e.value, e.low, e.high)]
    ys += [v for p in band for v in p[1:]] + [y for y, _ in levels]
    if not lines and not dots:
        return ""
    axes = _axes(chart, xs, [_y(chart, y) for y in ys if math.isfinite(y)])
    parts = [axes.x_axis(_powers(axes.x0, axes.x1), chart.x_name), axes.y_axis(_heights(chart, axes), chart.y_name)]
    if band:
        upper = [f"{_x(axes, x):.1f},{axes.y(_y(chart, high)):.1f}" for x, _, high in band]
        lower = [f"{_x(axes, x):.1f},{axes.y(_y(chart, low)):.1f}" for x, low, _ in reversed(band)]
        parts.append(element("polygon", points=" ".join(upper + lower), class_="band"))
    for s in lines:
        path = " ".join(f"{_x(axes, x):.1f},{axes.y(_y(chart, y)):.1f}" for x, y in s.points)
        parts.append(element("polyline", points=path, class_=f"line {s.style}"))
    for x, e in dots:
        at = _x(axes, x)
        parts.append(element("line", x1=at, x2=at, y1=axes.y(e.low), y2=axes.y(e.high), class_="whisker series-b"))
        parts.append(element("circle", cx=at, cy=axes.y(e.value), r=4.5, class_="dot series-b"))
    return drawing(chart.title, chart.note, 366, *parts, *_levels(axes, levels), *_mark(axes, shown), *_legend(lines))


def _able(chart: Chart, y: float) -> bool:
    return math.isfinite(y) and (y > 0 or not chart.tall)


def _x(axes: Axes, value: float) -> float:
    return axes.x(math.log10(value))


def _y(chart: Chart, value: float) -> float:
    return math.log10(max(value, 1e-12)) if chart.tall else value


def _axes(chart: Chart, xs: Sequence[float], ys: Sequence[float]) -> Axes:
    room = (max(ys) - min(ys)) * 0.06 or abs(ys[0]) * 0.1 or 1.0
    low, high = min(ys) - room, max(ys) + room
    if chart.percent:
        low, high = max(low, 0.0), min(high, 1.0)
    left, right = math.log10(min(xs)), math.log10(max(xs))
    return Axes(64, 92, WIDTH - 16, 322, left, max(right, left + 0.1), low, high)


def _powers(start: float, end: float) -> dict[float, str]:
    """Ticks at 1, 2 and 5 times powers of ten; at the powers alone where there are many."""
    wide = end - start > 2.5
    steps = (1,) if wide else (1, 2, 5)
    places = [m * 10.0**k for k in range(math.floor(start), math.ceil(end) + 1) for m in steps]
    return {math.log10(p): _short(p) for p in places if start - 1e-9 <= math.log10(p) <= end + 1e-9}


def _short(value: float) -> str:
    """
    >>> _short(500.0), _short(20000.0), _short(3e6), _short(0.5)
    ('500', '20,000', '3M', '0.5')
    """
    return f"{value / 1e6:,.4g}M" if value >= 1e6 else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def _heights(chart: Chart, axes: Axes) -> dict[float, str]:
    if chart.tall:
        return _powers(axes.y0, axes.y1)
    return tick_texts(ticks(axes.y0, axes.y1), percent=chart.percent)


def _levels(axes: Axes, levels: Sequence[tuple[float, str]]) -> list[str]:
    """Dashed lines with their names at the right, moved apart where they would cover each other."""
    parts, taken = [], axes.bottom + LEVEL_LINE
    for y, name in sorted(levels):
        at = axes.y(y)
        parts.append(element("line", x1=axes.left, x2=axes.right, y1=at, y2=at, class_="mark"))
        taken = min(at - 4, taken - LEVEL_LINE)
        parts.append(words(axes.right - 4, taken, name, "end", "mark-text"))
    return parts


def _mark(axes: Axes, shown: Shown) -> list[str]:
    if shown.mark is None or not axes.x0 <= math.log10(max(shown.mark[0], 1e-12)) <= axes.x1:
        return []
    at = _x(axes, shown.mark[0])
    left = at > WIDTH * 0.6
    line = element("line", x1=at, x2=at, y1=axes.top, y2=axes.bottom, class_="mark")
    return [
        line,
        words(at + (-6 if left else 6), axes.bottom - 7, shown.mark[1], "end" if left else "start", "mark-text"),
    ]


def _legend(lines: Sequence[Series]) -> list[str]:
    parts: list[str] = []
    start = 64.0
    for s in lines:
        parts.append(element("line", x1=start, x2=start + 20, y1=58, y2=58, class_=f"line {s.style}"))
        parts.append(words(start + 26, 62, s.name))
        start += LEGEND_LINE + LEGEND_LETTER * len(s.name)
    return parts


def money(value: float | None) -> str:
    """An amount without a currency, which nobody has named.

    >>> money(1234.5), money(3.456), money(0.00096), money(None)
    ('1,234', '3.46', '0.00096', 'not known')
    """
    return "not known" if value is None else plain(value)
