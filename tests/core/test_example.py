"""An example's views: prompt, input text, answer and id, for chats, labels and plain text."""

import pytest
from pydantic import ValidationError

from tunesmith.core.example import Dataset, Example, Message, Place

PLACE = Place(file="/data/tickets.jsonl", line=41)
SYSTEM = Message(role="system", content="Be brief.")
ASK, SAY = Message(role="user", content="Where?"), Message(role="assistant", content="Here.")
AGAIN, LAST = Message(role="user", content="When?"), Message(role="assistant", content="Now.")


def test_a_place_reads_as_file_and_line_and_names_the_row() -> None:
    assert str(PLACE) == "/data/tickets.jsonl line 41"
    assert Example(place=PLACE).id == "tickets.jsonl:41"


def test_a_chat_is_asked_all_but_its_last_answer() -> None:
    row = Example(place=PLACE, messages=(SYSTEM, ASK, SAY, AGAIN, LAST))
    assert row.prompt == (SYSTEM, ASK, SAY, AGAIN)
    assert row.input_text == "Where?\nHere.\nWhen?"
    assert row.answer == "Now."


def test_a_label_is_the_answer_and_the_whole_chat_its_prompt() -> None:
    row = Example(place=PLACE, messages=(ASK,), label="place")
    assert (row.prompt, row.input_text, row.answer) == ((ASK,), "Where?", "place")


def test_plain_text_has_no_prompt_and_no_answer() -> None:
    row = Example(place=PLACE, text="Once upon a time.")
    assert (row.prompt, row.input_text, row.answer) == ((), "Once upon a time.", "")


def test_a_chat_that_ends_with_a_question_has_no_answer() -> None:
    row = Example(place=PLACE, messages=(ASK, SAY, AGAIN))
    assert (row.prompt, row.answer) == ((ASK, SAY, AGAIN), "")
    assert Example(place=PLACE).prompt == ()


def test_a_template_gets_the_fields_it_expects_and_none_of_ours() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    assert ASK.for_template() == {"role": "user", "content": "Where?"}
    turn = Message(role="assistant", weight=0.5, tool_calls=(call,), name="bot")
    assert turn.for_template() == {"role": "assistant", "content": "", "tool_calls": [call], "name": "bot"}
    result = Message(role="tool", content="5", tool_call_id="c1")
    assert result.for_template() == {"role": "tool", "content": "5", "tool_call_id": "c1"}


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(ValidationError, match="role"):
        Message(role="asistant", content="x")  # type: ignore[arg-type]


def test_a_dataset_with_tools_and_unicode_comes_back_as_it_was() -> None:
    row = Example(place=PLACE, messages=(ASK, SAY), tools=({"name": "ü", "n": {"a": [1, None, 2.5]}},), group="7")
    data = Dataset(examples=(row,), format="chat", why="because")
    assert Dataset.model_validate_json(data.model_dump_json()) == data
