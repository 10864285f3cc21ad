"""A share of the faults, and protocols that are wrong on purpose, in which the same checks have to find something."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults import flips, matrix, points, power, table
from tests.faults.outcome import Outcome
from tests.faults.scenarios import SCENARIOS
from tests.faults.suites import SMOKE, SUITES

from tunesmith.core import files
from tunesmith.core.errors import DataError

reason = points.available()
traced = pytest.mark.skipif(bool(reason), reason=reason or "strace is there")


@traced
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_share_of_the_faults_breaks_no_promise(name: str) -> None:
    outcome = matrix.run(name, share=SMOKE)
    assert outcome.violations == []
    assert outcome.n > 0


@traced
@pytest.mark.parametrize(("protocol", "name", "call", "said"), [
    ("in_place", "data", "write", "holds 0 bytes of no version that was written"),
    ("in_place", "over", "write", "state.safetensors is damaged"),
    ("delete_first", "adapter", "rename", "the newest is '', expected 'new' or 'old'"),
    ("no_manifest", "rows", "mkdir", "has no MANIFEST.json"),
    ("bare_errors", "data", "fsync", "stderr: OSError"),
])  # fmt: skip
def test_the_checks_find_a_protocol_that_is_wrong(protocol: str, name: str, call: str, said: str) -> None:
    outcome = matrix.run(name, only=(call,), broken=protocol)
    assert any(said in violation for violation in outcome.violations), outcome.violations


@traced
@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_renamed_or_deleted_that_power_loss_would_take(name: str) -> None:
    said, checked = power.look(name)
    assert said == []
    assert checked > 0


@traced
@pytest.mark.parametrize(("protocol", "name", "said"), [
    ("no_sync", "data", "train.jsonl is not synced at the end (write)"),
    ("no_sync", "first", "state.json is not synced (chmod) when it is renamed to checkpoints/step-000000001"),
    ("no_sync", "rotate", "is deleted while checkpoints is not synced"),
    ("delete_early", "adapter", "adapter_config.json is deleted while"),
])  # fmt: skip
def test_the_linter_finds_a_sync_that_is_missing(protocol: str, name: str, said: str) -> None:
    violations, _ = power.look(name, protocol)
    assert any(said in violation for violation in violations), violations


def test_a_write_after_its_sync_is_found() -> None:
    log = """
1  openat(AT_FDCWD</w>, "/w/.tmp-a-1", O_WRONLY|O_CREAT, 0666) = 3</w/.tmp-a-1>
1  write(3</w/.tmp-a-1>, ""..., 5) = 5
1  fsync(3</w/.tmp-a-1>) = 0
1  write(3</w/.tmp-a-1>, ""..., 5) = 5
1  rename("/w/.tmp-a-1", "/w/a") = 0
1  fsync(3</w>) = 0
"""
    said, checked = power.lint(log.splitlines())
    assert said[0] == "/w/.tmp-a-1 is not synced (write) when it is renamed to /w/a"
    assert checked == 1
    lines = log.splitlines()
    assert power.lint([*lines[:4], *lines[5:]]) == ([], 1)


def test_every_damage_at_rest_is_found() -> None:
    outcome = flips.run()
    assert outcome.violations == []
    assert outcome.n >= 200


def test_a_verification_of_sizes_alone_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def sizes(folder: Path) -> None:
        if not all((folder / name).is_file() for name in ("state.safetensors", files.MANIFEST)):
            raise DataError(f"{folder} lacks a file.")

    monkeypatch.setattr(files, "verify", sizes)
    violations = flips.run(share=9).violations
    assert any("verifies, and something else is loaded" in violation for violation in violations)


def test_the_page_has_its_marks_and_names_every_suite_and_no_other() -> None:
    page = table.PAGE.read_text(encoding="utf-8")
    assert page.count(table.BEGIN) == page.count(table.END) == 1
    listed = page.partition("## The list of faults")[2]
    assert set(re.findall(r"`(flips|power|(?:matrix|run)-[a-z]+)`", listed)) == set(SUITES)


def test_the_harness_imports_no_torch() -> None:
    found = "import sys, tests.faults.suites; print('torch' in sys.modules)"
    environment = points.ENVIRONMENT | {"PYTHONPATH": f"{points.ROOT}:{points.ROOT / 'src'}"}
    done = subprocess.run([sys.executable, "-c", found], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_table_counts_faults_only_and_replaces_what_stands_between_the_marks(tmp_path: Path) -> None:
    outcomes = [Outcome("a", "x", 3, ["v"], 1.0), Outcome("b", "nothing", 4, [], 1.0, faults=False)]
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.write(table.markdown(outcomes), page)
    assert page.read_text() == f"before\n{table.BEGIN}\n{table.markdown(outcomes)}\n{table.END}\nafter\n"
    assert "| all | faults | 3 | 1 | 2.0 |" in page.read_text()
    assert len(SUITES) > len(SCENARIOS)
