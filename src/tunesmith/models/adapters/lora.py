"""LoRA (Hu et al., 2021): a frozen linear layer plus ``alpha / rank * B A``, in PEFT's file format; and its family.

Notable: ``family`` makes the other members (a scale by the root of the rank, another start, trained lengths, two
learning rates): they share the layer (``lora_layer``), the choice of layers and the files. B starts at zero, so the
adapted model begins as the base; A and B are float32 and are cast to the base's type in each pass; ``enabled = False``
is the base itself, so that comparing with it needs no second copy. ``all-linear`` is every linear layer but the output
head ("LoRA Without Regret": all layers).
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from tunesmith.core.errors import RecipeError
from tunesmith.core.recipe import MethodRecipe
from tunesmith.models import own_weights
from tunesmith.models.adapters import _lora_files as lora_files
from tunesmith.models.adapters._method import Method
from tunesmith.models.model import Model
from tunesmith.models.skeleton import HasNetwork
from tunesmith.plan.targets import by_layer, choose

Start = Callable[[Tensor, int, float, torch.Generator], tuple[Tensor, Tensor]]  # W, rank, scale -> A, B
READS = ("rank", "alpha", "dropout", "target_modules", "rank_pattern", "alpha_pattern")
WHOLE = ("modules_to_save", "new_tokens")  # which four bits do not allow


def targets(model: HasNetwork, wanted: tuple[str, ...]) -> list[str]:
    """Full names of the linear layers to adapt. Raises RecipeError when a wanted name matches none."""
    pooler = getattr(model.network, "pooler", None)
    unused = {id(m) for m in pooler.modules()} if pooler is not None else set()
    linear = {name: module for name, module in lora_files.linear(model).items() if id(module) not in unused}
    return choose(linear, wanted, model.card.name, model.card.architecture)


def _attach(
    model: Model, recipe: MethodRecipe, seed: int, *, root: bool, start: Start | None, magnitude: bool, two_rates: bool
) -> None:
    """Adapt the wanted layers; all else is frozen. Raises RecipeError."""
    rows = own_weights.grow(model, recipe.new_tokens) if recipe.new_tokens else []
    names = targets(model, recipe.target_modules)
    ranks = by_layer(names, recipe.rank_pattern, "method.rank_pattern")
    alphas = by_layer(names, recipe.alpha_pattern, "method.alpha_pattern")
    check_rank(model, names, recipe.rank, ranks)
    settings = {}
    for name in names:
        rank = int(ranks.get(name, recipe.rank))
        alpha = alphas.get(name, recipe.alpha if recipe.alpha is not None else 2.0 * rank)
        settings[name] = lora_files.Setting(rank, alpha, root=root, magnitude=magnitude)
    lora_files.wrap(model, settings, dropout=recipe.dropout, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in lora_files.layers(model).values():
        if start is not None:
            rank = len(layer.lora_A)
            layer.begin_at(*start(layer.weight_OI(), rank, layer.scale, generator))
    if recipe.modules_to_save or rows:
        whole = own_weights.named(model, recipe.modules_to_save, names)
        model.adapted[lora_files.OWN] = own_weights.OwnWeights(model, whole, rows)
    if two_rates:
        half = recipe.b_rate**0.5
        for name in names:
            model.rates |= {f"{name}.lora_A": 1 / half, f"{name}.lora_B": half}


def _count(model: HasNetwork, recipe: MethodRecipe, *, magnitude: bool) -> int:
    """rank x (inputs + outputs) a layer, the lengths of its rows with ``magnitude``, and what is trained beside."""
    names = targets(model, recipe.target_modules)
    ranks = by_layer(names, recipe.rank_pattern, "method.rank_pattern")
    total = own_weights.count(model, recipe.modules_to_save, len(recipe.new_tokens), names)
    for name in names:
        layer, rank = model.network.get_submodule(name), int(ranks.get(name, recipe.rank))
        total += rank * (layer.in_features + layer.out_features) + (layer.out_features if magnitude else 0)
    return total


def check_rank(model: Model, names: list[str], rank: int, own: Mapping[str, float] | None = None) -> None:
    """Raise RecipeError for a rank above the dimensions of its layer; ``own`` are ranks of single layers."""
    own = own or {}
    too_high = []
    for name in names:
        layer, wanted = model.network.get_submodule(name), int(own.get(name, rank))
        smallest = min(layer.in_features, layer.out_features)
        if wanted > smallest:
            too_high.append((smallest, "method.rank_pattern" if name in own else "method.rank", wanted, name))
    if too_high:
        smallest, key, wanted, name = min(too_high)
        raise RecipeError(f"{key} is {wanted}; {name} of {model.card.name} has {smallest} dimensions. Lower it.")


def family(
    name: str,
    *,
    root: bool = False,
    start: Start | None = None,
    magnitude: bool = False,
    two_rates: bool = False,
    four_bits: bool = False,
) -> Method:
    """A member of the family: ``root`` scales by alpha / sqrt(rank), ``start`` gives A and B their first values,
    ``magnitude`` trains the lengths of the rows of W + B A, ``two_rates`` lets B learn faster than A, ``four_bits``
    holds the base in four bits."""
    attach = partial(_attach, root=root, start=start, magnitude=magnitude, two_rates=two_rates)
    reads = (*READS, *(() if four_bits else WHOLE), *(("b_rate",) if two_rates else ()))
    count = partial(_count, magnitude=magnitude)
    return Method(
        name, count, attach, lora_files.save, lora_files.load, is_adapter=True, reads=reads, four_bits=four_bits
    )


PART = family("lora")
