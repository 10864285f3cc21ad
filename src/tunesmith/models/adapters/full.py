"""Full fine-tuning: every weight that takes part is trained; the result is a plain transformers folder."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file

from tunesmith.core.errors import ModelError, RecipeError
from tunesmith.core.recipe import MethodRecipe
from tunesmith.models.adapters import _method
from tunesmith.models.adapters._method import Method
from tunesmith.models.masters import Masters
from tunesmith.models.model import Model
from tunesmith.models.skeleton import outline
from tunesmith.plan.outline import Outline
from tunesmith.plan.targets import everything

Names = Callable[[Outline, MethodRecipe], list[str]]


def method(name: str, names: Names, *, reads: tuple[str, ...] = ()) -> Method:
    """A method that trains the network's own weights ``names``, as far as they take part."""

    def attach(model: Model, recipe: MethodRecipe, _seed: int) -> None:
        network = outline(model)
        train_only(model, network.taking_part(*names(network, recipe)))

    return _method.method(name, attach, save, load, reads=reads)


def train_only(model: Model, names: Iterable[str]) -> None:
    """The named weights trainable, bf16 ones by float32 masters; all others frozen."""
    check_dense(model)
    model.network.requires_grad_(False)
    for name in names:
        model.network.get_parameter(name).requires_grad_(True)
    narrow = {n: p for n, p in model.network.named_parameters() if p.requires_grad and p.dtype != torch.float32}
    model.masters = Masters(narrow)


def check_dense(model: Model) -> None:
    """Raise RecipeError for a base that is held in few bits: its own weights cannot be moved, or measured."""
    if not all(p.is_floating_point() for p in model.network.parameters()):
        raise RecipeError(
            f"model: {model.card.name} is held in few bits; its own weights cannot be trained or weighed. Use "
            "method.name: lora, or name the model that it was quantised from."
        )


def save(model: Model, folder: Path) -> None:
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)


def load(model: Model, folder: Path) -> None:
    """Put the weights in ``folder`` into the network; every key must match. Raises ModelError."""
    state: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        state |= load_file(path)
    missing, unexpected = model.network.load_state_dict(state, strict=False)
    own = model.network.state_dict()
    filled = {own[name].data_ptr() for name in state if name in own}  # a tied tensor is filled under its other name
    odd = sorted([*unexpected, *(name for name in missing if own[name].data_ptr() not in filled)])
    if odd:
        raise ModelError(
            f"{folder}: the weights do not match {model.card.name}: {len(odd)} names differ, such as {odd[0]}."
        )


PART = method("full", everything)
