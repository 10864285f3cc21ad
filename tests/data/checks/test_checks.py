"""One conformance test for every check, then what each finds."""

import time

import pytest

from tunesmith.core import parts
from tunesmith.core.example import Example, Message, Place
from tunesmith.data.checks import private_data
from tunesmith.data.checks._check import Context

CHECKS = parts.names("data.checks")


def pair(asked: str, answer: str, line: int = 1, **message) -> Example:
    turns = (Message(role="user", content=asked), Message(role="assistant", content=answer, **message))
    return Example(place=Place(file="d/a.jsonl", line=line), messages=turns)


def pairs(rows) -> list[Example]:
    return [pair(q, a, i) for i, (q, a) in enumerate(rows, 1)]


def labelled(rows) -> list[Example]:
    return [
        Example(place=Place(file="a.jsonl", line=i), messages=(Message(role="user", content=t),), label=label)
        for i, (t, label) in enumerate(rows, 1)
    ]


def turns(*roles: str) -> Example:
    return Example(
        place=Place(file="a.jsonl", line=1), messages=tuple(Message(role=r, content=f"{r} says") for r in roles)
    )


def run(name, examples, **context):
    return parts.find("data.checks", name).run(examples, Context(**context))


def seen(name, examples, **context):
    return [(f.severity, f.count) for f in run(name, examples, **context)]


SUBJECTS = ["red roses", "old ships", "blue cheese", "tax law", "slow trains", "wild bees", "rain in May", "cold soup"]
GOOD = pairs(
    [
        (f"What do you think about {s} and number {i}?", f"I like {s} for {i} reasons.")
        for s in SUBJECTS
        for i in range(4)
    ]
)


@pytest.mark.parametrize("name", CHECKS)
def test_conformance(name):
    part = parts.find("data.checks", name)
    assert part.name == name
    assert part.doc
    assert part.run([], Context()) == ()
    assert (
        part.run(labelled([(f"{s} {i}", "ab"[i % 2]) for s in SUBJECTS for i in range(9)]), Context("classify"))
        is not None
    )
    for f in run(name, [pair("same", "")] * 150):
        assert f.check == name
        assert f.count == 150 or name == "exact_duplicates"
        assert len(f.rows) <= 100
        assert len(f.samples) <= 5
        assert all(len(s) <= 120 for s in f.samples)
        assert f.message.endswith((".", "?"))
    plain = [
        Example(place=Place(file="a.txt", line=i), text=f"{s} are what this line is about")
        for i, s in enumerate(SUBJECTS * 3)
    ]
    assert all(f.severity != "blocking" for f in run(name, plain))


@pytest.mark.parametrize("name", [n for n in CHECKS if n not in ("near_duplicates",)])
def test_good_rows_give_no_finding(name):
    assert run(name, GOOD, token_lengths=(20,) * len(GOOD), max_length=64) == ()


def test_empty():
    assert seen("empty", pairs([("a", " \n"), ("b", "x"), ("", "y")])) == [("blocking", 1), ("warning", 1)]
    assert seen("empty", [pair("a", "x", weight=0)]) == [("blocking", 1)]
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    assert seen("empty", [pair("a", "", tool_calls=(call,))]) == []
    assert seen("empty", labelled([("x", ""), ("y", "a")]), task="classify") == [("blocking", 1)]


def test_exact_duplicates():
    assert seen("exact_duplicates", pairs([("Hi!", "a"), ("hi", "A."), ("hi", "b")])) == [("warning", 1)]
    assert seen("exact_duplicates", pairs([("hi", "a")] * 4)) == [("blocking", 3)]


def test_near_duplicates_name_both_texts():
    rows = pairs(
        [
            ("how long is the delivery time to the united states", "a"),
            ("how long is the delivery times to the united states", "b"),
        ]
    )
    (found,) = run("near_duplicates", [*rows, *GOOD[::4]])
    assert (found.severity, found.count) == ("warning", 1)
    assert " ~ " in found.samples[0]


def test_contradictions_block_above_a_tenth():
    torn = [("Same?", "yes"), ("same", "no")]
    assert seen("contradictions", pairs(torn + [(f"q{i}", "a") for i in range(18)])) == [("warning", 2)]
    assert seen("contradictions", pairs(torn + [(f"q{i}", "a") for i in range(17)])) == [("blocking", 2)]
    assert seen("contradictions", labelled([("x", "C"), ("x", "c")])) == [("blocking", 2)]


def test_another_system_prompt_is_another_question():
    rows = [
        Example(place=Place(file="a", line=i), messages=(Message(role="system", content=s), *pair("hi", a).messages))
        for i, (s, a) in enumerate([("English", "hello"), ("Dansk", "hej")])
    ]
    assert run("contradictions", rows) == ()


