"""Several adapters on one loaded base, by name; the sampler's rows say which is theirs.

Notable: outside the sampler the model stays the base: nothing that trains or scores it sees the adapters. They come and
go at any time, between calls of the sampler.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from tunesmith.core import files
from tunesmith.core.errors import ModelError
from tunesmith.models import artefact
from tunesmith.models.adapters import _lora_files as lora_files
from tunesmith.models.lora_stack import LoraStack, Update
from tunesmith.models.model import Model


def put(model: Model, name: str, source: Path | Mapping[str, Update]) -> None:
    """Put an adapter onto the base ``model``, in place of an older one of the name: a folder in PEFT's format (LoRA or
    rsLoRA; where Tunesmith wrote it, its base is checked), or what it adds to each layer. Raises ModelError."""
    if model.stack is None:
        if model.adapted:
            raise ModelError(
                f"{model.card.name} has an adapter already, which would add to every other. Load the base alone."
            )
        dtype = torch.bfloat16 if model.precision == "bfloat16" else torch.float32
        stack = LoraStack(model.network, lora_files.linear(model), dtype)
    else:
        stack = model.stack
    stack.put(name, _read(model, source, stack) if isinstance(source, Path) else source)
    model.stack = stack
    model.adapted |= stack.layers
    model.train(False)


def drop(model: Model, name: str) -> None:
    """Take the adapter ``name`` off the base. Raises ModelError."""
    stack_of(model).drop(name)


def stack_of(model: Model) -> LoraStack:
    """The adapters on ``model``. Raises ModelError where none was put onto it."""
    if model.stack is None:
        raise ModelError(
            f"A row names its adapter, but none was put onto {model.card.name} beside others. Put each there by name, "
            "with models.many.put."
        )
    return model.stack


def _read(model: Model, folder: Path, stack: LoraStack) -> dict[str, Update]:
    path = folder / artefact.NOTE
    if path.is_file():
        files.verify(folder)
        note = json.loads(path.read_text(encoding="utf-8"))
        artefact.check_base(model, folder, note)
        if "labels" in note:
            raise ModelError(f"{folder} names classes with a head of its own and writes no text. Load it alone.")
    return lora_files.updates(model, folder, stack.linear)
