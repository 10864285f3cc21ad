"""Which layers an adapter takes, by their names alone, and how many weights LoRA trains on a shape.

Notable: the names are enough, so the same choice is made by a plan that has nothing but a ``config.json`` and by the
method that holds the network (``models/adapters/lora.py``); the tests compare the counts.
"""

from collections.abc import Collection, Iterable, Mapping

from tunesmith.core.errors import RecipeError, did_you_mean
from tunesmith.core.recipe import MethodRecipe
from tunesmith.plan.shape import Shape, Weight


def choose(names: Collection[str], wanted: tuple[str, ...], model: str, architecture: str) -> list[str]:
    """Those of the linear layers ``names`` of ``model`` that ``wanted`` names, whole or by their ends. Raises
    RecipeError when a wanted name matches none.

    >>> choose(["layers.0.up", "layers.0.down", "layers.1.up"], ("up",), "toy", "llama")
    ['layers.0.up', 'layers.1.up']
    """
    if not names:
        raise RecipeError(f"{model} ({architecture}) has no linear layer to adapt. Use method.name: full.")
    if wanted == ("all-linear",):
        return list(names)
    leaves = _leaves(names)
    if not wanted:
        raise RecipeError(f"method.target_modules is empty; expected all-linear, or some of: {', '.join(leaves)}.")
    chosen: list[str] = []
    for want in wanted:
        matched = _matching(names, want)
        if not matched:
            raise RecipeError(
                f'method.target_modules: "{want}" matches no linear layer of {model}.{did_you_mean(want, leaves)} '
                f"There are: {', '.join(leaves)}; or all-linear."
            )
        chosen += matched
    return list(dict.fromkeys(chosen))


def by_layer(names: Collection[str], pattern: Mapping[str, float], key: str) -> dict[str, float]:
    """The pattern's value of each layer that it names, whole or by its end; later ones win. Raises RecipeError."""
    found: dict[str, float] = {}
    for wanted, value in pattern.items():
        matched = _matching(names, wanted)
        if not matched:
            leaves = _leaves(names)
            raise RecipeError(
                f'{key}: "{wanted}" matches no adapted layer.{did_you_mean(wanted, leaves)} There are: '
                f"{', '.join(leaves)}."
            )
        found |= dict.fromkeys(matched, value)
    return found


def _matching(names: Iterable[str], want: str) -> list[str]:
    return [name for name in names if name == want or name.endswith("." + want)]


def _leaves(names: Iterable[str]) -> list[str]:
    return sorted({name.rsplit(".", 1)[-1] for name in names})


def lora_parameters(
    shape: Shape, method: MethodRecipe, model: str, *, magnitude: bool = False, classifies: bool = False
) -> int:
    """Weights that LoRA trains on ``model``: rank x (inputs + outputs) a layer, with ``magnitude`` (DoRA) the lengths
    of its rows too, and what is trained beside: whole modules, and a row of each table a new token. ``classifies``: a
    head of its own makes the output matrix idle. Raises RecipeError."""
    layers = shape.linear_layers()
    names = choose(layers, method.target_modules, model, shape.model_type)
    ranks = by_layer(names, method.rank_pattern, "method.rank_pattern")
    total = 0
    for name in names:
        outputs, inputs = layers[name]
        total += int(ranks.get(name, method.rank)) * (inputs + outputs) + (outputs if magnitude else 0)
    return total + _beside(shape, method, model, names, classifies)


def _beside(shape: Shape, method: MethodRecipe, model: str, taken: list[str], classifies: bool) -> int:
    """Weights of ``modules_to_save``, and the rows of ``new_tokens`` in tables that are not among them."""
    held = [(name, w, i) for w in shape.weights for i, name in enumerate(w.names)]
    embedding = next(w for w in shape.weights if w.kind == "embedding")
    tied = shape.kind == "decoder" and shape.tied
    if tied:
        held.append(("lm_head", embedding, 0))
    whole = set()
    for want in method.modules_to_save:
        found = {name for name, w, _ in held if _holds(want, name, w)}
        if not found:
            leaves = sorted({part for name, *_ in held for part in name.split(".") if not part.isdecimal()})
            raise RecipeError(
                f'method.modules_to_save: "{want}" matches no module of {model}.{did_you_mean(want, leaves)} '
                f"There are: {', '.join(leaves)}."
            )
        if both := next((name for name in taken if name in found), None):
            raise RecipeError(
                f'method.modules_to_save: "{want}" holds {both}, which has an adapter. Leave one of them out: '
                "method.target_modules names what is adapted."
            )
        whole |= {(w, i) for name, w, i in held if name in found}
    tables = [w for w in shape.weights if w is embedding or (w.kind == "head" and not tied and not classifies)]
    rows = sum(len(method.new_tokens) * shape.width for w in tables if (w, 0) not in whole)
    return rows + sum(w.size + w.bias for w, _ in whole)


def _holds(want: str, name: str, weight: Weight) -> bool:
    """Whether the module ``want`` has the weight below it; experts are bare tensors of their module, no modules."""
    inside = name.rpartition(".")[0] if weight.kind == "experts" else name
    return f".{want}." in f".{inside}."
