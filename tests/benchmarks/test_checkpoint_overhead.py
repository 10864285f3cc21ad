"""Both sides of the benchmark run; what they measure is not looked at here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "checkpoint_overhead.py"


@pytest.mark.parametrize("side", ["with", "without"])
def test_a_side_trains_and_tells_its_seconds(side: str) -> None:
    options = ["--side", side, "--steps", "4", "--seconds", "0.1", "--method", "lora"]
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["seconds"] > 0
    assert (told["saves"] > 0, told["bytes"] > 0) == (side == "with",) * 2
