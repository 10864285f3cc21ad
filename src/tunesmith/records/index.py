"""The index of runs: one small SQLite file that may vanish at any time.

Notable: the run folders are the truth. Each row carries the stamp of the ``run.json`` it was read from and a
checksum of itself, and every question first brings the table in line with the folders. So there is no separate
rebuild: an empty table fills itself, a damaged file is set aside as ``index.db.corrupt-<time>``, and a file that
cannot be used at all (read-only, busy, newer schema) is replaced by one in memory. What happened is told in
``notices``.
"""

import contextlib
import hashlib
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import ValidationError

from tunesmith.core.errors import DataError, did_you_mean
from tunesmith.core.run import Run
from tunesmith.records.folder import RUNS

T = TypeVar("T")

BUSY_SECONDS = 5.0
UNUSABLE = (
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_READONLY",
    "SQLITE_CANTOPEN",
    "SQLITE_FULL",
    "SQLITE_IOERR",
    "SQLITE_PERM",
)


def _runs_table(db: sqlite3.Connection) -> None:
    db.execute(
        "CREATE TABLE runs (id TEXT PRIMARY KEY, stamp TEXT NOT NULL, document TEXT NOT NULL, checksum TEXT NOT NULL)"
    )


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_runs_table,)


class _Newer(sqlite3.Error):
    """The file was written by a later version of the program."""


