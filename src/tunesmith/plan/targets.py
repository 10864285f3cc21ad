"""Which layers, modules and weights of a network a method takes, by their names and sizes alone.

Notable: a plan that has nothing but a ``config.json`` and a method that holds the network make the same choice here,
and refuse the same with the same sentence.
"""

import re
from collections.abc import Collection, Iterable, Mapping

from tunesmith.core.errors import RecipeError, did_you_mean
from tunesmith.core.recipe import MethodRecipe
from tunesmith.plan.outline import Outline

LAST = re.compile(r"last-([0-9]+)")
KEYS_AND_VALUES = ("k_proj", "v_proj", "key", "value", "k_lin", "v_lin")  # what families call the layers that make them


def choose(network: Outline, wanted: tuple[str, ...]) -> list[str]:
    """The linear layers that ``wanted`` names, whole or by their ends; all of them leaves out gates, which have one
    output. Raises RecipeError when a name matches none."""
    names = network.linear
    if not names:
        raise RecipeError(
            f"{network.model} ({network.architecture}) has no linear layer to adapt. Use method.name: full."
        )
    if wanted == ("all-linear",):
        return [name for name, (outputs, _) in names.items() if outputs > 1]
    leaves = _leaves(names)
    if not wanted:
        raise RecipeError(f"method.target_modules is empty; expected all-linear, or some of: {', '.join(leaves)}.")
    chosen: list[str] = []
    for want in wanted:
        matched = _matching(names, want)
        if not matched:
            raise RecipeError(
                f'method.target_modules: "{want}" matches no linear layer of {network.model}.'
                f"{did_you_mean(want, leaves)} There are: {', '.join(leaves)}; or all-linear."
            )
        chosen += matched
    return list(dict.fromkeys(chosen))


def by_layer(names: Collection[str], pattern: Mapping[str, float], key: str) -> dict[str, float]:
    """The pattern's value of each layer that it names, whole or by its end; later ones win. Raises RecipeError.

    >>> by_layer(["layers.0.up", "layers.0.down", "layers.1.up"], {"up": 2, "layers.1.up": 3}, "method.rank_pattern")
    {'layers.0.up': 2, 'layers.1.up': 3}
    """
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
    leaves = {name.rsplit(".", 1)[-1] for name in names}
    return sorted(leaf for leaf in leaves if not leaf.isdecimal())


def ranks(network: Outline, method: MethodRecipe) -> dict[str, tuple[int, float]]:
    """(rank, alpha) of each layer that LoRA adapts. Raises RecipeError."""
    names = choose(network, method.target_modules)
    own = by_layer(names, method.rank_pattern, "method.rank_pattern")
    alphas = by_layer(names, method.alpha_pattern, "method.alpha_pattern")
    check_rank(network, names, method.rank, own)
    found = {}
    for name in names:
        rank = int(own.get(name, method.rank))
        found[name] = rank, alphas.get(name, method.alpha if method.alpha is not None else 2.0 * rank)
    return found


def check_rank(network: Outline, names: Iterable[str], rank: int, own: Mapping[str, float] | None = None) -> None:
    """Raise RecipeError for a rank above the dimensions of its layer; ``own`` are ranks of single layers."""
    own = own or {}
    too_high = []
    for name in names:
        wanted, smallest = int(own.get(name, rank)), min(network.linear[name])
        if wanted > smallest:
            too_high.append((smallest, "method.rank_pattern" if name in own else "method.rank", wanted, name))
    if too_high:
        smallest, key, wanted, name = min(too_high)
        raise RecipeError(f"{key} is {wanted}; {name} of {network.model} has {smallest} dimensions. Lower it.")


def check_blocks(network: Outline, names: Iterable[str], size: int) -> None:
    """Raise RecipeError where a layer cannot be cut into blocks: PEFT would take another size without a word."""
    widths = {name: network.linear[name][1] for name in names}
    odd = [(width, name) for name, width in widths.items() if size < 2 or width % size]
    if odd:
        width, name = min(odd)
        fits = ", ".join(str(n) for n in range(2, width) if width % n == 0 and n <= 64)
        raise RecipeError(
            f"method.rank is {size}; {name} of {network.model} has {width} inputs, which blocks of that size "
            f"do not cut up. Take one of: {fits}."
        )


