"""Checkpoints where the disk fails: a sentence, and what stood there stands there still."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunesmith.core.errors import DataError, DiskError
from tunesmith.records.checkpoints import Checkpoints


def save(checkpoints: Checkpoints, step: int) -> None:
    checkpoints.save(step, lambda folder: (folder / "state.json").write_text(f"{step}") and None)


def test_the_newest_are_kept_and_the_newest_is_taken(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest(pytest.fail) is None
    for step in (1, 5, 30):
        save(checkpoints, step)
    assert [step for step, _ in checkpoints.all()] == [30, 5]
    assert checkpoints.latest(pytest.fail) == tmp_path / "step-000000030"


def test_a_damaged_one_is_told_and_the_one_before_is_taken(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        save(checkpoints, step)
    (tmp_path / "step-000000002" / "state.json").write_text("3")
    told: list[str] = []
    assert checkpoints.latest(told.append) == tmp_path / "step-000000001"
    assert len(told) == 1
    assert told[0].startswith("step-000000002 is left out: ")
    with pytest.raises(DataError, match=r"Without --strict an older checkpoint would be taken\.$"):
        checkpoints.latest(told.append, strict=True)


def test_where_all_are_damaged_nothing_is_taken_without_a_word(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        save(checkpoints, step)
        (tmp_path / f"step-{step:09d}" / "state.json").unlink()
    told: list[str] = []
    with pytest.raises(DataError, match=r"^No checkpoint in .* is whole \(2 are damaged\)\. .*Start over: "):
        checkpoints.latest(told.append)
    assert len(told) == 2


def test_a_folder_that_cannot_be_listed_is_a_disk_error_and_costs_the_rotation_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        save(checkpoints, step)

    def refused(path: Path, pattern: str) -> Iterator[Path]:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "glob", refused)
        with pytest.raises(DiskError, match=r"^Cannot read .*: Input/output error\. Check the disk\.$"):
            checkpoints.latest(pytest.fail)
        checkpoints.rotate()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", lambda path: refused(path, ""))
        with pytest.raises(DiskError, match=r"^Cannot write .*step-000000003: Input/output error\."):
            save(checkpoints, 3)
    assert [step for step, _ in checkpoints.all()] == [3, 2, 1]
