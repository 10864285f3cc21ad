import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from tunesmith.core.errors import BusyError, DataError, DiskError
from tunesmith.core.recipe import DataRecipe, Recipe
from tunesmith.core.run import Run
from tunesmith.records.folder import RunFolder, as_it_stands, read_jsonl, status

RECIPE = Recipe(data=DataRecipe(train="a.jsonl"))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, RECIPE)


def running(folder: RunFolder) -> Run:
    return Run(
        id=folder.id,
        folder=str(folder.path),
        status="running",
        task="generate",
        model="m",
        method="lora",
        created="2026-03-01T10:00:00Z",
        recipe_hash="0" * 16,
    )


def test_the_id_is_utc_time_and_recipe_hash_and_never_taken_twice(tmp_path: Path) -> None:
    now = datetime(2026, 3, 1, 23, 30, 5, tzinfo=timezone(timedelta(hours=-2)))
    made = [RunFolder.create(tmp_path, RECIPE, now) for _ in range(3)]
    first = f"20260302-013005-{RECIPE.content_hash()[:6]}"
    assert [f.id for f in made] == [first, f"{first}-2", f"{first}-3"]
    assert all(f.path.parent == tmp_path / "runs" and f.path.is_dir() for f in made)
    other = RunFolder.create(tmp_path, RECIPE.model_copy(update={"model": "other"}), now)
    assert other.id != first and other.id.startswith("20260302-013005-")


def test_a_workspace_that_cannot_hold_runs_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(DiskError, match="Choose a writable workspace"):
        RunFolder.create(tmp_path, RECIPE)


def test_paths_are_those_of_the_design(folder: RunFolder) -> None:
    found = {p.name for p in vars(folder).values() if isinstance(p, Path)} - {folder.id}
    assert found == {
        "recipe.yaml", "resolved.json", "run.json", "metrics.jsonl", "data", "predictions", "adapter",
        "report.json", "report.html", "run.lock", "checkpoints", "origin.json", "proof.jsonl", "rollouts.jsonl",
    }  # fmt: skip


HOLDER = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from tunesmith.records.folder import RunFolder
    with RunFolder(Path(sys.argv[1])).lock():
        print("held", flush=True)
        sys.stdin.read()
""")


def start_holder(folder: RunFolder) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLDER, str(folder.path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def finish(process: "subprocess.Popen[str]") -> None:
    process.communicate(timeout=20)


def test_a_second_process_is_told_who_holds_the_run(folder: RunFolder) -> None:
    process = start_holder(folder)
    try:
        assert folder.is_locked()
        assert status(running(folder)) == "running"
        with (
            pytest.raises(BusyError, match=rf"Run {folder.id} is held by process {process.pid} on .+ since 20\d\d-"),
            folder.lock(),
        ):
            pass
    finally:
        finish(process)
    with folder.lock():
        assert json.loads(folder.lock_file.read_text())["pid"] == os.getpid()


def test_the_lock_dies_with_its_holder_and_the_run_shows_as_crashed(folder: RunFolder) -> None:
    process = start_holder(folder)
    process.send_signal(signal.SIGKILL)
    finish(process)
    assert not folder.is_locked()
    run = running(folder)
    assert status(run) == "crashed"
    told = as_it_stands(run).error or ""
    assert f"process {process.pid} ended without a word, last seen at " in told
    assert status(run.model_copy(update={"status": "done"})) == "done"
    with folder.lock():
        assert status(run) == "running"


def test_a_forked_worker_that_outlives_the_run_does_not_keep_the_lock(folder: RunFolder) -> None:
    script = textwrap.dedent("""
        import os, sys
        from pathlib import Path
        from tunesmith.records.folder import RunFolder
        with RunFolder(Path(sys.argv[1])).lock():
            if os.fork() == 0:
                sys.stdin.read()
                os._exit(0)
            print("forked", flush=True)
            os._exit(0)
    """)
    command = [sys.executable, "-c", script, str(folder.path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "forked\n"
        process.wait(timeout=20)
        with folder.lock():
            pass
    finally:
        finish(process)


def test_one_process_cannot_take_the_lock_twice_and_a_probe_does_not_disturb(folder: RunFolder) -> None:
    with folder.lock():
        assert folder.is_locked()
        with pytest.raises(BusyError), RunFolder(folder.path).lock():
            pass
        assert folder.is_locked(), "a failed attempt must not release the lock"
    assert not folder.is_locked()


def test_the_lock_is_released_when_the_body_raises(folder: RunFolder) -> None:
    with pytest.raises(ZeroDivisionError), folder.lock():
        _ = 1 / 0
    assert not folder.is_locked()


def test_taking_the_lock_sweeps_what_interrupted_writes_left(folder: RunFolder) -> None:
    (folder.path / ".tmp-adapter-1234").mkdir()
    folder.predictions.mkdir()
    (folder.predictions / ".tmp-tuned.jsonl-1234").write_text("half")
    (folder.predictions / "tuned.jsonl").write_text("whole")
    with folder.lock():
        assert {p.name for p in folder.path.iterdir()} == {"run.lock", "predictions"}
        assert {p.name for p in folder.predictions.iterdir()} == {"tuned.jsonl"}


def test_logs_read_back_in_order(folder: RunFolder) -> None:
    rows = [{"step": k, "loss": 1 / (k + 1), "text": 'ü "\n'} for k in range(5)]
    for row in rows:
        folder.append_metric(row)
    assert read_jsonl(folder.metrics) == rows
    assert read_jsonl(folder.path / "absent.jsonl") == []


def test_every_torn_tail_is_tolerated_and_the_next_line_is_whole(folder: RunFolder) -> None:
    folder.append_metric({"step": 1})
    whole = folder.metrics.read_bytes()
    second = '{"step": 2, "text": "ü"}\n'.encode()
    for cut in range(1, len(second) - 1):
        folder.metrics.write_bytes(whole + second[:cut])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_jsonl(folder.metrics) == [{"step": 1}]
        folder.append_metric({"step": 3})
        with pytest.warns(UserWarning, match="left out damaged lines 2"):
            assert read_jsonl(folder.metrics) == [{"step": 1}, {"step": 3}]


def test_a_log_that_is_no_file_is_a_sentence(folder: RunFolder) -> None:
    folder.metrics.mkdir()
    with pytest.raises(DataError, match="Check that it is a readable file"):
        read_jsonl(folder.metrics)


def test_a_log_that_cannot_be_written_is_told_once_and_training_goes_on(folder: RunFolder) -> None:
    folder.metrics.symlink_to("/dev/full")
    with pytest.warns(UserWarning, match="Cannot write .*metrics.jsonl") as seen:
        for k in range(3):
            folder.append_metric({"step": k})
    assert len(seen) == 1
    assert folder.trouble is not None and folder.trouble.errno in (errno.ENOSPC, errno.ESPIPE, errno.EINVAL)


def test_a_lone_surrogate_in_a_log_line_does_not_stop_the_run(folder: RunFolder) -> None:
    folder.append_metric({"text": "a\ud800b"})
    assert len(read_jsonl(folder.metrics)) == 1
