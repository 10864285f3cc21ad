"""Full fine-tuning: every weight that takes part is trained; the result is a plain transformers folder."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file

from tunesmith.core.errors import ModelError
from tunesmith.core.recipe import MethodRecipe
from tunesmith.models.adapters._method import Method
from tunesmith.models.masters import Masters
from tunesmith.models.model import Model


def attach(model: Model, _recipe: MethodRecipe, _seed: int) -> None:
    """All weights trainable."""
    train_only(model, (name for name, _ in model.network.named_parameters()))


def train_only(model: Model, names: Iterable[str]) -> None:
    """The named weights trainable, bf16 ones by float32 masters; what takes no part (an encoder's pooler, the output
    matrix below a classification head) stays frozen, as all others do."""
    model.network.requires_grad_(False)
    for name in names:
        model.network.get_parameter(name).requires_grad_(True)
    pooler = getattr(model.network, "pooler", None)
    if pooler is not None:
        pooler.requires_grad_(False)
    output = model.network.get_output_embeddings()
    tied = output is not None and output.weight is model.network.get_input_embeddings().weight
    if model.head is not None and output is not None and not tied:
        output.requires_grad_(False)
    narrow = {n: p for n, p in model.network.named_parameters() if p.requires_grad and p.dtype != torch.float32}
    model.masters = Masters(narrow)


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


PART = Method("full", attach, save, load, is_adapter=False, rate=1.0)
