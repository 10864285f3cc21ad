"""Seconds of one forward or backward pass through a network, by part: products, attention, bytes moved, launches.

Notable: every matrix takes the longer of two times, that of its operations and that of its bytes (the roofline of
Williams et al., 2009), so the same lines hold for a micro-batch of thousands of tokens and for one new token a row.
Backward through frozen weights is one product, through trained ones two; the first layer's adapters ask for no gradient
of their input. What lies between the products (norms, positions, sums) is bytes alone: a constant number of passes over
the numbers of a layer, counted in the code of transformers' Llama.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tunesmith.plan.activations import SHORT_ROW
from tunesmith.plan.memory import CHUNK
from tunesmith.plan.rates import Rates
from tunesmith.plan.shape import MULTIPLIED, Shape
from tunesmith.plan.work import Precision

Parts = dict[str, float]
FLASH = {"cuda": 0.6, "cpu": 0.5}  # of the widest products' rate that attention in one kernel reaches
FLASH_BACKWARD = 2.5  # five products against two: the scores are made again (Dao, 2023)
NORM_BYTES = 34  # a number of a root-mean-square norm in plain operations: raised to float32, squared, scaled, lowered
SOFTMAX_BYTES = 44  # a logit: copied to float32, its maximum, exponent, sum and gradient, and back
ROTARY, SUMS = 10, 6  # passes over queries and keys, over the width
GATED = {"cuda": 5, "cpu": 10}  # passes over the inner width; a processor takes as long for the exponents
FUSED = {"norm": 3, "rotary": 3, "gated": 3, "sums": 4}  # the same in compiled layers
SCORES = (6, 8)  # passes over the scores of plain attention, forward and backward
OPERATIONS = (150, 230)  # a layer, forward and backward: what Python and autograd do, in small operations, as measured
ADAPTER_OPERATIONS = (14, 22)  # an adapted linear layer
RECOMPUTED_OPERATIONS = 360  # a recomputed layer, beside its forward pass: what is kept is put aside and found again
COMPILED_OPERATIONS = 0.4  # of these, in compiled layers
HEAD_OPERATIONS = 500  # embedding, head and loss of a micro-batch
DEQUANTISED = {"cuda": 0.53, "cpu": 14.5}  # bytes a weight beside the number that is written: four bits, looked up
READS_INPUT = re.compile(r"(q|k|v|qkv|q_a|kv_a)_proj|query|key|value|Wqkv|c_attn|[qkv]_lin|attn\.[qkv]$")


@dataclass(frozen=True, slots=True)
class Net:
    """A network as it is trained or asked: ``trained`` is the share of its own weights that are (0: frozen),
    ``adapter`` how many weights adapters have beside them."""

    shape: Shape
    rates: Rates
    precision: Precision
    trained: float = 0.0
    adapter: int = 0
    four_bits: bool = False
    compiled: bool = False

    @property
    def size(self) -> int:
        """Bytes of a number."""
        return 2 if self.precision == "bfloat16" else 4

    def frozen(self) -> "Net":
        """The same with its adapters off."""
        return replace(self, adapter=0, trained=0.0)


def add(*found: Mapping[str, float]) -> Parts:
    """The sums, part by part.

    >>> add({"a": 1, "b": 2}, {"b": 3})
    {'a': 1, 'b': 5}
    """
    return {name: sum(one.get(name, 0) for one in found) for name in dict.fromkeys(n for one in found for n in one)}


def times(factor: float, found: Mapping[str, float]) -> Parts:
    return {name: factor * seconds for name, seconds in found.items()}


def seconds(found: Mapping[str, float], rates: Rates) -> float:
    """All together: a GPU works while the next operations are launched, and waits where launching takes longer."""
    launches = found.get("overhead", 0.0)
    work = sum(found.values()) - launches
    return max(work, launches) if rates.kind == "cuda" else work + launches


def forward(net: Net, tokens: float, context: int) -> Parts:
    """Seconds of the layers on ``tokens`` in rows of ``context``, without the head."""
    return {
        "products": _products(net, tokens),
        "adapters": _adapters(net, tokens, backward=False),
        "attention": _attention(net, tokens, context, backward=False),
        "elementwise": tokens * _passing(net) / net.rates.passing,
        "dequantisation": _dequantisation(net),
        "overhead": _overhead(net, 0) + HEAD_OPERATIONS / 2 * net.rates.overhead,
    }


def backward(net: Net, tokens: float, context: int) -> Parts:
    """Seconds of the way back through the layers, without the head."""
    once = _products(net, tokens)
    whole = once * (1 + min(1.0, net.trained))
    return {
        "products": whole if net.trained else whole - _unasked(net, tokens),
        "adapters": _adapters(net, tokens, backward=True),
        "attention": _attention(net, tokens, context, backward=True),
        "elementwise": 2 * tokens * _passing(net) / net.rates.passing,
        "dequantisation": _dequantisation(net),
        "overhead": _overhead(net, 1) + HEAD_OPERATIONS / 2 * net.rates.overhead,
    }


def head(net: Net, trained_tokens: float, *, learns: bool, gradient: bool = True) -> float:
    """Seconds of the output matrix and the loss of ``trained_tokens`` of a micro-batch. A frozen matrix takes two
    products, a trained one (``learns``) a third, and a fourth where its logits do not stand in memory at once."""
    shape, rates = net.shape, net.rates
    logits = trained_tokens * shape.vocabulary
    again = learns and logits > CHUNK[rates.kind]
    products = (1 + gradient + learns + again) * product(net, trained_tokens, shape.vocabulary, shape.width)
    return products + (1 + again) * logits * (SOFTMAX_BYTES + 3 * net.size) / rates.passing


def product(net: Net, tokens: float, outputs: float, inputs: float) -> float:
    """Seconds of ``tokens`` x (outputs x inputs): the longer of its operations and its bytes."""
    rate = net.rates.rate(net.precision, min(tokens, outputs, inputs))
    moved = net.size * (outputs * inputs + tokens * (outputs + inputs))
    return max(2 * tokens * outputs * inputs / rate, moved / net.rates.bandwidth)


def _products(net: Net, tokens: float) -> float:
    """Of all matrices inside the layers, once. Each expert that is asked multiplies its share of the tokens."""
    total = 0.0
    for w in net.shape.weights:
        if w.kind not in MULTIPLIED:
            continue
        if w.kind == "experts" and net.shape.experts:
            count, outputs, inputs = w.shape
            asked = min(float(count), tokens * net.shape.experts.active)
            own = tokens * net.shape.experts.active / asked
            total += w.copies * asked * product(net, own, outputs, inputs)
        else:
            total += w.copies * product(net, tokens, w.shape[0], w.shape[1])
    return total


def _unasked(net: Net, tokens: float) -> float:
    """Of the first layer: no gradient is asked for what comes from a frozen embedding."""
    first = (w for w in net.shape.weights if w.layers and w.layers[0] == 0 and READS_INPUT.search(w.name))
    return sum(product(net, tokens, w.shape[0], w.shape[1]) for w in first if w.kind in ("linear", "matrix"))


def _adapters(net: Net, tokens: float, *, backward: bool) -> float:
    """Two thin products beside each linear layer, of the rank that gives as many weights; twice as many on the way
    back. Whatever the method, it is counted as LoRA of its size on all linear layers."""
    layers = net.shape.linear_layers().values()
    if not net.adapter or not layers:
        return 0.0
    rank = max(1.0, net.adapter / sum(outputs + inputs for outputs, inputs in layers))
    operations = (4 if backward else 2) * tokens * net.adapter
    reads = (3, 2) if backward else (1, 2)
    moved = net.size * tokens * sum(reads[0] * inputs + reads[1] * outputs for outputs, inputs in layers)
    return max(operations / net.rates.rate(net.precision, min(rank, tokens)), moved / net.rates.passing)


def _attention(net: Net, tokens: float, context: int, *, backward: bool) -> float:
    """Plain products with all scores on a processor where rows are short, one kernel elsewhere."""
    shape, rates = net.shape, net.rates
    wide = shape.heads * (shape.head_width + shape.value_width)
    if rates.kind == "cpu" and context <= SHORT_ROW[net.precision]:
        operations = 2 * tokens * wide * context * shape.layers
        rate = rates.rate(net.precision, min(context, shape.head_width))
        scores = net.size * SCORES[backward] * tokens * shape.heads * context * shape.layers
        return (1 + backward) * operations / rate + scores / rates.passing
    operations = tokens * shape.attention_flops(context) * (FLASH_BACKWARD if backward else 1)
    return operations / (FLASH[rates.kind] * rates.rate(net.precision, 1 << 20))


def _passing(net: Net) -> float:
    """Bytes that a token moves between the products of all layers, forward."""
    shape, size, fused = net.shape, net.size, net.compiled
    norms = 0.0
    for w in shape.weights:
        if w.kind == "norm" and w.layers:
            numbers = w.size if w.size == shape.width else shape.heads * shape.head_width
            plain = 3 * size if w.bias else NORM_BYTES  # a layer norm is one operation
            norms += w.copies * numbers * (FUSED["norm"] * size if fused else plain)
    keys = (shape.heads + shape.key_value_heads) * shape.head_width
    turned = (FUSED["rotary"] if fused else ROTARY) if shape.kind == "decoder" else 0
    packed = 4  # rows are padded for attention and flattened after it
    sums = FUSED["sums"] if fused else SUMS
    layers = shape.layers * (sums * shape.width + (turned + packed) * keys)
    return norms + size * (layers + (FUSED["gated"] if fused else GATED[net.rates.kind]) * _inner(shape))


def _inner(shape: Shape) -> float:
    """Inner numbers of a token in all layers together, those of the experts at work."""
    if shape.experts is None:
        return shape.layers * shape.inner_width
    mixed = len(shape.experts.layers)
    own = shape.experts.active * shape.experts.inner_width + shape.experts.shared_width
    return mixed * own + (shape.layers - mixed) * shape.inner_width


def _dequantisation(net: Net) -> float:
    """Weights of four bits are made dense for every pass."""
    if not net.four_bits:
        return 0.0
    return net.shape.count("linear") * (DEQUANTISED[net.rates.kind] + net.size) / net.rates.bandwidth


def _overhead(net: Net, way: int) -> float:
    operations = net.shape.layers * OPERATIONS[way]
    if net.shape.experts:  # each expert that is asked is a few operations of its own
        operations += 6 * min(net.shape.experts.count, 64) * len(net.shape.experts.layers)
    if net.adapter:
        operations += len(net.shape.linear_layers()) * ADAPTER_OPERATIONS[way]
    return operations * (COMPILED_OPERATIONS if net.compiled else 1) * net.rates.overhead
