"""Unit tests: whether a program passes the tests that are the row's reference, as in MBPP (Austin et al., 2021).

Notable: this runs what a model wrote, behind the fences of ``evaluate.sandbox`` and only where the environment variable
TUNESMITH_RUN_CODE is 1. The tests are statements that run after the program in the same namespace, such as asserts;
reaching their end is success. An answer without code is wrong whatever the tests are.
"""

import re
from collections.abc import Sequence

from tunesmith.evaluate.metrics._metric import Array, Metric, per_row
from tunesmith.evaluate.sandbox import run_programs

_FENCE = re.compile(r"^[ \t]*```(?:python3?|py)[ \t]*$", re.IGNORECASE | re.MULTILINE)
_CLOSE = re.compile(r"^[ \t]*```", re.MULTILINE)


def program_of(answer: str) -> str:
    """The code of the first fence that is marked as Python, else the whole answer. A fence that is cut off counts.

    >>> program_of("Here it is:\\n```python\\nx = 1\\n```\\nIt sets x.")
    'x = 1\\n'
    >>> program_of("x = 1")
    'x = 1'
    """
    opened = _FENCE.search(answer)
    if not opened:
        return answer
    code = answer[opened.end() :].removeprefix("\n")
    closed = _CLOSE.search(code)
    return code[: closed.start()] if closed else code


def rows(answers: Sequence[str], references: Sequence[str]) -> Array:
    """Statistics [N, 2]. Raises RecipeError where running programs is not allowed."""
    jobs = [(program_of(a), r) for a, r in zip(answers, references, strict=True)]
    outcomes = dict(zip(kept := [job for job in jobs if job[0].strip()], run_programs(kept), strict=True))
    return per_row(job in outcomes and outcomes[job].passed for job in jobs)


PART = Metric("unit_tests", "Share of answers that are programs which pass the row's tests.", "zero_one", rows)
