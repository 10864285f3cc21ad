"""What a plan knows of every method without torch: how many weights it trains, and the rates that suit it.

Notable: nothing stands here twice. The file of a method in ``models/adapters`` says how it trains and is read from this
table in all that is said here; its ``count`` on a network is this one, on the outline of that network. What PEFT alone
refuses is told when the method is attached.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from tunesmith.core.errors import RecipeError
from tunesmith.core.plan import Technique
from tunesmith.core.recipe import MethodRecipe
from tunesmith.plan import targets
from tunesmith.plan.objectives import known
from tunesmith.plan.outline import Outline, of_shape
from tunesmith.plan.shape import Shape

Count = Callable[[Outline, MethodRecipe], int]
Bound = Callable[[Outline, Iterable[str], int], None]


@dataclass(frozen=True, slots=True)
class MethodFacts:
    """A method. ``count`` is how many weights it trains beside a head, or raises RecipeError. ``rate`` is the learning
    rate that suits it, in times that of full fine-tuning, at most ``most_rate``. ``four_bits``: the base is loaded in
    four bits. ``soft``: ``method.rank`` tokens stand before every row. ``keeps``: what layers keep for their way
    back beside those of LoRA (or of full fine-tuning), in times their outputs, as counted on llama's network."""

    count: Count
    is_adapter: bool = True
    rate: float = 10.0
    most_rate: float = 2e-3
    four_bits: bool = False
    soft: bool = False
    keeps: float = 0.0


def trained(shape: Shape, method: MethodRecipe, model: str, *, classifies: bool) -> int:
    """Weights that ``method`` trains on the network ``model`` of this shape, beside a head; ``classifies``: it has one.
    Raises RecipeError, in the words of the method itself.

    >>> from tunesmith.plan.known import find
    >>> shape = find("meta-llama/Llama-3.1-8B").shape()
    >>> trained(shape, MethodRecipe(rank=16), "it", classifies=False)
    41943040
    """
    return method_facts(method.name).count(of_shape(shape, model, head=classifies), method)


def with_heads(trained: int, needs: str, *, classes: int, width: int) -> int:
    """``trained`` and the head's weights: of so many ``classes``, or of an objective that ``needs`` a score (which has
    no bias) or a critic (an adapter and a head of its own).

    >>> with_heads(100, "class_logp", classes=3, width=8), with_heads(100, "score", classes=0, width=8)
    (127, 108)
    >>> with_heads(100, "token_logp_value", classes=0, width=8)
    208
    """
    if needs == "class_logp":
        return trained + classes * width + (classes if classes > 1 else 0)
    return {"score": trained + width, "token_logp_value": 2 * trained + width}.get(needs, trained)


class Trains(Protocol):
    """A method, from this table or with its network."""

    @property
    def is_adapter(self) -> bool: ...
    @property
    def rate(self) -> float: ...
    @property
    def most_rate(self) -> float: ...
    @property
    def four_bits(self) -> bool: ...
    @property
    def keeps(self) -> float: ...


def technique(method: Trains, trained: int, times: float) -> Technique:
    """Of a method that trains so many weights, under an objective whose rate is ``times`` the usual one."""
    rate, most = method.rate * times, method.most_rate * times
    return Technique(not method.is_adapter, trained, rate, most, four_bits=method.four_bits, keeps=method.keeps)


def method_facts(name: str) -> MethodFacts:
    """Raises RecipeError for a method of another package, or none at all."""
    return known("method.name", name, METHODS)


def _lora(network: Outline, method: MethodRecipe, *, lengths: bool = False) -> int:
    """rank x (inputs + outputs) a layer, with ``lengths`` those of its rows; whole modules; and a row a new token of
    each table that is not among them."""
    taken = targets.ranks(network, method)
    wide = {name: network.linear[name] for name in taken}
    total = sum(rank * sum(wide[name]) + (wide[name][0] if lengths else 0) for name, (rank, _) in taken.items())
    modules = targets.whole(network, method.modules_to_save, taken)
    if network.tied and network.output in modules:
        modules.append(network.embedding)
    held = set(network.below(*modules))
    tables = [network.embedding] if network.tied or network.head else [network.embedding, network.output]
    rows = [f"{table}.weight" for table in tables if table and method.new_tokens]
    return (
        total
        + network.size(*held)
        + sum(len(method.new_tokens) * network.weights[name][1] for name in rows if name not in held)
    )


