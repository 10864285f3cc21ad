"""Processors and GPUs by name: what they compute, move, draw and cost an hour.

Notable: facts alone, in ``devices.json``: peak rates for dense matrices as the publisher states them (of consumer GPUs
those that add up in float32, as training does), prices as ranges by kind of cloud with the month they were looked up.
What a training reaches of the peak is no fact and stands in ``rates``. A file of the same form adds devices and
replaces those of the same name; a row that is ``like`` another names only what differs.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from tunesmith.core.errors import DataError, RecipeError, did_you_mean

Cloud = Literal["marketplace", "specialist", "hyperscaler"]
Number = Literal["float32", "tf32", "bfloat16", "float16"]
Range = tuple[float, float]
CLOUDS: tuple[Cloud, ...] = get_args(Cloud)
NUMBERS: tuple[Number, ...] = get_args(Number)
KINDS = ("cpu", "cuda")
MOST = 1e15  # of any number: beyond is a slip of the pen


@dataclass(frozen=True, slots=True)
class Device:
    """``aliases``: short names, and those that drivers give it where they are no other device's; ``memory_gib`` in GiB,
    ``bandwidth_gb`` of it and ``link_gb`` to its neighbours (one way, None without) in GB a second; ``tflops``: peak
    rates by type of number in 1e12 operations a second; ``watts`` at most; ``prices``: US dollars an hour (low, high)
    by kind of cloud, None for what is owned; ``date`` of the facts, a month."""

    name: str
    aliases: tuple[str, ...]
    kind: Literal["cpu", "cuda"]
    memory_gib: float
    bandwidth_gb: float
    tflops: Mapping[Number, float]
    watts: float | None
    link_gb: float | None
    prices: Mapping[Cloud, Range] | None
    source: str
    date: str
    prices_as_of: str | None

    @property
    def memory(self) -> int:
        """Bytes."""
        return int(self.memory_gib * 2**30)

    def price(self, *clouds: Cloud) -> Range | None:
        """US dollars an hour, the lowest and the highest of ``clouds`` (all of them where none is named); None where
        nobody rents it out."""
        found = [r for cloud, r in (self.prices or {}).items() if not clouds or cloud in clouds]
        return (min(low for low, _ in found), max(high for _, high in found)) if found else None


@cache
def _rows() -> dict[str, dict[str, Any]]:
    """Those that ship, as they stand in the file."""
    text = (resources.files("tunesmith.plan") / "devices.json").read_text("utf-8")
    return {row["name"]: row for row in json.loads(text)}


def known_devices(extra: Path | None = None) -> dict[str, Device]:
    """All devices by name, those of the file ``extra`` too. Raises DataError."""
    rows = dict(_rows())
    found = {name: _device(row, "devices.json") for name, row in rows.items()}
    own_names: set[str] = set()
    for place, row in enumerate([] if extra is None else _rows_of(extra), start=1):
        where = f"{extra} row {place}"
        name = _text(row, "name", where)
        if name in own_names:
            raise DataError(f'{where}: name is "{name}" a second time. Give each device a name of its own.')
        own_names.add(name)
        like = row.get("like", name)
        if not isinstance(like, str) or ("like" in row and like not in rows):
            raise DataError(f'{where}: like is "{like}", which is no device.{did_you_mean(str(like), rows)}')
        own: dict[str, Any] = {"aliases": []} if like != name else {}
        rows[name] = {**rows.get(like, _EMPTY), **own, **{k: v for k, v in row.items() if k != "like"}}
        found[name] = _device(rows[name], where)
    return found


_EMPTY: dict[str, Any] = {"aliases": [], "watts": None, "link_gb": None, "prices": None, "prices_as_of": None}


def find(name: str, extra: Path | None = None) -> Device:
    """The device called ``name``, or known by it, in whatever case. Raises RecipeError with the nearest name.

    >>> find("a100-40gb").name, find("rtx-4090").memory_gib
    ('NVIDIA A100 40GB SXM', 24)
    """
    devices = known_devices(extra)
    called = {alias.casefold(): device for device in devices.values() for alias in (*device.aliases, device.name)}
    wanted = " ".join(name.split()).casefold()
    if wanted in called:
        return called[wanted]
    hint = did_you_mean(wanted, called) or did_you_mean(wanted.replace(" ", "-"), called)
    raise RecipeError(
        f'device: "{name}" is not among the {len(devices)} devices of the table.{hint} There are: '
        f"{', '.join(sorted(d.aliases[0] if d.aliases else d.name for d in devices.values()))}; or describe it in a "
        "file of your own (JSON, the form of plan/devices.json)."
    )


def _rows_of(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: {error}. Expected a JSON list of devices, as plan/devices.json is one.") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: expected a JSON list of objects, as plan/devices.json is one.")
    return rows


def _device(row: Mapping[str, Any], where: str) -> Device:
    names = [f.name for f in fields(Device)]
    where = f'{where} ("{row["name"]}")'
    for key in row:
        if key not in names:
            raise DataError(f"{where}: {key} is no field.{did_you_mean(key, names)} There are: {', '.join(names)}.")
    for key in names:
        if key not in row:
            raise DataError(f"{where}: {key} is missing. State it, or name a device that it is like (like: ...).")
    if row["kind"] not in KINDS:
        raise DataError(f'{where}: kind is "{row["kind"]}"; expected {" or ".join(KINDS)}.')
    aliases = row["aliases"]
    if not isinstance(aliases, list) or not all(isinstance(alias, str) and alias for alias in aliases):
        raise DataError(f"{where}: aliases is {aliases!r}; expected a list of names.")
    rates = {key: _positive(x, f"{where}, tflops.{key}") for key, x in _object(row, "tflops", NUMBERS, where).items()}
    if "float32" not in rates:
        raise DataError(f"{where}: tflops has no float32; expected at least that rate.")
    prices = None if row["prices"] is None else _object(row, "prices", CLOUDS, where)
    known: dict[str, Any] = {key: _text(row, key, where) for key in ("name", "source", "date")}
    known |= {key: _positive(row[key], f"{where}, {key}") for key in ("memory_gib", "bandwidth_gb")}
    for key in ("watts", "link_gb"):
        known[key] = None if row[key] is None else _positive(row[key], f"{where}, {key}")
    if prices is not None:
        prices = {key: _range(pair, f"{where}, prices.{key}") for key, pair in prices.items()}
    as_of = None if prices is None else _text(row, "prices_as_of", where)
    return Device(kind=row["kind"], aliases=tuple(aliases), tflops=rates, prices=prices, prices_as_of=as_of, **known)


def _object(row: Mapping[str, Any], key: str, names: tuple[str, ...], where: str) -> dict[Any, Any]:
    found = row[key]
    if not isinstance(found, dict) or not found:
        raise DataError(f"{where}: {key} is {found!r}; expected numbers by name: {', '.join(names)}.")
    for name in found:
        if name not in names:
            raise DataError(f"{where}: {key}.{name} is unknown.{did_you_mean(name, names)} Known: {', '.join(names)}.")
    return found


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    found = row.get(key)
    if not isinstance(found, str) or not found.strip():
        raise DataError(f"{where}: {key} is {found!r}; expected a text.")
    return found


def _positive(found: Any, where: str) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found <= MOST:
        raise DataError(f"{where} is {found!r}; expected a number above 0.")
    return found


def _range(found: Any, where: str) -> Range:
    if not isinstance(found, list) or len(found) != 2:
        raise DataError(f"{where} is {found!r}; expected [low, high] in US dollars an hour.")
    low, high = (_positive(x, where) for x in found)
    if low > high:
        raise DataError(f"{where} is {found!r}: low is above high. Swap them.")
    return low, high
