"""One conformance test for every format, then what each does with right, odd and wrong rows."""

import json

import pytest

from tunesmith.core import parts
from tunesmith.core.example import Place
from tunesmith.data.formats._row import Row
from tunesmith.data.rows import RowError

FORMATS = parts.names("data.formats")
PLACE = Place(file="f.jsonl", line=7)


def row(value, **options):
    return Row(value, PLACE, **options)


def convert(name, value, task="generate", **options):
    return parts.find("data.formats", name).convert(row(value, **options), task)


def fails(name, value, task="generate", **options):
    with pytest.raises(RowError) as error:
        convert(name, value, task, **options)
    return str(error.value)


@pytest.mark.parametrize("name", FORMATS)
def test_conformance(name):
    part = parts.find("data.formats", name)
    example = row(json.loads(part.example))
    assert part.name == name
    assert part.recognises(example)
    assert part.recognises(row({"unheard_of": 1})) is None
    converted = part.convert(example, "generate")
    assert converted.place == PLACE
    assert converted.text or converted.answer == "..."
    if name != "plain_text":
        labelled = part.convert(example, "classify")
        assert labelled.label == "..."
        assert [m.role for m in labelled.messages][-1] == "user"
        assert labelled.input_text.strip() == "..."
    grouped = row({**example.value, "customer": 12}, group_by="customer")
    assert part.convert(grouped, "generate").group == "12"
    with pytest.raises(RowError, match="field customer: found null"):
        part.convert(row(example.value, group_by="customer"), "generate")
    with pytest.raises(RowError):
        part.convert(row(dict.fromkeys(example.value)), "generate")


def test_precedence_is_distinct():
    ranks = [parts.find("data.formats", name).precedence for name in FORMATS]
    assert len(set(ranks)) == len(ranks)


@pytest.mark.parametrize("name", FORMATS)
def test_each_example_is_known_by_its_own_format_first(name):
    value = json.loads(parts.find("data.formats", name).example)
    known = [p for p in (parts.find("data.formats", n) for n in FORMATS) if p.recognises(row(value))]
    assert min(known, key=lambda p: p.precedence).name == name


