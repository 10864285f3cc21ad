"""Talking to a run: base and tuned in turn, from one copy of the weights."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from tunesmith.core import parts
from tunesmith.core.errors import DataError, ModelError
from tunesmith.core.example import Message
from tunesmith.generate.local import GREEDY, LocalModel
from tunesmith.generate.sampler import Draw
from tunesmith.models import artefact
from tunesmith.models import load as loading
from tunesmith.models.model import Model, adapters_off
from tunesmith.records.folder import RunFolder


class Chat:
    """``pieces`` and ``answer`` are of the base, then of the tuned model. For a classifier the base has no head and the
    first text says so."""

    def __init__(self, model: Model, base: Model) -> None:
        self.model, self.base = model, base
        self.max_new_tokens = 256

    def answer(
        self, messages: Sequence[Message], *, draw: Draw = GREEDY, max_new_tokens: int | None = None
    ) -> tuple[str, str]:
        told = groupby(self.pieces(messages, draw=draw, max_new_tokens=max_new_tokens), key=lambda piece: piece[0])
        base, tuned = ("".join(text for _, text in own) for _, own in told)
        return base, tuned

    def pieces(
        self, messages: Sequence[Message], *, draw: Draw = GREEDY, max_new_tokens: int | None = None
    ) -> Iterator[tuple[str, str]]:
        """(``base`` or ``tuned``, a piece of its answer) as it is written; the first of each may be empty. Raises
        DataError."""
        if self.model.head is not None:
            label, logp = LocalModel(self.model).classify([messages[-1].content])[0]
            yield "base", "(the base has no classification head)"
            yield "tuned", f"{label} (log-probability {logp:.3f})"
            return
        context = self.model.card.context
        asked = LocalModel(self.model).count_tokens(messages)
        if asked >= context:
            raise DataError(f"The question has {asked:,} tokens, the model takes {context:,}. Ask a shorter one.")
        limit = min(max_new_tokens or min(self.max_new_tokens, context // 2), context - asked)
        yield "base", ""
        with adapters_off(self.base):
            yield from (("base", text) for text in LocalModel(self.base, draw).stream(messages, max_new_tokens=limit))
        yield "tuned", ""
        yield from (("tuned", text) for text in LocalModel(self.model, draw).stream(messages, max_new_tokens=limit))


def open_chat(folder: Path) -> Chat:
    """The trained model of a run folder. Raises ModelError, DataError."""
    report = RunFolder(folder).finished("talk to")
    if report.recipe.objective.name == "reward":
        raise ModelError(f"{folder} holds a reward model: it scores answers and writes none.")
    model = artefact.load(folder / report.adapter, report.recipe.model)
    adapter = parts.find("models.adapters", report.recipe.method.name).is_adapter
    return Chat(model, model if adapter else loading.load(report.recipe.model, precision=model.precision))


def open_adapter(folder: Path, base: str) -> tuple[Chat, str]:
    """An adapter in PEFT's format that was made elsewhere, on ``base``; and what of it is not proven. Raises
    ModelError."""
    model, unproven = artefact.adopt(folder, base)
    return Chat(model, model), unproven
