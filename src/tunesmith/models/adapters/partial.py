"""Part of the network's own weights: the last layers, or named modules; the result is a plain transformers folder.

Notable: ``method.target_modules`` names modules whose weights are trained, wherever they stand (``mlp``,
``model.layers.3``, ``lm_head``), or ``last-4`` for the last four layers. ``all-linear`` is every linear layer.
"""

import re
from collections.abc import Iterable

from torch import nn

from tunesmith.core.errors import RecipeError, did_you_mean
from tunesmith.core.recipe import MethodRecipe
from tunesmith.models.adapters import full
from tunesmith.models.adapters.lora import targets
from tunesmith.models.skeleton import HasNetwork

LAST = re.compile(r"last-([0-9]+)")


def weights(model: HasNetwork, recipe: MethodRecipe) -> list[str]:
    """The weights below the named modules. Raises RecipeError where a name matches none."""
    chosen: set[str] = set()
    for wanted in recipe.target_modules:
        chosen |= set(_named(model, wanted))
    names = [n for n, _ in model.network.named_parameters() if _below(n, chosen)]
    if not names:
        raise RecipeError(
            f"method.target_modules: {list(recipe.target_modules)} hold no weights of {model.card.name}: nothing "
            "would be trained. Name modules with weights, last-N, or all-linear."
        )
    return names


def _named(model: HasNetwork, wanted: str) -> Iterable[str]:
    """Full names of the modules that ``wanted`` means."""
    if wanted == "all-linear":
        return targets(model, (wanted,))
    names = [n for n, _ in model.network.named_modules() if n]
    last = LAST.fullmatch(wanted)
    if last is not None:
        return [f"{layers(model)}.{i}" for i in range(model.card.layers)[-_count(last[1], model) :]]
    found = [n for n in names if n == wanted or n.endswith("." + wanted)]
    if not found:
        leaves = sorted({n.rsplit(".", 1)[-1] for n in names if not n.rsplit(".", 1)[-1].isdecimal()})
        raise RecipeError(
            f'method.target_modules: "{wanted}" matches no module of {model.card.name}.'
            f"{did_you_mean(wanted, leaves)} There are: {', '.join(leaves)}; or last-N, or all-linear."
        )
    return found


def _count(text: str, model: HasNetwork) -> int:
    count = int(text)
    if not 0 < count <= model.card.layers:
        raise RecipeError(
            f"method.target_modules: last-{count}: {model.card.name} has {model.card.layers} layers. "
            f"Name last-1 to last-{model.card.layers}."
        )
    return count


def layers(model: HasNetwork) -> str:
    """Name of the list of the network's layers."""
    for name, module in model.network.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == model.card.layers:
            return str(name)
    raise RecipeError(
        f"method.target_modules: {model.card.architecture} has no list of {model.card.layers} layers. Name modules."
    )


def _below(name: str, chosen: set[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:n]) in chosen for n in range(1, len(parts)))


PART = full.method("partial", weights, reads=("target_modules",))
