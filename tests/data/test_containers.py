"""Every bad file is a sentence with its name (and line), every bad row is one row's error."""

import gzip
import itertools
import json
import os
import socket
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunesmith.core.errors import DataError
from tunesmith.data import containers, readers
from tunesmith.data.containers import load

ROWS = [{"text": f"row {i}", "label": "a"} for i in range(3)]
JSONL = "".join(json.dumps(r) + "\n" for r in ROWS).encode()


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def good(path: Path) -> list[dict]:
    contents = load(path)
    assert [r.error for r in contents.rows if r.error] == []
    return [r.value for r in contents.rows]


def one_fault(path: Path) -> tuple[int, str]:
    """The line and the sentence of the only bad row."""
    bad = [r for r in load(path).rows if r.error is not None]
    assert len(bad) == 1
    return bad[0].line, str(bad[0].error)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", JSONL),
        ("a.jsonl", b"\xef\xbb\xbf" + JSONL),
        ("a.jsonl", JSONL.replace(b"\n", b"\r\n")),
        ("a.jsonl", JSONL.replace(b"\n", b"\r")),
        ("a.jsonl", JSONL.replace(b"\n", b"\r\n", 1) + b"\n \n"),
        ("a.jsonl", JSONL.rstrip()),
        ("a.txt", JSONL),
        ("rows", JSONL),
        ("a.json", JSONL),
        ("a.json", json.dumps(ROWS).encode()),
        ("a.jsonl", json.dumps(ROWS, indent=1).encode()),
        ("a.json", json.dumps({"version": 1, "data": ROWS}, indent=2).encode()),
        ("a.jsonl.gz", gzip.compress(JSONL)),
        ("a.jsonl", gzip.compress(JSONL)),
        ("a.jsonl.gz", gzip.compress(JSONL[:20]) + gzip.compress(JSONL[20:])),
        ("a.csv", b"text,label\nrow 0,a\nrow 1,a\nrow 2,a\n"),
        ("a.csv", b"\xef\xbb\xbftext;label\r\nrow 0;a\r\nrow 1;a\r\n\r\nrow 2;a\r\n"),
        ("a.tsv", b"text\tlabel\nrow 0\ta\nrow 1\ta\nrow 2\ta\n"),
        ("a.csv.gz", gzip.compress(b"text|label\nrow 0|a\nrow 1|a\nrow 2|a")),
        ("table", b'text,label\nrow 0,"a"\nrow 1,a\nrow 2,a\n'),
    ],
    ids=itertools.count(),
)
def test_the_same_rows_come_out_of_every_container(tmp_path, name, data):
    assert good(put(tmp_path, name, data)) == ROWS


