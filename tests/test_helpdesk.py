"""The bundled tickets: the script still writes the shipped files, and ``flaws.json`` tells the truth about them."""

import itertools
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core import recipe_file

SET = Path(__file__).resolve().parent.parent / "src" / "tunesmith" / "assets" / "helpdesk"
LINES = (SET / "tickets.jsonl").read_text(encoding="utf-8").splitlines()
FLAWS: dict[str, Any] = json.loads((SET / "flaws.json").read_text(encoding="utf-8"))
PERSONAL = {
    "email": r"\S+@\S+\.\w+",
    "phone": r"(\+1 202 555 |\(415\) 555-|\+44 20 7946 |020 7946 )0\d{3}\b",
    "card": r"\b(\d{4}[ -]?){3}\d{4}\b",
}


def _kind_of_flaw(line: str) -> str:
    """Why ``line`` is no conversation of ours, or an empty string. Written apart from the generator."""
    try:
        row = json.loads(line)
    except ValueError as error:
        return "truncated line" if "Unterminated" in str(error) else "broken json"
    turns = row["messages"]
    if not isinstance(turns, list):
        return "messages not a list"
    if {turn["role"] for turn in turns} - {"user", "assistant"}:
        return "wrong role"
    if turns[-1]["role"] != "assistant":
        return "no assistant turn"
    return "null content" if any(turn["content"] is None for turn in turns) else ""


@pytest.fixture(scope="module")
def good() -> dict[int, dict[str, Any]]:
    """The readable rows by 1-based line."""
    return {at: json.loads(line) for at, line in enumerate(LINES, 1) if not _kind_of_flaw(line)}


def _ticket(row: dict[str, Any]) -> str:
    return str(row["messages"][0]["content"])


def _answer(row: dict[str, Any]) -> str:
    return str(row["messages"][1]["content"])


def _triples(text: str) -> set[tuple[str, str, str]]:
    words = re.findall(r"\w+", text.lower())
    return set(zip(words, words[1:], words[2:], strict=False))


def _similarity(a: str, b: str) -> float:
    left, right = _triples(a), _triples(b)
    return len(left & right) / len(left | right)


def test_the_script_writes_the_shipped_files_byte_for_byte(repo_root: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(repo_root / "scripts" / "make_helpdesk.py"), str(tmp_path)], check=True)
    for name in ("tickets.jsonl", "flaws.json", "README.md"):
        assert (tmp_path / name).read_bytes() == (SET / name).read_bytes(), name


def test_malformed_lines_are_those_named() -> None:
    found = [{"line": at, "kind": kind} for at, line in enumerate(LINES, 1) if (kind := _kind_of_flaw(line))]
    assert found == FLAWS["malformed"]
    assert len(found) == 6


def test_same_and_similar_tickets_are_exactly_the_planted_pairs(good: dict[int, dict[str, Any]]) -> None:
    holders = defaultdict(list)
    for at, row in good.items():
        for triple in _triples(_ticket(row)):
            holders[triple].append(at)
    shared = {pair for lines in holders.values() for pair in itertools.combinations(lines, 2)}
    similar = {pair for pair in shared if _similarity(*(_ticket(good[at]) for at in pair)) >= 0.8}
    same = {pair for pair in similar if len({_ticket(good[at]) for at in pair}) == 1}
    agreeing = {pair for pair in same if len({_answer(good[at]) for at in pair}) == 1}
    assert agreeing == set(map(tuple, FLAWS["exact_duplicates"]))
    assert same - agreeing == set(map(tuple, FLAWS["contradictions"]))
    assert similar - same == set(map(tuple, FLAWS["near_duplicates"]))
    assert (len(agreeing), len(same - agreeing), len(similar - same)) == (20, 10, 25)


def test_personal_data_stands_where_it_is_named_and_nowhere_else(good: dict[int, dict[str, Any]]) -> None:
    found = [
        {"line": at, "kind": kind}
        for at, row in good.items()
        for kind, pattern in PERSONAL.items()
        if re.search(pattern, _ticket(row))
    ]
    assert found == FLAWS["personal_data"]
    assert Counter(entry["kind"] for entry in found) == {"email": 7, "phone": 7, "card": 7}


def test_customers_with_several_tickets(good: dict[int, dict[str, Any]]) -> None:
    lines = defaultdict(list)
    for at, row in good.items():
        lines[row["customer_id"]].append(at)
    several = {name: at for name, at in lines.items() if len(at) > 1}
    assert several == FLAWS["customers_with_several_tickets"]
    assert len(several) == 120
    assert max(map(len, several.values())) == 6


def test_every_answer_is_one_of_the_promised_values(good: dict[int, dict[str, Any]]) -> None:
    answers = [json.loads(_answer(row)) for row in good.values()]
    assert all(list(answer) == ["intent", "urgency", "product"] for answer in answers)
    seen = {field: {answer[field] for answer in answers} for field in answers[0]}
    assert (len(seen["intent"]), len(seen["product"])) == (12, 8)
    assert seen["urgency"] == {"low", "normal", "high"}


def test_tickets_have_8_to_80_words(good: dict[int, dict[str, Any]]) -> None:
    lengths = [len(_ticket(row).split()) for row in good.values()]
    assert min(lengths) >= 8
    assert max(lengths) <= 80


def test_the_recipe_is_valid_and_finds_its_data() -> None:
    recipe = recipe_file.load(SET / "recipe.yaml")
    assert Path(recipe.data.train) == SET / "tickets.jsonl"
    assert recipe.data.split.group_by in json.loads(LINES[0])
