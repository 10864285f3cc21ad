"""Rates from a data sheet and from a probe, and when a kept probe is believed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from plan import toy
from tunesmith.plan import rates as module
from tunesmith.plan.devices import find
from tunesmith.plan.rates import PCIE, cache_folder, kept, machine_now, of_device, save


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_a_product_runs_at_the_rate_of_its_smallest_dimension() -> None:
    rates = toy.rates(products={"float32": ((10, 1e9), (1000, 1e11)), "bfloat16": ((10, 5e9), (1000, 5e9))})
    assert rates.rate("float32", 100) == pytest.approx(1e10)  # half the way on both logarithmic scales
    assert rates.rate("float32", 5) == pytest.approx(0.5**0.5 * 1e9)
    assert rates.rate("float32", 1e6) == 1e11
    assert rates.rate("bfloat16", 77) == pytest.approx(5e9)


def test_a_type_without_a_rate_runs_at_that_of_float32() -> None:
    rates = of_device(find("t4"))
    assert rates.rate("bfloat16", 512) == rates.rate("float32", 512)


def test_a_data_sheet_is_taken_at_the_share_that_trainings_reach() -> None:
    device = find("a100-80gb")
    rates = of_device(device)
    assert rates.rate("bfloat16", 8192) == pytest.approx(0.75 * 312e12)
    assert rates.rate("float32", 8192) == pytest.approx(0.75 * 19.5e12)  # TF32 is not switched on
    assert rates.bandwidth == pytest.approx(0.8 * 2039e9)
    assert rates.link == pytest.approx(0.8 * 300e9)
    assert of_device(find("4090")).link == PCIE


def test_a_probe_is_kept_and_read(cache: Path) -> None:
    rates = toy.rates(source="probe", overhead=1e-6, process_bytes=7)
    assert kept() is None
    path = save(rates)
    assert path.parent == cache / "tunesmith" == cache_folder()
    assert kept() == rates


@pytest.mark.parametrize("key", ["torch", "threads", "cores", "gpus", "probe", "machine"])
def test_a_probe_of_other_circumstances_is_not_believed(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    save(toy.rates(overhead=1e-6))
    other = machine_now() | {key: "other"}
    monkeypatch.setattr(module, "machine_now", lambda: other)
    assert kept() is None


def test_threads_that_were_asked_for_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    save(toy.rates(overhead=1e-6))
    assert kept() is not None
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert kept() is None


def test_a_damaged_file_is_none() -> None:
    path = save(toy.rates(overhead=1e-6))
    good = json.loads(path.read_text())
    for broken in (
        "{",
        "[]",
        json.dumps({"of": good["of"]}),
        json.dumps(good | {"rates": {}}),
        json.dumps(good | {"rates": good["rates"] | {"bandwidth": -1}}),
        json.dumps(good | {"rates": good["rates"] | {"bandwidth": "fast"}}),
        json.dumps(good | {"rates": good["rates"] | {"products": {"float32": []}}}),
        json.dumps(good | {"rates": good["rates"] | {"more": 1}}),
    ):
        path.write_text(broken)
        assert kept() is None, broken


def test_without_a_folder_that_is_absolute_the_home_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder() == Path.home() / ".cache" / "tunesmith"


def test_rates_are_values() -> None:
    assert replace(toy.rates(), name="x") != toy.rates()
