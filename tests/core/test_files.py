"""Whole or not at all: atomic files, published folders, verification, and what kill -9 leaves behind.

Notable: the kill tests run a real process and stop it with SIGKILL at every system call of a publication in turn.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core import files
from tunesmith.core.errors import DataError, DiskError


def fill(folder: Path, text: str) -> None:
    with files.publish(folder) as temporary:
        (temporary / "a.txt").write_text(text)
        (temporary / "below").mkdir()
        (temporary / "below" / "b.txt").write_text(text * 100)


def content(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*.txt")}


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "x.txt"
    files.write_text(path, "one")
    files.write_text(path, "two é\ud800")
    assert path.read_bytes() == "two é".encode() + b"\xed\xa0\x80"
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]


def test_a_published_folder_has_a_manifest_of_every_file_and_verifies(tmp_path: Path) -> None:
    fill(tmp_path / "out", "one")
    manifest = json.loads((tmp_path / "out" / files.MANIFEST).read_text())["files"]
    assert set(manifest) == {"a.txt", "below/b.txt"}
    assert manifest["a.txt"] == {"bytes": 3, "sha256": files.sha256(tmp_path / "out" / "a.txt")}
    files.verify(tmp_path / "out")
    fill(tmp_path / "out", "two")
    files.verify(tmp_path / "out")
    assert content(tmp_path / "out") == {"a.txt": "two", "below/b.txt": "two" * 100}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_body_that_raises_publishes_nothing_and_keeps_the_old(tmp_path: Path, error: type[BaseException]) -> None:
    fill(tmp_path / "out", "old")
    with pytest.raises(error), files.publish(tmp_path / "out") as temporary:
        (temporary / "a.txt").write_text("new")
        raise error
    with pytest.raises(error), files.publish(tmp_path / "fresh"):
        raise error
    assert content(tmp_path / "out")["a.txt"] == "old"
    files.verify(tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


Damage = Callable[[Path], object]


@pytest.mark.parametrize(("damage", "said"), [
    (lambda f: (f / "a.txt").unlink(), "a.txt is named in MANIFEST.json and missing"),
    (lambda f: (f / "a.txt").write_text("onf"), "a.txt is damaged: found sha256"),
    (lambda f: (f / "below" / "b.txt").write_text("one"), "b.txt is damaged: found 3 bytes, expected 300 bytes"),
    (lambda f: (f / files.MANIFEST).unlink(), "has no MANIFEST.json: it was not published whole"),
    (lambda f: (f / files.MANIFEST).write_text("{"), "MANIFEST.json is damaged"),
    (lambda f: (f / files.MANIFEST).write_text("[]"), "MANIFEST.json is damaged"),
])  # fmt: skip
def test_verify_names_the_first_fault_and_the_way_out(tmp_path: Path, damage: Damage, said: str) -> None:
    fill(tmp_path / "out", "one")
    damage(tmp_path / "out")
    with pytest.raises(DataError, match=said.replace(".", r"\.")) as caught:
        files.verify(tmp_path / "out")
    assert "Use an older " in str(caught.value)


def test_a_place_that_cannot_be_written_is_a_disk_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for write in (lambda p: files.write_text(p, "x"), lambda p: fill(p, "x")):
        with pytest.raises(DiskError, match=r"^Cannot write .*file/out: (Not a directory|File exists)\. Free space or"):
            write(tmp_path / "file" / "out")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_a_disk_error_and_the_old_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.txt"
    files.write_text(path, "old")
    monkeypatch.setattr(files, "_temporary", lambda final: Path("/dev/full"))
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with pytest.raises(DiskError, match=r"No space left on device"):
        files.write_text(path, "new")
    assert path.read_text() == "old"


def test_sweep_removes_what_interrupted_writes_left_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".tmp-out-12ab").mkdir()
    (tmp_path / ".tmp-out-12ab" / "a.txt").write_text("half")
    (tmp_path / ".tmp-x.json-9f").write_text("half")
    fill(tmp_path / "out", "one")
    fill(tmp_path / ".tmp-out-77", "whole, and its place is taken")
    (tmp_path / ".tmp-").write_text("")
    assert files.sweep(tmp_path) == 4
    assert content(tmp_path / "out")["a.txt"] == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert files.sweep(tmp_path / "gone") == 0


KILLED = """
import os, sys, signal
from pathlib import Path
from tunesmith.core import files
count, limit = 0, int(sys.argv[2])
def counted(event, _arguments):
    global count
    if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"):
        count += 1
        if count == limit:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(counted)
with files.publish(Path(sys.argv[1])) as temporary:
    (temporary / "a.txt").write_text("new")
    (temporary / "b.txt").write_text("new")
