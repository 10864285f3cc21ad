"""How a flow is watched: a live line on a terminal, a plain line now and then elsewhere. Everything goes to stderr.

Notable: satisfies the ``Watcher`` that flows expect (``stage``, ``step``, ``note``) without importing them.
"""

import contextlib
import sys
import time
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress

    from tunesmith.core.report import CurvePoint

EVERY_SECONDS = 10.0  # between two plain lines


def duration(seconds: float) -> str:
    """A length of time for the eye.

    >>> duration(8), duration(95), duration(7320)
    ('8s', '1m35s', '2h02m')
    """
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h{whole // 60 % 60:02d}m"


class Watch(AbstractContextManager["Watch"]):
    """Shows stages and training steps on ``stream``; use it as a context manager around a flow."""

    def __init__(self, stream: TextIO | None = None, live: bool | None = None) -> None:
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty() if live is None else live
        self.started = time.monotonic()
        self.last_line = -EVERY_SECONDS
        self.last_dev: float | None = None
        self._bar: Progress | None = None
        self._task: int | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if self.live:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(20),
                TextColumn("{task.fields[more]}"),
            )
            self._bar = Progress(*columns, console=Console(file=self.stream), transient=True)
            try:
                self._stack.enter_context(self._bar)
            except OSError:  # a terminal that is gone
                self._bar = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._stack.close()
        self._bar = self._task = None

    def stage(self, name: str, detail: str = "") -> None:
        """A new part of the story begins."""
        text = f"{name}: {detail}" if detail else name
        self._line(f"[{duration(time.monotonic() - self.started):>6}] {text}")
        self.last_dev, self.last_line = None, -EVERY_SECONDS
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)  # type: ignore[arg-type]
            self._task = self._bar.add_task(_plain(name), total=None, more="")

    def step(self, point: "CurvePoint", total_steps: int, tokens_per_second: float) -> None:
        """One optimiser step, or a dev evaluation when ``point.dev_loss`` is set."""
        if point.dev_loss is not None:
            self.last_dev = point.dev_loss
        parts = [f"step {point.step}/{total_steps}"]
        if point.loss is not None:
            parts.append(f"loss {point.loss:.3f}")
        if self.last_dev is not None:
            parts.append(f"dev {self.last_dev:.3f}")
        parts.append(f"{tokens_per_second:,.0f} tokens/s")
        if point.step > 0:
            left = point.seconds / point.step * max(total_steps - point.step, 0)
            parts.append(f"{duration(left)} left")
        text = "  ".join(parts)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=point.step, total=total_steps, more=text)  # type: ignore[arg-type]
            return
        now = time.monotonic()
        if now - self.last_line >= EVERY_SECONDS or point.step == total_steps:
            self.last_line = now
            self._line(f"         {text}")

    def note(self, text: str) -> None:
        """A sentence that should stay on the screen."""
        self._line(f"         {text}")

    def _line(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a terminal that is gone ends no run
            if self._bar is not None:
                self._bar.console.print(text, markup=False, highlight=False)
            else:
                print(text, file=self.stream, flush=True)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
