"""The checkpoints of a run, and how it stops when it is asked to.

Notable: between a signal and the end of the step nothing is cut off; a second signal ends the process at once, which is
safe, for whatever is being written is a temporary folder until it is whole.
"""

import signal
import threading
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

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Inside, the first signal to stop is a wish that the saver grants after the step, and the second an order."""
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
