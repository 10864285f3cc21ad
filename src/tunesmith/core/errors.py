"""One tree of errors; each class is also a standard one and carries the exit code of the command line.

    TunesmithError                      1  our own bug, or unclassified
    |- RecipeError   (ValueError)       2  the recipe cannot be right
    |- DataError     (ValueError)       2  a row, a file or a split cannot be right
    |- ModelError    (ValueError)       2  a model, tokenizer or adapter cannot be right
    |- PartError     (LookupError)      2  no part of that name
    |- BusyError     (RuntimeError)     3  another process holds the run
    |- MemoryNeeded  (MemoryError)      4  does not fit
    |- Diverged      (ArithmeticError)  5  loss or gradient not finite
    |- DiskError     (OSError)          6  disk full or not writable
    |- Interrupted   (RuntimeError)     130  asked to stop: 128 + the signal's number

A message is a sentence: the value, the place, what was expected, the way out.
"""

import difflib
from collections.abc import Iterable


class TunesmithError(Exception):
    exit_code = 1


class RecipeError(TunesmithError, ValueError):
    exit_code = 2


class DataError(TunesmithError, ValueError):
    exit_code = 2


class ModelError(TunesmithError, ValueError):
    exit_code = 2


class PartError(TunesmithError, LookupError):
    exit_code = 2


class BusyError(TunesmithError, RuntimeError):
    exit_code = 3


class MemoryNeeded(TunesmithError, MemoryError):
    exit_code = 4


class Diverged(TunesmithError, ArithmeticError):
    exit_code = 5


class DiskError(TunesmithError, OSError):
    exit_code = 6


class Interrupted(TunesmithError, RuntimeError):
    """A signal (Ctrl-C's number unless told otherwise) ended a run after its step was finished."""

    exit_code = 130

    def __init__(self, message: str, signal: int = 2) -> None:
        super().__init__(message)
        self.signal = signal
        self.exit_code = 128 + signal


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python says that an allocation failed: on a GPU (a class of its own), on a processor (words
    alone)."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


VERDICT_NO = 7  # not an error: the run is sound and the verdict is not SHIP


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """A hint with the nearest of ``options``, or an empty string.

    >>> did_you_mean("lorra", ["lora", "full"])
    ' Did you mean "lora"?'
    """
    near = difflib.get_close_matches(name, list(options), n=1, cutoff=0.6)
    return f' Did you mean "{near[0]}"?' if near else ""
