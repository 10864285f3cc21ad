"""The five charts of a report, each a pure function from values to inline SVG.

Notable: every chart has a title, named axes with units and its n, and survives what real runs hold: no points, one
point, equal values, NaN, a hundred labels, labels of any length. A chart with nothing to show is an empty string.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunesmith.core.report import Confusion, Estimate
from tunesmith.present.svg import WIDTH, Axes, drawing, element, label, tick_texts, ticks, words
from tunesmith.present.words import PLAIN, count, metric_name, score

MOST_POINTS = 600
MOST_BARS = 30
MOST_LABELS = 24
LEGEND_LINE, LEGEND_LETTER = 46.0, 7.2  # room of an entry: its line and the gaps, and each letter

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A named line; ``style`` is a class of the style sheet, ``dots`` marks each point."""

    name: str
    points: tuple[Point, ...]
    style: str
    dots: bool = False

    def finite(self) -> "Series":
        kept = tuple(p for p in self.points if math.isfinite(p[0]) and math.isfinite(p[1]))
        return Series(self.name, kept, self.style, self.dots)

    def thinned(self) -> tuple[Point, ...]:
        """At most about MOST_POINTS points, evenly chosen, the last one among them."""
        stride = math.ceil(len(self.points) / MOST_POINTS)
        return self.points if stride <= 1 else (*self.points[:-1:stride], self.points[-1])


def lines(
    title: str,
    x_name: str,
    y_name: str,
    series: Sequence[Series],
    mark: tuple[float, str] | None = None,
    names: Mapping[float, str] | None = None,
) -> str:
    """Lines over a common x, with an optional vertical mark (its x and text). Non-finite points are left out. ``names``
    are the texts of single places on the x axis, where these are no scale."""
    kept = [s for s in (raw.finite() for raw in series) if s.points]
    if not kept:
        return ""
    xs = [x for s in kept for x, _ in s.points] + ([mark[0]] if mark else [])
    ys = [y for s in kept for _, y in s.points]
    room = (max(ys) - min(ys)) * 0.06 or abs(ys[0]) * 0.1 or 1.0
    top = max(ys) + room * (2.2 if mark else 1)  # the text of the mark stands above all points
    axes = Axes(64, 84, WIDTH - 16, 310, min(xs), max(max(xs), min(xs) + 1), min(ys) - room, top)
    parts = [
        axes.x_axis(dict(names or tick_texts([t for t in ticks(axes.x0, axes.x1, 8) if t.is_integer()])), x_name),
        axes.y_axis(tick_texts(ticks(axes.y0, axes.y1)), y_name),
    ]
    if mark:
        at, left = axes.x(mark[0]), axes.x(mark[0]) > WIDTH * 0.7
        parts.append(element("line", x1=at, x2=at, y1=axes.top, y2=axes.bottom, class_="mark"))
        parts.append(words(at + (-6 if left else 6), axes.top + 14, mark[1], "end" if left else "start", "mark-text"))
    for k, s in enumerate(kept):
        parts += _line(axes, s)
        if len(kept) == 1:
            break
        start = WIDTH - 16 - sum(LEGEND_LINE + LEGEND_LETTER * len(later.name) for later in kept[k:])
        parts.append(element("line", x1=start, x2=start + 20, y1=68, y2=68, class_=f"line {s.style}"))
        parts.append(words(start + 26, 72, s.name))
    note = "; ".join(f"{s.name}: n = {count(len(s.points))} points" for s in kept)
    if shown := [s for s in kept if len(s.points) > MOST_POINTS]:
        note += f"; {' and '.join(s.name for s in shown)} thinned to at most {MOST_POINTS} evenly spaced points"
    return drawing(title, note, 350, *parts)


def _line(axes: Axes, series: Series) -> list[str]:
    points = series.thinned()
    path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in points)
    parts = [element("polyline", points=path, class_=f"line {series.style}")]
    if series.dots or len(points) == 1:
        parts += [element("circle", cx=axes.x(x), cy=axes.y(y), r=3, class_=f"dot {series.style}") for x, y in points]
    return parts


