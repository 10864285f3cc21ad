"""Bottleneck adapters (Houlsby et al., 2019; one a layer, as Pfeiffer et al., 2021): a small network of its own behind
each layer's last product.

Notable: ``y + up(gelu(down(y)))`` with ``method.rank`` units in between; ``up`` starts at zero, so the adapted model
begins as the base. ``all-linear`` means here the last linear layer of each of the network's layers. The update is no
product with the weights, so it cannot be merged into them.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunesmith.core.errors import ModelError
from tunesmith.core.recipe import MethodRecipe
from tunesmith.models.adapters._method import method
from tunesmith.models.model import Model
from tunesmith.models.skeleton import outline
from tunesmith.plan.targets import bottlenecks

FILE = "adapter_model.safetensors"


class Bottleneck(nn.Module):
    """``base(x) + up(gelu(down(base(x))))``; ``base`` is frozen."""

    def __init__(self, base: nn.Linear, units: int, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.enabled = True
        width, device = base.out_features, base.weight.device
        self.down = nn.Parameter((torch.randn(units, width, generator=generator) / width**0.5).to(device))
        self.shift = nn.Parameter(torch.zeros(units, device=device))
        self.up = nn.Parameter(torch.zeros(width, units, device=device))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x)
        if not self.enabled:
            return y
        held = nn.functional.gelu(nn.functional.linear(y, self.down.to(y.dtype), self.shift.to(y.dtype)))
        return y + nn.functional.linear(held, self.up.to(y.dtype))


def attach(model: Model, recipe: MethodRecipe, seed: int) -> None:
    """A bottleneck behind each wanted layer; all else is frozen. Raises RecipeError."""
    _wrap(model, dict.fromkeys(bottlenecks(outline(model), recipe), recipe.rank), seed)


def _wrap(model: Model, units: dict[str, int], seed: int) -> None:
    model.network.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, count in units.items():
        layer = Bottleneck(model.network.get_submodule(name), count, generator)
        parent, _, leaf = name.rpartition(".")
        setattr(model.network.get_submodule(parent), leaf, layer)
        model.adapted[name] = layer


def save(model: Model, folder: Path) -> None:
    """One safetensors file: ``LAYER.down``, ``LAYER.shift`` and ``LAYER.up`` of each layer."""
    tensors = {
        f"{name}.{part}": getattr(layer, part).detach().contiguous()
        for name, layer in model.adapted.items()
        for part in ("down", "shift", "up")
    }
    save_file(tensors, folder / FILE, metadata={"format": "pt"})


def load(model: Model, folder: Path) -> None:
    """Attach the bottlenecks in ``folder``; every name and shape must match. Raises ModelError."""
    tensors = load_file(folder / FILE)
    units = {name.removesuffix(".down"): len(t) for name, t in tensors.items() if name.endswith(".down")}
    known = {n for n, m in model.network.named_modules() if isinstance(m, nn.Linear)}
    odd = sorted(set(units) - known) or ([] if 3 * len(units) == len(tensors) else sorted(tensors))
    if odd:
        raise ModelError(f"{folder}: the adapter does not fit {model.card.name}: {odd[0]}. Name its own base.")
    _wrap(model, units, 0)
    try:
        for name, layer in model.adapted.items():
            own = {k.removeprefix(f"{name}."): t for k, t in tensors.items() if k.startswith(f"{name}.")}
            layer.load_state_dict(own | {f"base.{k}": t for k, t in layer.base.state_dict().items()})
    except RuntimeError as error:
        raise ModelError(
            f"{folder}: the adapter does not fit {model.card.name}: {error}. Name its own base."
        ) from error


PART = method(
    "bottleneck",
    attach,
    save,
    load,
    reads=("rank", "target_modules"),
    unmergeable="bends what its layers give, which no weight of the base can do",
)
