"""The tree of errors: each is also a standard one, each has the exit code that the documents promise."""

import builtins
import inspect
import re

import pytest

from tunesmith.core import errors
from tunesmith.core.errors import TunesmithError, did_you_mean

TREE = re.compile(r"^ *\|- (\w+) +\((\w+)\) +(\d+)", re.MULTILINE)
CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, TunesmithError)]


def test_the_docstring_holds_the_tree_as_it_is() -> None:
    assert errors.__doc__ is not None
    told = {name: (parent, int(code)) for name, parent, code in TREE.findall(errors.__doc__)}
    found = {c.__name__: (c.__bases__[1].__name__, c.exit_code) for c in CLASSES if c is not TunesmithError}
    assert told == found
    assert TunesmithError.exit_code == 1


@pytest.mark.parametrize("kind", [c for c in CLASSES if c is not TunesmithError])
def test_an_error_is_caught_as_ours_and_as_the_standard_one(kind: type[TunesmithError]) -> None:
    assert kind.__bases__[0] is TunesmithError
    assert kind.__bases__[1] is getattr(builtins, kind.__bases__[1].__name__)
    assert str(kind("a sentence.")) == "a sentence."


def test_exit_codes_are_those_of_the_command_line() -> None:
    assert {c.exit_code for c in CLASSES} == {1, 2, 3, 4, 5, 6, 130}
    assert errors.VERDICT_NO == 7


@pytest.mark.parametrize(("name", "options", "hint"), [
    ("epoch", ["epochs", "seed"], ' Did you mean "epochs"?'), ("zzz", ["epochs"], ""), ("x", [], ""), ("", ["a"], ""),
])  # fmt: skip
def test_a_hint_names_the_nearest_or_nothing(name: str, options: list[str], hint: str) -> None:
    assert did_you_mean(name, options) == hint