def whole(network: Outline, wanted: Iterable[str], taken: Iterable[str]) -> list[str]:
    """Full names of the modules that are trained whole beside an adapter on the layers ``taken``. Raises
    RecipeError."""
    modules, adapted = network.modules, list(taken)
    chosen: list[str] = []
    for want in wanted:
        found = _matching(modules, want)
        if not found:
            leaves = _leaves(modules)
            raise RecipeError(
                f'method.modules_to_save: "{want}" matches no module of {network.model}.{did_you_mean(want, leaves)} '
                f"There are: {', '.join(leaves)}."
            )
        both = next((t for t in adapted for n in found if t == n or t.startswith(f"{n}.")), None)
        if both:
            raise RecipeError(
                f'method.modules_to_save: "{want}" holds {both}, which has an adapter. Leave one of them out: '
                "method.target_modules names what is adapted."
            )
        if network.head and network.output in found:
            raise RecipeError(
                f'method.modules_to_save: "{want}" is the output matrix, which takes no part below a classification '
                "head. Leave it out."
            )
        chosen += found
    return list(dict.fromkeys(chosen))


def everything(network: Outline, _method: MethodRecipe) -> list[str]:
    """Every weight of the network."""
    return list(network.weights)


def vectors(network: Outline, _method: MethodRecipe) -> list[str]:
    """Every vector of the network. Raises RecipeError where it has none."""
    found = [name for name, shape in network.weights.items() if len(shape) == 1]
    if not found:
        raise RecipeError(f"method.name: bitfit: {network.architecture} has neither biases nor norms. Use lora.")
    return found


def part(network: Outline, method: MethodRecipe) -> list[str]:
    """The weights below the modules that ``method.target_modules`` names. Raises RecipeError where a name matches
    none."""
    wanted = method.target_modules
    names = network.below(*(module for want in wanted for module in _meant(network, want)))
    if not names:
        raise RecipeError(
            f"method.target_modules: {list(wanted)} hold no weights of {network.model}: nothing "
            "would be trained. Name modules with weights, last-N, or all-linear."
        )
    return names


def _meant(network: Outline, want: str) -> list[str]:
    """Full names of the modules that ``want`` means."""
    if want == "all-linear":
        return choose(network, (want,))
    if last := LAST.fullmatch(want):
        count, layers, above = int(last[1]), network.layers, stack(network)
        if not 0 < count <= layers:
            raise RecipeError(
                f"method.target_modules: last-{count}: {network.model} has {layers} layers. "
                f"Name last-1 to last-{layers}."
            )
        return [f"{above}.{i}" for i in range(layers - count, layers)]
    found = _matching(network.modules, want)
    if not found:
        leaves = _leaves(network.modules)
        raise RecipeError(
            f'method.target_modules: "{want}" matches no module with weights of {network.model}.'
            f"{did_you_mean(want, leaves)} There are: {', '.join(leaves)}; or last-N, or all-linear."
        )
    return found


def stack(network: Outline) -> str:
    """Name of the list of the network's layers. Raises RecipeError."""
    if not network.stack:
        raise RecipeError(
            f"method.target_modules: {network.architecture} has no list of {network.layers} layers. Name modules."
        )
    return network.stack


def bottlenecks(network: Outline, method: MethodRecipe) -> list[str]:
    """The layers that a bottleneck stands behind; ``all-linear`` means the last one of each of the network's layers.
    Raises RecipeError."""
    names = choose(network, method.target_modules)
    if method.target_modules != ("all-linear",):
        return names
    below = f"{stack(network)}."
    return list({n.removeprefix(below).partition(".")[0]: n for n in names if n.startswith(below)}.values())


def keys_and_values(network: Outline) -> list[str]:
    """The layers that make keys and values. Raises RecipeError where the family has none of their own."""
    found = [name for name in network.linear if name.rpartition(".")[2] in KEYS_AND_VALUES]
    if not found:
        raise RecipeError(
            f"method.name: prefix: {network.architecture} has no layers for keys and values that are known "
            f"({', '.join(KEYS_AND_VALUES)}). Use method.name: prompt, or lora."
        )
    return found
