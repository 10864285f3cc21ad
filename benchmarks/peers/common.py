"""What every measured process tells in the same form, whichever side it is.

Notable: imports neither side, so that no process holds what it does not need.
"""

import hashlib
import importlib.util
import json
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

FIRST_TOKENS = 4  # of each answer, by which sides are held against each other
PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "bitsandbytes")


def versions() -> dict[str, str]:
    """Of what is installed: only QLoRA needs bitsandbytes."""
    return {name: metadata.version(name) for name in PACKAGES if importlib.util.find_spec(name)}


def digest(ids: Sequence[Sequence[int]], trained: Sequence[Sequence[bool]]) -> str:
    """A short hash of the rows' ids and of which of them are trained, in their order.

    >>> digest([[5, 6]], [[False, True]]) == digest([[5, 6]], [[True, True]])
    False
    """
    rows = [[list(map(int, a)), list(map(bool, b))] for a, b in zip(ids, trained, strict=True)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def ends(vocabulary: int, each: int) -> list[int]:
    """The tokens that end an answer where weights are random: the real one (2), and every so many after it.

    >>> ends(12, 4)
    [2, 6, 10]
    """
    return list(range(2, vocabulary, each))


def reward(text: str) -> float:
    """What an answer is worth: of a hundred characters, how many are an e.

    >>> reward("seen"), reward("")
    (50.0, 0.0)
    """
    return 100 * text.count("e") / max(len(text), 1)


class Clock:
    """When training began and when each optimiser step ended, with its loss.

    The same times of the wall clock go to ``told`` line by line, for a harness that stops what takes too long.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.told = Path(spec["out"] + ".times")
        self.began = 0.0
        self.marks: list[float] = []
        self.losses: list[float | None] = []

    def begin(self) -> None:
        self.began = time.time()
        self.marks = [time.perf_counter()]
        self._tell()

    def step(self) -> None:
        self.marks.append(time.perf_counter())
        self._tell()

    def _tell(self) -> None:
        with self.told.open("a", encoding="utf-8") as stream:
            stream.write(f"{time.time()}\n")

    def facts(self) -> dict[str, Any]:
        seconds = [b - a for a, b in zip(self.marks, self.marks[1:], strict=False)]
        return {"began": self.began, "step_seconds": seconds, "losses": self.losses}


def write(spec: dict[str, Any], clock: Clock, **facts: Any) -> None:
    """The result file that the harness reads: ``facts`` beside the clock's times and losses."""
    Path(spec["out"]).write_text(json.dumps(clock.facts() | {"versions": versions()} | facts), encoding="utf-8")