def test_class_balance():
    assert seen("class_balance", labelled([("x", "a")] * 9), task="classify") == [("blocking", 9)]
    found = run("class_balance", labelled([("x", "a")] * 95 + [("y", "b")] * 3 + [("z", "c")] * 2), task="classify")
    assert [(f.severity, f.count) for f in found] == [("warning", 95), ("warning", 5)]
    assert found[1].samples == ("c: 2 rows", "b: 3 rows")


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        (("user",), "last turn is not the assistant's"),
        (("system", "system", "user", "assistant"), "more than one system turn"),
        (("user", "system", "user", "assistant"), "not the first"),
        (("assistant", "user", "assistant"), "speaks first"),
        (("user", "user", "assistant"), "in a row"),
        (("user", "assistant", "assistant"), "in a row"),
        (("user", "tool", "assistant"), "follows no assistant turn"),
    ],
)
def test_role_order(roles, said):
    found = run("role_order", [turns(*roles)])
    assert any(said in f.message for f in found)
    assert any(f.severity == "blocking" for f in found) == (roles[-1] != "assistant")


def test_role_order_of_tools_is_good():
    assert (
        run("role_order", [turns("system", "user", "assistant", "tool", "tool", "assistant", "user", "assistant")])
        == ()
    )


def test_answer_format_json_and_keys():
    good = [(f"q{i}", f'{{"intent": "i{i}", "urgency": 1}}') for i in range(18)]
    found = run("answer_format", pairs([*good, ("x", "refund"), ("y", '{"intnet": "a"}')]))
    assert [f.count for f in found] == [1, 1]
    assert found[0].samples == ("refund",)
    assert "intent, urgency" in found[1].message


def test_answer_format_closed_set_typos_and_variants():
    rows = [(f"q{i}", ("refund", "card_lost")[i % 2]) for i in range(98)]
    found = run("answer_format", pairs([*rows, ("x", "card_lst"), ("y", "Refund")]))
    assert [f.count for f in found] == [1, 1]
    assert 'Did you mean "card_lost"?' in found[0].samples[0]
    assert found[1].samples == ("Refund",)


@pytest.mark.parametrize(
    ("text", "kind", "secret"),
    [
        ("write to jane.doe@example.org now", "an e-mail", "jane.doe"),
        ("call +44 20 7946 0958 today", "a phone", "7946"),
        ("call (555) 123-4567 today", "a phone", "4567"),
        ("call +4915112345678", "a phone", "123456"),
        ("pay with 4111 1111 1111 1111 please", "a card", "1111 1111 1111"),
        ("pay to GB82 WEST 1234 5698 7654 32 please", "a bank account", "WEST"),
    ],
)
def test_private_data_is_found_and_masked(text, kind, secret):
    found = run("private_data", pairs([(text, "ok")]))
    assert [f.message.split("looks like ")[1].startswith(kind) for f in found] == [True]
    assert found[0].severity == "warning"
    assert secret not in found[0].model_dump_json()


@pytest.mark.parametrize(
    "text",
    [
        "on 2024-01-15 it cost 1,234,567.89",
        "pay with 4111 1111 1111 1112 please",
        "version 1.2.3.4 of 10-20 items, 3 - 4",
        "in 1990-2000 and 2010-2020",
        "user@localhost",
        "12345678901234567890123",
        "the number 3.14159265358979",
        "GB82 WEST 1234 5698 7654 33",
    ],
)
def test_what_is_not_private(text):
    assert run("private_data", pairs([(text, "ok")])) == ()


@pytest.mark.parametrize(
    "text", ["a" * 50_000, "1 " * 25_000, "1-" * 25_000, "a." * 25_000 + "@", "@" * 50_000, "AB12" * 12_000]
)
def test_private_data_is_fast_on_hostile_text(text):
    start = time.perf_counter()
    run("private_data", pairs([(text, "ok")]))
    assert time.perf_counter() - start < 1


def test_lengths_cut_or_hopeless():
    rows = [pair("q" * 90, "a" * 10), pair("q" * 10, "a" * 90, 2), pair("q", "a", 3)]
    assert seen("lengths", rows, token_lengths=(100, 100, 2), max_length=50) == [("blocking", 1), ("warning", 1)]
    exact = {"token_lengths": (100, 100, 2), "answer_lengths": (60, 10, 1), "max_length": 50}
    assert [f.rows for f in run("lengths", rows, **exact)] == [("a.jsonl:1",), ("a.jsonl:2",)]
    assert seen("lengths", rows) == []
    assert seen("lengths", labelled([("x" * 9, "a")]), token_lengths=(100,), max_length=50) == [("warning", 1)]


@pytest.mark.parametrize("text", ["a <|im_end|> b", "[INST] do", "</s>", "x <start_of_turn>", "<|start_header_id|>"])
def test_special_tokens(text):
    assert seen("special_tokens", pairs([(text, "ok"), ("a < b | c > d <b>", "ok")])) == [("warning", 1)]


def test_invisible_but_not_emoji_joiners():
    found = run("invisible", pairs([("pay\u200bment", "ok"), ("\u202eevil", "ok"), ("👩\u200d🚀 می\u200cخواهم", "ok")]))
    assert [(f.severity, f.count) for f in found] == [("info", 2)]
    assert "U+200B zero width space" in found[0].message


