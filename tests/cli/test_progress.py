"""Watching a flow: a live line on a terminal, plain lines elsewhere."""

import contextlib
import io
import os
import select

import pytest

from tunesmith.cli.progress import Watch
from tunesmith.core.report import CurvePoint


def point(step: int, **values: float) -> CurvePoint:
    return CurvePoint(step=step, tokens=100 * step, seconds=2.0 * step, **values)  # type: ignore[arg-type]


def test_plain_lines_are_few_and_tell_the_last_dev_loss() -> None:
    stream = io.StringIO()
    with Watch(stream) as watch:
        watch.stage("Read", "1,500 rows")
        watch.stage("Train", "lora")
        watch.step(point(1, loss=2.5), 50, 1234.5)
        for step in range(2, 50):
            watch.step(point(step, loss=1.0), 50, 1000.0)
        watch.step(point(49, dev_loss=1.25), 50, 1000.0)
        watch.step(point(50, loss=0.5), 50, 1000.0)
        watch.note("one row [red] was cut")
    lines = stream.getvalue().splitlines()
    assert [line.split("] ", 1)[-1].strip() for line in lines[:-1]] == [
        "Read: 1,500 rows",
        "Train: lora",
        "step 1/50  loss 2.500  1,234 tokens/s  1m38s left",
        "step 50/50  loss 0.500  dev 1.250  1,000 tokens/s  0s left",
    ]
    assert lines[-1].strip() == "one row [red] was cut"


def test_live_keeps_stages_and_notes_and_shows_the_step() -> None:
    stream = io.StringIO()
    with Watch(stream, live=True) as watch:
        watch.stage("Train", "[lora]")
        watch.step(point(7, loss=2.5), 50, 1000.0)
        watch.note("a row [red] was cut")
        assert watch._bar is not None
        assert watch._bar.tasks[0].fields["more"] == "step 7/50  loss 2.500  1,000 tokens/s  1m26s left"
        assert watch._bar.tasks[0].completed == 7
        watch.stage("Evaluate")
        assert [task.description for task in watch._bar.tasks] == ["Evaluate"]
    assert "Train: [lora]" in stream.getvalue()
    assert "a row [red] was cut" in stream.getvalue()


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of the thread that draws
def test_a_terminal_that_goes_ends_no_run(live: bool) -> None:
    """A real one, whose other end is closed in the middle, as by a window."""
    end, ours = os.openpty()
    stream = os.fdopen(ours, "w")
    with Watch(stream, live=live) as watch:
        watch.stage("Train", "lora")
        seen = b""
        while b"Train: lora" not in seen:  # a terminal gives what has come so far, in pieces
            assert select.select([end], [], [], 10)[0], f"nothing more came after {seen!r}"
            seen += os.read(end, 1000)
        os.close(end)
        with pytest.raises(OSError, match="Input/output error"):
            os.write(ours, b"x")
        watch.step(point(1, loss=2.0), 10, 5.0)
        watch.note("a note")
        watch.stage("Evaluate")
    with contextlib.suppress(OSError):  # what it still holds has nowhere to go
        stream.close()
    assert watch.last_dev is None and watch._bar is None


def test_an_interrupted_flow_leaves_the_terminal_clean() -> None:
    stream = io.StringIO()
    try:
        with Watch(stream, live=True) as watch:
            watch.stage("Train")
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert watch._bar is None
