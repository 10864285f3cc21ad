"""runs, show and chat: what the index knows, and sentences where it does not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from sample_run import a_run

Cli = Callable[..., Result]


def test_no_runs_yet(cli: Cli) -> None:
    done = cli("runs")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "No runs in" in done.stderr
    assert json.loads(cli("runs", "--json").stdout) == []


def test_runs_are_listed_newest_first(cli: Cli, tmp_path: Path) -> None:
    a_run(tmp_path / "w", "20260301-141501-aaaaaa")
    a_run(tmp_path / "w", "20260301-141502-bbbbbb", verdict=None)
    rows = json.loads(cli("runs", "--runs", "w", "--json").stdout)
    assert [(row["id"][-6:], row["verdict"], row["status"]) for row in rows] == [
        ("bbbbbb", None, "failed"),
        ("aaaaaa", "SHIP", "done"),
    ]
    table = cli("runs", "--runs", "w")
    assert table.exit_code == 0, table.output
    assert "SHIP" in table.stdout


def test_show_prints_the_report(cli: Cli, tmp_path: Path) -> None:
    a_run(tmp_path, "20260301-141501-aaaaaa", verdict="HOLD")
    assert json.loads(cli("show", "20260301", "--json").stdout)["verdict"]["decision"] == "HOLD"
    done = cli("show", "20260301")
    assert done.exit_code == 0, done.output
    assert "HOLD" in done.stdout
    assert "report.html" in done.stdout.replace("\n", "")


def test_show_names_what_is_missing(cli: Cli, tmp_path: Path) -> None:
    run = a_run(tmp_path, "20260301-141501-aaaaaa", verdict=None)
    done = cli("show", run.id)
    assert done.exit_code == 2
    assert "has no result: its status is failed (the disk was full)." in done.stderr
    whole = a_run(tmp_path, "20260301-141502-bbbbbb")
    Path(whole.folder, "report.json").write_text("{}")
    broken = cli("show", whole.id)
    assert broken.exit_code == 2
    assert "report.json cannot be read" in broken.stderr


@pytest.mark.parametrize("verb", ["show", "chat"])
def test_an_unknown_run_is_a_sentence(cli: Cli, tmp_path: Path, verb: str) -> None:
    done = cli(verb, "nothing")
    assert done.exit_code == 2
    assert 'No run called "nothing"' in done.stderr
    a_run(tmp_path, "20260301-141501-aaaaaa")
    near = cli(verb, "20260301-141501-aaaaab")
    assert 'Did you mean "20260301-141501-aaaaaa"?' in near.stderr


def test_a_run_that_did_not_end_well_shows_no_verdict_even_where_a_report_lies(cli: Cli, tmp_path: Path) -> None:
    run = a_run(tmp_path / "w", "20260301-141501-aaaaaa")
    (Path(run.folder) / "report.json").write_text("{}")
    failed = run.model_copy(update={"status": "failed", "error": "no space left"})
    failed.save(Path(run.folder) / "run.json")
    done = cli("show", run.id, "--runs", "w")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "its status is failed (no space left)" in done.stderr


@pytest.mark.parametrize("words", [("runs",), ("show", "x"), ("chat", "x", "--prompt", "hello")])
def test_looking_writes_nothing_and_a_mistyped_workspace_is_a_sentence(
    cli: Cli, tmp_path: Path, words: tuple[str, ...]
) -> None:
    done = cli(*words, "--runs", "nowhere")
    assert done.exit_code == 2
    assert "--runs nowhere is no folder" in done.stderr
    (tmp_path / "empty").mkdir()
    cli(*words, "--runs", "empty")
    assert not (tmp_path / "nowhere").exists()
    assert not list((tmp_path / "empty").iterdir())
