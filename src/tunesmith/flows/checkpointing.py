"""The checkpoints of a run, and how it stops when it is asked to.

Notable: between a signal and the end of the step nothing is cut off; a second signal ends the process at once, which is
safe, for whatever is being written is a temporary folder until it is whole. A step that comes to no end is ended with
the stacks of all threads on stderr, and the run can be resumed.
"""

import faulthandler
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from tunesmith.flows.watch import Watcher
from tunesmith.models.model import Model
from tunesmith.records.checkpoints import KEEP, Checkpoints, Saved
from tunesmith.records.folder import RunFolder
from tunesmith.train import store
from tunesmith.train.saver import Saver
from tunesmith.train.state import Snapshot

HANG, HANG_STEPS = 1800.0, 100  # seconds, and times the longest step so far, after which a step hangs
ROOM = 1.2  # of what is needed must be free
MOMENTS = 4  # float32 numbers that a checkpoint holds of a trained weight: itself, two moments, the best so far


def room(model: Model) -> int:
    """Bytes that a run may write: the checkpoints, one more while it is being written, and the result."""
    trained = sum(p.numel() for _, p in model.trainable())
    return int(ROOM * 4 * trained * (MOMENTS * (KEEP + 1) + 1)) + (16 << 20)


class Checkpointing:
    """Saves of one run, which stands on ``origin`` (a hash). ``last`` is the newest of this process."""

    def __init__(self, folder: RunFolder, watch: Watcher, origin: str, *, every: float, as_asked: bool) -> None:
        self.checkpoints = Checkpoints(folder.checkpoints)
        self.watch, self.origin = watch, origin
        self.saver = Saver(self._write, watch.note, every=every, as_asked=as_asked)
        self.last: Saved | None = None
        self._longest, self._began = 0.0, time.monotonic()

    def _write(self, snapshot: Snapshot) -> float:
        self.last = self.checkpoints.save(snapshot.step, lambda folder: store.write(folder, snapshot, self.origin))
        return self.last.seconds

    def latest(self, origins: Sequence[str], *, strict: bool) -> Snapshot | None:
        """The newest whole one, of a run that stands on one of ``origins``; None where none was ever made. Raises
        DataError."""
        path = self.checkpoints.latest(self.watch.note, strict=strict)
        if path is None:
            return None
        snapshot = store.read(path, origins)
        self.saver.saved_step = snapshot.step
        return snapshot

    def after_step(self, step: int, last: bool, snapshot: Callable[[bool], Snapshot]) -> None:
        self.saver.after_step(step, last=last, capture=snapshot)
        now = time.monotonic()
        self._longest, self._began = max(self._longest, now - self._began), now
        self._watch_over()

    def _watch_over(self) -> None:
        """Until the next call, or HANG and more has passed: then the process ends."""
        try:
            faulthandler.dump_traceback_later(max(HANG, HANG_STEPS * self._longest), exit=True, file=sys.stderr)
        except (OSError, ValueError, AttributeError):  # stderr is no file: a notebook, a test
            return

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Inside, a step that hangs is ended, the first signal to stop is a wish that the saver grants after the step,
        and the second an order."""
        self._began = time.monotonic()
        self._watch_over()
        try:
            with self._stoppable():
                yield
        finally:
            faulthandler.cancel_dump_traceback_later()

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            try:
                yield
            finally:
                self.saver.wait()
            return

        def ask(number: int, frame: FrameType | None) -> None:
            if self.saver.stop is None:
                self.saver.stop = number
                self.watch.note(f"{signal.Signals(number).name}: stopping after this step; once more stops at once.")
                return
            handler = before[signal.Signals(number)]
            if callable(handler):
                handler(number, frame)
            else:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)

        heard = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
        before = {n: signal.signal(n, ask) for n in heard}  # what the caller ignores, such as nohup, stays ignored
        try:
            yield
        finally:
            self.saver.wait()
            for number, handler in before.items():
                signal.signal(number, handler)
