"""The drawing board of the charts: elements, axes, number ticks. Pure functions from values to text.

Notable: colours are classes, so one style sheet serves light, dark and print; every chart opens with ``<title>``,
which a screen reader speaks. Coordinates are in a box 760 wide that scales with the page.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape, quoteattr

from tunesmith.present.words import one_line

WIDTH = 760


def element(tag: str, *children: str, **attributes: object) -> str:
    """An element with ready-made children; attribute values are escaped, numbers rounded, names translated.

    >>> element("text", label("a < b"), x=1.23456, text_anchor="end", class_="tick")
    '<text x="1.23" text-anchor="end" class="tick">a &lt; b</text>'
    """
    named = " ".join(f"{key.rstrip('_').replace('_', '-')}={quoteattr(_value(v))}" for key, v in attributes.items())
    opening = f"<{tag} {named}" if named else f"<{tag}"
    return f"{opening}>{''.join(children)}</{tag}>" if children else f"{opening}/>"


def _value(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def label(text: str, limit: int = 120) -> str:
    """Text for an element: cleaned, cut to one line, escaped."""
    return escape(one_line(text, limit))


def words(x: float, y: float, text: str, anchor: str = "start", class_: str = "tick") -> str:
    """A text whose baseline starts, is centred or ends (``anchor``) at x, y."""
    return element("text", label(text), x=float(x), y=float(y), text_anchor=anchor, class_=class_)


def drawing(title: str, note: str, height: float, *children: str) -> str:
    """The chart's frame: ``title`` on top and ``note`` (n, units) below it; both are what a screen reader speaks."""
    spoken = element("title", label(f"{title}. {note}", 300))
    head = words(0, 16, title, class_="chart-title") + words(0, 33, note, class_="chart-note")
    box = f"0 0 {WIDTH} {round(height)}"
    return element("svg", spoken, head, *children, role="img", viewBox=box, class_="chart")


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers (steps of 1, 2 or 5 times a power of ten) inside [low, high].

    >>> ticks(0, 1), ticks(3, 47)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [10.0, 20.0, 30.0, 40.0])
    """
    if not high > low:
        return [low]
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def tick_texts(values: list[float], percent: bool = False) -> dict[float, str]:
    """The texts of the ticks, all with the decimals that their step needs.

    >>> tick_texts([0.0, 0.5, 1.0]), tick_texts([0.2, 0.4], percent=True)
    ({0.0: '0.0', 0.5: '0.5', 1.0: '1.0'}, {0.2: '20%', 0.4: '40%'})
    >>> tick_texts([0.0, 5e-05]), tick_texts([1000.0])
    ({0.0: '0', 5e-05: '5e-05'}, {1000.0: '1,000'})
    """
    scale = 100.0 if percent else 1.0
    step = scale * (min(b - a for a, b in pairwise(values)) if len(values) > 1 else abs(values[0]) if values else 1.0)
    if 0 < step < 1e-3:
        return {v: f"{scale * v:.3g}" for v in values}
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step else 0
    return {v: f"{scale * v:,.{decimals}f}{'%' if percent else ''}" for v in values}


@dataclass(frozen=True)
class Axes:
    """A plotting area in drawing coordinates and the values at its edges."""

    left: float
    top: float
    right: float
    bottom: float
    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        return self.left + (value - self.x0) / ((self.x1 - self.x0) or 1.0) * (self.right - self.left)

    def y(self, value: float) -> float:
        return self.bottom - (value - self.y0) / ((self.y1 - self.y0) or 1.0) * (self.bottom - self.top)

    def x_axis(self, values: dict[float, str], name: str) -> str:
        """Vertical grid lines with their texts below, and the axis' name."""
        parts = []
        for value, text in values.items():
            at = self.x(value)
            parts.append(element("line", x1=at, x2=at, y1=self.top, y2=self.bottom, class_="grid"))
            parts.append(words(at, self.bottom + 16, text, "middle"))
        parts.append(words((self.left + self.right) / 2, self.bottom + 34, name, "middle", "axis-name"))
        return "".join(parts)

    def y_axis(self, values: dict[float, str], name: str) -> str:
        """Horizontal grid lines with their texts at the left, and the axis' name above."""
        parts = [words(0, self.top - 8, name, class_="axis-name")]
        for value, text in values.items():
            at = self.y(value)
            parts.append(element("line", x1=self.left, x2=self.right, y1=at, y2=at, class_="grid"))
            parts.append(words(self.left - 6, at + 4, text, "end"))
        return "".join(parts)