def test_too_few():
    assert seen("too_few", GOOD[:1]) == [("blocking", 1)]
    assert seen("too_few", GOOD[:19]) == [("warning", 19)]
    assert seen("too_few", GOOD[:20]) == []


@pytest.mark.parametrize("text", ["2021-01-01 00", "2022-03-05 08:15", "123.45.67.89", "05.03.2022 08", "2022-03-05"])
def test_dates_with_an_hour_and_addresses_of_machines_are_no_phone_numbers(text: str) -> None:
    assert private_data._phones(f"at {text} it was") == []


# -- preferences -------------------------------------------------------------------------------------------------------


def preference(asked: str, better: str, worse: str, line: int = 1, **more) -> Example:
    return pair(asked, better, line).model_copy(update={"rejected": Message(role="assistant", content=worse), **more})


def test_an_empty_worse_answer_is_told():
    assert seen("preferences", [preference("a", "yes", " ")]) == [("warning", 1)]


@pytest.mark.parametrize(("others", "severity"), [(2, "blocking"), (40, "warning")])
def test_preferences_both_ways_round(others, severity):
    rows = [preference("Who?", "I", "you"), preference("who", "You", "i", 2)]
    rows += [preference(f"{n}?", "good", "evil", n) for n in range(3, 3 + others)]
    assert seen("preferences", rows) == [(severity, 2)]


@pytest.mark.parametrize(
    ("share", "word"), [(0.9, "longer"), (0.1, "shorter"), (0.5, None)], ids=["longer", "shorter", "even"]
)
def test_length_bias(share, word):
    rows = [
        preference(f"{n}?", *(("a long answer", "short") if n < 100 * share else ("short", "a long answer")), n)
        for n in range(100)
    ]
    found = [f.message for f in run("preferences", rows)]
    assert len(found) == (word is not None)
    assert word is None or f"In 90% of 100 pairs the better answer is the {word} one." in found[0]
    assert word is None or f"compare it with the baseline {word}." in found[0]


def test_several_answers_to_one_prompt_are_no_contradiction_among_preferences():
    rows = [preference("a", "yes", "no"), preference("a", "certainly", "never", 2)]
    assert seen("contradictions", rows) == []
    assert seen("exact_duplicates", [*rows, preference("a", "yes", "perhaps", 3)]) == []
    assert seen("exact_duplicates", [*rows, preference("a", "yes", "no", 3)]) == [("warning", 1)]


def test_a_tie_the_other_way_round_contradicts_nothing():
    rows = [preference("Who?", "I", "you", tie=True), preference("Who?", "you", "I", 2, tie=True)]
    assert seen("preferences", rows) == []


@pytest.mark.parametrize(
    ("scores", "severity", "told"),
    [
        ((2.0, 9.0), "blocking", "score the worse answer higher than the better one"),
        ((4.0, 4.0), "warning", "score both answers alike"),
        ((9.0, 2.0), None, ""),
        (None, None, ""),
    ],
    ids=["contrary", "equal", "sound", "absent"],
)
def test_scores_that_contradict_the_order_of_the_answers(scores, severity, told):
    rows = [preference(f"{n}?", "good", "evil", n, scores=scores if n < 6 else (8.0, 3.0)) for n in range(40)]
    found = run("preferences", rows)
    assert [(f.severity, f.count) for f in found] == ([] if severity is None else [(severity, 6)])
    assert all(f.message.startswith(f"6 rows (15.0%) {told}") for f in found)
    assert run("preferences", [e.model_copy(update={"tie": True}) for e in rows]) == ()


def judged(asked: str, answer: str, wanted: bool, line: int = 1) -> Example:
    return pair(asked, answer, line).model_copy(update={"wanted": wanted})


@pytest.mark.parametrize(("others", "severity"), [(2, "blocking"), (40, "warning")])
def test_an_answer_that_is_wanted_and_not_wanted_is_a_contradiction_and_no_duplicate(others, severity):
    rows = [judged("Who?", "I", True), judged("who", "i", False, 2), judged("Who?", "you", False, 3)]
    rows += [judged(f"{n}?", "good", True, n) for n in range(4, 4 + others)]
    (found,) = run("preferences", rows)
    assert (found.severity, found.rows) == (severity, ("a.jsonl:1", "a.jsonl:2"))
    assert found.samples == ("Who? -> I: wanted", "who -> i: not wanted")
    assert seen("exact_duplicates", rows) == []
    assert seen("exact_duplicates", [*rows, judged("Who?", "I", True, 99)]) == [("warning", 1)]


@pytest.mark.parametrize("wanted", [True, False])
def test_judgements_that_are_all_alike_are_told(wanted):
    rows = [judged(f"{n}?", f"answer {n}", wanted, n) for n in range(24)]
    assert run("preferences", rows) == ()  # answers that are all wanted are what generate learns from
    (found,) = run("preferences", rows, task="prefer")
    assert (found.severity, found.count) == ("warning", 24)
    assert found.message.startswith(f"All 24 answers are judged {'wanted' if wanted else 'not wanted'}")