def test_parquet_rows_and_nested_messages(tmp_path):
    rows = [{"messages": [{"role": "user", "content": "hi"}], "score": float("nan")}, {"messages": None, "score": 1.0}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert good(tmp_path / "a.parquet")[0]["messages"] == rows[0]["messages"]
    assert load(tmp_path / "a.parquet").kind == "parquet"


def test_csv_line_numbers_survive_line_breaks_in_cells(tmp_path):
    path = put(tmp_path, "a.csv", b'text,label\n"two\nlines, ""quoted""",a\nnext,b\n')
    rows = load(path).rows
    assert [(r.line, r.value["text"]) for r in rows] == [(2, 'two\nlines, "quoted"'), (4, "next")]


def test_a_bad_csv_row_keeps_its_text(tmp_path):
    rows = load(put(tmp_path, "a.csv", b'text,label\nx,a\n"a"b,c\n,\n')).rows
    assert [r.text() for r in rows[1:]] == ['"a"b,c\n', ","]


def test_text_is_cut_into_paragraphs_or_lines(tmp_path):
    path = put(tmp_path, "a.txt", b"one\r\nstill one\r\n\r\n\r\ntwo\r\n")
    assert [(r.line, r.value["text"]) for r in load(path).rows] == [(1, "one\nstill one"), (5, "two")]
    assert [r.line for r in load(put(tmp_path, "b.md", b"one\ntwo\nthree")).rows] == [1, 2, 3]


def test_sha256_is_of_the_bytes_on_disk(tmp_path):
    from tunesmith.core.files import sha256

    path = put(tmp_path, "a.jsonl.gz", gzip.compress(JSONL))
    assert load(path).sha256 == sha256(path)


BAD_LINES = {
    "latin-1": (b'{"text": "caf\xe9"}', "byte 0xe9", "iconv -f latin1"),
    "overlong": (b'{"text": "\xc0\xaf"}', "byte 0xc0", "UTF-8"),
    "nul byte": (b'{"text": "a\x00b"}', "NUL", "JSON text"),
    "nul escape": (b'{"text": "a\\u0000b"}', "field text: found a NUL", "without NUL"),
    "lone surrogate": (b'{"text": "\\ud83d"}', "surrogate U+D83D", "whole Unicode"),
    "surrogate key": (b'{"\\ud83d": "x"}', "column name", "readable"),
    "malformed": (b'{"text": "x",}', "malformed JSON at column", "one JSON object a line"),
    "not an object": (b'["x"]', "a list of 1", "a JSON object such as"),
    "number": (b"42", "found 42", "a JSON object such as"),
    "nan": (b'{"text": "x", "score": NaN}', "field score: found nan", "finite"),
    "infinity": (b'{"m": [{"score": -Infinity}]}', "field m[0].score: found -inf", "finite"),
    "huge float": (b'{"score": 1e999}', "field score: found inf", "finite"),
    "duplicate key": (b'{"text": "x", "text": "y"}', "field text: found the key twice", "each key once"),
    "nested duplicate": (b'{"a": [{"b": 1, "b": 2}]}', "field a[0].b: found the key twice", "each key once"),
    "deep": (b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "levels of nesting", "flat columns"),
    "rather deep": (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", "more than 64 levels", "flat columns"),
    "long number": (b'{"a": ' + b"1" * 5000 + b"}", "found a number of 5,000 digits", "at most 4,000"),
    "long negative number": (b'{"a": [-' + b"1" * 4001 + b"]}", "found a number of 4,001 digits", "text in quotes"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_one_bad_row_with_its_number(tmp_path, name):
    line, found, expected = BAD_LINES[name]
    number, sentence = one_fault(put(tmp_path, "a.jsonl", JSONL + line + b"\n" + JSONL))
    assert number == 4
    assert found in sentence
    assert expected in sentence


def test_a_cut_last_line_is_said_to_be_cut(tmp_path):
    number, sentence = one_fault(put(tmp_path, "a.jsonl", JSONL + JSONL[:17]))
    assert number == 4
    assert "cut short" in sentence


def test_a_huge_line_is_refused_without_parsing(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_ROW_BYTES", 1000)
    number, sentence = one_fault(put(tmp_path, "a.jsonl", JSONL + b'{"text": "' + b"x" * 2000 + b'"}\n'))
    assert (number, "a line of 2,012 bytes" in sentence) == (4, True)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"one,two,three\n", "3 cells"),
        (b"alone\n", "1 cells"),
        (b",\n", "a row of empty cells"),
        (b'"a"b,c\n', "broken quoting"),
        (b"caf\xe9,b\n", "byte 0xe9"),
        (b"a\x00,b\n", "NUL"),
    ],
)
def test_a_bad_csv_record_is_one_bad_row_with_its_line(tmp_path, line, found):
    number, sentence = one_fault(put(tmp_path, "a.csv", b"text,label\nx,a\ny,b\n" + line))
    assert (number, found in sentence) == (4, True), sentence


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b" \n\r\n", "is empty"),
        ("a.jsonl.gz", gzip.compress(b""), "is empty"),
        ("a.json", b"[]", "holds no rows"),
        ("a.csv", b"text,label\n", "holds no rows"),
        ("a.csv", b"text,text\nx,y\n", "column text stands twice"),
        ("a.csv", b'text,label\nx,a\n"open,b\n', "line 3: found a quote that is never closed"),
        ("a.csv", b'text,label\n"open,b\n' + b"x,a\n" * 50, "Lines 2 to 52 were read as one row"),
        ("a.csv", b'text,label\n"open,b\n' + b"x,a\n" * 50 + b'"y",b\n', "line 2: found a quote that is never closed"),
        ("a.json", b'[{"a": ' + b"1" * 5000 + b"}]", "found a number of 5,000 digits"),
        ("a.jsonl", JSONL.decode().encode("utf-16"), "UTF-16"),
        ("a.jsonl", JSONL.decode().encode("utf-16-le"), "UTF-16"),
        ("a.csv", "text,label\nä,b\n".encode("utf-16-be"), "iconv -f utf-16be"),
        ("a.jsonl", JSONL.decode().encode("utf-32"), "UTF-32; expected UTF-8. Convert it: iconv -f utf-32 "),
        ("a.jsonl", JSONL.decode().encode("utf-32-le"), "iconv -f utf-32le"),
        ("a.csv", "text,label\nä,b\n".encode("utf-32-be"), "iconv -f utf-32be"),
        ("a.jsonl.gz", JSONL, "not one"),
        ("a.jsonl.gz", gzip.compress(JSONL)[:-9], "cut short"),
        ("a.jsonl.gz", gzip.compress(JSONL)[:-8] + bytes(8), "damaged gzip"),
        ("a.jsonl.gz", gzip.compress(gzip.compress(JSONL)), "gzip inside gzip"),
        ("a.parquet", JSONL, "not begin like one"),
        ("a.parquet", b"PAR1" + b"\0" * 50, "no readable Parquet"),
        ("a.xlsx", b"PK\x03\x04....", "a zip archive"),
        ("a.bin", b"\x80\x04\x95", "pickle"),
        ("a.bin", b"\x01\x02\x03", "no kind we know"),
        ("a.json", b'[{"text": "x"}, {"te', "malformed JSON"),
        ("a.json", b'[{"text": "caf\xe9"}]', "line 1: found byte 0xe9"),
        ("a.json", b"[" * 100_000, "nested"),
        ("a.json", b'"text"', "expected a list of objects"),
        ("a.json", b'{"a": [{}], "b": [{}]}', "expected a list of objects"),
    ],
    ids=itertools.count(),
)
def test_a_bad_file_is_a_sentence_with_its_name(tmp_path, name, data, said):
    with pytest.raises(DataError, match=name.replace(".", r"\.")) as error:
        load(put(tmp_path, name, data))
    assert said in str(error.value)


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_BYTES", 1 << 20)
    with pytest.raises(DataError, match="bomb"):
        load(put(tmp_path, "a.jsonl.gz", gzip.compress(b" " * (8 << 20))))


