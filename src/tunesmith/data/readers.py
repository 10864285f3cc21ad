"""From bytes to rows, one reader a container: JSONL, JSON, CSV or TSV, Parquet, text.

Notable: JSONL is cut at line breaks before it is decoded, so one bad byte or one broken line costs one row. CSV is
decoded with ``surrogateescape`` for the same reason, and rows carry the line on which they begin; JSON arrays and
Parquet the 1-based row. Keys that stand twice are found, which the standard parser lets pass.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from tunesmith.core.errors import DataError
from tunesmith.data.rows import RawRow, Repeated, RowError, listed, not_utf8, shown, unsound

MAX_BYTES = 2 << 30
MAX_ROW_BYTES = 32 << 20


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    repeated = Repeated(value)
    keys = [k for k, _ in pairs]
    repeated.key = next(k for k in keys if keys.count(k) > 1)
    return repeated


def _parse(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_pairs)


def _jsonl(path: Path, data: bytes) -> Iterator[RawRow]:
    data = data.removeprefix(b"\xef\xbb\xbf")
    separator = b"\n" if b"\n" in data or b"\r" not in data else b"\r"
    lines = data.split(separator)
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _json_line(number, line, cut=number == len(lines))


def _json_line(number: int, line: bytes, cut: bool) -> RawRow:
    raw = line[:2000].decode("utf-8", "backslashreplace")
    if len(line) > MAX_ROW_BYTES:
        too_long = RowError("", f"a line of {len(line):,} bytes", f"at most {MAX_ROW_BYTES:,}; one row a line")
        return RawRow(number, {}, too_long, raw)
    try:
        value = _parse(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return RawRow(number, {}, not_utf8(line[error.start], error.start), raw)
    except RecursionError:
        return RawRow(number, {}, RowError("", "hundreds of levels of nesting", "flat columns or messages"), raw)
    except ValueError as error:
        return RawRow(number, {}, _not_json(error, line, cut), raw)
    if not isinstance(value, dict):
        example = '{"prompt": "...", "completion": "..."}'
        return RawRow(number, {}, RowError("", shown(value), f"a JSON object such as {example}"), raw)
    return RawRow(number, value, unsound(value), raw)


def _not_json(error: ValueError, line: bytes, cut: bool) -> RowError:
    if b"\0" in line:
        return RowError("", f"a NUL byte at position {line.index(0) + 1}", "JSON text")
    if not isinstance(error, json.JSONDecodeError):
        return RowError("", str(error).split(";")[0].lower(), "plain JSON")
    hint = " The file ends here without a line break: was the copy cut short?" if cut else ""
    return RowError("", f"malformed JSON at column {error.colno} ({error.msg.lower()})", "one JSON object a line", hint)


def _json(path: Path, data: bytes) -> Iterator[RawRow]:
    try:
        value = _parse(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(not_utf8(data[error.start], error.start).at(f"{path} line {line}")) from None
    except RecursionError:
        raise DataError(f"{path} is nested hundreds of levels deep; expected a list of rows.") from None
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            yield from _jsonl(path, data)
            return
        _refuse_json(path, error)
    for number, row in enumerate(_row_list(path, value), 1):
        if not isinstance(row, dict):
            yield RawRow(number, {}, RowError("", shown(row), "an object of columns"), json.dumps(row)[:2000])
        else:
            yield RawRow(number, row, unsound(row))


def _refuse_json(path: Path, error: ValueError) -> NoReturn:
    if isinstance(error, json.JSONDecodeError):
        what = f"line {error.lineno}, column {error.colno}: malformed JSON ({error.msg.lower()})"
        raise DataError(f"{path} {what}; expected a list of objects. Is the file whole?") from None
    raise DataError(f"{path} is not plain JSON: {error}.") from None


def _row_list(path: Path, value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        lists = [k for k, v in value.items() if isinstance(v, list) and v and isinstance(v[0], dict)]
        if not lists or "messages" in lists or "conversations" in lists:
            return [value]
        if len(lists) == 1:
            return list(value[lists[0]])
    raise DataError(f"{path} holds {shown(value)}; expected a list of objects, or one object with one such list.")


def _csv(path: Path, data: bytes) -> Iterator[RawRow]:
    text = data.decode("utf-8-sig", "surrogateescape")
    csv.field_size_limit(MAX_ROW_BYTES)
    comma = delimiter(text[:1_000_000], named=True) or ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=comma, strict=True)
    header = _header(path, reader)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            found = "a quote that is never closed" if "unexpected end" in str(error) else f"broken quoting ({error})"
            yield RawRow(start, {}, RowError("", found, 'quotes doubled ("") inside a quoted cell'), "")
            continue
        if not any(cells):
            continue
        if len(cells) != len(header):
            expected = f"{len(header)} as in the header ({listed(header, 8)})"
            hint = f" Quote cells that contain {shown(comma)}."
            yield RawRow(start, {}, RowError("", f"{len(cells)} cells", expected, hint), comma.join(cells)[:2000])
            continue
        value = dict(zip(header, cells, strict=True))
        yield RawRow(start, value, unsound(value))


def _header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        names = next(reader, [])
    except csv.Error as error:
        raise DataError(
            f"{path} line 1: the header is not CSV ({error}). Write column names, quoted or plain."
        ) from None
    header = [name.strip() or f"column_{i}" for i, name in enumerate(names, 1)]
    twice = sorted({n for n in header if header.count(n) > 1}) if len(set(header)) < len(header) else []
    if twice:
        raise DataError(f"{path} line 1: column {listed(twice)} stands twice in the header. Rename one of them.")
    unfit = unsound(header)
    if unfit is not None:
        raise DataError(unfit.at(f"{path} line 1"))
    return header


def delimiter(sample: str, *, named: bool) -> str | None:
    r"""The separator under which the first records agree on a number of cells above one, the most cells winning.

    ``named``: the file's ending says that it is a table, so weak evidence is enough.

    >>> delimiter('text;label\n"a, b; c";0\n', named=False)
    ';'
    """
    best: tuple[float, int, str] | None = None
    for candidate in ",\t;|":
        reader = csv.reader(io.StringIO(sample, newline=""), delimiter=candidate)
        try:
            widths = [len(record) for record in itertools.islice(reader, 50) if record]
        except csv.Error:
            continue
        if widths and widths[0] > 1 and (named or len(widths) > 1):
            agree = sum(w == widths[0] for w in widths) / len(widths)
            score = (round(agree, 1), widths[0], candidate)
            best = score if best is None or score[:2] > best[:2] else best
    return best[2] if best is not None and (named or best[0] >= 0.9) else None


def _parquet(path: Path, data: bytes) -> Iterator[RawRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(pa.BufferReader(data))
        size = sum(table.metadata.row_group(i).total_byte_size for i in range(table.metadata.num_row_groups))
        if size > MAX_BYTES:
            raise DataError(f"{path} unpacks to {size:,} bytes; expected at most {MAX_BYTES:,}. Split it into parts.")
        number = 0
        for batch in table.iter_batches(batch_size=4096):
            for value in batch.to_pylist():
                number += 1
                yield RawRow(number, value, unsound({k: v for k, v in value.items() if not isinstance(v, float)}))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no readable Parquet file: {error}. Write it again.") from None


def _text(path: Path, data: bytes) -> Iterator[RawRow]:
    """One row a paragraph (blank lines between); one row a line when the file has no blank line."""
    lines = data.decode("utf-8-sig", "surrogateescape").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    whole = any(not line.strip() for line in lines[:-1])
    start, held = 1, list[str]()
    for number, line in enumerate([*lines, ""], 1):
        if line.strip():
            start = start if held else number
            held.append(line)
        if held and (not whole or not line.strip()):
            value = {"text": "\n".join(held)}
            yield RawRow(start, value, unsound(value), value["text"])
            held = []


READERS: dict[str, Callable[[Path, bytes], Iterator[RawRow]]] = {
    "JSONL": _jsonl,
    "JSON": _json,
    "CSV": _csv,
    "parquet": _parquet,
    "text": _text,
}
