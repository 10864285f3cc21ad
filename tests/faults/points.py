"""The points at which a scenario can be hit, found with strace and hit with strace.

Notable: strace counts ``when=`` per system call name from the start of the process, so each name is injected by itself
and the calls of the interpreter's start are counted too: the first run says how many of each come before the mark. The
log of each hit is read again, so a fault that did not happen where it should is an error and no success.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.faults import scenarios

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

CHANGES = (
    "write", "pwrite64", "writev", "fsync", "fdatasync", "ftruncate", "rename", "renameat", "renameat2", "unlink",
    "unlinkat", "rmdir", "mkdir", "mkdirat", "link", "linkat", "chmod", "fchmod", "fchmodat",
)  # fmt: skip
OPENS = ("open", "openat", "creat")
READS = ("read", "getdents64", "close")
MARKS = ("access", "faccessat", "faccessat2")
CREATES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT")
CALL = re.compile(r"^\d+ +(\w+)\((.*)$")

CHILD = [sys.executable, "-S", str(HERE / "scenarios.py")]
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT / "src"),
    "PYTHONHASHSEED": "0",
    "PATH": os.environ.get("PATH", ""),
    "CUDA_VISIBLE_DEVICES": "",
}

EVERY = ("SIGKILL", "ENOSPC", "EIO")
READ_ONLY = ("EIO",)  # nothing on disk differs before and after it, and a full disk does not refuse it


class NotHit(RuntimeError):
    """The harness, not the program, is at fault."""


@dataclass(frozen=True)
class Point:
    """The ``nth`` call of that name after the mark, which is the ``when``-th of the process."""

    call: str
    nth: int
    when: int
    faults: tuple[str, ...]
    seen: str  # the line of the log without a fault


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code (negative: the signal), what it said, and what strace saw."""

    code: int
    said: str
    complaint: str
    log: str


def available() -> str:
    """Why no fault can be injected here, or an empty string."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    probe = subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    return "" if probe.returncode == 0 else f"strace may not trace here: {probe.stderr.strip()[:100]}"


def run(name: str, root: Path, log: Path, options: list[str], broken: str | None = None) -> Ended:
    """One child under strace. Filtering in the kernel halves the time, and loses injected signals (strace 6.1)."""
    child = [*CHILD, name, str(root), *([broken] if broken else [])]
    fast = [] if any("signal=" in option for option in options) else ["--seccomp-bpf"]
    command = ["strace", "-f", *fast, "-qq", "-o", str(log), *options, *child]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=60)
    return Ended(done.returncode, done.stdout, done.stderr, log.read_text(errors="replace"))


def _trace(calls: tuple[str, ...]) -> list[str]:
    return ["-e", "trace=" + ",".join(f"?{call}" for call in (*calls, *MARKS))]


def between(log: str) -> tuple[list[str], list[str]]:
    """The lines before the first mark, and those from it to the second. Raises NotHit."""
    before, mark, rest = log.partition(f'"{scenarios.BEGIN}"')
    if not mark:
        raise NotHit(f"no mark in the log:\n{log[-500:]}")
    return before.splitlines(), rest.partition(f'"{scenarios.END}"')[0].splitlines()[1:]


def calls(lines: list[str]) -> list[tuple[str, str]]:
    """(name, rest of the line) of each call other than the marks."""
    found = [(match[1], match[2]) for line in lines if (match := CALL.match(line))]
    return [(name, rest) for name, rest in found if name not in MARKS]


@functools.cache
def _warm() -> None:
    """Import once without strace: a module that is compiled during the count would be counted."""
    everything = [sys.executable, "-S", "-c", "import broken, scenarios"]
    subprocess.run(everything, env=ENVIRONMENT, cwd=HERE, check=True)


def find(name: str, root: Path, log: Path, broken: str | None = None) -> tuple[list[Point], Ended]:
    """Every point of a scenario, by one run without a fault, and how that ended. Raises NotHit when it fails."""
    _warm()
    ended = run(name, root, log, _trace((*CHANGES, *OPENS, *READS)), broken)
    if ended.code != 0 or ended.complaint:
        raise NotHit(f"{name} fails without a fault: exit {ended.code}, {ended.complaint}")
    before, during = between(ended.log)
    earlier = Counter(call for call, _ in calls(before))
    count: Counter[str] = Counter()
    points = []
    for call, seen in calls(during):
        count[call] += 1
        changes = call in CHANGES or (call in OPENS and CREATES.search(seen) is not None)
        faults = EVERY if changes else READ_ONLY
        points.append(Point(call, count[call], earlier[call] + count[call], faults, seen.replace(f"{root}/", "")))
    return points, ended


def hit(name: str, root: Path, log: Path, point: Point, fault: str, broken: str | None = None) -> Ended:
    """Run the scenario with ``fault`` at ``point``. Raises NotHit when it struck nowhere or elsewhere."""
    how = f"signal={fault}" if fault.startswith("SIG") else f"error={fault}"
    options = [*_trace((point.call,)), "-e", f"inject={point.call}:{how}:when={point.when}"]
    ended = run(name, root, log, options, broken)
    _, during = between(ended.log)
    struck = [rest for _, rest in calls(during)]
    killed = fault == "SIGKILL" and len(struck) == point.nth and ended.code == -9
    refused = len(struck) >= point.nth and "(INJECTED)" in struck[point.nth - 1]
    if not killed and not refused:
        raise NotHit(f"{fault} at {point.call} {point.nth} of {name} did not happen:\n{ended.log[-500:]}")
    return ended
