"""A forecast: what a training needs by part, whether it fits, and what else would do.

Notable: no file and no weight is read: the rows are counts, the network is a shape, the machine a row of a table
or what a probe has left. The same functions plan a run (``fit``, ``resolve``).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf

from tunesmith.core.errors import MemoryNeeded, RecipeError
from tunesmith.core.forecast import Choice, Forecast
from tunesmith.core.plan import Machine, Plan
from tunesmith.plan import memory, time
from tunesmith.plan.calibrate import Correction, Earlier, correction
from tunesmith.plan.devices import Device
from tunesmith.plan.fit import Job, Settings, ways
from tunesmith.plan.here import machine_of
from tunesmith.plan.money import Cost, cost
from tunesmith.plan.rates import Rates, of_device
from tunesmith.plan.resolve import room
from tunesmith.plan.work import Work

SHARDED = "Weights and what belongs to them are sharded as FSDP does; this package itself trains on one device."


@dataclass(frozen=True)
class Place:
    """Where it is to run. ``usd``: what it may cost; ``earlier``: runs with their times; ``assumed``: sentences."""

    machine: Machine
    device: Device | None
    rates: Rates | None
    usd: float | None = None
    earlier: Sequence[Earlier] = ()
    assumed: Sequence[str] = ()

    @property
    def known(self) -> Rates | None:
        return self.rates or (None if self.device is None else of_device(self.device))

    @property
    def name(self) -> str:
        name = self.device.name if self.device else self.rates.name if self.rates else self.machine.device
        return name if self.machine.ranks == 1 else f"{self.machine.ranks} x {name}"


@dataclass(frozen=True)
class Foreseen:
    """A job at a place: its plan, and what it needs; ``fits`` says whether memory does."""

    job: Job
    place: Place
    plan: Plan
    work: Work
    memory: dict[str, int]
    limit: int | None
    fits: bool
    seconds: time.Seconds | None
    cost: Cost | None

    @property
    def peak(self) -> int:
        return sum(self.memory.values())

    def choice(self, name: str, settings: Settings) -> Choice:
        missing = []
        if not self.fits and self.limit is not None:
            capped = self.limit == self.job.recipe.budget.memory
            missing.append(f"needs {gib(self.peak)}, {'budget.memory is' if capped else 'there are'} {gib(self.limit)}")
        budget, usd = self.job.recipe.budget.time, self.place.usd
        if budget is not None and self.seconds is not None and self.seconds.low > budget:
            missing.append(f"takes {self.seconds.low:,.0f} s at least, budget.time is {budget:,.0f} s")
        if usd is not None and self.cost is not None and self.cost.usd is not None and self.cost.usd[0] > usd:
            missing.append(f"costs {self.cost.usd[0]:,.2f} USD at least, more than {usd:,.2f}")
        moments = ", moments in eight bits by bitsandbytes" if self.plan.moments == "int8" else ""
        level = f"memory: {self.plan.memory}, {self.plan.micro_tokens:,} tokens at once{moments}"
        return Choice(
            name=name,
            settings=dict(settings),
            peak_bytes=self.peak,
            limit=self.limit,
            seconds=None if self.seconds is None else (self.seconds.low, self.seconds.high),
            usd=None if self.cost is None else self.cost.usd,
            fits=not missing,
            why="; ".join(missing) or level,
        )


def gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def foresee(job: Job, place: Place) -> Foreseen:
    """Raises RecipeError for what no machine could train."""
    rates, ranks = place.known, place.machine.ranks
    try:
        plan, work = job.resolved(place.machine, rates)
    except MemoryNeeded:
        plan, work = job.least(place.machine, rates)
    needed = memory.needed(work, place.machine.device, rates.process_bytes if rates else None, ranks)
    seconds, money = None, None
    if rates is not None:
        seconds = time.run(
            work,
            rates,
            dev_tokens=job.data.dev_tokens,
            looks=max(1, plan.steps // plan.eval_every),
            correction=_correction(job, place, rates),
            ranks=ranks,
        )
        money = None if place.device is None else cost(seconds, place.device, ranks=ranks)
    limit = room(job.recipe, place.machine)
    fits = limit is None or sum(needed.values()) <= limit
    return Foreseen(job, place, plan, work, needed, limit, fits, seconds, money)


def _correction(job: Job, place: Place, rates: Rates) -> Correction | None:
    return correction(place.earlier, rates.name, job.recipe.method.name) if place.earlier else None


def fitting(job: Job, place: Place) -> list[Choice]:
    """The ladder of settings up to the first that fits, which is the last; all of it where none does."""
    found = []
    for settings in ways(job):
        name = ", ".join(f"{k}: {v}" for k, v in settings.items()) or "as it is"
        try:
            choice = foresee(job.changed(settings), place).choice(name, settings)
        except RecipeError:  # a method that this network cannot have
            continue
        found.append(choice)
        if choice.fits:
            break
    return found


def on_devices(job: Job, place: Place, devices: Iterable[Device]) -> list[Choice]:
    """The job on each device, those where it fits first, the cheapest at the top and those without a price last.
    ``budget.memory`` caps each of them."""
    found = []
    for device in devices:
        machine = replace(machine_of(device), ranks=place.machine.ranks)
        there = replace(place, machine=machine, device=device, rates=None, earlier=())
        found.append(foresee(job, there).choice(there.name, {}))
    return sorted(found, key=lambda c: (not c.fits, c.usd[0] if c.usd else inf, c.seconds[0] if c.seconds else inf))


def _untold(found: Foreseen, choices: Sequence[Choice]) -> Iterator[str]:
    """Sentences on what is not foreseen, and on bounds that could not be asked for because of that."""
    place, budget = found.place, found.job.recipe.budget.time
    if found.cost is None:
        yield (
            f"No cost and no energy is foreseen: {place.name} has no row in the table of devices. Name one like it "
            "with --device, or describe it in a file of your own (--devices-file) and name it."
        )
    if budget is not None and found.seconds is None:
        yield f"budget.time is {budget:,.0f} s and was not checked for {place.name}: no time is foreseen."
    unknown = sum(choice.usd is None for choice in choices)
    if place.usd is not None and unknown:
        yield f"--usd is {place.usd:g} and was not checked for {unknown} of {len(choices)} choices: no cost is known."


def forecast(found: Foreseen, choices: Sequence[Choice] = (), assumed: Sequence[str] = ()) -> Forecast:
    """As it is shown and kept."""
    job, work, seconds, money = found.job, found.work, found.seconds, found.cost
    shape = job.shape
    longest, writes = job.data.longest, shape.kind == "decoder"
    told = [
        *([SHARDED] if found.place.machine.ranks > 1 else []),
        *found.place.assumed,
        *assumed,
        *shape.assumed,
        *(() if money is None else money.assumed),
    ]
    if seconds is None:
        told.append("The machine is not in the table and was not probed: no time is foreseen. tunesmith plan --probe.")
    elif money is None:
        told.append(seconds.basis)
    told += _untold(found, choices)
    return Forecast(
        model=job.card.name,
        parameters=shape.parameters,
        active_parameters=shape.active_parameters,
        kind=shape.kind,
        method=job.recipe.method.name,
        objective=job.objective,
        trained=work.technique.trained,
        rows=work.rows.count,
        tokens=work.rows.tokens,
        longest=longest,
        device=found.place.name,
        limit=found.limit,
        fits=found.fits,
        memory=found.memory,
        activations=memory.activations(work, found.place.machine.device),
        peak_bytes=found.peak,
        answering_bytes=memory.answering(shape, work.size, memory.MOST_ROWS, longest) if writes else 0,
        time={} if seconds is None else {name: x for name, x in seconds.parts.items() if x > 0},
        seconds=None if seconds is None else seconds.total,
        range=None if seconds is None else (seconds.low, seconds.high),
        step_seconds=found.plan.step_seconds,
        usd=None if money is None else money.usd,
        kwh=None if money is None else money.kwh,
        plan=found.plan,
        choices=tuple(choices),
        assumed=tuple(dict.fromkeys(told)),
    )
