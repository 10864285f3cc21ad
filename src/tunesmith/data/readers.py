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
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.data.rows import RawRow, Repeated, RowError, listed, not_utf8, shown, unsound

MAX_BYTES = 2 << 30
MAX_ROW_BYTES = 32 << 20
MAX_RATIO = 250
MAX_DIGITS = 4000


def most_unpacked(size: int) -> int:
    """The bytes that ``size`` bytes of gzip or Parquet may become; more is taken for a bomb."""
    return min(MAX_BYTES, max(64 << 20, MAX_RATIO * size))


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    repeated = Repeated(value)
    keys = [k for k, _ in pairs]
    repeated.key = next(k for k in keys if keys.count(k) > 1)
    return repeated


def _integer(text: str) -> int:
    digits = len(text.lstrip("-"))
    if digits > MAX_DIGITS:  # Python reads no integer of more than 4,300
        raise RowError("", f"a number of {digits:,} digits", f"at most {MAX_DIGITS:,}, or text in quotes")
    return int(text)


def _parse(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_pairs, parse_int=_integer)


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
    except RowError as error:
        return RawRow(number, {}, error, raw)
    except json.JSONDecodeError as error:
        return RawRow(number, {}, _not_json(error, line, cut), raw)
    if not isinstance(value, dict):
        example = '{"prompt": "...", "completion": "..."}'
        return RawRow(number, {}, RowError("", shown(value), f"a JSON object such as {example}"), raw)
    return RawRow(number, value, unsound(value), raw)


def _not_json(error: json.JSONDecodeError, line: bytes, cut: bool) -> RowError:
    if b"\0" in line:
        return RowError("", f"a NUL byte at position {line.index(0) + 1}", "JSON text")
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
    except RowError as error:
        raise DataError(error.at(path)) from None
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            yield from _jsonl(path, data)
            return
        what = f"line {error.lineno}, column {error.colno}: malformed JSON ({error.msg.lower()})"
        raise DataError(f"{path} {what}; expected a list of objects. Is the file whole?") from None
    for number, row in enumerate(_row_list(path, value), 1):
        if not isinstance(row, dict):
            yield RawRow(number, {}, RowError("", shown(row), "an object of columns"), json.dumps(row)[:2000])
        else:
            yield RawRow(number, row, unsound(row))


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
    lines = list(io.StringIO(text, newline=""))
    reader = csv.reader(lines, delimiter=comma, strict=True)
    header = _header(path, reader)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if reader.line_num > start or "unexpected end" in str(error):
                raise _open_quote(path, start, reader.line_num) from None
            wrong = RowError("", f"broken quoting ({error})", 'quotes doubled ("") inside a quoted cell')
            yield RawRow(start, {}, wrong, lines[start - 1])
            continue
        if not cells:
            continue
        if not any(cells):
            yield RawRow(start, {}, RowError("", "a row of empty cells", "text in one of them"), comma.join(cells))
            continue
        if len(cells) != len(header):
            expected = f"{len(header)} as in the header ({listed(header, 8)})"
            hint = f" Quote cells that contain {shown(comma)}."
            yield RawRow(start, {}, RowError("", f"{len(cells)} cells", expected, hint), comma.join(cells)[:2000])
            continue
        value = dict(zip(header, cells, strict=True))
        yield RawRow(start, value, unsound(value))


def _open_quote(path: Path, start: int, end: int) -> DataError:
    """A file's error and no row's: which of the lines read over are rows of their own cannot be told."""
    over = f" Lines {start} to {end} were read as one row." if end > start else ""
    return DataError(
        f"{path} line {start}: found a quote that is never closed, or not as CSV closes it.{over} "
        'Close it, or double the quotes ("") that belong to the text.'
    )


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
    """Columns of text stay dictionaries until their size is counted: a value stored once may stand in every row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    most = most_unpacked(len(data))
    try:
        source = pa.BufferReader(data)
        chunks = _parquet_chunks(pq.read_metadata(source))
        size = sum(max(c.total_uncompressed_size, c.num_values * width) for c, width in chunks)
        _stop_above(path, most, size)
        delta = [c for c, _ in chunks if "DELTA_BYTE_ARRAY" in c.encodings]  # Arrow keeps no dictionary of these
        texts = {c.path_in_schema for c, _ in chunks if c.physical_type == "BYTE_ARRAY"}
        table = pq.ParquetFile(source, read_dictionary=sorted(texts - {c.path_in_schema for c in delta}))
        largest = max((c.total_uncompressed_size for c in delta), default=0)  # no value is longer
        plain = pa.schema(_plain(path, pa.struct(table.schema_arrow)))
        number = unpacked = 0
        for batch in table.iter_batches(batch_size=max(1, min(4096, most // max(1, largest)))):
            unpacked += sum(_unpacked(column) for column in batch.columns)
            _stop_above(path, most, unpacked)
            for value in batch.cast(plain).to_pylist():
                number += 1
                yield RawRow(number, value, unsound({k: v for k, v in value.items() if not isinstance(v, float)}))
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path} is no readable Parquet file: {error}. Write it again.") from None


def _stop_above(path: Path, most: int, size: int) -> None:
    if size > most:
        raise DataError(
            f"{path} unpacks to {size:,} bytes or more; expected at most {most:,}. "
            "Split it into parts, or write it as JSONL if you trust it."
        )


def _parquet_chunks(metadata: Any) -> list[tuple[Any, int]]:
    """Every column chunk of a file, and the bytes that one of its values takes at least."""
    columns = range(metadata.num_columns)
    widths = [max(16, metadata.schema.column(i).length) for i in columns]
    groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
    return [(group.column(i), widths[i]) for group in groups for i in columns]


def _plain(path: Path, kind: Any) -> Any:
    """The Arrow type without dictionaries, and with times as text: Python has no nanoseconds and no year 10,000."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _plain(path, kind.value_type)
    if pa.types.is_temporal(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_plain(path, kind.value_type)))
    if not pa.types.is_struct(kind):
        return kind
    fields = [kind.field(i) for i in range(kind.num_fields)]
    names = [field.name for field in fields]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise DataError(f"{path}: column {listed(twice)} stands twice. Rename one of them.")
    return pa.struct([field.with_type(_plain(path, field.type)) for field in fields])


def _unpacked(array: Any) -> int:
    """The bytes of an Arrow array once its dictionaries are written out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_struct(array.type):
        return sum(_unpacked(field) for field in array.flatten())
    if pa.types.is_nested(array.type):
        return _unpacked(array.flatten())
    if not pa.types.is_dictionary(array.type):
        return int(array.nbytes)
    return int(pc.sum(pc.binary_length(array.dictionary).take(array.indices)).as_py() or 0)


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
