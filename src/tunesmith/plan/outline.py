"""A network as a method sees it before it trains: names and sizes alone.

Notable: an outline is drawn from a ``config.json`` by ``of_shape``, and from a network by ``models/skeleton.py``; what
is chosen and counted on it is the same for both, so a plan without a network and a run that has one never disagree.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from tunesmith.plan.shape import Shape


@dataclass(frozen=True, slots=True)
class Outline:
    """``weights`` are shapes by full names, a tied one under its first name alone; ``linear`` are (outputs, inputs) of
    the layers that take an adapter. ``embedding``, ``output`` and ``pooler`` name modules, ``stack`` the list of the
    ``layers``; each is empty where there is none. ``head``: a head of its own scores classes or answers, and the output
    matrix takes no part. ``model`` and ``architecture`` are for errors."""

    model: str
    architecture: str
    weights: Mapping[str, tuple[int, ...]]
    linear: Mapping[str, tuple[int, int]]
    embedding: str
    output: str
    pooler: str
    stack: str
    layers: int
    head: bool

    @property
    def tied(self) -> bool:
        """Whether the output matrix is the embedding."""
        return bool(self.output) and f"{self.output}.weight" not in self.weights

    @property
    def modules(self) -> tuple[str, ...]:
        """Full names of all modules that hold weights, however deep."""
        held = [*self.weights, *([f"{self.output}.weight"] if self.tied else [])]
        return tuple(dict.fromkeys(above for name in held for above in _above(name)))

    def below(self, *modules: str) -> list[str]:
        """The weights of these modules; those of a tied output matrix are the embedding's and not listed here."""
        wanted = set(modules)
        return [name for name in self.weights if not wanted.isdisjoint(_above(name))]

    def taking_part(self, *names: str) -> list[str]:
        """Those of the weights that bear on the result: not an encoder's pooler, nor the output matrix below a head."""
        idle = set(self.below(self.pooler, *([self.output] if self.head and not self.tied else [])))
        return [name for name in names if name not in idle]

    def size(self, *names: str) -> int:
        """Numbers in these weights."""
        return sum(prod(self.weights[name]) for name in names)


def _above(name: str) -> list[str]:
    """Names of the modules that a weight lies in.

    >>> _above("layers.0.up.weight")
    ['layers', 'layers.0', 'layers.0.up']
    """
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def of_shape(shape: Shape, model: str, *, head: bool) -> Outline:
    """The outline of the network ``model`` with this shape."""
    first = {kind: next((w.name for w in shape.weights if w.kind == kind), "") for kind in ("embedding", "pooler")}
    return Outline(
        model=model,
        architecture=shape.model_type,
        weights=shape.tensors(),
        linear=shape.linear_layers(),
        embedding=first["embedding"],
        output="lm_head" if shape.kind == "decoder" else "",
        pooler=first["pooler"].partition(".")[0],
        stack=next(w.name for w in shape.weights if w.layers is not None).partition(".{}")[0],
        layers=shape.layers,
        head=head,
    )
