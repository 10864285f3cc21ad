"""Tiny data sets and models for whole runs, and a recipe that joins them."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests import small

from tunesmith.core.recipe import Recipe
from tunesmith.flows.finetune import finetune

MakeRecipe = Callable[..., Recipe]

TOPICS = {
    "card": "my new bank card has been lost somewhere in the post",
    "fee": "a strange fee was charged on my account abroad",
    "login": "the app refuses my password since the last update",
}
WORDS = [
    "garden",
    "winter",
    "paper",
    "simple",
    "yellow",
    "engine",
    "quiet",
    "letter",
    "mountain",
    "coffee",
    "window",
    "number",
    "travel",
    "doctor",
    "music",
    "silver",
    "market",
    "answer",
    "bridge",
    "summer",
    "kitchen",
    "copper",
    "village",
    "picture",
    "morning",
    "history",
    "station",
    "weather",
    "animal",
    "ticket",
]


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def labelled(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Texts with one of three labels; the words around the topic keep rows from being near-duplicates."""
    rng = random.Random(seed)
    names = list(TOPICS)
    return [
        {"text": f"{' '.join(rng.sample(WORDS, 12))}, {TOPICS[names[i % 3]]} {i}", "label": names[i % 3], "who": i // 2}
        for i in range(count)
    ]


def asked(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Questions with a small JSON answer."""
    rows = labelled(count, seed)
    return [
        {
            "prompt": r["text"],
            "completion": json.dumps({"topic": r["label"], "urgent": r["label"] == "fee"}),
            "other": f"see {r['label']}",
            "who": r["who"],
        }
        for r in rows
    ]


def preferred(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Questions with a right and a wrong answer; every sixth pair has a margin."""
    rows, names = labelled(count, seed), list(TOPICS)
    return [
        {
            "prompt": r["text"],
            "chosen": f"the topic is {r['label']}",
            "rejected": f"the topic is {names[(i + 1) % 3]}",
            "margin": 0.5 if i % 6 == 0 else None,
            "who": r["who"],
        }
        for i, r in enumerate(rows)
    ]


def judged(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Questions with one answer each, every second of which is wanted."""
    return [
        {"prompt": r["prompt"], "completion": r["rejected" if i % 2 else "chosen"], "label": i % 2 == 0}
        for i, r in enumerate(preferred(count, seed))
    ]


def plain(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [{"text": " ".join(rng.choices(WORDS, k=30)) + f" {i}."} for i in range(count)]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models ``llama`` and ``bert`` and a file of each kind of rows."""
    folder = tmp_path_factory.mktemp("store")
    small.llama(folder / "llama", max_position_embeddings=256)
    small.bert(folder / "bert")
    write_jsonl(folder / "asked.jsonl", asked(90))
    write_jsonl(folder / "labelled.jsonl", labelled(90))
    write_jsonl(folder / "plain.jsonl", plain(60))
    write_jsonl(folder / "held.jsonl", asked(24, seed=9))
    write_jsonl(folder / "preferred.jsonl", preferred(90))
    write_jsonl(folder / "judged.jsonl", judged(120))
    return folder


@pytest.fixture(scope="session")
def finished(make_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """``finished("sft")``: the folder of a small run that is done, made when it is first asked for."""
    kinds: dict[str, Callable[[], Recipe]] = {
        "sft": lambda: make_recipe(evaluate={"baselines": ["majority"], "max_new_tokens": 8}),
        "reward": lambda: make_recipe("preferred", objective="reward", evaluate={"baselines": ["longer"]}),
        "judge": lambda: make_recipe(
            "preferred", objective="reward", evaluate={"baselines": ["longer"]}, train={"seed": 5}
        ),
        "classifier": lambda: make_recipe("labelled", model="bert", evaluate={"baselines": ["majority"]}),
    }
    made: dict[str, str] = {}

    def find(kind: str) -> str:
        if kind not in made:
            made[kind] = finetune(kinds[kind](), workspace=tmp_path_factory.mktemp(kind)).folder
        return made[kind]

    return find


@pytest.fixture(scope="session")
def make_recipe(store: Path) -> MakeRecipe:
    """``make_recipe("asked", train={...})``: a small recipe with groups of keys replaced."""

    def make(rows: str = "asked", model: str = "llama", **groups: Any) -> Recipe:
        path = Path(rows) if "/" in rows else store / f"{rows}.jsonl"
        raw: dict[str, Any] = {
            "model": str(store / model),
            "task": {"labelled": "classify", "preferred": "prefer", "judged": "prefer"}.get(rows, "generate"),
            "data": {"train": str(path)} | groups.pop("data", {}),
            "method": groups.pop("method", {"name": "lora", "rank": 4}),
            "train": {"epochs": 2, "batch_tokens": 1024, "precision": "float32"} | groups.pop("train", {}),
            **groups,
        }
        return Recipe.parse(raw)

    return make
