"""When a training is saved, and how it stops when it is asked to.

Notable: a save is due by the clock, as often as was asked, or else so seldom that it takes ``SHARE`` of the time, and
does not change what is trained. A small snapshot is copied and written beside the training that goes on, a large one
between two steps without a copy. A save that fails costs a note and is tried again; three in a row end the run with the
last good one kept. After a signal the step is finished, the state is saved, and ``Interrupted`` ends the run.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from tunesmith.core.errors import DiskError, Interrupted
from tunesmith.train.state import Snapshot

SHARE = 0.02  # of the time, at most, that saving takes
LAST = 0.25  # of the time between two saves after which the end is worth one
FAILURES = 3
BESIDE = 256 << 20  # bytes of a snapshot that is written while the training goes on


class Saver:
    """``write`` makes a snapshot durable and returns how long that took; ``every`` are seconds, ``as_asked`` whether
    someone set them. ``stop`` is the number of the signal that asks for an end."""

    def __init__(
        self,
        write: Callable[[Snapshot], float],
        tell: Callable[[str], None],
        *,
        every: float,
        as_asked: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.write, self.tell, self.every, self.as_asked, self.clock = write, tell, every, as_asked, clock
        self.stop: int | None = None
        self.saves: list[float] = []
        self.saved_step: int | None = None
        self._last = clock()
        self._failures = 0
        self._beside = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def after_step(self, step: int, *, last: bool, capture: Callable[[bool], Snapshot]) -> None:
        """Called between two steps. Raises Interrupted, DiskError."""
        if self.stop is not None:
            self.finish()
            self._save(capture(False), step)
            raise Interrupted(f"Interrupted at step {step}; the last checkpoint is {self._kept()}", self.stop)
        since = self.clock() - self._last
        if (last and since < LAST * self.every) or (not last and since < self._gap()):
            return
        self.finish()
        snapshot = capture(False)
        size = sum(t.nbytes for t in snapshot.tensors.values())
        if size > BESIDE:
            self._save(snapshot, step)
            return
        self._last = self.clock()
        self._writing = self._beside.submit(self._save, capture(True), step)

    def grant(self, step: int) -> None:
        """Raise Interrupted where a signal came after the last step."""
        if self.stop is not None:
            told = f"Interrupted after step {step}, the last one; the last checkpoint is {self._kept()}"
            raise Interrupted(told, self.stop)

    def wait(self) -> None:
        """Until no save is being written."""
        if self._writing is not None:
            self._writing.exception()

    def finish(self) -> None:
        """Wait for a save that is being written. Raises what it raised."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _gap(self) -> float:
        longest = max(self.saves[-3:], default=0.0)
        return self.every if self.as_asked else max(self.every, longest / SHARE)

    def _kept(self) -> str:
        return "none" if self.saved_step is None else f"step {self.saved_step}"

    def _save(self, snapshot: Snapshot, step: int) -> None:
        try:
            self.saves.append(self.write(snapshot))
            self._failures, self.saved_step = 0, step
        except DiskError as error:
            self._failures += 1
            self.tell(f"Step {step} could not be saved ({error}); the last checkpoint is {self._kept()}.")
            if self._failures >= FAILURES:
                told = f"{error} That was the save no. {self._failures} to fail; the last good is {self._kept()}."
                raise DiskError(told) from error
        finally:
            self._last = self.clock()
