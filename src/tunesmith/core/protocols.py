"""What rooms ask of one another without importing one another.

Notable: a row's ``tools`` are part of its prompt, for the chat template writes them into it; they travel beside the
conversations, one entry each, and an empty sequence means that none has any.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from tunesmith.core.example import Message
from tunesmith.core.noun import Noun

Conversation = Sequence[Message]
Tools = Sequence[dict[str, Any]]


class Completion(Noun):
    """``finish``: "stop" (the model ended its turn), "length" (ran out of tokens) or "context" (the prompt did not
    fit)."""

    text: str
    prompt_tokens: int
    new_tokens: int
    finish: str = "stop"


class Likelihood(Noun):
    """Natural-log likelihood of an answer given its prompt, and how many tokens it has."""

    logp: float
    tokens: int


class Writer(Protocol):
    """A model that answers conversations: local, or remote over HTTP."""

    context: int

    def complete(
        self, prompts: Sequence[Conversation], *, max_new_tokens: int, tools: Sequence[Tools] = ()
    ) -> list[Completion]: ...

    def count_tokens(self, prompt: Conversation, *, tools: Tools = ()) -> int: ...


class Completer(Writer, Protocol):
    """One that also says how likely an answer is."""

    def likelihood(
        self, prompts: Sequence[Conversation], answers: Sequence[str | Message], *, tools: Sequence[Tools] = ()
    ) -> list[Likelihood]:
        """An answer is a text, or a whole turn where it calls tools."""
        ...

    def label_logp(
        self, prompts: Sequence[Conversation], labels: Sequence[str], *, tools: Sequence[Tools] = ()
    ) -> list[list[float]]:
        """Log-likelihood of each label after each prompt: one row a prompt, one column a label."""
        ...


class Embedder(Protocol):
    """Texts to unit vectors (an encoder's mean-pooled states)."""

    def embed(self, texts: Sequence[str]) -> list[list[float]]: ...


class Classifier(Protocol):
    """A model with a head: the log-probability of each label for each text."""

    labels: tuple[str, ...]

    def label_logp(self, texts: Sequence[str]) -> list[list[float]]: ...
