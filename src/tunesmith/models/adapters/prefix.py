"""Prefix tuning (Li and Liang, 2021): in every layer, trained keys and values of ``method.rank`` places before a row.

Notable: they begin as those of tokens drawn from the vocabulary, as the paper recommends, and without its second
network, which later work found unnecessary with such a start. The adapted model does not begin as the base, and the
update is no change of a weight: it cannot be merged.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunesmith.core.errors import ModelError
from tunesmith.core.recipe import MethodRecipe
from tunesmith.models.adapters import prompt
from tunesmith.models.adapters._method import method
from tunesmith.models.model import Model
from tunesmith.models.skeleton import outline
from tunesmith.models.soft_tokens import SoftLinear
from tunesmith.plan.targets import keys_and_values

FILE = "adapter_model.safetensors"


def attach(model: Model, recipe: MethodRecipe, seed: int) -> None:
    """Raises RecipeError where the family has no layers of their own for keys and values."""
    names = keys_and_values(outline(model))
    ids_1K = prompt.drawn(model, recipe.rank, seed)[None]
    seen: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        return model.network.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, out: seen.update({name: out[0].detach().float().clone()})
        )

    hooks = [watch(name) for name in names]
    model.train(False)
    with torch.no_grad():
        model.backbone(input_ids=ids_1K)
    for hook in hooks:
        hook.remove()
    _wrap(model, seen)


def _wrap(model: Model, rows: dict[str, Tensor]) -> None:
    soft = prompt.put(model, len(next(iter(rows.values()))), None)
    for name, start in rows.items():
        parent, _, leaf = name.rpartition(".")
        layer = SoftLinear(model.network.get_submodule(name), soft, nn.Parameter(start.to(model.device)))
        setattr(model.network.get_submodule(parent), leaf, layer)


def save(model: Model, folder: Path) -> None:
    """One safetensors file: the rows of each layer by its name."""
    held = {n: m for n, m in model.network.named_modules() if isinstance(m, SoftLinear)}
    save_file({n: m.rows.detach().contiguous() for n, m in held.items()}, folder / FILE, metadata={"format": "pt"})


def load(model: Model, folder: Path) -> None:
    """Put the prefix in ``folder`` before every row; every name and width must match. Raises ModelError."""
    tensors = load_file(folder / FILE)
    network = outline(model)
    wanted = {name: network.linear[name][0] for name in keys_and_values(network)}
    odd = sorted(set(wanted.items()) ^ {(name, t.shape[-1]) for name, t in tensors.items()})
    if odd or len({len(t) for t in tensors.values()}) != 1:
        raise ModelError(
            f"{folder}: the prefix does not fit {model.card.name}: {odd[0][0] if odd else 'lengths differ'}. "
            "Name its own base."
        )
    _wrap(model, tensors)


PART = method("prefix", attach, save, load, reads=("rank",), unmergeable=prompt.UNMERGEABLE)
