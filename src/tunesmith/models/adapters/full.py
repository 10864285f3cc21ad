"""Full fine-tuning: every weight that takes part is trained; the result is a plain transformers folder."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from tunesmith.core.recipe import MethodRecipe
from tunesmith.models.adapters._method import Method
from tunesmith.models.model import Model


def attach(model: Model, _recipe: MethodRecipe, _seed: int) -> None:
    """All weights in float32 (the master weights), trainable; an encoder's unused pooler stays frozen."""
    model.network.float()
    model.network.requires_grad_(True)
    pooler = getattr(model.network, "pooler", None)
    if pooler is not None:
        pooler.requires_grad_(False)


def save(model: Model, folder: Path) -> None:
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)


def load(model: Model, folder: Path) -> None:
    state: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        state |= load_file(path)
    tied = {
        k: v
        for k, v in model.network.state_dict().items()
        if k not in state and k in (model.network._tied_weights_keys or ())
    }
    model.network.float()
    model.network.load_state_dict(state | tied, strict=True)
    model.network.tie_weights()


PART = Method("full", attach, save, load, is_adapter=False)
