"""Files to datasets: detection that explains itself, the policy on bad rows, and real sets."""

import json
from pathlib import Path

import pytest

from tunesmith.core.errors import DataError, PartError
from tunesmith.core.recipe import DataRecipe
from tunesmith.data.read import read


def jsonl(folder: Path, rows: list, name: str = "tickets.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return path


def recipe(**options) -> DataRecipe:
    return DataRecipe(train="tickets.jsonl", **options)


CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
BAD = {
    "messages": [
        {"role": "user", "content": "hi"},
        {"role": "user", "content": "ho"},
        {"role": "asistant", "content": "x"},
    ]
}


def test_chat_is_explained(tmp_path):
    dataset = read(jsonl(tmp_path, [CHAT] * 3), recipe(), "generate")
    assert dataset.why == "read as chat messages because every row has a list `messages` of role/content"
    assert dataset.format == "chat"
    assert [e.place.line for e in dataset.examples] == [1, 2, 3]
    assert dataset.examples[2].id == "tickets.jsonl:3"


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"instruction": "i", "input": "", "output": "o"}, "alpaca"),
        ({"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]}, "sharegpt"),
        ({"conversations": [{"role": "assistant", "content": "x"}]}, "chat"),
        ({"question": "q", "answer": "a"}, "prompt_completion"),
        ({"input": "q", "output": "a"}, "prompt_completion"),
        ({"text": "t", "label": 0, "id": 4}, "text_label"),
        ({"text": "t", "path": "p"}, "plain_text"),
    ],
)
def test_detection(tmp_path, row, name):
    assert read(jsonl(tmp_path, [row] * 4), recipe(), "generate").format == name


def test_stop_shows_the_first_five_and_the_way_out(tmp_path):
    path = jsonl(tmp_path, [CHAT, *[BAD] * 4, "{oops", BAD, CHAT])
    with pytest.raises(DataError) as error:
        read(path, recipe(), "generate")
    lines = str(error.value).split("\n")
    expected = 'found "asistant"; expected system, user, assistant or tool. Did you mean "assistant"?'
    assert lines[0] == f"{path} line 2, field messages[2].role: {expected}"
    assert lines[4].startswith(f"{path} line 6: found malformed JSON")
    assert lines[5] == "... and 1 more."
    assert "6 of 8 are bad" in lines[6]
    assert "data.on_bad_row: quarantine" in lines[6]


def test_quarantine_keeps_the_reason_and_the_raw_row(tmp_path):
    dataset = read(jsonl(tmp_path, [CHAT, CHAT, BAD, "{oops"]), recipe(on_bad_row="quarantine"), "generate")
    assert len(dataset.examples) == 2
    assert dataset.why.startswith("read as chat messages because 2 of 4 rows have")
    assert [(b.place.line, b.raw) for b in dataset.bad_rows] == [(3, json.dumps(BAD)), (4, "{oops")]
    assert dataset.bad_rows[0].reason.startswith("field messages[2].role: found")


@pytest.mark.parametrize("rows", [["{oops"] * 3, [BAD] * 3, [{"text": "x", "label": None}]])
def test_all_rows_bad_is_an_error_under_either_policy(tmp_path, rows):
    for policy in ("stop", "quarantine"):
        with pytest.raises(DataError, match="No row of"):
            read(jsonl(tmp_path, rows), recipe(on_bad_row=policy), "generate")


def test_unknown_rows_list_columns_formats_and_an_example(tmp_path):
    with pytest.raises(DataError) as error:
        read(jsonl(tmp_path, [{"body": "x", "reply": "y"}]), recipe(), "generate")
    said = str(error.value)
    assert "columns found: body, reply" in said
    assert "columns: {prompt: body, completion: reply}" in said
    assert "sharegpt:" in said


def test_columns_map_our_names_to_the_file(tmp_path):
    path = jsonl(tmp_path, [{"clause": "c", "kind": "k", "text": "other"}])
    example = read(path, recipe(columns={"text": "clause", "label": "kind"}), "classify").examples[0]
    assert (example.input_text, example.label) == ("c", "k")
    with pytest.raises(DataError, match=r'no column clauses, which data\.columns\.text names\. Did you mean "clause"'):
        read(path, recipe(columns={"text": "clauses"}), "classify")
    with pytest.raises(DataError, match=r'unknown name labl\. Did you mean "label"'):
        read(path, recipe(columns={"labl": "kind"}), "classify")


def test_format_overrides_and_is_checked(tmp_path):
    path = jsonl(tmp_path, [{"text": "t", "label": "l"}])
    dataset = read(path, recipe(format="plain_text"), "generate")
    assert (dataset.examples[0].text, dataset.format) == ("t", "plain_text")
    assert "format: plain_text" in dataset.why
    with pytest.raises(PartError, match="alpaca"):
        read(path, recipe(format="alpacca"), "generate")


def test_group_by_is_kept_and_a_missing_column_names_the_others(tmp_path):
    rows = [{"text": "t", "label": "l", "customer": 7}]
    dataset = read(jsonl(tmp_path, rows), recipe(split={"group_by": "customer"}), "classify")
    assert dataset.examples[0].group == "7"
    with pytest.raises(DataError, match=r"\(data\.test\) has no column costumer.*Did you mean.*text, label, customer"):
        read(jsonl(tmp_path, rows), recipe(split={"group_by": "costumer"}), "classify", "test")


def test_a_csv_names_its_line(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nx,a\n\ny,b,c\n")
    with pytest.raises(DataError, match=r"a\.csv line 4: found 3 cells; expected 2"):
        read(tmp_path / "a.csv", recipe(), "classify")


def test_a_text_file_is_plain_text(tmp_path):
    (tmp_path / "a.txt").write_text("One.\n\nTwo.\n")
    assert [e.text for e in read(tmp_path / "a.txt", recipe(), "generate").examples] == ["One.", "Two."]


REAL = [
    ("banking77/train.jsonl", "classify", {}, 10_003, "text_label"),
    ("cuad/clauses_train.jsonl", "classify", {"text": "clause"}, 8_173, "text_label"),
    ("medquad/train.jsonl.gz", "generate", {}, 15_407, "prompt_completion"),
    ("toolcall_glaive_300/glaive_toolcall_en_demo.jsonl", "generate", {}, 300, "sharegpt"),
    ("instruct_alpaca_en_1k/alpaca_en_demo.jsonl", "generate", {}, 999, "alpaca"),
    ("mbpp/mbpp.jsonl", "generate", {"prompt": "text", "completion": "code"}, 974, "prompt_completion"),
    ("sst2/dev.jsonl", "classify", {}, 872, "text_label"),
    ("classic_books/books_valid.jsonl.gz", "generate", {}, 12, "plain_text"),
    ("wikitext2/valid.txt", "generate", {}, 1_160, "plain_text"),
    ("cuad/master_clauses.csv", "classify", {"text": "Parties", "label": "Document Name"}, 510, "text_label"),
]


@pytest.mark.shared
@pytest.mark.parametrize(("file", "task", "columns", "rows", "name"), REAL)
def test_real_sets_are_read_whole(shared_folder, file, task, columns, rows, name):
    dataset = read(shared_folder / "data" / file, recipe(columns=columns), task)
    assert (len(dataset.examples), len(dataset.bad_rows), dataset.format) == (rows, 0, name)
