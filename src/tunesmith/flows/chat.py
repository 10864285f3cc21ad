"""Talking to a run: base and tuned side by side, from one copy of the weights."""

from collections.abc import Sequence
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
    """``answer`` gives (base, tuned). For a classifier the base has no head and the first text says so."""

    def __init__(self, model: Model, base: Model) -> None:
        self.model, self.base = model, base
        self.max_new_tokens = 256

    def answer(
        self, messages: Sequence[Message], *, draw: Draw = GREEDY, max_new_tokens: int | None = None
    ) -> tuple[str, str]:
        if self.model.head is not None:
            label, logp = LocalModel(self.model).classify([messages[-1].content])[0]
            return "(the base has no classification head)", f"{label} (log-probability {logp:.3f})"
        context = self.model.card.context
        asked = LocalModel(self.model).count_tokens(messages)
        if asked >= context:
            raise DataError(f"The question has {asked:,} tokens, the model takes {context:,}. Ask a shorter one.")
        limit = min(max_new_tokens or min(self.max_new_tokens, context // 2), context - asked)

        def write(local: LocalModel) -> str:
            return local.complete([messages], max_new_tokens=limit)[0].text

        with adapters_off(self.base):
            base = write(LocalModel(self.base, draw))
        return base, write(LocalModel(self.model, draw))


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
