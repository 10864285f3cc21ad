"""What a format is: how a trained model is written, and how what was written is opened as its users will.

Notable: a ``Reader`` renders prompts with the tokenizer and the template that lie in the export, and computes with the
export's own weights through the library that people run it with. Nothing of the trained model helps it.
Legend: T tokens, V vocabulary, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from tunesmith.core.report import Report
from tunesmith.models.model import Model

# by how much logits may differ, in parts of the largest: some times what was measured on small models
ROUNDING = {"float32": 1e-3, "bfloat16": 5e-2, "f16": 1e-2, "bf16": 5e-2, "q8_0": 1e-1}


@dataclass(frozen=True, slots=True)
class Subject:
    """What is exported: ``trained`` is the published folder of ``model``, ``template`` and ``stop_ids`` are how it was
    asked and where it stopped, ``weights`` is the type of the numbers written."""

    model: Model
    trained: Path
    template: str
    stop_ids: tuple[int, ...]
    weights: str


class Reader(Protocol):
    """An export, opened."""

    def chat_ids(self, turns: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> list[int]: ...

    def text_ids(self, text: str) -> list[int]: ...

    def logits_TV(self, ids: Sequence[int]) -> Tensor:
        """Float32, on the CPU."""
        ...

    def greedy(self, ids: Sequence[int], most: int) -> list[int]:
        """What is written after ``ids``, without the token that ended it."""
        ...


@runtime_checkable
class ScoresClasses(Protocol):
    """A reader of a format that holds a classification head too."""

    def class_logp_C(self, ids: Sequence[int]) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Export:
    """``check`` raises ModelError for a run, with its trained folder, that the format cannot hold; ``write`` fills a
    folder; ``open`` reads it again, or gives the reason why it cannot be read here; ``use`` says in Markdown how the
    model, under a name, is run. ``merges``: the adapter goes into the weights. ``types`` are the numbers it can write,
    the first unless told otherwise; none means the model's own."""

    name: str
    check: Callable[[Report, Path], None]
    write: Callable[[Subject, Path], None]
    open: Callable[[Path], Reader | str]
    use: Callable[[Model, str], str]
    library: str
    merges: bool
    types: tuple[str, ...] = ()
