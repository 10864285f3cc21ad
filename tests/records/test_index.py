import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.core import noun
from tunesmith.core.errors import DataError
from tunesmith.core.run import Run
from tunesmith.records.index import MIGRATIONS, Index


def make(name: str, **fields: object) -> Run:
    values: dict[str, object] = {
        "id": name,
        "folder": f"runs/{name}",
        "status": "done",
        "task": "generate",
        "model": "bundled",
        "method": "lora",
        "created": f"{name[:4]}-{name[4:6]}-{name[6:8]}T10:00:{name[-2:]}Z",
        "recipe_hash": "ab" * 8,
        "metric": "exact_match",
        "score": 0.5,
    }
    return Run.model_validate(values | fields)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    for k in range(11):
        make(f"20260301-1000{k:02d}").save(tmp_path / "runs" / f"20260301-1000{k:02d}" / "run.json")
    index = Index.open(tmp_path)
    index.put(make("20260301-100011"))
    assert index.notices == []
    return tmp_path


def names(index: Index) -> list[str]:
    return [run.id for run in index.all()]


NEWEST_FIRST = [f"20260301-1000{k:02d}" for k in reversed(range(12))]


def test_all_is_newest_first_and_rows_equal_the_files(workspace: Path) -> None:
    index = Index.open(workspace)
    assert names(index) == NEWEST_FIRST
    for run in index.all():
        saved = Run.load(workspace / "runs" / run.id / "run.json")
        assert run == saved.model_copy(update={"folder": str(workspace / "runs" / run.id)})


def test_rows_are_read_from_the_index_and_not_again_from_the_files(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noun.Noun, "load", lambda *_: pytest.fail("read a run.json that had not changed"))
    assert names(Index.open(workspace)) == NEWEST_FIRST


def test_get_by_id_and_by_unique_prefix(workspace: Path) -> None:
    index = Index.open(workspace)
    index.put(make("20260302-000001"))
    assert index.get("20260302").id == "20260302-000001"
    assert index.get("20260301-100003").id == "20260301-100003"
    index.put(make("20260302-00000123"))
    assert index.get("20260302-000001").id == "20260302-000001", "an exact id wins over longer ones"


def test_get_says_what_is_wrong(workspace: Path) -> None:
    index = Index.open(workspace)
    with pytest.raises(DataError, match=r"start of 12 runs: 20260301-100011, .*\.\.\."):
        index.get("2026")
    with pytest.raises(DataError, match=r'Did you mean "20260301-10000\d"\? The newest is 20260301-100011'):
        index.get("20260301-10x003")
    with pytest.raises(DataError, match="No run called"):
        index.get("")


def test_get_in_an_empty_workspace(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty"):
        Index.open(tmp_path).get("a")


def test_a_new_folder_appears_a_deleted_one_disappears_and_a_changed_file_wins(workspace: Path) -> None:
    index = Index.open(workspace)
    make("20260303-000007").save(workspace / "runs" / "20260303-000007" / "run.json")
    (workspace / "runs" / "20260301-100004" / "run.json").unlink()
    make("20260301-100005", status="failed").save(workspace / "runs" / "20260301-100005" / "run.json")
    assert names(index) == ["20260303-000007", *(n for n in NEWEST_FIRST if n != "20260301-100004")]
    assert index.get("20260301-100005").status == "failed"
    with sqlite3.connect(index.path) as db:
        assert db.execute("SELECT count(*) FROM runs").fetchone() == (12,)
    db.close()


def test_a_copied_folder_is_a_run_of_its_own(workspace: Path) -> None:
    copy = workspace / "runs" / "copy"
    copy.mkdir()
    (copy / "run.json").write_bytes((workspace / "runs" / NEWEST_FIRST[0] / "run.json").read_bytes())
    run = Index.open(workspace).get("copy")
    assert (run.id, run.folder) == ("copy", str(copy))


def test_a_moved_workspace_knows_its_new_place(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    moved = workspace.rename(tmp_path_factory.mktemp("else") / "where")
    assert Index.open(moved).get(NEWEST_FIRST[0]).folder == str(moved / "runs" / NEWEST_FIRST[0])


def test_temporary_and_unfinished_folders_are_no_runs(workspace: Path) -> None:
    (workspace / "runs" / "20260301-999999").mkdir()
    (workspace / "runs" / "stray.txt").write_text("x")
    make("20260301-100099").save(workspace / "runs" / ".tmp-x-1234" / "run.json")
    index = Index.open(workspace)
    assert names(index) == NEWEST_FIRST and index.notices == []


def test_a_folder_with_an_undecodable_name_is_told(workspace: Path) -> None:
    bad = os.fsencode(workspace / "runs") + b"/\xff\x1b[2J"
    os.mkdir(bad)  # noqa: PTH102
    (Path(os.fsdecode(bad)) / "run.json").write_bytes((workspace / "runs" / NEWEST_FIRST[0] / "run.json").read_bytes())
    index = Index.open(workspace)
    assert names(index) == NEWEST_FIRST
    assert "\\udcff\\x1b" in index.notices[0]


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b'{"id": "a"}', b'{"id": "\\ud800"}'])
def test_a_damaged_run_file_is_named_and_the_others_stay(workspace: Path, damage: bytes) -> None:
    (workspace / "runs" / NEWEST_FIRST[3] / "run.json").write_bytes(damage)
    index = Index.open(workspace)
    assert names(index) == [n for n in NEWEST_FIRST if n != NEWEST_FIRST[3]]
    assert len(index.notices) == 1 and NEWEST_FIRST[3] in index.notices[0]


