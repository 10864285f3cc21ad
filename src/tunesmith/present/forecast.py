"""A forecast as one HTML page and as a table for the terminal: both show the same cells."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from tunesmith.core.forecast import Choice, Forecast
from tunesmith.present.html import markup, rendered
from tunesmith.present.shares import shares
from tunesmith.present.terminal import plain_table
from tunesmith.present.words import bytes_of, clean, count, duration, one_line

LARGE = 1e9  # parameters from which on they are told in billions


def size(parameters: int) -> str:
    """
    >>> size(9_440_640), size(405_853_388_800)
    ('9.4M', '405.9B')
    """
    return f"{parameters / 1e9:.1f}B" if parameters >= LARGE else f"{parameters / 1e6:.1f}M"


def span(low: float, high: float, unit: str) -> str:
    """A range of hours, dollars or kWh, with as many digits as it deserves.

    >>> span(0.0012, 0.34, "USD"), span(12.3, 210.0, "USD")
    ('0.0012 to 0.34 USD', '12 to 210 USD')
    """
    low_text, high_text = (f"{v:,.0f}" if v >= 10 else f"{v:.2g}" for v in (low, high))
    return f"{low_text} to {high_text} {unit}"


def facts(found: Forecast) -> list[tuple[str, str]]:
    """Name and value, the first thing first."""
    active = "" if found.active_parameters == found.parameters else f", {size(found.active_parameters)} at work a token"
    room = "not known" if found.limit is None else bytes_of(found.limit)
    lines = [
        ("model", f"{one_line(found.model, 60)}, {size(found.parameters)} parameters{active}"),
        ("trains", f"{one_line(found.method, 30)}, {one_line(found.objective, 30)}: {count(found.trained)} weights"),
        ("rows", f"{count(found.rows)} with {count(found.tokens)} tokens, the longest has {count(found.longest)}"),
        ("device", f"{one_line(found.device, 60)}, memory {room}"),
        ("memory", f"{bytes_of(found.peak_bytes)} at the peak: {'it fits' if found.fits else 'it does not fit'}"),
    ]
    if found.range is not None and found.seconds is not None:
        low, high = map(duration, found.range)
        lines.append(("time", f"{duration(found.seconds)} ({low} to {high}), {count(found.plan.steps)} steps"))
    if found.usd is not None:
        lines.append(("cost", span(*found.usd, "USD")))
    if found.kwh is not None:
        lines.append(("energy", span(*found.kwh, "kWh")))
    if found.answering_bytes:
        lines.append(("answering", f"up to {bytes_of(found.answering_bytes)} of keys and values"))
    return lines


def cells(choice: Choice) -> tuple[str, str, str, str, str]:
    """Memory, time, cost, whether it fits, and why."""
    time = "-" if choice.seconds is None else f"{duration(choice.seconds[0])} to {duration(choice.seconds[1])}"
    usd = "-" if choice.usd is None else span(*choice.usd, "USD")
    return bytes_of(choice.peak_bytes), time, usd, "yes" if choice.fits else "no", choice.why


def settings(choice: Choice) -> str:
    """As the command line takes them."""
    return " ".join(f"-s {key}={value}" for key, value in choice.settings.items())


def forecast_summary(found: Forecast, page: str = "") -> RenderableType:
    table = plain_table("Forecast")
    table.add_column("")
    table.add_column("")
    for name, value in facts(found):
        table.add_row(name, Text(clean(value, 300)))
    parts: list[RenderableType] = [table, _parts("Memory by part", {k: bytes_of(v) for k, v in found.memory.items()})]
    if found.activations:
        parts.append(_parts("Activations by part", {k: bytes_of(v) for k, v in found.activations.items()}))
    if found.time:
        parts.append(_parts("Time by part", {k: duration(v) for k, v in found.time.items()}))
    if found.choices:
        parts.append(_choices(found))
    parts += [Text(f"Assumed: {clean(told, 500)}", style="dim") for told in found.assumed]
    if page:
        parts.append(Text(f"Page: {clean(page, 500)}"))
    return Group(*parts)


def _parts(title: str, values: dict[str, str]) -> RenderableType:
    table = plain_table(title)
    table.add_column("part")
    table.add_column("", justify="right")
    for name, value in values.items():
        table.add_row(name, value)
    return table


def _choices(found: Forecast) -> RenderableType:
    table = plain_table("Choices")
    for name in ("choice", "memory", "time", "cost", "fits", "why"):
        table.add_column(name, overflow="fold")  # settings are to be copied
    for choice in found.choices:
        table.add_row(*(Text(clean(text, 300)) for text in (settings(choice) or choice.name, *cells(choice))))
    return table


def render_forecast(*found: Forecast) -> str:
    """``found``, of one run or of each of its stages, as a page of its own, readable offline."""
    names = found[0].method if len(found) == 1 else ", ".join(one.objective for one in found)
    context = {"title": f"{names} on {found[0].model}", "fits": all(one.fits for one in found)}
    return rendered("forecast.html.j2", context | {"forecasts": [(one, *_drawn(one)) for one in found]})


def _drawn(found: Forecast) -> tuple[Any, ...]:
    """Facts, memory, activations, time, choices and the plan's reasons, as the page shows them."""
    whole = duration(found.seconds or 0)
    time = {name: (value, duration(value)) for name, value in found.time.items()}
    kept = bytes_of(sum(found.activations.values()))
    limit = None if found.limit is None else (found.limit / 2**30, bytes_of(found.limit))
    return (
        facts(found),
        markup(shares("Memory at the peak", _in_gib(found.memory), bytes_of(found.peak_bytes), limit)),
        markup(shares("Activations, of that", _in_gib(found.activations), kept)) if found.activations else "",
        markup(shares("Time by part", time, whole)) if time else "",
        [(c, settings(c), cells(c)) for c in found.choices],
        [(key, _shown(getattr(found.plan, key)), why) for key, why in found.plan.reasons.items()],
    )


def _in_gib(parts: Mapping[str, int]) -> dict[str, tuple[float, str]]:
    return {name: (size / 2**30, bytes_of(size)) for name, size in parts.items()}


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
