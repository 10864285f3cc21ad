"""The list of suites. A new one is a line here: a function that takes the share and returns its Outcome.

Notable: ``share`` 1 is everything and n is every n-th fault, spread over all of them.
"""

from collections.abc import Callable
from functools import partial

from tests.faults import flips, matrix, power, runs
from tests.faults.outcome import Outcome
from tests.faults.scenarios import SCENARIOS

SMOKE = 7  # the share of a smoke run

Suite = Callable[..., Outcome]  # called with share=


SUITES: dict[str, Suite] = {
    **{f"matrix-{name}": partial(matrix.run, name) for name in SCENARIOS},
    "flips": flips.run,
    "power": power.run,
    "run-kill": runs.kills,
    "run-stop": runs.stops,
}