def test_deleting_the_index_loses_nothing(workspace: Path) -> None:
    for path in (workspace / ".tunesmith").iterdir():
        path.unlink()
    assert names(Index.open(workspace)) == NEWEST_FIRST


def check_after_damage(workspace: Path, truth: list[Run]) -> bool:
    """Nothing is missing after damage; the file is whole again. Returns whether it was set aside."""
    index = Index.open(workspace)
    assert index.all() == truth
    assert all("Set aside" in sentence and "made again" in sentence for sentence in index.notices), index.notices
    again = Index.open(workspace)
    assert again.all() == truth and again.notices == []
    aside = list((workspace / ".tunesmith").glob("index.db.corrupt-*"))
    assert bool(aside) == bool(index.notices)
    for path in aside:
        path.unlink()
    return bool(aside)


def test_flipped_bytes_lose_nothing(workspace: Path) -> None:
    index = Index.open(workspace)
    truth, whole = index.all(), index.path.read_bytes()
    rng = random.Random(7)
    header = list(range(0, 112, 4))
    aside = 0
    for position in [*header, *(rng.randrange(len(whole)) for _ in range(60))]:
        bad = bytearray(whole)
        bad[position] ^= rng.randrange(1, 256)
        index.path.write_bytes(bytes(bad))
        if int.from_bytes(bad[60:64], "big") > len(MIGRATIONS):
            continue  # reads as a newer schema, tested below
        aside += check_after_damage(workspace, truth)
    assert aside >= 5


def test_many_flipped_bytes_and_noise_lose_nothing(workspace: Path) -> None:
    index = Index.open(workspace)
    truth, whole = index.all(), index.path.read_bytes()
    rng = random.Random(8)
    for _ in range(15):
        bad = bytearray(whole)
        for _ in range(200):
            bad[rng.randrange(100, len(bad))] = rng.randrange(256)
        index.path.write_bytes(bytes(bad))
        check_after_damage(workspace, truth)
    index.path.write_bytes(rng.randbytes(9000))
    assert check_after_damage(workspace, truth)


@pytest.mark.parametrize("keep", [0, 1, 50, 100, 512, 4095, 4096, 4097, 8192, 12000])
def test_truncation_loses_nothing(workspace: Path, keep: int) -> None:
    index = Index.open(workspace)
    truth, whole = index.all(), index.path.read_bytes()
    assert len(whole) > keep
    index.path.write_bytes(whole[:keep])
    check_after_damage(workspace, truth)


def test_garbage_in_the_write_ahead_log_loses_nothing(workspace: Path) -> None:
    index = Index.open(workspace)
    truth = index.all()
    index.path.with_name("index.db-wal").write_bytes(random.Random(1).randbytes(5000))
    index.path.with_name("index.db-shm").write_bytes(random.Random(2).randbytes(32768))
    check_after_damage(workspace, truth)


def test_a_lying_row_is_read_again_from_its_file(workspace: Path) -> None:
    index = Index.open(workspace)
    truth = index.all()
    with sqlite3.connect(index.path) as db:
        db.execute("UPDATE runs SET document = replace(document, '0.5', '0.9')")
    db.close()
    assert Index.open(workspace).all() == truth


@pytest.mark.parametrize("version", [len(MIGRATIONS) + 1, 9999])
def test_a_newer_schema_is_left_alone(workspace: Path, version: int) -> None:
    path = Index.open(workspace).path
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {version}")
    db.close()
    before = path.read_bytes()
    index = Index.open(workspace)
    assert names(index) == NEWEST_FIRST
    assert f"version {version}" in index.notices[0]
    assert path.read_bytes() == before


def test_an_index_that_cannot_be_written_is_replaced_in_memory(workspace: Path) -> None:
    index = Index.open(workspace)
    for path in (workspace / ".tunesmith").iterdir():
        path.unlink()
    (workspace / ".tunesmith").rmdir()
    (workspace / ".tunesmith").write_text("a file stands in the way")
    assert names(index) == NEWEST_FIRST
    assert "run folders were read instead" in index.notices[0]
    index.put(make("20260305-000001"))
    assert names(index)[0] == "20260305-000001"


def test_a_busy_index_does_not_stop_the_answer(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.records.index.BUSY_SECONDS", 0.05)
    index = Index.open(workspace)
    holder = sqlite3.connect(index.path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        index.put(make("20260305-000001"))
        assert names(index) == ["20260305-000001", *NEWEST_FIRST]
        assert "locked" in index.notices[0]
    finally:
        holder.close()
    assert not list((workspace / ".tunesmith").glob("*.corrupt-*"))


WRITER = """
import sys
from pathlib import Path
from tunesmith.core.run import Run
from tunesmith.records.index import Index
workspace, who = Path(sys.argv[1]), sys.argv[2]
index = Index.open(workspace)
for k in range(10):
    index.put(Run(id=f"{who}-{k:02d}", folder="", status="done", task="generate", model="m", method="lora",
                  created=f"2026-03-01T11:00:{k:02d}Z", recipe_hash="0" * 16))
assert index.notices == [], index.notices
"""


def test_three_processes_write_one_index(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), who], env=os.environ) for who in "abc"]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    index = Index.open(tmp_path)
    assert sorted(names(index)) == sorted(f"{who}-{k:02d}" for who in "abc" for k in range(10))
    assert index.notices == []
