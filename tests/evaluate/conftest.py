"""Fakes of the protocols in core: a model that copies the last example it is shown, and an embedder of letters."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tunesmith.core.example import Example, Message, Place
from tunesmith.core.protocols import Completion, Conversation, Likelihood, Tools
from tunesmith.evaluate.baselines._context import BaselineContext


class Parrot:
    """A decoder whose tokens are words. It repeats the answer of the last turn shown, or says "hm"."""

    def __init__(self, context: int = 400) -> None:
        self.context = context
        self.seen: list[Conversation] = []
        self.offered: list[Tools] = []  # the tools of each question, in order

    def _said(self, prompt: Conversation) -> str:
        shown = [m.content for m in prompt if m.role == "assistant"]
        return shown[-1] if shown else "hm"

    def complete(
        self, prompts: Sequence[Conversation], *, max_new_tokens: int, tools: Sequence[Tools] = ()
    ) -> list[Completion]:
        self.seen += prompts
        self.offered += tools
        return [
            Completion(
                text=self._said(p),
                prompt_tokens=self.count_tokens(p, tools=own),
                new_tokens=len(self._said(p).split()),
            )
            for p, own in zip(prompts, tools or [()] * len(prompts), strict=True)
        ]

    def likelihood(
        self, prompts: Sequence[Conversation], answers: Sequence[str | Message], *, tools: Sequence[Tools] = ()
    ) -> list[Likelihood]:
        self.offered += tools
        texts = [a if isinstance(a, str) else str(a.tool_calls) for a in answers]
        return [Likelihood(logp=-2.0 * len(t.split()), tokens=len(t.split())) for t in texts]

    def label_logp(
        self, prompts: Sequence[Conversation], labels: Sequence[str], *, tools: Sequence[Tools] = ()
    ) -> list[list[float]]:
        self.seen += prompts
        self.offered += tools
        return [[0.0 if label == self._said(p) else -1.0 * len(label.encode()) for label in labels] for p in prompts]

    def count_tokens(self, prompt: Conversation, *, tools: Tools = ()) -> int:
        return sum(len(m.content.split()) for m in prompt) + len(str(list(tools)).split()) * bool(tools)


class Letters:
    """An encoder: the unit vector of letter counts."""

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        rows = np.array(
            [[1e-3 + text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz "] for text in texts]
        )
        unit: list[list[float]] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).tolist()
        return unit


def chat(line: int, question: str, answer: str, system: str = "") -> Example:
    turns = [Message(role="user", content=question), Message(role="assistant", content=answer)]
    first = [Message(role="system", content=system)] if system else []
    return Example(place=Place(file="rows.jsonl", line=line), messages=(*first, *turns))


def labelled(line: int, text: str, label: str) -> Example:
    return Example(
        place=Place(file="rows.jsonl", line=line), messages=(Message(role="user", content=text),), label=label
    )


@pytest.fixture
def parrot() -> Parrot:
    return Parrot()


@pytest.fixture
def letters() -> Letters:
    return Letters()


@pytest.fixture
def make_chat() -> Callable[..., Example]:
    return chat


@pytest.fixture
def make_labelled() -> Callable[..., Example]:
    return labelled


@pytest.fixture
def make_context() -> Callable[..., BaselineContext]:
    """A context of closed chat rows with a parrot; keywords replace fields."""

    def make(**changes: object) -> BaselineContext:
        topics = ["lost card", "fee abroad", "open account", "close account"]
        rows = [(f"help with {topic} please {n}", topic.replace(" ", "_")) for n in range(6) for topic in topics]
        examples = [chat(n, question, answer) for n, (question, answer) in enumerate(rows, 1)]
        fields: dict[str, object] = {
            "task": "generate",
            "train": tuple(examples[:16]),
            "test": tuple(examples[16:]),
            "labels": (),
            "completer": Parrot(),
            "embedder": None,
            "shots": 3,
            "prompt": None,
            "max_new_tokens": 20,
            "seed": 0,
        }
        return BaselineContext(**{**fields, **changes})  # type: ignore[arg-type]

    return make