def whiskers(
    metric: str,
    rows: Sequence[tuple[str, Estimate, bool]],
    reference: float | None = None,
    dashed: str = "best baseline",
) -> str:
    """A dot and its 95% interval for each (name, estimate, highlighted); ``reference`` is drawn as a dashed line, which
    the note calls ``dashed``."""
    values = [v for _, e, _ in rows for v in (e.value, e.low, e.high) if math.isfinite(v)]
    if not values:
        return ""
    values += [reference] if reference is not None and math.isfinite(reference) else []
    room = (max(values) - min(values)) * 0.05 or abs(values[0]) * 0.1 or 0.1
    low, high = min(values) - room, max(values) + room
    bottom = 56 + 34.0 * len(rows)
    axes = Axes(190, 46, WIDTH - 190, bottom, low, high, 0, 1)
    parts = [axes.x_axis(tick_texts(ticks(low, high, 5), percent=metric not in PLAIN), metric_name(metric))]
    if reference is not None and math.isfinite(reference):
        at = axes.x(reference)
        parts.append(element("line", x1=at, x2=at, y1=axes.top, y2=bottom, class_="mark"))
    for k, (name, estimate, strong) in enumerate(rows):
        parts += _whisker(axes, 68 + 34.0 * k, metric, (name, estimate, strong))
    sizes = sorted({e.n for _, e, _ in rows})
    n = f"n = {count(sizes[0])}" if len(sizes) == 1 else f"n = {count(sizes[0])} to {count(sizes[-1])}"
    note = f"dot: value, whisker: 95% interval, {n}" + (f"; dashed: {dashed}" if reference is not None else "")
    return drawing(f"{metric_name(metric)} of each system", note, bottom + 40, *parts)


def _whisker(axes: Axes, at: float, metric: str, row: tuple[str, Estimate, bool]) -> list[str]:
    name, estimate, strong = row
    style = "series-a" if strong else "series-b"
    parts = [words(180, at + 4, _short(name, 26), "end", "row-name strong" if strong else "row-name")]
    text = score(metric, estimate.value)
    if math.isfinite(estimate.low) and math.isfinite(estimate.high):
        x0, x1 = axes.x(estimate.low), axes.x(estimate.high)
        parts.append(element("line", x1=x0, x2=x1, y1=at, y2=at, class_=f"whisker {style}"))
        parts += [element("line", x1=x, x2=x, y1=at - 5, y2=at + 5, class_=f"whisker {style}") for x in (x0, x1)]
        text += f" ({score(metric, estimate.low)} to {score(metric, estimate.high)})"
    if math.isfinite(estimate.value):
        parts.append(element("circle", cx=axes.x(estimate.value), cy=at, r=5.5, class_=f"dot {style}"))
    parts.append(words(WIDTH - 180, at + 4, text, class_="row-name strong" if strong else "row-name"))
    return parts


