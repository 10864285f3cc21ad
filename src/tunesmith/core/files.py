"""How everything reaches the disk: whole or not at all. Standard library only.

Notable: a folder is published by writing it beside its place, syncing each file, writing ``MANIFEST.json`` with sizes
and sha256, syncing the folder, one rename, syncing the parent. A reader verifies before it believes. Delete = rename
away, then delete. After kill -9 at any point and a ``sweep`` the old artefact or the new one is there, never a mixture.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from tunesmith.core.errors import DataError, DiskError

MANIFEST = "MANIFEST.json"
TEMPORARY = ".tmp-"


def sha256(path: Path) -> str:
    """The hex sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _temporary(final: Path) -> Path:
    return final.with_name(f"{TEMPORARY}{final.name}-{secrets.token_hex(4)}")


@contextlib.contextmanager
def _as_disk_error(path: Path) -> Iterator[None]:
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        raise DiskError(
            f"Cannot write {path}: {error.strerror or error}. Free space or choose another folder."
        ) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` atomically and durably. Raises DiskError."""
    with _as_disk_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
        try:
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8", "surrogatepass"))


@contextlib.contextmanager
def publish(final: Path) -> Iterator[Path]:
    """Yield a temporary folder; on a clean exit it becomes ``final`` with a manifest, replacing what stood there.

    Raises DiskError; nothing is left behind when the body raises.
    """
    with _as_disk_error(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(final)
        temporary.mkdir()
    try:
        yield temporary
        with _as_disk_error(final):
            _seal(temporary)
            if final.exists():
                discarded = _temporary(final)
                final.rename(discarded)
                temporary.rename(final)
                shutil.rmtree(discarded)
            else:
                temporary.rename(final)
            _sync(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove(folder: Path) -> None:
    """Delete a folder: out of its place in one rename, then piece by piece."""
    discarded = _temporary(folder)
    folder.rename(discarded)
    shutil.rmtree(discarded)


def _seal(folder: Path) -> None:
    entries = {}
    readable = folder.stat().st_mode & 0o666  # some libraries write files for the owner alone
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        path.chmod(readable)
        _sync(path)
        entries[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"files": entries}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    _sync(manifest)
    for path in (p for p in folder.rglob("*") if p.is_dir()):
        _sync(path)
    _sync(folder)


def verify(folder: Path) -> None:
    """Raise DataError naming the first file of a published folder that is missing or differs from its manifest."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise DataError(f"{folder} has no {MANIFEST}: it was not published whole. Use an older one, or make it again.")
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{manifest} is damaged ({error}). Use an older artefact, or make it again.") from error
    for name, entry in entries.items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path} is named in {MANIFEST} and missing. Use an older artefact, or make it again.")
        if path.stat().st_size != entry["bytes"] or (found := sha256(path)) != entry["sha256"]:
            got = f"{path.stat().st_size} bytes" if path.stat().st_size != entry["bytes"] else f"sha256 {found[:12]}"
            raise DataError(
                f"{path} is damaged: found {got}, expected {entry['bytes']} bytes, sha256 {entry['sha256'][:12]}. "
                "Use an older artefact, or make it again."
            )


def sweep(folder: Path) -> int:
    """Clear what interrupted writes left in ``folder``; return how many there were. Call it under the run's lock.

    A whole folder whose place is empty (the writer died between its two renames) is put there, the newest first.
    """
    stale = sorted(folder.glob(f"{TEMPORARY}*"), key=_sealed, reverse=True) if folder.is_dir() else []
    for path in stale:
        name = path.name.removeprefix(TEMPORARY).rpartition("-")[0]
        if name and _sealed(path) and not (folder / name).exists():
            path.rename(folder / name)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return len(stale)


def _sealed(folder: Path) -> int:
    """When a folder that verifies was sealed, in nanoseconds; 0 for anything else."""
    try:
        verify(folder)
        return (folder / MANIFEST).stat().st_mtime_ns
    except (DataError, OSError):
        return 0
