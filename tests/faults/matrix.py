"""Every system call of save, rotate, publish and import, times SIGKILL, a full disk and a failing disk.

Notable: what is looked at is what the next process would see, by the code it would run: the sweep under the run's lock,
``Checkpoints.latest``, ``files.verify``, and then the next write of the same kind. After an error the process lives on,
so there the next write comes first and the sweep after it.
"""

import contextlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults import points, scenarios
from tests.faults.outcome import Outcome
from tests.faults.points import Ended, Point
from tests.faults.scenarios import SCENARIOS, Mixture, Scenario

from tunesmith.core import files
from tunesmith.core.errors import DataError, DiskError
from tunesmith.records.folder import RunFolder

SENTENCE = re.compile(r"^Cannot .+\. .+\.\n$")  # one line: what, why, the way out


def run(name: str, *, share: int = 1, only: tuple[str, ...] = (), broken: str | None = None) -> Outcome:
    """Hit a scenario at each of its points with each fault that can occur there.

    ``share`` n takes every n-th of them, ``only`` those at calls of these names.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        base = Path(folder)
        prepared = _prepared(name, base / "prepared")
        root = _copy(prepared, base / "root")
        found, ended = points.find(name, root, base / "log", broken)
        violations = [f"{name}, without a fault: {problem}" for problem in problems(SCENARIOS[name], root, ended)]
        kept = [point for point in found if not only or point.call in only]
        trials = [(point, fault) for point in kept for fault in point.faults][::share]
        for point, fault in trials:
            shutil.rmtree(root)
            ended = points.hit(name, _copy(prepared, root), base / "log", point, fault, broken)
            where = f"{name}: {fault} at {point.call}({point.seen}"
            violations += [f"{where}: {problem}" for problem in problems(SCENARIOS[name], root, ended)]
    seconds = time.monotonic() - started
    return Outcome(f"`matrix-{name}`: {SCENARIOS[name].what}", _injected(kept), len(trials), violations, seconds)


def _injected(found: list[Point]) -> str:
    changing = sum(point.faults == points.EVERY for point in found)
    return f"SIGKILL, ENOSPC, EIO at {changing} calls that write, EIO at {len(found) - changing} that read"


def _prepared(name: str, root: Path) -> Path:
    root.mkdir()
    SCENARIOS[name].prepare(root)
    return root


def _copy(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


def problems(scenario: Scenario, root: Path, ended: Ended) -> Iterator[str]:
    """What is broken of what we promise, after a child ended like that."""
    if (problem := _ending(scenario, ended)) is not None:
        yield problem
    lived = ended.code >= 0 and not scenario.at_start
    with _reported() as said:
        if lived:
            said += _standing(scenario, root, ended)
            said += _next(scenario, root)
        with RunFolder(root).lock():
            pass
        said += [f"the sweep leaves {p.relative_to(root)}" for p in root.rglob(f"{files.TEMPORARY}*")]
        if not lived:
            said += _standing(scenario, root, ended)
            said += _next(scenario, root)
        said += _newest(scenario, root, {"9"})
    yield from said


@contextlib.contextmanager
def _reported() -> Iterator[list[str]]:
    """What our own code raises while it looks is a problem like any other."""
    said: list[str] = []
    try:
        yield said
    except (Mixture, DataError, OSError) as error:
        said.append(f"{type(error).__name__}: {error}")


def _ending(scenario: Scenario, ended: Ended) -> str | None:
    """Killed, done, or a DiskError's sentence; nothing on stderr."""
    if ended.code < 0:
        return None
    if ended.complaint:
        return f"stderr: {ended.complaint.strip().splitlines()[-1]}"
    if ended.code == 0:
        return None if ended.said == f"saved {scenario.new}\n" else f"said {ended.said!r}"
    if ended.code == scenarios.DISK_ERROR:
        return None if SENTENCE.match(ended.said) else f"no sentence: {ended.said!r}"
    return f"exit code {ended.code}"


def _standing(scenario: Scenario, root: Path, ended: Ended) -> list[str]:
    """The old version or the new one; after an acknowledgement the new one; and as many whole ones as before."""
    acknowledged = ended.said.startswith("saved")
    allowed = {scenario.new} if acknowledged else {scenario.old, scenario.new}
    return _newest(scenario, root, allowed)


def _newest(scenario: Scenario, root: Path, allowed: set[str]) -> list[str]:
    found = scenario.found(root)
    newest = found[0] if found else ""
    said = (
        [] if newest in allowed else [f"the newest is {newest!r}, expected {' or '.join(sorted(map(repr, allowed)))}"]
    )
    return said + ([f"{len(found)} are whole: {found}"] if len(found) < scenario.least else [])


def _next(scenario: Scenario, root: Path) -> list[str]:
    try:
        scenario.again(root)
    except DiskError as error:
        return [f"the next write fails: {error}"]
    return []
