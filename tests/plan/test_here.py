"""The machine at hand: its GPU by the name that a driver gives it, what is asked of the driver, and a sentence where a
reader would expect another plan."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from plan import toy
from tunesmith.core.errors import RecipeError
from tunesmith.plan import here as module
from tunesmith.plan.devices import find
from tunesmith.plan.here import has_bitsandbytes, here, machine_of, memory
from tunesmith.plan.rates import Rates

DRIVERS = {
    "Tesla T4": "NVIDIA T4",
    "Tesla V100-SXM2-32GB": "NVIDIA V100 32GB SXM2",
    "NVIDIA L4": "NVIDIA L4",
    "NVIDIA A10G": "NVIDIA A10G",
    "NVIDIA A40": "NVIDIA A40",
    "NVIDIA A100-SXM4-40GB": "NVIDIA A100 40GB SXM",
    "NVIDIA A100-SXM4-80GB": "NVIDIA A100 80GB SXM",
    "A100-SXM4-80GB": "NVIDIA A100 80GB SXM",  # as older drivers have it
    "NVIDIA H100 PCIe": "NVIDIA H100 PCIe",
    "NVIDIA H100 80GB HBM3": "NVIDIA H100 SXM",
    "NVIDIA H200": "NVIDIA H200 SXM",
    "NVIDIA B200": "NVIDIA B200",
    "NVIDIA L40S": "NVIDIA L40S",
    "NVIDIA RTX A6000": "NVIDIA RTX A6000",
    "NVIDIA RTX 6000 Ada Generation": "NVIDIA RTX 6000 Ada",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": "NVIDIA RTX PRO 6000 Blackwell",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "NVIDIA RTX PRO 6000 Blackwell",
    "NVIDIA GeForce RTX 2080 Ti": "NVIDIA RTX 2080 Ti",
    "NVIDIA GeForce RTX 3090": "NVIDIA RTX 3090",
    "NVIDIA GeForce RTX 4080": "NVIDIA RTX 4080",
    "NVIDIA GeForce RTX 4090": "NVIDIA RTX 4090",
    "NVIDIA GeForce RTX 5090": "NVIDIA RTX 5090",
}
H100, UNKNOWN = "NVIDIA H100 80GB HBM3", "Tesla V100-SXM2-16GB"
Put = Callable[..., None]


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Put:
    """A machine with these GPUs, of which nvidia-smi tells ``driver``."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def done(*gpus: str, driver: str = "", probed: Rates | None = None, visible: str = "all", torch: str = "2") -> None:
        now = {"machine": " + ".join(["Xeon", *gpus]), "gpus": visible, "torch": torch}
        monkeypatch.setattr(module, "machine_now", lambda: now)
        monkeypatch.setattr(module, "kept", lambda: probed)
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{driver}\n")
        program.chmod(0o755)
        if not driver:
            program.unlink()

    return done


@pytest.mark.parametrize("name", DRIVERS)
def test_a_gpu_is_known_by_the_name_of_its_driver(put: Put, name: str) -> None:
    put(name)
    found, device, rates, told = here()
    assert device is not None and device.name == DRIVERS[name]
    assert found == replace(machine_of(device), eight_bit=has_bitsandbytes())
    assert (found.device, found.memory, rates, told) == ("cuda", device.memory, None, [])


@pytest.mark.parametrize(("capability", "fast"), [("7.0", False), ("8.6", True), ("12.0", True)])
def test_of_a_gpu_that_is_not_in_the_table_the_driver_is_asked(put: Put, capability: str, fast: bool) -> None:
    rates = toy.rates(kind="cuda", name=UNKNOWN)
    for probed in (None, rates):
        put(UNKNOWN, driver=f"echo '{UNKNOWN}, 16384, {capability}'", probed=probed)
        found, device, known, told = here()
        assert (found.device, found.memory, found.fast_bfloat16) == ("cuda", 16 << 30, fast)
        assert device is None and known is probed
        assert told == [f"{UNKNOWN} is not in the table of devices: its memory is what its driver says."]


@pytest.mark.parametrize(
    "driver", ["", "exit 9", f"echo '{UNKNOWN}, [N/A], 7.0'", "echo what?", "echo 'Another, 1024, 7.0'"]
)
def test_one_of_which_nothing_is_known_is_refused(put: Put, driver: str) -> None:
    put(UNKNOWN, driver=driver)
    with pytest.raises(RecipeError, match=rf'the GPU at hand, "{UNKNOWN}", is not in the table .* \(--devices-file'):
        here()


def test_one_that_a_file_describes_is_known(put: Put, tmp_path: Path) -> None:
    put(UNKNOWN)
    (tmp_path / "mine.json").write_text(json.dumps([{"name": UNKNOWN, "like": "NVIDIA T4", "memory_gib": 16}]))
    found, device, _, told = here(tmp_path / "mine.json")
    assert device is not None and device.name == UNKNOWN
    assert (found.memory, told) == (16 << 30, [])


def test_where_the_system_lists_no_gpu_the_driver_may(put: Put) -> None:
    put(driver=f"echo '{H100}, 81559, 9.0'")
    assert here()[1] == find("h100")
    put("", driver=f"echo '{H100}, 81559, 9.0'")  # one without a name
    assert here()[1] == find("h100")


def test_the_first_gpu_that_may_be_seen_is_taken(put: Put) -> None:
    for visible, name in (("all", "t4"), ("0", "t4"), ("1,0", "h100"), ("GPU-5f1c", "t4")):
        put("Tesla T4", H100, visible=visible)
        assert here()[1] == find(name), visible


def test_what_was_probed_is_taken(put: Put) -> None:
    rates = toy.rates(kind="cuda", name=H100)
    put("Tesla T4", H100, probed=rates)
    assert here()[1:3] == (find("h100"), rates)


@pytest.mark.parametrize(
    "how", [{"visible": ""}, {"visible": "-1"}, {"visible": "1"}, {"torch": "2.9.1+cpu"}, {"probed": toy.rates()}]
)
def test_a_gpu_that_a_run_would_not_take_is_told(put: Put, how: dict[str, str]) -> None:
    put(H100, **how)
    found, device, _, told = here()
    assert (found.device, found.memory, device) == ("cpu", memory(), None)
    assert len(told) == 1 and told[0].startswith(f"{H100} is here, but a run would take the processor")


def test_a_machine_without_a_gpu_is_its_processor(put: Put) -> None:
    put()
    found, device, rates, told = here()
    assert (found.device, found.memory, device, rates, told) == ("cpu", memory(), None, None, [])


@pytest.mark.parametrize("installed", [True, False])
def test_bitsandbytes_is_looked_for_here_and_taken_for_granted_elsewhere(
    put: Put, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_bitsandbytes", lambda: installed)
    put()
    assert here()[0].eight_bit is installed
    put(H100)
    assert here()[0].eight_bit is installed
    put(UNKNOWN, driver=f"echo '{UNKNOWN}, 16384, 7.0'")
    assert here()[0].eight_bit is installed
    assert machine_of(find("h100")).eight_bit and machine_of(find("laptop")).eight_bit


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from tunesmith.plan.here import here; here()\n"
        "print(*sorted({'torch', 'bitsandbytes', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""
