"""The probe of the machine at hand: numbers that a machine can have, in little time, kept and read without torch."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunesmith.models import probe as module
from tunesmith.models.machine import default_device
from tunesmith.plan.rates import kept, save


def test_it_measures_what_a_machine_can_do() -> None:
    found = module.probe(0.01)
    assert found.kind == default_device()
    assert found.source == "probe"
    assert found.name
    for points in found.products.values():
        assert [width for width, _ in points] == list(module.WIDTHS[found.kind])
        assert all(1e7 < rate < 1e16 for _, rate in points)
    assert 1e8 < found.bandwidth < 1e14
    assert 1e8 < found.passing < 1e14
    assert 1e-7 < found.overhead < 1e-2
    assert found.process_bytes is None or 1e7 < found.process_bytes < 1e11


def test_it_takes_ten_seconds_at_most() -> None:
    numbers = 2 * len(module.WIDTHS["cuda"]) + 3
    assert numbers * module.SECONDS_EACH < 10
    started = time.perf_counter()
    calls = []
    module._seconds(lambda: calls.append(time.sleep(0.01)), "cpu", 0.1)
    assert time.perf_counter() - started < 5
    assert len(calls) >= 4  # once to warm up


def test_the_median_counts_after_one_call_that_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([9.0, 5.0, 1.0, 4.0])
    monkeypatch.setattr(module, "_timed", lambda *_: next(seconds))
    assert module._seconds(lambda: None, "cpu", 0.0) == 4.0


def test_it_is_kept_for_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = module.probe(0.001)
    save(found)
    assert kept() == found


def test_as_a_process_of_its_own_it_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "SECONDS_EACH", 0.001)
    module.main()
    told = json.loads(capsys.readouterr().out)
    assert Path(told["kept"]).is_file()
    assert told["source"] == "probe"


def test_reading_it_needs_no_torch() -> None:
    code = "import sys; from tunesmith.plan import rates; rates.kept(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
