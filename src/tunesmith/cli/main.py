"""The command line: a list of verbs, and one place where errors become sentences and exit codes.

Notable: nothing slow is imported before a verb runs, so ``tunesmith --help`` answers at once. An exception that nobody
foresaw keeps its traceback: it is written to a file that the one-sentence message names.
"""

import errno
import io
import os
import signal
import sys
import traceback
import warnings
from types import FrameType, TracebackType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tunesmith import __version__
from tunesmith.cli import advise, chat, check, combine, compare, demo, doctor, export, init, plan, resume, run, runs
from tunesmith.cli.output import examples, tell
from tunesmith.core.errors import DiskError, MemoryNeeded, TunesmithError, is_out_of_memory

PANELS = {
    "Start": (demo.demo, init.init, doctor.doctor),
    "Data": (check.check,),
    "Decide": (advise.advise, plan.plan),
    "Train": (run.run, resume.resume),
    "Judge": (compare.compare,),
    "Use": (chat.chat, combine.combine, export.export),
    "Manage": (runs.runs, runs.show),
}
EPILOG = examples("tunesmith demo", "tunesmith init support.yaml", "tunesmith run support.yaml", "tunesmith show RUN")


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP arrived; flows see it as they see Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Verbs(TyperGroup):
    """Runs a verb and turns what it raises into a sentence on stderr and the exit code of DESIGN section 6."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
            tell(f"\nStopped by {signal.Signals(number).name if number != signal.SIGINT else 'Ctrl-C'}.")
            raise typer.Exit(128 + number) from None
        except TunesmithError as error:
            failure = error
        except MemoryError:
            failure = MemoryNeeded("out of memory. Use a smaller model, or shorten rows with train.max_length.")
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            failure = MemoryNeeded(
                "out of memory. Set train.memory: checkpoint, lower train.max_length, or take a smaller model."
            )
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            failure = DiskError(f"{error.filename or 'the disk'}: no space left. Free space or choose another --runs.")
        if ctx.params.get("debug"):
            traceback.print_exception(failure)
        tell(f"error: {failure}")
        raise typer.Exit(failure.exit_code)


app = typer.Typer(
    name="tunesmith",
    cls=Verbs,
    help="Fine-tune language models and prove the result.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tunesmith {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    if debug:
        sys.excepthook = sys.__excepthook__


for _panel, _verbs in PANELS.items():
    for _verb in _verbs:
        _module = sys.modules[_verb.__module__]
        app.command(rich_help_panel=_panel, epilog=examples(*_module.EXAMPLES[_verb.__name__]))(_verb)


def _unforeseen(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """One sentence about an error that nobody foresaw; the traceback goes to a file."""
    import tempfile

    text = "".join(traceback.format_exception(kind, error, trace))
    try:
        handle, path = tempfile.mkstemp(prefix="tunesmith-error-", suffix=".txt", text=True)
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
    except OSError:
        path = ""
        tell(text)
    where = f" The traceback is in {path};" if path else ""
    first = (str(error).splitlines() or [""])[0][:200]
    tell(f"error: {kind.__name__}: {first}. This is a bug in Tunesmith.{where} please report it.")


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


def main() -> None:
    """Entry point of the command ``tunesmith``."""
    sys.excepthook = _unforeseen
    warnings.filterwarnings("ignore", category=FutureWarning)  # what one library tells another is not for the reader
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # an answer in a script that the terminal cannot show must not end a run
            stream.reconfigure(errors="backslashreplace")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup means what it says
            signal.signal(number, _stop)
    typer.main.get_command(app).main(prog_name="tunesmith")  # not app(): it would put its own excepthook in place
