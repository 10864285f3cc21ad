"""A chart of what a whole is made of: a bar for each part, largest first, and the sum."""

from collections.abc import Mapping

from tunesmith.present.svg import WIDTH, drawing, element, words

LEFT, ROW, TOP = 150.0, 24.0, 46.0


def shares(
    title: str, parts: Mapping[str, tuple[float, str]], together: str, limit: tuple[float, str] | None = None
) -> str:
    """``parts``: name to (amount, its text); ``together`` is the text of the sum; ``limit``: an amount to mark and its
    text, where the sum comes near it."""
    ordered = sorted(parts.items(), key=lambda item: -item[1][0])
    total = sum(amount for amount, _ in parts.values())
    if total <= 0:
        return ""
    near = limit is not None and limit[0] < 4 * total
    widest = max(total, limit[0]) if limit is not None and near else total
    scale = (WIDTH - LEFT - 110) / widest
    drawn, at = [], TOP
    bottom = TOP + ROW * (len(ordered) + 1)
    if limit is not None and near:
        x = LEFT + scale * limit[0]
        drawn.append(element("line", x1=x, x2=x, y1=TOP - 4, y2=bottom, class_="mark"))
        drawn.append(words(x, bottom + 14, f"there are {limit[1]}", "middle"))
    for name, (amount, text) in ordered:
        drawn += _bar(at, name, scale * amount, text, "bar")
        at += ROW
    drawn += _bar(at, "together", scale * total, together, "dot series-a")
    return drawing(title, f"{len(ordered)} parts", bottom + 24, *drawn)


def _bar(at: float, name: str, width: float, text: str, class_: str) -> list[str]:
    return [
        words(LEFT - 8, at + 14, name, "end"),
        element("rect", x=LEFT, y=at + 2, width=max(width, 1.0), height=ROW - 8, class_=class_),
        words(LEFT + max(width, 1.0) + 6, at + 14, text),
    ]