def _layers(a_layer: Callable[[int, int, int], int], bound: Bound | None = None) -> Count:
    """``a_layer(outputs, inputs, rank)`` for each layer that is adapted; ``bound`` refuses a rank."""

    def count(network: Outline, method: MethodRecipe) -> int:
        names = targets.choose(network, method.target_modules)
        if bound is not None:
            bound(network, names, method.rank)
        return sum(a_layer(*network.linear[name], method.rank) for name in names)

    return count


def _own(names: Callable[[Outline, MethodRecipe], list[str]]) -> Count:
    """The network's own weights, as far as they take part."""
    return lambda network, method: network.size(*network.taking_part(*names(network, method)))


def _lisa(network: Outline, method: MethodRecipe) -> int:
    targets.stack(network)
    return _own(targets.everything)(network, method)


def _bottleneck(network: Outline, method: MethodRecipe) -> int:
    widths = [network.linear[name][0] for name in targets.bottlenecks(network, method)]
    return sum(method.rank * (2 * width + 1) for width in widths)


def _prompt(network: Outline, method: MethodRecipe) -> int:
    return method.rank * network.weights[f"{network.embedding}.weight"][1]


def _prefix(network: Outline, method: MethodRecipe) -> int:
    return sum(method.rank * network.linear[name][0] for name in targets.keys_and_values(network))


def adalora_begins_at(rank: int) -> int:
    """Half as much rank again as is asked for."""
    return rank + (rank + 1) // 2


def _check_adalora(network: Outline, names: Iterable[str], rank: int) -> None:
    try:
        targets.check_rank(network, names, adalora_begins_at(rank))
    except RecipeError as error:
        raise RecipeError(f"{error} AdaLoRA begins with half as much again as the method.rank that is asked.") from None


def _lokr(outputs: int, inputs: int, rank: int) -> int:
    """A whole small factor, and a large one of low rank where that is smaller; sizes are divisors near the root.

    >>> _lokr(64, 32, 4)
    96
    """
    (small_o, large_o), (small_i, large_i) = _near_root(outputs), _near_root(inputs)
    whole = rank >= max(large_o, large_i) / 2
    return small_o * small_i + (large_o * large_i if whole else rank * (large_o + large_i))


def _near_root(size: int) -> tuple[int, int]:
    small = next(n for n in range(int(size**0.5), 0, -1) if size % n == 0)
    return small, size // small


LORA = MethodFacts(_lora)
SHIRA = MethodFacts(_layers(lambda outputs, inputs, rank: rank * (outputs + inputs)))
METHODS = {
    "full": MethodFacts(_own(targets.everything), is_adapter=False, rate=1.0),
    "lisa": MethodFacts(_lisa, is_adapter=False, rate=1.0),
    "partial": MethodFacts(_own(targets.part), is_adapter=False, rate=1.0, keeps=-0.2),
    "bitfit": MethodFacts(_own(targets.vectors), is_adapter=False, keeps=-0.55),
    "lora": LORA,
    "lora_plus": LORA,
    "rslora": LORA,
    "pissa": LORA,
    "olora": LORA,
    "dora": MethodFacts(partial(_lora, lengths=True), keeps=1.0),
    "qlora": MethodFacts(_lora, four_bits=True),
    "adalora": MethodFacts(_layers(lambda o, i, rank: adalora_begins_at(rank) * (o + i + 1), _check_adalora)),
    "vera": MethodFacts(_layers(lambda outputs, inputs, rank: rank + outputs), keeps=0.4),
    "loha": MethodFacts(_layers(lambda out, into, rank: 2 * rank * (out + into), targets.check_rank), keeps=0.15),
    "lokr": MethodFacts(_layers(_lokr), keeps=0.15),
    "ia3": MethodFacts(_layers(lambda outputs, inputs, rank: outputs), keeps=0.37),
    "oft": MethodFacts(_layers(lambda outputs, inputs, rank: inputs * (rank - 1) // 2, targets.check_blocks)),
    "hra": MethodFacts(_layers(lambda outputs, inputs, rank: rank * inputs, targets.check_rank), keeps=1.2),
    "fourierft": MethodFacts(_layers(lambda outputs, inputs, rank: 64 * rank), keeps=0.18),
    "shira": SHIRA,
    "shira_fisher": SHIRA,
    "shira_gradient": SHIRA,
    "bottleneck": MethodFacts(_bottleneck, keeps=-0.45),
    "prompt": MethodFacts(_prompt, rate=100.0, most_rate=3e-2, soft=True, keeps=-0.55),
    "prefix": MethodFacts(_prefix, rate=100.0, most_rate=3e-2, soft=True, keeps=-0.55),
}
