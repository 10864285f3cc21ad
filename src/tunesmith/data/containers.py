"""The rows of any file we read: JSONL, JSON, CSV, TSV, Parquet, text, and gzip of these.

Notable: a file is read once, whole, so that its hash, its rows and its line numbers speak of the same bytes even when
somebody writes to it meanwhile. The container is found by content first and by the file's ending second, since
endings lie. What is no regular file (a pipe, ``/dev/zero``, an address) is named and refused before a byte is read,
and gzip is unpacked up to a size and a ratio only.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import os
import re
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path

from tunesmith.core.errors import DataError
from tunesmith.data.readers import MAX_BYTES, READERS, delimiter, most_unpacked
from tunesmith.data.rows import RawRow, listed, shown

KINDS = "JSONL, JSON, CSV, TSV, Parquet, .txt or .md, or gzip of one"
_URL = re.compile(r"^[a-z][a-z0-9+.-]+:/{1,2}", re.IGNORECASE)
_FOREIGN = {
    b"PK\x03\x04": "a zip archive (or an Excel file)",
    b"%PDF": "a PDF document",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a Zstandard file",
    b"ARROW1": "an Arrow file",
    b"SQLite format 3": "an SQLite database",
    b"\x80\x04": "a pickle, which is never opened",
    b"\x80\x05": "a pickle, which is never opened",
    b"\x89PNG": "an image",
}


@dataclass(frozen=True, slots=True)
class Contents:
    """The rows of a file, how it was read, and the sha256 of its bytes on disk."""

    kind: str
    rows: list[RawRow]
    sha256: str


def load(path: Path) -> Contents:
    """All rows of ``path``. Raises DataError when it is no readable file of a kind we know, or holds no rows."""
    path = admit(path)
    data = _read(path)
    digest = hashlib.sha256(data).hexdigest()
    ending = path.suffix.lower()
    if data.startswith(b"\x1f\x8b"):
        data = _gunzip(path, data)
        ending = Path(path.stem).suffix.lower() if ending in (".gz", ".gzip") else ending
    elif ending in (".gz", ".gzip"):
        raise DataError(f"{path} is named as gzip and is not one. Rename it, or compress it again.")
    if not data.strip():
        raise DataError(f"{path} is empty. Expected rows as {KINDS}.")
    kind = _kind(path, data, ending)
    rows = list(READERS[kind](path, data))
    if not rows:
        raise DataError(f"{path} holds no rows (read as {kind}). Add examples to it.")
    return Contents(kind, rows, digest)


def admit(path: Path) -> Path:
    """The path with ``~`` expanded, if it is a regular file. Raises DataError that says what it is instead."""
    if _URL.match(str(path)):
        raise DataError(f"{path} is an address, not a file. Download it and give the path of the copy.")
    try:
        path = path.expanduser()
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.{_neighbours(path)} Paths are relative to the recipe.") from None
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{str(path)[:200]!r} cannot be opened: {error}. Give the path of a file.") from None
    if stat.S_ISREG(mode):
        return path
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    found = kinds.get(stat.S_IFMT(mode), "a device")
    inside = listed(sorted(p.name for p in path.iterdir() if p.is_file()), 8) if found == "a folder" else ""
    raise DataError(f"{path} is {found}; expected a file.{f' In it: {inside}.' if inside else ''}")


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f" There is no folder {path.parent} either."
    names = {p.name.lower(): p.name for p in itertools.islice(path.parent.iterdir(), 1000)}
    near = next((n for low, n in names.items() if low.startswith(path.stem.lower()[:40]) and path.stem), None)
    return f' Did you mean "{near}"?' if near else ""


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            before = os.fstat(stream.fileno())
            if before.st_size > MAX_BYTES:
                most = f"expected at most {MAX_BYTES:,}"
                raise DataError(f"{path} has {before.st_size:,} bytes; {most}. Split it into parts.")
            data = stream.read()
            after = os.fstat(stream.fileno())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}. Check its permissions.") from None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(data) != after.st_size:
        raise DataError(f"{path} changed while it was read. Wait until it is written whole, then try again.")
    return data


def _gunzip(path: Path, data: bytes) -> bytes:
    most = most_unpacked(len(data))
    try:
        out = gzip.GzipFile(fileobj=io.BytesIO(data)).read(most + 1)
    except EOFError:
        raise DataError(f"{path} is cut short: the gzip data end in the middle. Copy it again.") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged gzip ({error}). Copy or compress it again.") from None
    if len(out) > most:
        raise DataError(
            f"{path} unpacks from {len(data):,} bytes to more than {most:,}: it looks like a bomb. "
            "Unpack it yourself if you trust it."
        )
    if out.startswith(b"\x1f\x8b"):
        raise DataError(f"{path} is gzip inside gzip. Unpack it once.")
    return out


def _kind(path: Path, data: bytes, ending: str) -> str:
    if data.startswith(b"PAR1"):
        return "parquet"
    if ending in (".parquet", ".pq"):
        raise DataError(f"{path} is named as Parquet and does not begin like one (PAR1). Write it again, or rename it.")
    for magic, name in _FOREIGN.items():
        if data.startswith(magic):
            raise DataError(f"{path} is {name}; expected {KINDS}. Unpack or export it first.")
    _refuse_wide(path, data)
    head = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    if head[:1] == b"{" and ending not in (".csv", ".tsv", ".md"):
        return _object_kind(data, head, ending)
    if ending in (".jsonl", ".ndjson", ".json"):
        array = head[:1] == b"[" and not _is_json(head.split(b"\n", 1)[0])
        return "JSON" if array or ending == ".json" else "JSONL"
    if ending in (".txt", ".md", ".text"):
        return "text"
    if ending in (".csv", ".tsv", ".tab"):
        return "CSV"
    if head[:1] == b"[":
        return "JSON"
    if delimiter(data[:65536].decode("utf-8", "replace"), named=False) is not None:
        return "CSV"
    begin = shown(head[:30].decode("utf-8", "replace"))
    raise DataError(f"{path} is of no kind we know (it begins with {begin}); expected {KINDS}.")


def _object_kind(data: bytes, head: bytes, ending: str) -> str:
    """A file that begins with ``{`` is JSONL, unless it is one object that holds the list of rows."""
    if ending in (".jsonl", ".ndjson") or _is_json(head.split(b"\n", 1)[0]):
        one_line = not head.rstrip().count(b"\n")
        return "JSON" if one_line and ending == ".json" else "JSONL"
    return "JSON" if ending == ".json" or _is_json(data.removeprefix(b"\xef\xbb\xbf")) else "JSONL"


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_wide(path: Path, data: bytes) -> None:
    name = _wide(data[:4096])
    if name is not None:
        convert = f"iconv -f {name} -t utf-8 {path.name} > utf8-{path.name}"
        raise DataError(f"{path} is {name[:6].upper()}; expected UTF-8. Convert it: {convert}")


def _wide(head: bytes) -> str | None:
    """UTF-32 or UTF-16 as iconv names it, by the mark at the beginning or by which of four bytes are mostly zero."""
    if head[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return "utf-32"
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if len(head) < 4:
        return None
    zero = [head[i::4].count(0) > 0.4 * len(head[i::4]) for i in range(4)]
    found = {"utf-32le": (2, 3), "utf-32be": (0, 1), "utf-16le": (1, 3), "utf-16be": (0, 2)}
    return next((name for name, (a, b) in found.items() if zero[a] and zero[b]), None)
