"""Instructions written from the data say what a fair person would say."""

import json
from collections.abc import Callable

from tunesmith.core.example import Example, Message
from tunesmith.evaluate.prompts import instruction, with_system

Make = Callable[..., Example]


def test_json_keys_and_closed_values(make_chat: Make) -> None:
    rows = [
        make_chat(n, "q", json.dumps({"intent": ["refund", "card"][n % 2], "urgent": n % 3 == 0, "id": f"x{n}"}))
        for n in range(12)
    ]
    text = instruction(rows, "generate", ())
    assert "one JSON object with the keys intent, urgent, id." in text
    assert "intent is one of: card, refund." in text
    assert "urgent is one of: false, true." in text
    assert "id is" not in text
    assert "is one of" not in instruction(rows, "generate", (), lists=False)


def test_labels_are_listed_up_to_a_hundred(make_labelled: Make) -> None:
    rows = [make_labelled(1, "t", "a")]
    assert instruction(rows, "classify", ("b", "a")).startswith("Answer with exactly one of: a, b.")
    many = tuple(f"label{n:03}" for n in range(101))
    text = instruction(rows, "classify", many)
    assert "such as label000, label001, label002" in text
    assert "label050" not in text


def test_open_text_says_how_long(make_chat: Make) -> None:
    rows = [make_chat(n, "q", f"answer {n} " + "word " * 8) for n in range(5)]
    assert instruction(rows, "generate", ()).endswith("Use about 10 words.")


def test_the_rows_own_system_message_stays_first() -> None:
    merged = with_system((Message(role="system", content="Own."), Message(role="user", content="Hi")), "Ours.")
    assert [m.role for m in merged] == ["system", "user"]
    assert merged[0].content == "Own.\n\nOurs."
    assert with_system((), "Ours.")[0].content == "Ours."
