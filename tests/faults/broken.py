"""Protocols that are wrong on purpose: a checker that finds nothing in them would find nothing anywhere.

Notable: each replaces a piece of ``core.files`` in the child process; scenarios and checks stay as they are.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.core import files


def in_place() -> None:
    """Write where the old one stands, and the manifest last."""

    @contextlib.contextmanager
    def publish(final: Path) -> Iterator[Path]:
        with files._as_disk_error(final):
            final.mkdir(parents=True, exist_ok=True)
            yield final
            files._seal(final)

    def write_bytes(path: Path, data: bytes) -> None:
        with files._as_disk_error(path):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)

    files.publish, files.write_bytes = publish, write_bytes  # type: ignore[assignment]


def delete_first() -> None:
    """Make room for the new one before it is there."""

    def swap(temporary: Path, final: Path) -> None:
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)

    files._swap = swap


def no_manifest() -> None:
    """Rename without saying what belongs to the folder."""
    files._seal = lambda folder: None


def bare_errors() -> None:
    """Let what the disk says through as it is."""

    @contextlib.contextmanager
    def as_it_is(*_: Any, **__: Any) -> Iterator[None]:
        yield

    files._as_disk_error = as_it_is  # type: ignore[assignment]


def no_sync() -> None:
    """Leave it to the system when bytes reach the disk."""
    os.fsync = lambda handle: None  # type: ignore[assignment]


def delete_early() -> None:
    """Delete what was replaced before it is on disk that it was."""

    def swap(temporary: Path, final: Path) -> None:
        if final.exists():
            discarded = files._temporary(final)
            final.rename(discarded)
            temporary.rename(final)
            shutil.rmtree(discarded)
        else:
            temporary.rename(final)

    files._swap = swap


PROTOCOLS = {
    protocol.__name__: protocol
    for protocol in (in_place, delete_first, no_manifest, bare_errors, no_sync, delete_early)
}