def histogram(title: str, values: Sequence[int], x_name: str, mark: tuple[float, str] | None = None) -> str:
    """Counts of whole numbers in up to 40 equal bins, with an optional vertical mark."""
    if not values:
        return ""
    low, high = min(values), max(values)
    size = max(1, math.ceil((high - low + 1) / 40))
    bins = [0] * ((high - low) // size + 1)
    for value in values:
        bins[(value - low) // size] += 1
    shown = mark if mark and mark[0] <= high * 1.5 else None
    end = max(low + size * len(bins), shown[0] if shown else 0)
    axes = Axes(64, 70, WIDTH - 16, 250, low, end, 0, max(bins) * 1.08)
    parts = [
        axes.x_axis({t: count(t) for t in ticks(axes.x0, axes.x1, 8) if t.is_integer()}, x_name),
        axes.y_axis({t: count(t) for t in ticks(0, axes.y1, 4) if t.is_integer()}, f"rows (each bar: {size} wide)"),
    ]
    for k, number in enumerate(bins):
        x, y = axes.x(low + k * size), axes.y(number)
        width = min(60.0, max(1.0, axes.x(low + (k + 1) * size) - x - 1))
        tip = element("title", label(f"{low + k * size} to {low + (k + 1) * size - 1}: {number} rows"))
        parts.append(element("rect", tip, x=x, y=y, width=width, height=axes.bottom - y, class_="bar"))
    if shown:
        at = axes.x(shown[0])
        parts.append(element("line", x1=at, x2=at, y1=axes.top, y2=axes.bottom, class_="mark"))
        parts.append(words(at - 6, axes.top + 14, shown[1], "end", "mark-text"))
    middle, tail = sorted(values)[len(values) // 2], sorted(values)[int(0.95 * (len(values) - 1))]
    note = (
        f"n = {count(len(values))} rows; median {count(middle)}, 95th percentile {count(tail)}, longest {count(high)}"
    )
    return drawing(title, note, 290, *parts)


def bars(title: str, counts: Mapping[str, int], x_name: str) -> str:
    """Horizontal bars, the largest first; the smallest beyond MOST_BARS are summed in one bar."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    total = sum(counts.values())
    if not total:
        return ""
    rows = ranked[:MOST_BARS]
    if rest := ranked[MOST_BARS:]:
        rows.append((f"{len(rest)} more labels", sum(number for _, number in rest)))
    bottom = 56 + 22.0 * len(rows)
    axes = Axes(190, 46, WIDTH - 110, bottom, 0, max(number for _, number in rows), 0, 1)
    whole = {t: count(t) for t in ticks(0, axes.x1, 5) if t.is_integer()}
    parts = [axes.x_axis(whole, x_name)]
    for k, (name, number) in enumerate(rows):
        y = 52 + 22.0 * k
        parts.append(words(180, y + 12, _short(name, 26), "end", "row-name"))
        tip = element("title", label(f"{name}: {number}"))
        parts.append(element("rect", tip, x=190, y=y, width=axes.x(number) - 190, height=15, class_="bar"))
        parts.append(words(axes.x(number) + 6, y + 12, f"{count(number)} ({100 * number / total:.1f}%)"))
    return drawing(title, f"n = {count(total)} rows, {count(len(counts))} labels", bottom + 40, *parts)


def heat_map(confusion: Confusion) -> str:
    """Expected (down) against predicted (across); the shade is the share of the row.

    Of more than MOST_LABELS labels, those with the most errors are shown.
    """
    shown, counts = _most_confused(confusion), confusion.counts
    labels = [confusion.labels[k] for k in shown]
    total = sum(map(sum, counts))
    if not total:
        return ""
    cell = min(42.0, (WIDTH - 264.0) / len(labels))
    left, top = 180.0, 56.0 + 5.2 * max(min(20, len(name)) for name in labels)
    side = cell * len(labels)
    parts = [words(0, top - 8, "expected ↓  predicted →", class_="axis-name")]
    for k, name in enumerate(labels):
        place = f"translate({left + cell * (k + 0.5) + 4:.1f} {top - 6:.1f}) rotate(-50)"
        parts.append(element("text", label(_short(name, 20)), transform=place, class_="tick"))
        parts.append(words(left - 6, top + cell * (k + 0.5) + 4, _short(name, 26), "end"))
    for row, i in enumerate(shown):
        whole = sum(counts[i])
        for column, j in enumerate(shown):
            tip = f"expected {labels[row]}, predicted {labels[column]}: {counts[i][j]} of {whole}"
            place_xy = (left + cell * column, top + cell * row)
            parts.append(_cell(place_xy, cell, counts[i][j], (counts[i][j] / whole if whole else 0.0, tip, i == j)))
    parts.append(element("rect", x=left, y=top, width=side, height=side, class_="edge"))
    correct = sum(counts[k][k] for k in range(len(confusion.labels)))
    note = f"n = {count(total)} rows, {count(correct)} on the diagonal; shade: share of the row"
    if len(shown) < len(confusion.labels):
        note += f"; the {len(shown)} of {len(confusion.labels)} labels with the most errors"
    return drawing(f"Confusions of {_short(confusion.field, 40)}", note, top + side + 12, *parts)


def _most_confused(confusion: Confusion) -> list[int]:
    """The positions of at most MOST_LABELS labels, in their order, chosen by the errors they take part in."""
    size, counts = len(confusion.labels), confusion.counts
    errors = [sum(counts[k]) + sum(counts[r][k] for r in range(size)) - 2 * counts[k][k] for k in range(size)]
    return sorted(sorted(range(size), key=lambda k: (-errors[k], k))[:MOST_LABELS])


def _cell(place: tuple[float, float], size: float, number: int, look: tuple[float, str, bool]) -> str:
    share, tip, right = look
    x, y = place
    style = "cell right" if right else "cell wrong"
    shape = element(
        "rect",
        element("title", label(tip, 160)),
        x=x,
        y=y,
        width=size,
        height=size,
        class_=style,
        fill_opacity=round(share, 2),
    )
    if not number:
        return shape
    return shape + words(
        x + size / 2, y + size / 2 + 4, str(number), "middle", "cell-text on" if share > 0.55 else "cell-text"
    )


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
