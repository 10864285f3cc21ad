"""The final number of real solutions, of every spelling it has to read, and of texts made to stall it."""

import json
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tunesmith.evaluate.metrics.maths_answer import LAST_CHARACTERS, PART, final_number

HOSTILE = {
    "digits": "1" * 100_000,
    "exponent": "1e999999999",
    "digits of an exponent": "1e" + "9" * 100_000,
    "fractions in a row": "1/" * 50_000,
    "a fraction that never ends": "1/" + "5" * 20_000 + "/",
    "thousands": "1,111" * 20_000,
    "boxes": "\\boxed{" * 9_000,
    "hashes": "####" * 9_000,
    "markers": "#### 1 " * 9_000,
    "answers": "answer is " * 9_000,
    "equals": "answer is " + "=" * 20_000,
    "blanks": "answer" + " " * 20_000,
    "half fractions": "\\frac{1}{" * 3_000,
    "mixed": "1 1/" * 9_000,
    "signs": "-$" * 10_000,
    "dots": "1." * 10_000,
    "controls": "\x00\ud800 18 \udfff" * 2_000,
}


def rows(path: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_text_stalls_or_breaks_it(text: str) -> None:
    started = time.perf_counter()
    PART.rows([text, "#### 18"], ["#### 18", text])
    assert time.perf_counter() - started < 1.0


@pytest.mark.parametrize("text", ["1e101", "1e-101", "9" * 101, "1/" + "9" * 101, "7/0", "0/0.0"])
def test_a_number_out_of_bounds_equals_nothing(text: str) -> None:
    assert final_number(f"The answer is {text}.") is None
    assert PART.rows([text], [text])[0, 0] == 0


def test_only_the_end_of_a_long_text_counts() -> None:
    assert final_number("#### 18\n" + "x " * LAST_CHARACTERS) is None
    assert final_number("#### 17\n" + "x " * LAST_CHARACTERS + "18") == 18


@pytest.mark.shared
def test_every_gsm8k_reference_is_read_and_its_neighbour_is_wrong(shared_folder: Path) -> None:
    for row in rows(shared_folder / "data" / "gsm8k" / "test.jsonl"):
        gold = int(row["answer"].partition("####")[2].strip().replace(",", ""))
        answers = [f"The answer is ${gold:,}.", f"so \\boxed{{{gold}}}", f"that makes {gold}.00 in all", str(gold + 1)]
        assert PART.rows(answers, [row["answer"]] * 4)[:, 0].tolist() == [1, 1, 1, 0], row


@pytest.mark.shared
def test_every_svamp_answer_is_read(shared_folder: Path) -> None:
    for row in rows(shared_folder / "data" / "svamp_mawps_asdiv" / "svamp.jsonl"):
        solved = f"{row['Equation']} = {row['Answer']}"
        assert final_number(solved) == Fraction(row["Answer"]) == final_number(f"The answer is {row['Answer']:,.0f}.")
