"""A run's folder: where each file of a run lies, who holds it, and its append-only logs.

Notable: the folder is the truth and everything else about a run can be rebuilt from it. The lock is ``flock`` on
``run.lock``, so the kernel drops it when the holder dies, kill -9 included; a "running" run whose lock is free was
therefore interrupted. Logs are best effort: a full disk costs a log line, never the training.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import time
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from tunesmith.core import files
from tunesmith.core.errors import BusyError, DataError, DiskError, ModelError
from tunesmith.core.recipe import Recipe
from tunesmith.core.report import Report, RolloutPoint
from tunesmith.core.run import Run, Status

RUNS = "runs"
BEAT = 2.0  # seconds between two signs of life
LOCK_PATIENCE = 0.3  # seconds; a reader that probes the lock holds it for microseconds

NAMELESS = "another process, which has not written its name yet"
_held: set[int] = set()  # file descriptors of locks held by this process


def _drop_inherited() -> None:
    """In a forked child: close the parent's lock, so that a worker that outlives the run does not keep it."""
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_drop_inherited)


class RunFolder:
    """``runs/<run-id>/``. The constructor names a folder; ``create`` makes a new one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"
        self.resolved = path / "resolved.json"
        self.run = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.rollouts = path / "rollouts.jsonl"
        self.data = path / "data"
        self.questions = self.data / "proof.jsonl"
        self.predictions = path / "predictions"
        self.checkpoints = path / "checkpoints"
        self.origin = path / "origin.json"
        self.adapter = path / "adapter"
        self.report = path / "report.json"
        self.html = path / "report.html"
        self.lock_file = path / "run.lock"
        self.trouble: OSError | None = None

    @classmethod
    def create(cls, workspace: Path, recipe: Recipe, now: datetime | None = None) -> Self:
        """Make ``workspace/runs/<UTC time>-<recipe hash>/``, with ``-2``, ``-3``, ... when taken. Raises DiskError.

        ``mkdir`` is atomic, so two processes that start in the same second never share a folder.
        """
        moment = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y%m%d-%H%M%S")
        name = f"{moment}-{recipe.content_hash()[:6]}"
        parent = workspace / RUNS
        try:
            files.make_folder(parent)
            for attempt in range(1, 1000):
                path = parent / (name if attempt == 1 else f"{name}-{attempt}")
                with contextlib.suppress(FileExistsError):
                    path.mkdir()
                    files.sync(parent)
                    return cls(path)
        except OSError as error:
            raise DiskError(
                f"Cannot make a folder in {parent}: {error.strerror}. Choose a writable workspace."
            ) from error
        raise DiskError(f"{parent} already holds 999 runs named {name}. Wait a second and start again.")

    @property
    def id(self) -> str:
        return self.path.name

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run; leftovers of interrupted writes are swept. Raises BusyError naming the holder, DiskError."""
        try:
            handle = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise DiskError(f"Cannot write {self.lock_file}: {error.strerror}. Choose a writable workspace.") from error
        _held.add(handle)
        try:
            self._acquire(handle)
            self._sign(handle)
            for folder in (self.path, *(p for p in self.path.iterdir() if p.is_dir() and not p.name.startswith("."))):
                files.sweep(folder)
            yield
        finally:
            _held.discard(handle)
            os.close(handle)

    def _acquire(self, handle: int) -> None:
        deadline = time.monotonic() + LOCK_PATIENCE
        while True:
            try:
                return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BusyError(
                        f"Run {self.id} is held by {self._holder()}. Wait for it to end, or stop that process."
                    ) from None
                time.sleep(0.02)
            except OSError as error:
                raise DiskError(
                    f"{self.lock_file} cannot be locked: {error.strerror}. Use a file system with flock."
                ) from error

    def _sign(self, handle: int) -> None:
        self._signature = {"pid": os.getpid(), "host": socket.gethostname(), "start": _utc_now()}
        self._beat = time.monotonic()
        self._write_signature(handle)

    def finished(self, what: str) -> Report:
        """The report of a run that is done, for whoever wants to ``what``. Raises ModelError."""
        if not self.report.is_file():
            raise ModelError(
                f"{self.path} has no report.json: the run did not finish, so there is nothing to {what}. See tunesmith "
                "runs."
            )
        return Report.load(self.report)

    def beat(self) -> None:
        """Write into the lock that this process is alive, at most every ``BEAT`` seconds. Call it while holding."""
        if time.monotonic() - self._beat >= BEAT:
            self._beat = time.monotonic()
            # it tells when a dead run was last alive, and nothing depends on it
            with contextlib.suppress(OSError), self.lock_file.open("r+b") as stream:
                self._write_signature(stream.fileno())

    def _write_signature(self, handle: int) -> None:
        holder = self._signature | {"seen": _utc_now()}
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(holder).encode(), 0)
        except OSError as error:  # the lock itself holds; only the name of its holder is lost
            self._remember(error, self.lock_file)

    def _holder(self) -> str:
        holder = self.signature()
        return f"process {holder['pid']} on {holder['host']} since {holder['start']}" if holder else NAMELESS

    def signature(self) -> dict[str, Any] | None:
        """Who holds the lock, or held it last: pid, host, start and when it was last seen alive."""
        try:
            holder = json.loads(self.lock_file.read_bytes())
            return holder if {"pid", "host", "start"} <= set(holder) else None
        except (OSError, ValueError, TypeError):
            return None

    def check_space(self, needed: int) -> None:
        """Raise DiskError where the disk has less than ``needed`` bytes free."""
        try:
            free = shutil.disk_usage(self.path).free
        except OSError as error:
            raise DiskError(f"Cannot look at {self.path}: {error.strerror}. Choose another --runs.") from error
        if free < needed:
            raise DiskError(
                f"{self.path}: {free / 2**20:,.0f} MiB are free, this run may need {needed / 2**20:,.0f} MiB for its "
                "checkpoints and its result. Free space, or choose another --runs."
            )

    def is_locked(self) -> bool:
        """Whether a living process holds the run. Raises DiskError when the lock file cannot be read."""
        try:
            handle = os.open(self.lock_file, os.O_RDONLY)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise DiskError(f"Cannot read {self.lock_file}: {error.strerror}. Check its permissions.") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
        finally:
            os.close(handle)
        return False

    def append_rollout(self, point: RolloutPoint) -> None:
        """One line of ``rollouts.jsonl``, best effort (see ``trouble``)."""
        self._append(self.rollouts, point.model_dump(mode="json"))

    def rollout_points(self) -> tuple[RolloutPoint, ...]:
        """What the rollouts so far were like. Raises DataError where that cannot be read."""
        return tuple(map(RolloutPoint.model_validate, read_jsonl(self.rollouts)))

    def append_metric(self, row: Mapping[str, Any]) -> None:
        """One line of ``metrics.jsonl``, best effort (see ``trouble``)."""
        self._append(self.metrics, row)

    def _append(self, path: Path, row: Mapping[str, Any]) -> None:
        line = json.dumps(dict(row), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        try:
            with path.open("a+b") as stream:
                if stream.seek(0, os.SEEK_END):
                    stream.seek(-1, os.SEEK_END)
                    if stream.read(1) != b"\n":  # a torn tail must not swallow this line
                        line = b"\n" + line
                stream.write(line)
        except OSError as error:
            self._remember(error, path)

    def _remember(self, error: OSError, path: Path) -> None:
        if self.trouble is None:
            self.trouble = error
            warnings.warn(f"Cannot write {path}: {error.strerror}. The run goes on without those lines.", stacklevel=4)


def check_writable(workspace: Path) -> None:
    """Raise DiskError where no run could be put into ``workspace``: better now than after a model was loaded."""
    place = next(p for p in (workspace / RUNS, workspace, *workspace.absolute().parents) if p.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        what = "is no folder" if not place.is_dir() else "cannot be written"
        raise DiskError(f"Cannot make a folder in {workspace / RUNS}: {place} {what}. Choose a writable workspace.")


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def status(run: Run) -> Status:
    """The status of ``run`` now: "crashed" when it says "running" and no living process holds its folder."""
    if run.status == "running" and not RunFolder(Path(run.folder)).is_locked():
        return "crashed"
    return run.status


def as_it_stands(run: Run) -> Run:
    """``run`` with its status now, and for a crashed one what is known of its process."""
    try:
        now = status(run)
    except DiskError:  # who holds it cannot be told
        now = run.status
    if now != "crashed":
        return run.model_copy(update={"status": now})
    held = RunFolder(Path(run.folder)).signature() or {}
    seen = held.get("seen", "an unknown time")
    told = f"process {held.get('pid', run.pid)} ended without a word, last seen at {seen}"
    told += f"; go on with: tunesmith resume {run.id}"
    return run.model_copy(update={"status": now, "error": told})


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a log, oldest first; a file that is not there has none. Raises DataError when it cannot be read.

    The last line may be torn (the writer was killed) and is then left out. Damaged lines before it are left out with a
    warning that names them.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}. Check that it is a readable file.") from error
    rows: list[dict[str, Any]] = []
    damaged: list[str] = []
    for number, line in enumerate(lines, start=1):
        row = _parsed(line)
        if row is not None:
            rows.append(row)
        elif line.strip() and number < len(lines):
            damaged.append(str(number))
    if damaged:
        more = ", ..." if len(damaged) > 5 else ""
        warnings.warn(f"{path}: left out damaged lines {', '.join(damaged[:5])}{more}.", stacklevel=2)
    return rows


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