def test_many_gzip_members_take_time_in_proportion(tmp_path):
    path = put(tmp_path, "a.jsonl.gz", gzip.compress(b"") * 100_000 + gzip.compress(JSONL))
    start = time.process_time()
    assert good(path) == ROWS
    assert time.process_time() - start < 3


BOMBS = {
    "a text in every row": pa.DictionaryArray.from_arrays(pa.array([0] * 200, pa.int32()), pa.array(["x" * 1_000_000])),
    "a list of one text": pa.ListArray.from_arrays(
        pa.array([0, 200]),
        pa.DictionaryArray.from_arrays(pa.array([0] * 200, pa.int32()), pa.array(["x" * 1_000_000])),
    ),
    "no text": pa.nulls(5_000_000),
    "numbers": pa.array([7] * 5_000_000, pa.int8()),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_parquet_bomb_is_refused_before_it_is_unpacked(tmp_path, name):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": BOMBS[name]}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(DataError, match=r"a\.parquet unpacks to .* bytes or more; expected at most 67,108,864"):
        load(path)
    assert pa.default_memory_pool().max_memory() - before < 100 << 20


def test_a_bomb_of_shared_prefixes_is_read_in_small_batches(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    options = {"compression": "zstd", "use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}
    pq.write_table(pa.table({"text": ["one", "two"]}), path, **options)
    assert [row["text"] for row in good(path)] == ["one", "two"]
    pq.write_table(pa.table({"text": ["x" * 100_000] * 100}), path, **options)
    monkeypatch.setattr(readers, "most_unpacked", lambda size: 1_000_000)
    with pytest.raises(DataError, match=r"unpacks to 1,[0-9]{3},[0-9]{3} bytes"):
        load(path)


def test_parquet_times_that_python_lacks_are_text(tmp_path):
    columns = {
        "text": pa.array(["a"]),
        "at": pa.array([1], pa.timestamp("ns")),
        "day": pa.array([2**30], pa.date32()),
        "log": pa.array([[{"took": 1}]], pa.list_(pa.struct([("took", pa.time64("ns"))]))),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    (row,) = good(tmp_path / "a.parquet")
    assert (row["text"], row["at"]) == ("a", "1970-01-01 00:00:00.000000001")
    assert row["log"] == [{"took": "00:00:00.000000001"}]


def test_a_parquet_column_that_stands_twice_is_refused(tmp_path):
    one = pa.array(["a"])
    pq.write_table(pa.Table.from_arrays([one, one], names=["text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: column text stands twice"):
        load(tmp_path / "a.parquet")
    nested = pa.StructArray.from_arrays([one, one], names=["role", "role"])
    pq.write_table(pa.table({"messages": pa.ListArray.from_arrays(pa.array([0, 1]), nested)}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: column role stands twice"):
        load(tmp_path / "b.parquet")


def test_a_file_above_the_size_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "MAX_BYTES", 10)
    with pytest.raises(DataError, match="at most 10"):
        load(put(tmp_path, "a.jsonl", JSONL))


def test_what_is_no_file_is_named(tmp_path):
    put(tmp_path, "tickets.jsonl", JSONL)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="a pipe"):
        load(tmp_path / "pipe")
    with pytest.raises(DataError, match=r"is a folder.*tickets\.jsonl"):
        load(tmp_path)
    with pytest.raises(DataError, match="a device"):
        load(Path("/dev/zero"))
    with pytest.raises(DataError, match=r'does not exist.*Did you mean "tickets\.jsonl"'):
        load(tmp_path / "tickets.json")
    with pytest.raises(DataError, match="no folder"):
        load(tmp_path / "nowhere" / "tickets.json")
    for address in ("https://example.org/a.jsonl", "s3://bucket/a.jsonl", "hf://datasets/x"):
        with pytest.raises(DataError, match="an address"):
            load(Path(address))
    for path in ("x" * 5000, "a\0b"):
        with pytest.raises(DataError, match="cannot be opened"):
            load(tmp_path / path)


def test_a_socket_and_a_loop_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        with pytest.raises(DataError, match="a socket"):
            load(Path("s"))
    Path("loop").symlink_to("loop")
    with pytest.raises(DataError, match="cannot be opened"):
        load(Path("loop"))


@pytest.mark.parametrize("name", ["with space.jsonl", 'it\'s "quoted".jsonl', "line\nbreak.jsonl", "emoji 🙂.jsonl"])
def test_odd_names_are_read(tmp_path, name):
    assert good(put(tmp_path, name, JSONL)) == ROWS


def test_raw_text_can_always_be_written(tmp_path):
    rows = load(put(tmp_path, "a.jsonl", b'{"text": "\\ud800 ' + b"x" * 5000 + b'"}\n\xff\xfe\xff bad\n')).rows
    for row in rows:
        assert row.error is not None
        assert 0 < len(row.text().encode()) <= 8000


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = put(tmp_path, "a.jsonl", JSONL)
    stat = os.fstat

    def growing(handle: int) -> os.stat_result:
        found = stat(handle)
        with path.open("ab") as stream:
            stream.write(JSONL)
        return found

    monkeypatch.setattr(os, "fstat", growing)
    with pytest.raises(DataError, match="changed while it was read"):
        load(path)


def test_ten_thousand_columns_are_read(tmp_path):
    names = ",".join(f"c{i}" for i in range(10_000))
    (row,) = good(put(tmp_path, "a.csv", f"{names}\n{names}\n".encode()))
    assert len(row) == 10_000
