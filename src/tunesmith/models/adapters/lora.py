"""LoRA (Hu et al., 2021): a frozen linear layer plus ``alpha / rank * B A``, in PEFT's file format; and its family.

Notable: ``family`` makes the other members (a scale by the root of the rank, another start, trained lengths, two
learning rates): they share the layer (``lora_layer``), the choice of layers and the files. B starts at zero, so the
adapted model begins as the base; A and B are float32 and are cast to the base's type in each pass; ``enabled = False``
is the base itself, so that comparing with it needs no second copy. ``all-linear`` is every linear layer but the output
head ("LoRA Without Regret": all layers).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from tunesmith.core.recipe import MethodRecipe
from tunesmith.models import own_weights
from tunesmith.models.adapters import _lora_files as lora_files
from tunesmith.models.adapters._method import Method, method
from tunesmith.models.model import Model
from tunesmith.models.skeleton import HasNetwork, outline
from tunesmith.plan.targets import choose, ranks, whole

Start = Callable[[Tensor, int, float, torch.Generator], tuple[Tensor, Tensor]]  # W, rank, scale -> A, B
READS = ("rank", "alpha", "dropout", "target_modules", "rank_pattern", "alpha_pattern")
WHOLE = ("modules_to_save", "new_tokens")  # which four bits do not allow


def targets(model: HasNetwork, wanted: tuple[str, ...]) -> list[str]:
    """Full names of the linear layers to adapt. Raises RecipeError when a wanted name matches none."""
    return choose(outline(model), wanted)


def _attach(
    model: Model, recipe: MethodRecipe, seed: int, *, root: bool, start: Start | None, magnitude: bool, two_rates: bool
) -> None:
    """Adapt the wanted layers; all else is frozen. Raises RecipeError."""
    rows = own_weights.grow(model, recipe.new_tokens) if recipe.new_tokens else []
    network = outline(model)
    settings = {
        name: lora_files.Setting(rank, alpha, root=root, magnitude=magnitude)
        for name, (rank, alpha) in ranks(network, recipe).items()
    }
    lora_files.wrap(model, settings, dropout=recipe.dropout, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in lora_files.layers(model).values():
        if start is not None:
            rank = len(layer.lora_A)
            layer.begin_at(*start(layer.weight_OI(), rank, layer.scale, generator))
    if recipe.modules_to_save or rows:
        modules = whole(network, recipe.modules_to_save, settings)
        model.adapted[lora_files.OWN] = own_weights.OwnWeights(model, modules, rows)
    if two_rates:
        half = recipe.b_rate**0.5
        for name in settings:
            model.rates |= {f"{name}.lora_A": 1 / half, f"{name}.lora_B": half}


def family(
    name: str,
    *,
    root: bool = False,
    start: Start | None = None,
    magnitude: bool = False,
    two_rates: bool = False,
) -> Method:
    """A member of the family: ``root`` scales by alpha / sqrt(rank), ``start`` gives A and B their first values,
    ``magnitude`` trains the lengths of the rows of W + B A, ``two_rates`` lets B learn faster than A."""
    attach = partial(_attach, root=root, start=start, magnitude=magnitude, two_rates=two_rates)
    made = method(name, attach, lora_files.save, lora_files.load)
    return replace(made, reads=(*READS, *(() if made.four_bits else WHOLE), *(("b_rate",) if two_rates else ())))


PART = family("lora")