class Index:
    """All runs of one workspace. ``notices`` holds sentences about what had to be mended or left out, oldest first."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.path = workspace / ".tunesmith" / "index.db"
        self.notices: list[str] = []

    @classmethod
    def open(cls, workspace: Path) -> Self:
        """The index of ``workspace`` (the folder that contains ``runs/``), in line with the run folders."""
        index = cls(workspace)
        index.all()
        return index

    def put(self, run: Run) -> None:
        """Write ``runs/<id>/run.json`` durably, then its row. Raises DiskError when the file cannot be written."""
        run.save(self.workspace / RUNS / run.id / "run.json")
        self._use(self._reconcile)

    def get(self, name: str) -> Run:
        """The run with this id, or the only one whose id starts with ``name``.

        Raises DataError: unknown (with the nearest id) or ambiguous (with the candidates).
        """
        runs = {run.id: run for run in self.all()}
        if name in runs:
            return runs[name]
        matches = [key for key in runs if name and key.startswith(name)]
        if len(matches) == 1:
            return runs[matches[0]]
        if matches:
            shown = ", ".join(matches[:5]) + (", ..." if len(matches) > 5 else "")
            raise DataError(f'"{name}" is the start of {len(matches)} runs: {shown}. Give more of the id.')
        if not runs:
            raise DataError(
                f'No run called "{name}": {self.workspace / RUNS} is empty. Start one with tunesmith run RECIPE.'
            )
        newest = next(iter(runs))
        raise DataError(
            f'No run called "{name}".{did_you_mean(name, runs)} The newest is {newest}; tunesmith runs lists them all.'
        )

    def all(self) -> list[Run]:
        """Every run whose folder exists, newest first."""
        runs = self._use(self._reconcile)
        return sorted(runs.values(), key=lambda run: (run.created, run.id), reverse=True)

    def _reconcile(self, db: sqlite3.Connection) -> dict[str, Run]:
        rows = {row[0]: row for row in db.execute("SELECT id, stamp, document, checksum FROM runs")}
        runs: dict[str, Run] = {}
        for name, stamp in self._folders().items():
            row = rows.pop(name, None)
            known = _from_row(row, stamp) if row else None
            run = known or self._read(name)
            if run is None:
                continue
            runs[name] = run.model_copy(update={"id": name, "folder": str(self.workspace / RUNS / name)})
            if known is None:
                document = run.model_dump_json()
                values = (name, stamp, document, _checksum(name, stamp, document))
                db.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)", values)
        db.executemany("DELETE FROM runs WHERE id = ?", [(name,) for name in rows])
        return runs

    def _folders(self) -> dict[str, str]:
        """Run folders with the stamp of their ``run.json``: an atomic replace changes the inode, any write the time."""
        stamps: dict[str, str] = {}
        for path in (self.workspace / RUNS).glob("*/run.json"):
            if path.parent.name.startswith("."):
                continue
            if not path.parent.name.isprintable():  # undecodable bytes, control characters
                self._tell(f"The folder {path.parent.name!r} in {self.workspace / RUNS} is left out: rename it.")
                continue
            with contextlib.suppress(FileNotFoundError):  # deleted while we look
                stat = path.stat()
                stamps[path.parent.name] = f"{stat.st_ino}/{stat.st_size}/{stat.st_mtime_ns}"
        return stamps

    def _read(self, name: str) -> Run | None:
        path = self.workspace / RUNS / name / "run.json"
        try:
            return Run.load(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            reason = f"{error.error_count()} wrong fields" if isinstance(error, ValidationError) else str(error)
            self._tell(f"{path} cannot be read ({reason}); the run is left out. Its other files are untouched.")
            return None

    def _use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """``work`` in one transaction, on the file if possible; the answer is the same on any index."""
        for _ in range(2):
            try:
                return _transact(self._connect, work)
            except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter from damaged SQL text
                if not _is_damage(error):
                    self._tell(f"The index {self.path} cannot be used ({error}); the run folders were read instead.")
                    break
                if not self._set_aside(error):
                    break
            except OSError as error:
                self._tell(
                    f"The index {self.path} cannot be used ({error.strerror}); the run folders were read instead."
                )
                break
        return _transact(lambda: _prepared(sqlite3.connect(":memory:", isolation_level=None)), work)

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            if (found := db.execute("PRAGMA quick_check(1)").fetchone()) != ("ok",):
                raise sqlite3.DatabaseError(f"quick_check: {found}")
            return _prepared(db)
        except BaseException:
            db.close()
            raise

    def _set_aside(self, error: Exception) -> bool:
        aside = f"{self.path.name}.corrupt-{datetime.now(UTC).strftime('%Y%m%dT%H%M%S%f')}"
        try:
            for suffix in ("-wal", "-shm", ""):
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    self.path.with_name(self.path.name + suffix).rename(self.path.with_name(aside + suffix))
        except OSError as problem:
            self._tell(f"The index {self.path} is damaged ({error}) and cannot be set aside ({problem.strerror}).")
            return False
        self._tell(
            f"The index {self.path} was damaged ({error}). Set aside as {aside}, made again from the run folders."
        )
        return True

    def _tell(self, sentence: str) -> None:
        if sentence not in self.notices:
            self.notices.append(sentence)


def _prepared(db: sqlite3.Connection) -> sqlite3.Connection:
    """Apply the migrations that ``db`` has not seen, each once even when two processes open it together."""
    if _version(db) == len(MIGRATIONS):
        return db
    db.execute("BEGIN IMMEDIATE")
    done = _version(db)
    if done > len(MIGRATIONS):
        raise _Newer(f"its schema is version {done}, this Tunesmith knows {len(MIGRATIONS)}")
    for migrate in MIGRATIONS[done:]:
        migrate(db)
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    db.execute("COMMIT")
    return db


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _transact(connect: Callable[[], sqlite3.Connection], work: Callable[[sqlite3.Connection], T]) -> T:
    with contextlib.closing(connect()) as db:
        db.execute("BEGIN IMMEDIATE")
        result = work(db)
        db.execute("COMMIT")
        return result


def _is_damage(error: Exception) -> bool:
    """Whether the file itself is wrong. Errors of Python's own (undecodable text) carry no name and are damage."""
    return not isinstance(error, _Newer) and not getattr(error, "sqlite_errorname", "").startswith(UNUSABLE)


def _checksum(*values: Any) -> str:
    return hashlib.sha256(repr(values).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _from_row(row: tuple[Any, ...], stamp: str) -> Run | None:
    """The run of a row that is whole and in line with its file, else None."""
    if row[1] != stamp or row[3] != _checksum(*row[:3]):
        return None
    try:
        return Run.model_validate_json(row[2])
    except ValidationError:  # written by a version with other fields
        return None
