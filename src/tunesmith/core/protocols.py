"""What rooms ask of one another without importing one another."""

from collections.abc import Sequence
from typing import Protocol

from tunesmith.core.example import Message
from tunesmith.core.noun import Noun

Conversation = Sequence[Message]


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


class Completer(Protocol):
    """A model that answers conversations: local, or remote over HTTP."""

    context: int

    def complete(self, prompts: Sequence[Conversation], *, max_new_tokens: int) -> list[Completion]: ...

    def likelihood(self, prompts: Sequence[Conversation], answers: Sequence[str]) -> list[Likelihood]: ...

    def label_logp(self, prompts: Sequence[Conversation], labels: Sequence[str]) -> list[list[float]]:
        """Log-likelihood of each label after each prompt: one row a prompt, one column a label."""
        ...

    def count_tokens(self, prompt: Conversation) -> int: ...


class Embedder(Protocol):
    """Texts to unit vectors (an encoder's mean-pooled states)."""

    def embed(self, texts: Sequence[str]) -> list[list[float]]: ...


class Classifier(Protocol):
    """A model with a head: the log-probability of each label for each text."""

    labels: tuple[str, ...]

    def label_logp(self, texts: Sequence[str]) -> list[list[float]]: ...
