"""Real runs of the command line, killed at random moments and resumed, until they are done.

Notable: the run and each resume are ``tunesmith run`` and ``tunesmith resume`` in processes of their own, forked from
one that has imported everything, so a trial takes seconds less; torch is imported there alone. Moments are drawn over
the whole life of a run's folder, baselines, training, evaluation and publication included. What counts in the end are
the bits: weights and answers of a run that was never touched.
"""

import json
import subprocess
import sys
import tempfile
import time

from tests.faults import points
from tests.faults.outcome import Outcome

KILLS, STOPS = 100, 28  # trials of a whole run of the suites


def _trials(suite: str, injected: str, kind: str, count: int, share: int) -> Outcome:
    started = time.monotonic()
    environment = points.ENVIRONMENT | {"PYTHONPATH": f"{points.ROOT}:{points.ROOT / 'src'}", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="tunesmith-faults-") as folder:
        command = [sys.executable, "-m", "tests.faults.run_server", kind, str(max(count // share, 1)), folder]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=points.ROOT)
    if done.returncode:
        raise RuntimeError(f"{suite}: the server of trials ended with {done.returncode}: {done.stderr[-2000:]}")
    told = json.loads(done.stdout.splitlines()[-1])
    return Outcome(suite, injected, told["faults"], told["violations"], time.monotonic() - started)


def kills(share: int = 1) -> Outcome:
    """SIGKILL at random moments of a run, and again of its resumption, until one gets through."""
    return _trials("`run-kill`: a run and its resumptions", "SIGKILL at random moments", "kill", KILLS, share)


def stops(share: int = 1) -> Outcome:
    """SIGTERM, Ctrl-C and SIGHUP, once and twice, at random moments."""
    what = "SIGTERM, SIGINT and SIGHUP, once and twice, at random moments"
    return _trials("`run-stop`: a run that is asked to stop", what, "stop", STOPS, share)