print(count)
"""


def test_kill_9_at_every_step_leaves_the_old_folder_or_the_new_one(tmp_path: Path) -> None:
    seen: set[str] = set()
    at = 1
    while True:
        out = tmp_path / f"at{at}" / "out"
        with files.publish(out) as temporary:
            (temporary / "a.txt").write_text("old")
        done = subprocess.run([sys.executable, "-c", KILLED, str(out), str(at)], capture_output=True, check=False)
        files.sweep(out.parent)  # as the next holder of the run's lock does
        files.verify(out)
        found = content(out)
        assert found in ({"a.txt": "old"}, {"a.txt": "new", "b.txt": "new"}), at
        assert [p.name for p in out.parent.iterdir()] == ["out"], at
        seen.add(found["a.txt"])
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        at += 1
    assert seen == {"old", "new"}
    assert at > 10


def test_every_file_of_a_published_folder_may_be_read_by_whoever_may_read_the_folder(tmp_path: Path) -> None:
    with files.publish(tmp_path / "adapter") as folder:
        (folder / "weights").write_bytes(b"1")
        (folder / "weights").chmod(0o600)
    folder_mode = (tmp_path / "adapter").stat().st_mode & 0o666
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "adapter").iterdir()} == {folder_mode}


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every sync and every rename, in order, by the name of what it was done to."""
    seen: list[tuple[str, str]] = []
    own_sync = os.fsync

    def sync(handle: int) -> None:
        seen.append(("sync", Path(f"/proc/self/fd/{handle}").readlink().name.partition("-")[0]))
        own_sync(handle)

    def renamed(own: Any) -> Any:
        def rename(path: Path, target: Path) -> Path:
            seen.append(("rename", Path(target).name))
            return own(path, target)  # type: ignore[no-any-return]

        return rename

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", renamed(Path.replace))
    monkeypatch.setattr(Path, "rename", renamed(Path.rename))
    return seen


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_a_file_is_synced_before_its_rename_and_its_folder_after_it(tmp_path: Path, order: list[Any]) -> None:
    files.write_bytes(tmp_path / "a.json", b"1")
    assert order == [("sync", ".tmp"), ("rename", "a.json"), ("sync", tmp_path.name.partition("-")[0])]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_a_folder_is_synced_file_by_file_then_its_manifest_then_itself_and_its_parent_after_the_rename(
    tmp_path: Path, order: list[Any]
) -> None:
    with files.publish(tmp_path / "adapter") as folder:
        (folder / "sub").mkdir()
        (folder / "a").write_bytes(b"1")
        (folder / "sub" / "b").write_bytes(b"2")
    parent = tmp_path.name.partition("-")[0]
    synced = [*(("sync", name) for name in ("a", "b", "MANIFEST.json", "sub", ".tmp"))]
    assert order == [*synced, ("rename", "adapter"), ("sync", parent)]


def _failing(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """The rename that is ``at``-th from now fails as it does on a disk that fails."""
    own, count = Path.rename, 0

    def rename(path: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return own(path, target)

    monkeypatch.setattr(Path, "rename", rename)


@pytest.mark.parametrize("at", [1, 2])
def test_a_rename_that_fails_leaves_the_old_folder_in_its_place_without_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    fill(tmp_path / "out", "old")
    _failing(monkeypatch, at)
    with pytest.raises(DiskError, match=r"^Cannot write .*out: Input/output error\."):
        fill(tmp_path / "out", "new")
    files.verify(tmp_path / "out")
    assert content(tmp_path / "out")["a.txt"] == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_disk_that_is_full_in_the_body_is_a_disk_error_and_a_missing_file_is_not(tmp_path: Path) -> None:
    with (
        pytest.raises(DiskError, match=r"^Cannot write .*out: No space left on device\."),
        files.publish(tmp_path / "out"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(FileNotFoundError), files.publish(tmp_path / "out"):
        (tmp_path / "source").read_bytes()
    assert list(tmp_path.iterdir()) == []


def _refused(*_: Any, **__: Any) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_what_cannot_be_deleted_stays_for_the_next_sweep_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".tmp-out-1").mkdir()
    (tmp_path / ".tmp-x.json-2").write_text("half")
    with monkeypatch.context() as patch:
        for name in ("rmdir", "unlink"):
            patch.setattr(os, name, _refused)
        assert files.sweep(tmp_path) == 2
        fill(tmp_path / "gone", "one")
        with pytest.raises(DiskError, match=r"^Cannot delete .*gone: Input/output error\."):
            files.remove(tmp_path / "gone")
    assert files.sweep(tmp_path) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["gone"]  # whole, so the sweep put it back


def test_a_folder_that_cannot_be_read_is_not_swept_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "out", "one")
    (tmp_path / "out").rename(tmp_path / ".tmp-out-1")
    with monkeypatch.context() as patch:
        patch.setattr(files, "sha256", _refused)
        with pytest.raises(DiskError, match=r"^Cannot sweep .*: Input/output error\."):
            files.sweep(tmp_path)
    files.sweep(tmp_path)
    assert content(tmp_path / "out")["a.txt"] == "one"


@pytest.mark.parametrize(
    "entries", [[], {"a.txt": 1}, {"a.txt": {"bytes": 3}}, {"a.txt": {"bytes": "x", "sha256": ""}}]
)
def test_a_manifest_of_another_shape_is_damaged(tmp_path: Path, entries: Any) -> None:
    fill(tmp_path / "out", "one")
    (tmp_path / "out" / files.MANIFEST).write_text(json.dumps({"files": entries}))
    with pytest.raises(DataError, match=r"MANIFEST\.json is damaged"):
        files.verify(tmp_path / "out")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_each_folder_that_is_made_on_the_way_is_synced_into_the_one_above(tmp_path: Path, order: list[Any]) -> None:
    parent = tmp_path.name.partition("-")[0]
    files.make_folder(tmp_path / "runs" / "one")
    assert order == [("sync", parent), ("sync", "runs")]
    files.make_folder(tmp_path / "runs" / "one")
    assert len(order) == 2


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_what_was_replaced_is_deleted_only_after_the_new_place_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: list[Any]
) -> None:
    fill(tmp_path / "out", "old")
    order.clear()
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: order.append(("delete", "")))
    fill(tmp_path / "out", "new")
    parent = tmp_path.name.partition("-")[0]
    assert order[-4:-1] == [("rename", "out"), ("sync", parent), ("delete", "")]