def test_chat_keeps_openai_rows_whole():
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    value = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Weather "}, {"type": "text", "text": "in Oslo?"}]},
            {"role": "assistant", "content": None, "tool_calls": [call], "weight": 0},
            {"role": "tool", "content": "4 C", "tool_call_id": "c1", "name": "weather"},
            {"role": "assistant", "content": "4 degrees.", "weight": 1},
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}],
        "parallel_tool_calls": False,
    }
    example = convert("chat", value)
    assert [m.role for m in example.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert example.messages[1].content == "Weather in Oslo?"
    assert example.messages[2].tool_calls[0]["function"]["arguments"] == {"city": "Oslo"}
    assert [m.weight for m in example.messages] == [1, 1, 0, 1, 1]
    assert (example.messages[3].tool_call_id, example.messages[3].name) == ("c1", "weather")
    assert example.tools[0]["function"]["name"] == "weather"
    assert example.answer == "4 degrees."


def test_chat_reads_the_older_function_call_and_developer():
    call = {"name": "f", "arguments": "{}"}
    turns = [{"role": "developer", "content": "s"}, {"role": "user", "content": "u"}]
    value = {"messages": [*turns, {"role": "assistant", "function_call": call}], "functions": [{"name": "f"}]}
    example = convert("chat", value)
    assert example.messages[0].role == "system"
    assert example.messages[-1].tool_calls == ({"type": "function", "function": {"name": "f", "arguments": {}}},)
    assert example.tools == ({"type": "function", "function": {"name": "f"}},)


USER = {"role": "user", "content": "hi"}
CHAT_FAULTS = [
    (
        {"role": "asistant", "content": "x"},
        'field messages[1].role: found "asistant"; expected system, user, assistant',
    ),
    ({"role": "asistant", "content": "x"}, 'Did you mean "assistant"?'),
    ({"role": "assistant", "content": None}, "field messages[1].content: found null; expected text"),
    ({"role": "assistant", "content": 5}, "field messages[1].content: found 5"),
    ({"role": "assistant", "contents": "x"}, "field messages[1].contents: found an unknown key"),
    ({"role": "assistant", "content": "x", "weigth": 0}, 'Did you mean "weight"?'),
    ({"role": "assistant", "content": "x", "weight": -1}, "field messages[1].weight: found -1"),
    ({"role": "assistant", "content": "x", "weight": True}, "field messages[1].weight: found true"),
    ({"content": "x"}, "field messages[1].role: found no role (the message has content)"),
    ({"role": "assistant"}, "no content (the message has role, content)"),
    ("x", 'field messages[1]: found "x"'),
    (
        {"role": "user", "content": [{"type": "image_url", "image_url": "u"}]},
        "field messages[1].content[0]: found a part",
    ),
    ({"role": "assistant", "tool_calls": "call f"}, "field messages[1].tool_calls: found"),
    ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{oops"}}]}, "function.arguments"),
    ({"role": "user", "content": "x", "tool_calls": [{"function": {"name": "f"}}]}, "tool calls by user"),
]


@pytest.mark.parametrize(("turn", "said"), CHAT_FAULTS)
def test_chat_faults_name_the_turn_and_the_field(turn, said):
    if turn == {"role": "assistant"}:
        said = "no content (the message has role)"
    assert said in fails("chat", {"messages": [USER, turn]})


@pytest.mark.parametrize("value", [[], None, {}, "not json", 3])
def test_chat_without_turns(value):
    assert "field messages: found" in fails("chat", {"messages": value})


def test_chat_for_classify_takes_the_last_answer_or_the_label_column():
    answer = {"role": "assistant", "content": " refund "}
    assert convert("chat", {"messages": [USER, answer]}, "classify").label == "refund"
    assert convert("chat", {"messages": [USER], "label": 1}, "classify").label == "1"
    assert "found a last turn by user; expected the label" in fails("chat", {"messages": [USER]}, "classify")
    assert "found a last turn by user; expected the answer" in fails("chat", {"messages": [USER]}, "generate")


def test_sharegpt_tools_become_calls():
    turns = [
        {"from": "human", "value": "Weather?"},
        {"from": "function_call", "value": '{"name": "w", "arguments": {"city": "Oslo"}}'},
        {"from": "observation", "value": "4 C"},
        {"from": "gpt", "value": "4 degrees."},
    ]
    example = convert("sharegpt", {"conversations": turns, "system": "Be brief.", "tools": '[{"name": "w"}]'})
    assert [m.role for m in example.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert example.messages[2].tool_calls[0]["function"] == {"name": "w", "arguments": {"city": "Oslo"}}
    assert example.tools == ({"name": "w"},)


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ({"from": "humna", "value": "x"}, 'field conversations[0].from: found "humna"'),
        ({"from": "humna", "value": "x"}, 'Did you mean "human"?'),
        ({"value": "x"}, "no speaker"),
        ({"from": "human", "value": None}, "field conversations[0].value: found null"),
        ({"from": "human", "valu": "x"}, "no value (the turn has from, valu)"),
        ({"from": "function_call", "value": "call it"}, "field conversations[0].value"),
        ("hello", "field conversations[0]: found"),
    ],
)
def test_sharegpt_faults(turn, said):
    assert said in fails("sharegpt", {"conversations": [turn]})


def test_alpaca_joins_input_and_reads_history():
    value = {"instruction": "Add.", "input": "2 and 3", "output": "5", "system": "s", "history": [["q", "a"]]}
    example = convert("alpaca", value)
    assert [m.role for m in example.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert example.messages[3].content == "Add.\n\n2 and 3"
    assert convert("alpaca", {"instruction": "Add.", "input": None, "output": "5"}).messages[0].content == "Add."
    assert "field history" in fails("alpaca", {"instruction": "x", "output": "y", "history": [["q"]]})


def test_numbers_and_nulls_are_no_text():
    assert "field completion: found 5 (a number); expected text" in fails(
        "prompt_completion", {"prompt": "x", "completion": 5}
    )
    assert "field output: found null" in fails("alpaca", {"instruction": "x", "output": None})
    assert "field text: found a list of 1" in fails("text_label", {"text": ["x"], "label": "a"})


def test_prompt_completion_by_other_names_and_as_messages():
    assert convert("prompt_completion", {"question": "q", "answer": "a", "source": "s"}).answer == "a"
    mapped = {"prompt": "text", "completion": "code"}
    assert convert("prompt_completion", {"text": "q", "code": "a"}, columns=mapped).input_text == "q"
    assert "field code: found null" in fails("prompt_completion", {"text": "q", "code": None}, columns=mapped)
    lists = {"prompt": [USER], "completion": [{"role": "assistant", "content": "a"}]}
    assert convert("prompt_completion", lists).answer == "a"


@pytest.mark.parametrize(("label", "text"), [(0, "0"), (True, "true"), (2.0, "2"), (" a b ", "a b")])
def test_labels_become_names(label, text):
    assert convert("text_label", {"text": "x", "label": label}, "classify").label == text
    assert convert("text_label", {"text": "x", "label": label}).answer == text


@pytest.mark.parametrize("label", [None, 0.5, [1], {}])
def test_what_is_no_label(label):
    assert "field kind: found" in fails("text_label", {"text": "x", "kind": label}, columns={"label": "kind"})


def test_plain_text_is_not_assumed_beside_an_answer():
    part = parts.find("data.formats", "plain_text")
    assert part.recognises(row({"text": "x", "path": "p"}))
    assert part.recognises(row({"text": "x", "code": "c"})) is None
    assert part.recognises(row({"body": "x", "code": "c"}, columns={"text": "body"}))
    assert "task: classify" in fails("plain_text", {"text": "x"}, "classify")


# -- preferences -------------------------------------------------------------------------------------------------------

OPENAI = {
    "input": {"messages": [{"role": "user", "content": "Hi"}], "tools": [], "parallel_tool_calls": True},
    "preferred_output": [{"role": "assistant", "content": "Good day."}],
    "non_preferred_output": [{"role": "assistant", "content": "What?"}],
}
ANTHROPIC = {
    "chosen": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Help?\n\nAssistant: Of course.",
    "rejected": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Help?\n\nAssistant: No.",
}
TURNS = [{"role": "user", "content": "Hi"}]
PREFERENCES = {
    "openai": (OPENAI, ["user"], "Good day.", "What?"),
    "anthropic": (ANTHROPIC, ["user", "assistant", "user"], "Of course.", "No."),
    "texts": ({"prompt": "Hi", "chosen": "Yes", "rejected": "No"}, ["user"], "Yes", "No"),
    "alpaca": (
        {"instruction": "Add", "input": "1 and 2", "chosen": "3", "rejected": "12"},
        ["user"],
        "3",
        "12",
    ),
    "transcripts": (
        {
            "prompt": "Hi",
            "chosen": [*TURNS, {"role": "assistant", "content": "Yes"}],
            "rejected": [*TURNS, {"role": "assistant", "content": "No"}],
        },
        ["user"],
        "Yes",
        "No",
    ),
    "messages": (
        {
            "prompt": TURNS,
            "chosen": [{"role": "assistant", "content": "Yes"}],
            "rejected": [{"role": "assistant", "content": "No"}],
        },
        ["user"],
        "Yes",
        "No",
    ),
    "a prompt that ends with the turn to come": (
        {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Yes", "rejected": " No"},
        ["user"],
        " Yes",
        " No",
    ),
    "no prompt of its own": (
        {
            "chosen": [*TURNS, {"role": "assistant", "content": "Yes"}],
            "rejected": [*TURNS, {"role": "assistant", "content": "No"}],
        },
        ["user"],
        "Yes",
        "No",
    ),
}


@pytest.mark.parametrize("case", PREFERENCES)
def test_preferences_of_every_kind_are_a_prompt_and_two_answers(case):
    value, roles, better, worse = PREFERENCES[case]
    example = convert("preference", value, "prefer")
    assert [m.role for m in example.prompt] == roles
    assert example.answer == better
    assert example.rejected.content == worse
    assert (example.margin, example.tie) == (0.0, False)


def test_alpaca_preferences_join_instruction_and_input():
    assert convert("preference", PREFERENCES["alpaca"][0], "prefer").input_text == "Add\n\n1 and 2"


def test_preferences_have_margins_ties_and_tools():
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    value = {**OPENAI, "input": {**OPENAI["input"], "tools": [tool]}, "margin": 1.5, "tie": True}
    example = convert("preference", value, "prefer")
    assert (example.margin, example.tie, example.tools) == (1.5, True, (tool,))


def test_for_generate_the_better_answer_is_the_answer():
    assert convert("preference", OPENAI, "generate").answer == "Good day."


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rejected": None}, "field rejected: found null; expected text, or messages."),
        ({"rejected": 3}, "field rejected: found 3; expected text, or messages."),
        ({"prompt": 7}, "field prompt: found 7; expected text, or messages."),
        ({"margin": -1}, "field margin: found -1; expected a number from 0 upwards."),
        ({"margin": "big"}, 'field margin: found "big"; expected a number from 0 upwards.'),
        ({"tie": "yes"}, 'field tie: found "yes"; expected true or false.'),
        ({"rejected": TURNS}, "field rejected: found turns by user; expected one answer by assistant, as text."),
        ({"prompt": None}, "found no prompt"),
    ],
)
def test_bad_preferences(changes, told):
    assert told in fails("preference", {"prompt": "Hi", "chosen": "Yes", "rejected": "No", **changes}, "prefer")


def test_equal_answers_prefer_nothing():
    value = {"prompt": "Hi", "chosen": "Yes ", "rejected": "Yes"}
    told = "field rejected: found the text of chosen once more; expected another answer (or tie: true)."
    assert told in fails("preference", value, "prefer")
    assert convert("preference", {**value, "tie": True}, "prefer").tie
    assert convert("preference", value, "generate").answer == "Yes "


def test_transcripts_that_part_early_are_refused():
    other = ANTHROPIC["rejected"].replace("Hello.", "Go away.")
    assert "turns that differ before the last one" in fails("preference", {**ANTHROPIC, "rejected": other}, "prefer")


@pytest.mark.parametrize(("label", "wanted"), [(True, True), (0, False), ("true", True), ("False", False)])
def test_judged_answers(label, wanted):
    value = {"prompt": "Hi", "completion": "Yes", "label": label}
    assert parts.find("data.formats", "judged").recognises(row(value))
    example = convert("judged", value, "prefer")
    assert (example.answer, example.wanted) == ("Yes", wanted)


def test_a_prompt_beside_transcripts_is_what_they_ask():
    value = PREFERENCES["transcripts"][0]
    assert convert("preference", {**value, "prompt": " Hi "}, "prefer").input_text == "Hi"
    assert "other words than the last question" in fails("preference", {**value, "prompt": "Bye"}, "prefer")


def test_margins_and_ties_as_tables_write_them():
    value = {"prompt": "Hi", "chosen": "Yes", "rejected": "No", "margin": "0.5", "tie": "true"}
    example = convert("preference", value, "prefer")
    assert (example.margin, example.tie) == (0.5, True)
    assert convert("preference", {**value, "margin": "", "tie": ""}, "prefer").margin == 0.0


def test_a_judgement_is_true_or_false():
    value = {"prompt": "Hi", "completion": "Yes", "label": "good"}
    assert parts.find("data.formats", "judged").recognises(row(value)) is None
    assert "expected true (wanted) or false (not wanted)" in fails("judged", value, "prefer")


@pytest.mark.parametrize(
    ("scores", "expected"), [((8, 3.5), (8.0, 3.5)), (("2", "9"), (2.0, 9.0)), ((None, 3.0), None), (("good", 1), None)]
)
def test_scores_of_both_answers_are_read_where_they_are_numbers(scores, expected):
    value = {"prompt": "Hi", "chosen": "Yes", "rejected": "No"}
    value |= dict(zip(("score_chosen", "score_rejected"), scores, strict=True))
    assert convert("preference", value, "prefer").scores == expected
