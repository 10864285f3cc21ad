"""How everything reaches the disk: whole or not at all. Standard library only.

Notable: a folder is published by writing it beside its place, syncing each file, writing ``MANIFEST.json`` with sizes
and sha256, syncing the folder, one rename, syncing the parent. A reader verifies before it believes. Delete = rename
away, sync the parent, then delete. After kill -9 at any point and a ``sweep``, and after an error without one, the old
artefact or the new one is there, never a mixture. ``python -m tests.faults`` tries it at every system call.
"""

import contextlib
import errno
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
FAILING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}  # the disk's fault, whoever was writing


def sha256(path: Path) -> str:
    """The hex sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's list of names, on the disk before anything that follows."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _temporary(final: Path) -> Path:
    return final.with_name(f"{TEMPORARY}{final.name}-{secrets.token_hex(4)}")


@contextlib.contextmanager
def _as_disk_error(path: Path, verb: str = "write", only: set[int] | None = None) -> Iterator[None]:
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        if only is not None and error.errno not in only:
            raise
        raise DiskError(
            f"Cannot {verb} {path}: {error.strerror or error}. Free space or choose another folder."
        ) from error


def make_folder(path: Path) -> None:
    """Make ``path`` and what is missing above it, durably: power loss that takes a folder takes its files along."""
    for folder in reversed([p for p in (path, *path.parents) if not p.exists()]):
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` atomically and durably. Raises DiskError."""
    with _as_disk_error(path):
        make_folder(path.parent)
        temporary = _temporary(path)
        try:
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync(path.parent)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8", "surrogatepass"))


@contextlib.contextmanager
def publish(final: Path) -> Iterator[Path]:
    """Yield a temporary folder; on a clean exit it becomes ``final`` with a manifest, replacing what stood there.

    Raises DiskError, also where the disk fails in the body; nothing is left behind when the body raises. What stood
    there and cannot be deleted is left for ``sweep``.
    """
    with _as_disk_error(final):
        make_folder(final.parent)
        temporary = _temporary(final)
        temporary.mkdir()
    try:
        with _as_disk_error(final, only=FAILING):
            yield temporary
        with _as_disk_error(final):
            _seal(temporary)
            discarded = _swap(temporary, final)
            sync(final.parent)
        if discarded is not None:
            shutil.rmtree(discarded, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(temporary: Path, final: Path) -> Path | None:
    """Put ``temporary`` into its place; return where the one that stood there is now."""
    if not final.exists():
        temporary.rename(final)
        return None
    discarded = _temporary(final)
    try:
        final.rename(discarded)
        temporary.rename(final)
    except BaseException:  # Ctrl-C between the two included: the old one goes back
        if discarded.exists() and not final.exists():
            discarded.rename(final)
        raise
    return discarded


def remove(folder: Path) -> None:
    """Delete a folder: out of its place in one rename, then piece by piece. Raises DiskError."""
    discarded = _temporary(folder)
    with _as_disk_error(folder, "delete"):
        folder.rename(discarded)
        sync(folder.parent)
        shutil.rmtree(discarded)


def _seal(folder: Path) -> None:
    entries = {}
    readable = folder.stat().st_mode & 0o666  # some libraries write files for the owner alone
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        path.chmod(readable)
        sync(path)
        entries[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"files": entries}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sync(manifest)
    for path in (p for p in folder.rglob("*") if p.is_dir()):
        sync(path)
    sync(folder)


def verify(folder: Path) -> None:
    """Raise DataError naming the first file of a published folder that is missing or differs from its manifest."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise DataError(f"{folder} has no {MANIFEST}: it was not published whole. Use an older one, or make it again.")
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        expected = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{manifest} is damaged ({error}). Use an older artefact, or make it again.") from error
    for name, (size, digest) in expected.items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path} is named in {MANIFEST} and missing. Use an older artefact, or make it again.")
        if path.stat().st_size != size or (found := sha256(path)) != digest:
            got = f"{path.stat().st_size} bytes" if path.stat().st_size != size else f"sha256 {found[:12]}"
            raise DataError(
                f"{path} is damaged: found {got}, expected {size} bytes, sha256 {digest[:12]}. "
                "Use an older artefact, or make it again."
            )


def sweep(folder: Path) -> int:
    """Clear what interrupted writes left in ``folder``; return how many there were. Call it under the run's lock.

    A whole folder whose place is empty (the writer died between its two renames) is put there, the newest first. What
    cannot be deleted stays; it costs its space. Raises DiskError where it cannot be told what is whole.
    """
    with _as_disk_error(folder, "sweep"):
        stale = sorted(folder.glob(f"{TEMPORARY}*")) if folder.is_dir() else []
        for name in sorted({_meant_for(path) for path in stale} - {""}):
            if not (folder / name).exists():
                _restore(folder / name, [path for path in stale if _meant_for(path) == name])
    for path in stale:
        with contextlib.suppress(OSError):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    return len(stale)


def _meant_for(temporary: Path) -> str:
    return temporary.name.removeprefix(TEMPORARY).rpartition("-")[0]


def _restore(place: Path, candidates: list[Path]) -> None:
    whole = [path for path in candidates if _is_whole(path)]
    if whole:
        max(whole, key=lambda path: (path / MANIFEST).stat().st_mtime_ns).rename(place)
        sync(place.parent)


def _is_whole(folder: Path) -> bool:
    try:
        verify(folder)
    except DataError:
        return False
    return True
