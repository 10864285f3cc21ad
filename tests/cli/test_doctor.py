"""doctor: every line has a level and, unless it is ok, a way out."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tunesmith.cli.doctor import _disk, _libraries, version

Cli = Callable[..., Result]


def test_doctor_tells_about_everything_and_its_exit_code_follows(cli: Cli) -> None:
    done = cli("doctor", "--json")
    told = json.loads(done.stdout)
    subjects = {f["subject"] for f in told["findings"]}
    assert {
        "python",
        "libraries",
        "processor",
        "memory",
        "workspace",
        "torch",
        "accelerator",
        "bundled model",
    } <= subjects
    failed = [f for f in told["findings"] if f["level"] == "fail"]
    assert (told["ok"], done.exit_code) == (not failed, 2 if failed else 0)
    assert [f for f in told["findings"] if f["level"] != "ok" and not f["fix"]] == []
    lines = cli("doctor")
    assert lines.exit_code == done.exit_code
    assert "python" in lines.stdout


def test_the_bundled_model_is_whole(cli: Cli) -> None:
    told = {f["subject"]: f for f in json.loads(cli("doctor", "--json").stdout)["findings"]}
    assert told["bundled model"]["level"] == "ok", told["bundled model"]


def test_each_library_is_compared_with_the_minimum_of_the_package() -> None:
    (line,) = list(_libraries())
    for name in ("torch", "transformers", "pydantic", "typer"):
        assert f"{name} " in line.found
    assert "pytest" not in line.found


def test_a_workspace_that_does_not_exist_yet_is_fine_and_a_file_is_not(tmp_path: Path) -> None:
    assert next(_disk(tmp_path / "a" / "b")).level == "ok"
    (tmp_path / "file").write_text("")
    finding = next(_disk(tmp_path / "file"))
    assert (finding.level, finding.fix) == ("fail", "Give a folder that you may write with --runs.")


@pytest.mark.parametrize(
    ("found", "least"), [("2.13.0+cpu", "2.11"), ("0.22", "0.22"), ("10.0", "9.9.9"), ("5.23.0", "5.17")]
)
def test_versions(found: str, least: str) -> None:
    assert version(found) >= version(least)
    assert not version(least) > version(found)
