"""What a training costs: hours times a price, watts times hours, each as a range with what was taken for granted.

Notable: the low end is the low end of the time at the cheapest cloud, the high end the high end at the dearest, so the
range holds what a user will meet; ``clouds`` narrows it. What is owned costs its electricity.
"""

from dataclasses import dataclass

from tunesmith.plan.devices import CLOUDS, Cloud, Device, Range
from tunesmith.plan.time import Seconds

DRAWN = (0.5, 1.0)  # of the stated watts, while it trains
AROUND = 1.4  # times the device's own energy: processor, memory, cooling
ELECTRICITY = (0.10, 0.40)  # US dollars a kWh


@dataclass(frozen=True, slots=True)
class Cost:
    """Ranges, low to high: ``hours`` of the clock, ``usd``, and ``kwh`` where the device's watts are known.
    ``middle``: US dollars of the predicted time at the middle of the prices; ``assumed``: sentences."""

    hours: Range
    usd: Range | None
    middle: float | None
    kwh: Range | None
    assumed: tuple[str, ...]


def cost(found: Seconds, device: Device, *, ranks: int = 1, clouds: tuple[Cloud, ...] = ()) -> Cost:
    """Of a training that takes ``found`` on ``ranks`` of ``device``, rented by the hour from ``clouds`` (any where
    none is named).

    >>> from tunesmith.plan.devices import find
    >>> found = cost(Seconds({"products": 7200.0}, 3600.0, 7200.0, "known"), find("a40"), clouds=("marketplace",))
    >>> found.hours, found.usd, found.middle
    ((1.0, 2.0), (0.3, 0.9), 0.75)
    """
    hours = (found.low / 3600, found.high / 3600)
    several = f"{ranks} x " if ranks > 1 else ""
    assumed = [found.basis]
    kwh = None
    if device.watts is not None:
        a, b = (AROUND * share * device.watts / 1000 * ranks for share in DRAWN)
        kwh = (hours[0] * a, hours[1] * b)
        assumed.append(
            f"energy: {several}{device.watts:g} W at {DRAWN[0]:.0%} to {DRAWN[1]:.0%}, and {AROUND - 1:.0%} more for "
            "what stands around it"
        )
    hourly, told = _hourly(device, ranks, clouds)
    usd = None if hourly is None else (hours[0] * hourly[0], hours[1] * hourly[1])
    middle = None if hourly is None else found.total / 3600 * sum(hourly) / 2
    return Cost(hours, usd, middle, kwh, (*assumed, told))


def _hourly(device: Device, ranks: int, clouds: tuple[Cloud, ...]) -> tuple[Range | None, str]:
    """US dollars an hour of all devices together, and where that is from."""
    several = f"{ranks} x " if ranks > 1 else ""
    price = device.price(*clouds)
    if price is not None:
        where = " or ".join(cloud for cloud in (clouds or CLOUDS) if cloud in (device.prices or {}))
        return (price[0] * ranks, price[1] * ranks), (
            f"price: {several}{device.name} at {price[0]:.2f} to {price[1]:.2f} USD an hour, on demand "
            f"({where}, as of {device.prices_as_of}), training alone"
        )
    what = f"is not rented out by a {' or '.join(clouds)}" if device.prices else "is owned"
    if device.watts is None:
        return None, f"price: none is known, for {device.name} {what}; state one in a file of devices"
    low, high = (
        AROUND * share * device.watts / 1000 * ranks * usd for share, usd in zip(DRAWN, ELECTRICITY, strict=True)
    )
    told = f"price: {device.name} {what}: its electricity at {ELECTRICITY[0]:.2f} to {ELECTRICITY[1]:.2f} USD a kWh"
    return (low, high), told
