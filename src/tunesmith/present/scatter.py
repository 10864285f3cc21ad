"""A chart of named points, each with its interval: two measures of several systems against one another.

Notable: names are put where they cover neither each other nor a point, the nearest free place first, for a legend of a
dozen colours cannot be read.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunesmith.core.report import Estimate
from tunesmith.present.svg import WIDTH, Axes, drawing, element, tick_texts, ticks, words

LETTER, LINE = 6.6, 14.0  # room of a letter and of a line of text
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Dot:
    """``y``'s interval is drawn as a vertical whisker, that of ``x`` as a horizontal one where it has a width."""

    name: str
    x: Estimate
    y: Estimate
    strong: bool = False

    def finite(self) -> bool:
        return all(math.isfinite(v) for e in (self.x, self.y) for v in (e.value, e.low, e.high))


@dataclass(frozen=True)
class Chart:
    title: str
    x_name: str
    y_name: str


def scatter(chart: Chart, dots: Sequence[Dot], *, percent: bool, line: tuple[float, str] | None = None) -> str:
    """``dots`` over two axes; ``percent``: y is a share; ``line``: a dashed level of y and its name."""
    kept = [dot for dot in dots if dot.finite()]
    if not kept:
        return ""
    xs = [v for dot in kept for v in (dot.x.low, dot.x.high)]
    ys = [v for dot in kept for v in (dot.y.low, dot.y.high)] + ([line[0]] if line else [])
    wide, high = ((max(v) - min(v)) * 0.06 or abs(v[0]) * 0.1 or 1.0 for v in (xs, ys))
    axes = Axes(64, 76, WIDTH - 16, 390, min(xs) - wide, max(xs) + wide, min(ys) - high, max(ys) + high)
    parts = [
        axes.x_axis(tick_texts(ticks(axes.x0, axes.x1, 7)), chart.x_name),
        axes.y_axis(tick_texts(ticks(axes.y0, axes.y1, 6), percent=percent), chart.y_name),
    ]
    taken: list[Box] = []
    for dot in kept:
        x, y = axes.x(dot.x.value), axes.y(dot.y.value)
        taken += [(x - 6, y - 6, x + 6, y + 6), (x - 3, axes.y(dot.y.high), x + 3, axes.y(dot.y.low))]
        taken.append((axes.x(dot.x.low), y - 3, axes.x(dot.x.high), y + 3))
        parts += _marked(axes, dot)
    if line:
        at = axes.y(line[0])
        parts.append(element("line", x1=axes.left, x2=axes.right, y1=at, y2=at, class_="mark"))
        taken.append((axes.left, at - 2, axes.right, at + 2))
    for dot in sorted(kept, key=lambda dot: (not dot.strong, dot.name)):
        box = _free(axes, dot, taken)
        taken.append(box)
        parts.append(words(box[0], box[3] - 3, dot.name, class_="row-name strong" if dot.strong else "row-name"))
    note = f"dot: value, whisker: 95% interval, n = {kept[0].y.n:,} rows" + (f"; dashed: {line[1]}" if line else "")
    return drawing(chart.title, note, 430, *parts)


def _marked(axes: Axes, dot: Dot) -> Iterator[str]:
    x, y, style = axes.x(dot.x.value), axes.y(dot.y.value), "series-a" if dot.strong else "series-b"
    yield element("line", x1=x, x2=x, y1=axes.y(dot.y.low), y2=axes.y(dot.y.high), class_=f"whisker {style}")
    if dot.x.high > dot.x.low:
        yield element("line", x1=axes.x(dot.x.low), x2=axes.x(dot.x.high), y1=y, y2=y, class_=f"whisker {style}")
    yield element("circle", cx=x, cy=y, r=5.0, class_=f"dot {style}")


def _free(axes: Axes, dot: Dot, taken: Sequence[Box]) -> Box:
    """The nearest place for the name in which it covers nothing; beside its point where there is none."""
    width, x, y = LETTER * len(dot.name), axes.x(dot.x.value), axes.y(dot.y.value)
    places = []
    for step in range(14):
        for down in (step, -step):
            top = y - LINE / 2 + down * LINE * 0.6
            places += [(x + 9, top, x + 9 + width, top + LINE), (x - 9 - width, top, x - 9, top + LINE)]
    inside = [b for b in places if b[0] >= axes.left and b[2] <= axes.right and b[1] >= axes.top - 8]
    free = (b for b in inside if b[3] <= axes.bottom and not any(_meet(b, other) for other in taken))
    return next(free, (inside or places)[0])


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
