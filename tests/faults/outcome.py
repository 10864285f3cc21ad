"""What a suite reports: how many faults it put in, and each promise that one of them broke."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """One row of the table. ``violations`` are sentences: the fault, where it struck, what was found.

    ``faults`` is False where ``n`` counts looks at something that no fault was put into.
    """

    suite: str
    injected: str
    n: int
    violations: list[str]
    seconds: float
    faults: bool = True
