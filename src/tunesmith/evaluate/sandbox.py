"""Runs programs that a model wrote, each followed by tests, in processes of their own behind fences.

Notable: this is a fence against accidents and lazy attacks, no security boundary for hostile code. Use a virtual
machine or a container for models that you do not trust. What holds everywhere: a fresh interpreter without site
packages, an empty environment and working folder, limits of the kernel on time, memory and files, no input, output
thrown away, and a guard inside the interpreter (``_fenced``) against sockets, other processes and changes outside the
folder, under which sqlite3, ssl, tkinter and readline cannot be imported. What holds only where the kernel grants it
(Linux with user namespaces): no network at all, whatever the program does to the guard, and a limit of processes (never
for root).

What does not hold: files of the machine that the user may read can be read, and the number of files is not limited,
only their sizes.

Success is a token that comes back after the tests ran, so ``sys.exit(0)`` and ``os._exit(0)`` are failures. The
program and the tests share an interpreter, so a program that looks for the token on open descriptors, or returns
objects that equal everything, can cheat.

Nothing runs unless the environment variable TUNESMITH_RUN_CODE is 1: a recipe from a stranger cannot switch it on. One
loop watches all processes and no thread is used; every way out of it kills what runs and removes the folders.
"""

import atexit
import math
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tunesmith.core.errors import Interrupted, RecipeError
from tunesmith.evaluate._fenced import SAID, TOKEN

PERMISSION = "TUNESMITH_RUN_CODE"
FENCED = Path(__file__).parent / "_fenced.py"
FLAGS = ("-s", "-S", "-P", "-B", "-X", "utf8")  # no site packages, nothing of the current folder, no bytecode
LONGEST = 100_000  # characters of a program or of tests


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use: seconds of wall time (and as many of the processor), bytes, open files."""

    seconds: float = 5.0
    memory: int = 512 * 2**20
    file_bytes: int = 2**20
    files: int = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether program and tests ran to their end, and if not, why not, in one line that is not to be trusted."""

    passed: bool
    why: str = ""


def require_permission(asker: str = "unit_tests") -> None:
    """Raises RecipeError, naming the part that asks, unless the person at the machine allows running a model's code."""
    found = os.environ.get(PERMISSION)
    if found != "1":
        raise RecipeError(
            f"{asker}: found {PERMISSION} {'unset' if found is None else repr(found)} in the environment, expected 1; "
            "this runs programs that a model wrote, on this machine. "
            f"Start with {PERMISSION}=1 if you want that, or leave {asker} out of the recipe."
        )
    if os.name != "posix":
        raise RecipeError(
            f"{asker}: found the system {os.name}, expected Linux or macOS; programs cannot be limited here. "
            f"Leave {asker} out of the recipe."
        )


def run_programs(jobs: Sequence[tuple[str, str]], limits: Limits | None = None) -> list[Outcome]:
    """The outcome of each (program, tests), as many at once as there are processors; equal jobs run once.

    A program passes when it and then the tests, in the same namespace, ran to their end. Raises RecipeError where
    running is not allowed.
    """
    require_permission()
    limits = limits or Limits()
    waiting, running, done = deque(dict.fromkeys(jobs)), dict[int, _Running](), dict[tuple[str, str], Outcome]()
    places = os.cpu_count() or 1
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < places:
                    job = waiting.popleft()
                    if max(map(len, job)) > LONGEST:
                        done[job] = Outcome(False, f"longer than {LONGEST:,} characters")
                        continue
                    one = _start(job, limits)
                    running[one.result] = one
                    selector.register(one.result, selectors.EVENT_READ)
                nearest = min((one.deadline for one in running.values()), default=0.0)
                ready = {key.fd for key, _ in selector.select(max(0.0, nearest - time.monotonic()))}
                for one in [r for r in running.values() if r.result in ready or r.deadline <= time.monotonic()]:
                    selector.unregister(one.result)
                    done[one.job] = one.outcome(in_time=one.result in ready)
                    del running[one.result]
        finally:
            for one in running.values():
                one.end()
    return [done[job] for job in jobs]


class _Running:
    """One process in its folder. It says something on ``result`` exactly once, or closes it by ending."""

    def __init__(self, job: tuple[str, str], limits: Limits) -> None:
        self.job, self._seconds = job, limits.seconds
        self._token = secrets.token_bytes(TOKEN)
        self._ended, self._lock = False, threading.Lock()
        # What a killed program leaves behind may be unremovable; that must not end a run.
        self._folder = tempfile.TemporaryDirectory(prefix="tunesmith-program-", ignore_cleanup_errors=True)
        self.result, far_end = os.pipe()
        try:
            with tempfile.TemporaryFile() as orders:
                orders.write(self._orders(far_end, limits))
                orders.seek(0)
                self._process = subprocess.Popen(
                    [sys.executable, *FLAGS, str(FENCED)],
                    stdin=orders,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd=self._folder.name,
                    env={"PYTHONHASHSEED": "0"},  # sets of texts in the same order each time: equal answers score alike
                    pass_fds=(far_end,),
                    start_new_session=True,
                )
        except BaseException:
            os.close(self.result)
            self._folder.cleanup()
            raise
        finally:
            os.close(far_end)
        self.deadline = time.monotonic() + limits.seconds

    def _orders(self, result: int, limits: Limits) -> bytes:
        program, tests = (text.encode("utf-8", "surrogatepass") for text in self.job)
        seconds = math.ceil(limits.seconds)
        head = f"{len(program)} {result} {seconds} {limits.memory} {limits.file_bytes} {limits.files}\n"
        return head.encode() + program + tests + self._token

    def outcome(self, *, in_time: bool) -> Outcome:
        """Reads what was said and ends the process."""
        said = os.read(self.result, SAID) if in_time else b""
        self.end()
        if secrets.compare_digest(said, self._token):
            return Outcome(True)
        if not in_time:
            return Outcome(False, f"ran longer than {self._seconds:g} seconds")
        return Outcome(False, said.decode("utf-8", "replace") or "ended before the tests did")

    def end(self) -> None:
        """Kills the process with its whole group, waits for it and removes its folder; the second call does nothing."""
        with self._lock:
            if self._ended:
                return
            with suppress(ProcessLookupError, PermissionError):  # the group is gone already
                os.killpg(self._process.pid, signal.SIGKILL)  # not waited for yet, so the number is still its own
            self._process.wait()
            os.close(self.result)
            self._folder.cleanup()
            self._ended = True
            _LIVE.discard(self)


_LIVE: set[_Running] = set()
_STARTING, _CLOSING = threading.Lock(), threading.Event()


def _start(job: tuple[str, str], limits: Limits) -> _Running:
    with _STARTING:
        if _CLOSING.is_set():
            raise Interrupted("This process is ending, so no further program is started.")
        one = _Running(job, limits)
        _LIVE.add(one)
        return one


@atexit.register
def _end_all() -> None:
    """Ends what a thread is still running when the interpreter ends, and lets it start nothing more."""
    with _STARTING:
        _CLOSING.set()
    for one in tuple(_LIVE):
        one.end()
