"""The checkpoints of a run: folders that are whole or not there, of which the newest that verifies counts.

Notable: torch is not needed here; ``write`` puts files into a temporary folder that ``core.files.publish`` seals with a
manifest and renames. The order is by step, which stands in the name, never by a clock. An older checkpoint goes only
after the new one is in its place, and two are always kept, so a damaged newest one has one behind it.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunesmith.core import files
from tunesmith.core.errors import DataError, DiskError

KEEP = 2
PREFIX = "step-"


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint on disk, with its size in bytes and how long the save took."""

    path: Path
    step: int
    bytes: int
    seconds: float


class Checkpoints:
    """Those in ``folder``. Saves are made under the run's lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> list[tuple[int, Path]]:
        """(step, folder) of each, the newest first; whether they verify is not looked at. Raises DiskError."""
        try:
            found = [p for p in self.folder.glob(f"{PREFIX}*") if p.is_dir() and p.name[len(PREFIX) :].isdigit()]
        except OSError as error:
            raise DiskError(f"Cannot read {self.folder}: {error.strerror or error}. Check the disk.") from error
        return sorted(((int(p.name[len(PREFIX) :]), p) for p in found), reverse=True)

    def save(self, step: int, write: Callable[[Path], None]) -> Saved:
        """Publish what ``write`` puts into the folder it is given, then drop the oldest. Raises DiskError, and then
        whatever was there before is there still."""
        started = time.monotonic()
        place = self.folder / f"{PREFIX}{step:09d}"
        try:
            with files.publish(place) as temporary:
                write(temporary)
            size = sum(p.stat().st_size for p in place.iterdir())
        except DiskError:
            raise
        except OSError as error:
            raise DiskError(f"Cannot write {place}: {error.strerror or error}. Free space.") from error
        self.rotate()
        return Saved(place, step, size, time.monotonic() - started)

    def rotate(self) -> None:
        """Delete all but the newest ones. One that cannot be deleted stays, and costs nothing but its space."""
        with contextlib.suppress(DiskError):
            for _, path in self.all()[KEEP:]:
                with contextlib.suppress(DiskError):
                    files.remove(path)

    def set_aside(self, newer_than: int) -> None:
        """Move what is newer than a checkpoint that is gone on from out of the order; it stays to be looked at."""
        for step, path in self.all():
            if step > newer_than:
                with contextlib.suppress(OSError):
                    path.rename(path.with_name(f"damaged-{path.name}-{time.time_ns():x}"))

    def latest(self, tell: Callable[[str], None], *, strict: bool = False) -> Path | None:
        """The newest that verifies, None where there is none at all; each that does not is told.

        Raises DataError where all are damaged, or the newest is and ``strict`` forbids to fall back; DiskError where
        the folder cannot be listed.
        """
        damaged: list[str] = []
        for _, path in self.all():
            try:
                files.verify(path)
            except (DataError, OSError) as error:
                damaged.append(str(error))
                if strict:
                    raise DataError(f"{error} Without --strict an older checkpoint would be taken.") from error
                tell(f"{path.name} is left out: {error}")
                continue
            return path
        if damaged:
            raise DataError(
                f"No checkpoint in {self.folder} is whole ({len(damaged)} are damaged). {damaged[0]} "
                "Start over: tunesmith run with the run's recipe.yaml."
            )
        return None
