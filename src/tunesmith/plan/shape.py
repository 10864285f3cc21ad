"""What a network is made of: its weights by name, and the counts that follow from them. Standard library alone.

Notable: parameters, those at work for one token, LoRA, operations and cache are sums over one list of weights, and the
tests compare that list name by name with what transformers builds without memory. ``families.shape_of`` reads a shape
from a ``config.json``. Operations are counted as usual: two for a multiplication and its addition (Kaplan et al., 2020,
table 1); softmax, norms and activations are left out.
"""

from dataclasses import dataclass
from math import prod
from typing import Literal

Kind = Literal["embedding", "linear", "matrix", "experts", "router", "norm", "head", "pooler"]
MULTIPLIED: tuple[Kind, ...] = ("linear", "matrix", "experts", "router")  # by a token's vector, inside the layers


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight and, with ``bias`` numbers, its bias. ``{}`` in ``name`` stands for the layer's number; ``layers`` are
    those that have it, None where it stands once. ``shape`` is outputs x inputs, after the number of experts where
    they lie in one tensor. A ``linear`` weight is an ``nn.Linear``, which takes an adapter; a ``matrix`` is none
    (GPT-2's Conv1D)."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    layers: tuple[int, ...] | None = None
    bias: int = 0

    @property
    def size(self) -> int:
        """Numbers in one of them, without its bias."""
        return prod(self.shape)

    @property
    def copies(self) -> int:
        return 1 if self.layers is None else len(self.layers)

    @property
    def names(self) -> list[str]:
        """Full names, in the order of the layers."""
        return [self.name] if self.layers is None else [self.name.replace("{}", str(i)) for i in self.layers]


@dataclass(frozen=True, slots=True)
class Experts:
    """The mixture in each of ``layers``: ``active`` of ``count`` experts work for a token; ``shared_width`` is the
    inner width of what works for all, 0 where nothing does."""

    count: int
    active: int
    inner_width: int
    shared_width: int
    layers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """A network. ``windows``: how many tokens each layer looks at, None for all. ``head_width`` is that of queries and
    keys, ``value_width`` that of values; ``cached``: numbers that a token leaves in a layer's cache. ``assumed``:
    sentences on what was taken for granted or left out; a plan shows them."""

    model_type: str
    kind: Literal["decoder", "encoder"]
    vocabulary: int
    width: int
    layers: int
    heads: int
    key_value_heads: int
    head_width: int
    value_width: int
    inner_width: int
    context: int
    tied: bool
    windows: tuple[int | None, ...]
    cached: int
    weights: tuple[Weight, ...]
    experts: Experts | None = None
    assumed: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """As transformers counts them: a tied output matrix once, an encoder's pooler included."""
        return sum((w.size + w.bias) * w.copies for w in self.weights)

    @property
    def active_parameters(self) -> int:
        """Those at work for one token: all, but of the experts only the active ones."""
        return self.parameters - self.count("experts") + self._active("experts")

    @property
    def multiplied_parameters(self) -> int:
        """In the matrices inside the layers, experts and routers included, biases not."""
        return self.count(*MULTIPLIED)

    def count(self, *kinds: Kind | Literal["bias"]) -> int:
        """Numbers in the weights of these kinds; ``bias`` are those of all kinds. Over all kinds it is ``parameters``.

        >>> linear = Weight("layers.{}.up", (8, 4), "linear", layers=(0, 1), bias=8)
        >>> shape = Shape("x", "decoder", 10, 4, 2, 1, 1, 4, 4, 8, 16, True, (None, None), 8, (linear,))
        >>> shape.count("linear"), shape.count("bias"), shape.parameters
        (64, 16, 80)
        """
        total = sum(w.size * w.copies for w in self.weights if w.kind in kinds)
        return total + (sum(w.bias * w.copies for w in self.weights) if "bias" in kinds else 0)

    def _active(self, *kinds: Kind) -> int:
        """Numbers that one token is multiplied by."""
        share = (self.experts.count, self.experts.active) if self.experts else (1, 1)
        found = 0
        for w in self.weights:
            if w.kind in kinds:
                found += w.copies * (w.size // share[0] * share[1] if w.kind == "experts" else w.size)
        return found

    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of every layer that takes an adapter, by full name: ``all-linear``. The output head is none
        of them, nor are experts that lie in one tensor, nor an encoder's pooler."""
        return {n: (w.shape[0], w.shape[1]) for w in self.weights if w.kind == "linear" for n in w.names}

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Shapes by the names that torch gives the parameters."""
        found: dict[str, tuple[int, ...]] = {}
        for w in self.weights:
            form = w.shape[::-1] if w.kind == "matrix" else w.shape  # Conv1D lies the other way round
            for name in w.names:
                if w.size:
                    found[name if w.kind == "experts" else f"{name}.weight"] = form
                if w.bias:
                    found[f"{name}.bias"] = (w.bias,)
        return found

    def attention_flops(self, context: int) -> float:
        """Operations of the attention itself for one token, the mean over a row of ``context`` tokens: scores and sums,
        2 x heads x (head width + value width) for each token looked at."""
        looked_at = sum(_looked_at(context, window, self.kind == "decoder") for window in self.windows)
        return 2 * self.heads * (self.head_width + self.value_width) * looked_at

    def forward_flops(self, context: int) -> float:
        """Operations of a forward pass for one token, the mean over a row of ``context`` tokens. A decoder's output
        matrix is included; the backward pass takes twice as many."""
        head = self.vocabulary * self.width if self.kind == "decoder" else 0
        return 2 * (self._active(*MULTIPLIED) + head) + self.attention_flops(context)

    def cache_bytes(self, length: int, size: float = 2) -> int:
        """Bytes of the cache of one row of ``length`` tokens, ``size`` bytes a number (2 for bf16). A layer with a
        window keeps no more than it; ``cache_bytes(1)`` is what the first token adds. 0 for an encoder."""
        kept = sum(length if window is None else min(length, window) for window in self.windows)
        return int(size * self.cached * kept)


def _looked_at(context: int, window: int | None, causal: bool) -> float:
    """Tokens that a token looks at, the mean over a row: half of the row where it sees what came before alone.

    >>> _looked_at(8, None, True), _looked_at(8, 4, True), _looked_at(8, 4, False)
    (4.0, 3.0, 4)
    """
    seen = context if window is None else min(window, context)
    return seen - seen * seen / (2 * context) if causal else seen
