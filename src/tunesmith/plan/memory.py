"""Bytes that training needs, by part, and the level of thrift that fits: arithmetic on a shape; no torch.

Notable: one dial. Each level gives up some speed for memory: ``fast`` keeps every activation; ``selective`` recomputes
those of every second layer, ``checkpoint`` those of all (Chen et al., 2016); ``least`` also steps each weight as soon
as its gradient is whole, so that the gradients of all weights never stand side by side, and keeps its moments in eight
bits where bitsandbytes is there (Dettmers et al., 2022). The parts are those of the moment of the step that needs most:
before the backward pass all activations stand, at its end all gradients. The constants for a processor were chosen by
the runs of ``benchmarks/plan_accuracy.py``, so that at most one in twenty is foreseen too low; it measures others too.
A copy of a small snapshot, which is written beside the training every two minutes, is not counted.
Legend: D width, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import get_args

from tunesmith.core.errors import MemoryNeeded
from tunesmith.core.order import PADDED
from tunesmith.plan.activations import NORMS, SHORT_ROW, Device, Held, kept_by_kind, packs
from tunesmith.plan.batches import looked_at, worst
from tunesmith.plan.shape import Shape
from tunesmith.plan.work import SIZE, Level, Rollouts, Scorer, Work

LEVELS: tuple[Level, ...] = get_args(Level)
BESIDES: dict[Device, int] = {"cpu": 510 << 20, "cuda": 500 << 20}  # interpreter, libraries and buffers; CUDA's context
SEARCHING = 210 << 20  # what a search over the rows and answers to all baselines leave in the process (by one run)
OWN = 110 << 20  # of that, what a run imports and holds beside the libraries that a probe has loaded
SLACK: dict[Device, float] = {"cpu": 0.1, "cuda": 0.05}  # of what comes and goes: holes between blocks that stay
HOLES: dict[Device, int] = {"cpu": 50 << 20, "cuda": 0}  # the largest blocks, chunks of logits, leave them
LOST, LOST_AGAIN = 0.78, 0.5  # of what a layer, and a recomputed one, lets go: the rest is found again
LONG_ROWS = 1.4  # times what it lets go where attention is one kernel, which wants its input in one piece: by 53 runs
LAYER_NORMS = 0.5  # times what it lets go where norms take the mean off too: these are one kernel each
GATHERED = 1.7  # times what is lost where micro-batches follow each other in a step: they find each other's holes
FREED = (4, 5, 4.5)  # numbers a token that a layer makes and lets go: times width, queries, keys and values; two more
# of the width where its norms are not trained. glibc serves an aligned block only from a larger hole, so on a processor
# the place of each is lost until the end of the step.
SURELY = 1.15  # times what there is: no forecast is that far off
HEADROOM = 0.9  # of the limit: others run on the same machine
MOMENTS = 8  # bytes a trained weight: two float32 numbers
CONSTANTS = 1 / 64 + 4 / 64 / 256  # bytes a weight: scales of blocks of 64 in eight bits, theirs in float32
FOUR_BITS = 0.5 + CONSTANTS  # bytes a weight of four bits: NF4
LOOKED_UP = 6  # bytes a weight of four bits while it is made dense on a processor: as an index and as float32 numbers
SMALL_MOMENTS = 2 + 2 * 4 / 256  # two bytes and the scales of their blocks; those of the embedding stay float32
CHUNK = {"cpu": 1 << 24, "cuda": 1 << 27}  # logits at a time, as in models/linear_logp.py; a test compares them
WIDE = {"cpu": 1 << 20, "cuda": 1 << 27}  # of these in float32 at a time
CACHE_BYTES, MOST_ROWS = 1 << 30, 256  # of the sampler: keys and values held at once, rows


@dataclass(frozen=True, slots=True)
class _Moment:
    """Of a step: what stands in memory then, beside what always does; ``activations`` by part."""

    gradients: int = 0
    activations: Mapping[str, int] = field(default_factory=dict)
    logits: int = 0
    cache: int = 0

    @property
    def total(self) -> int:
        return self.gradients + sum(self.activations.values()) + self.logits + self.cache


def needed(work: Work, device: Device = "cpu", process: int | None = None, ranks: int = 1) -> dict[str, int]:
    """Bytes by part; their sum is the peak while training. ``process``: what the process holds without a model, as
    measured on the machine at hand. On each of ``ranks`` devices lies a share of all that belongs to weights, and one
    layer whole (as FSDP does it; this package itself trains on one)."""
    lasting = _lasting(work, device)
    moment = _highest(work, device)
    passing = {"gradients": moment.gradients, "activations": sum(moment.activations.values()), "logits": moment.logits}
    passing["keys and values"] = moment.cache
    if ranks > 1:
        lasting = {name: -(-size // ranks) for name, size in lasting.items()}
        passing["gradients"] = -(-passing["gradients"] // ranks)
        passing["gathered"] = work.size * max(work.shape.parameters // work.shape.layers, largest(work.shape))
    constants = int(CONSTANTS / FOUR_BITS * lasting["four bits"])
    lasting |= {"four bits": lasting["four bits"] - constants, "quantisation constants": constants}
    found = lasting | passing
    found["slack"] = int(SLACK[device] * sum(passing.values())) + HOLES[device]
    found["besides"] = BESIDES[device] if process is None or device != "cpu" else process + OWN
    if work.technique.four_bits:
        found["dense weight"] = _dense_weight(work, device)
    if work.searches and device == "cpu":
        found["besides"] += SEARCHING
    return {name: size for name, size in found.items() if size}


def activations(work: Work, device: Device = "cpu") -> dict[str, int]:
    """Bytes of the activations of ``needed``, by part: kinds of layers with the path that attention takes, the inputs
    of checkpointed layers, what the backward pass of a layer adds, the final hidden states, a critic's layers, and
    fragmentation: the places of freed blocks that are not found again."""
    return {name: size for name, size in _highest(work, device).activations.items() if size}


def _highest(work: Work, device: Device) -> _Moment:
    held = batches(work, work.at_once, device)
    return max((m for one in held for m in _moments(work, device, one)), key=lambda m: m.total)


def peak(work: Work, device: Device = "cpu", process: int | None = None, ranks: int = 1) -> int:
    """Bytes at the most demanding moment of training."""
    return sum(needed(work, device, process, ranks).values())


def answering(shape: Shape, size: int, rows: int, tokens: int) -> int:
    """Bytes of keys and values while ``rows`` of so many tokens are written, numbers of ``size`` bytes: one at least.

    >>> from tunesmith.plan.known import find
    >>> shape = find("meta-llama/Llama-3.1-405B").shape()
    >>> answering(shape, 2, 256, 8000) == 126 * 2 * 8 * 128 * 2 * 8000
    True
    """
    a_row = max(1, shape.cache_bytes(tokens, size))
    return max(a_row, min(CACHE_BYTES, min(rows, MOST_ROWS) * a_row))


def _lasting(work: Work, device: Device) -> dict[str, int]:
    """What stands in memory from the first step to the last."""
    shape, technique, trained = work.shape, work.technique, work.technique.trained
    quantised = shape.count("linear") if technique.four_bits else 0
    held = {
        "weights": work.size * (shape.parameters - quantised),
        "four bits": int(FOUR_BITS * quantised),
        "quantisation constants": 0,  # told apart below
        "adapter": 0 if technique.full else 4 * trained,
        "masters": 4 * trained if technique.full and work.precision == "bfloat16" else 0,
        "moments": _moment_bytes(work),
        "best": 4 * trained if work.looks and device == "cpu" else 0,
    }
    if work.rollouts is not None:
        held["reward model"] = _scorer(work, work.rollouts.reward)
        held["judge"] = _scorer(work, work.rollouts.judge)
    return held


def _scorer(work: Work, scorer: Scorer | None) -> int:
    """An adapter on the policy's base, or a network of its own."""
    if scorer is None:
        return 0
    if scorer.stands_on(work.precision):
        return 4 * scorer.adapter
    quantised = scorer.shape.count("linear") if scorer.four_bits else 0
    dense = SIZE[scorer.precision or work.precision] * (scorer.shape.parameters - quantised)
    return dense + int(FOUR_BITS * quantised) + 4 * scorer.adapter


def _dense_weight(work: Work, device: Device) -> int:
    """The largest weight of four bits as it is multiplied by: one stands at a time, and a processor keeps its place."""
    size = max((w.size for w in work.shape.weights if w.kind == "linear"), default=0)
    looked_up = LOOKED_UP if device == "cpu" else 0
    return size * (looked_up + (0 if looked_up and work.precision == "float32" else work.size))


def _moment_bytes(work: Work) -> int:
    trained = work.technique.trained
    if not (work.small_moments and work.technique.full):
        return MOMENTS * trained
    inner = min(trained, work.shape.multiplied_parameters)
    return int(SMALL_MOMENTS * inner + MOMENTS * (trained - inner))


def _moments(work: Work, device: Device, held: Held) -> list[_Moment]:
    """The moments of a step at which the most may stand in memory, of micro-batches like ``held``."""
    shape, size, full = work.shape, work.size, work.technique.full
    layers, a_layer = _activations(work, held, device)
    critic = sum(layers.values()) if work.rollouts is not None and work.rollouts.critic else 0  # reads after the policy
    chosen = int(work.rows.share * min(held.tokens, work.at_once)) if not work.outputs else 0
    states = size * (3 * held.tokens + (3 if full else 2) * chosen) * shape.width  # the last norm; of chosen tokens
    logits = _logits(work, chosen, device)
    table = 4 * shape.vocabulary * shape.width if full and not work.outputs else 0  # the gradient of the output matrix
    gradients = 4 * work.technique.trained
    if work.level == "least":
        gradients = 4 * min(work.technique.trained, 2 * largest(shape))
    before = gradients if work.accumulates else 0
    backward = int(size * held.tokens * (3 * shape.inner_width + 4 * shape.width))
    stands = layers | {"final hidden states": states}
    seen = _seen(work)
    written, rollouts = 0, work.rollouts
    if rollouts is not None:
        length = rollouts.prompt_tokens + rollouts.answer_tokens
        written = answering(shape, size, rollouts.prompts * rollouts.answers, length)
    reads = {"feed-forward": 4 * size * seen * shape.inner_width, NORMS: 6 * size * seen * shape.width}
    return [
        _Moment(before, stands, logits + 2 * table),
        _Moment(before + table, stands | {"critic": critic, "backward pass": backward}, 0),
        _Moment(gradients + table, a_layer | {"backward pass": backward}, 0),
        _Moment(0, reads, _logits(work, int(work.rows.share * min(seen, work.looks_at)), device)),
        _Moment(cache=written),
    ]


def largest(shape: Shape) -> int:
    """Numbers in the largest weight."""
    return max(shape.vocabulary * shape.width, *(w.size for w in shape.weights))


def batches(work: Work, tokens: int, device: Device) -> tuple[Held, ...]:
    """The worst micro-batches of so many tokens; where a network reads pads, these are tokens too."""
    if work.rollouts is not None:
        return (_written(work, work.rollouts, tokens),)
    short = SHORT_ROW[work.precision] if device == "cpu" else 0
    found = worst(work.rows, work.batch_tokens, tokens, short)
    return found if packs(work.shape) else tuple(replace(one, tokens=one.padded) for one in found)


def _seen(work: Work) -> int:
    """Tokens that the network reads at once where nothing is trained."""
    if work.rollouts is not None:
        return _written(work, work.rollouts, work.looks_at).tokens
    held = looked_at(work.rows, work.looks_at)
    return held.tokens if packs(work.shape) else held.padded


def _written(work: Work, rollouts: Rollouts, tokens: int) -> Held:
    """Of answers: those to one prompt stand together as far as they fit, taken to be half as long as they may be; at
    least as many as the longest rows that fit. Where a network reads pads, one long answer may widen many short ones up
    to the bound."""
    prompt, answer, group = rollouts.prompt_tokens, rollouts.answer_tokens, rollouts.answers
    alone, length = max(1, tokens // work.rows.longest), prompt + answer
    most = max(1, min(PADDED * tokens // length, rollouts.prompts * group))
    if not packs(work.shape):
        padded = max(alone * work.rows.longest, most * length)
        return Held(padded, padded, work.rows.longest)
    sizes = {n: prompt + n * answer // 2 for n in range(group, 0, -1) if group % n == 0}
    together = next((n for n, size in sizes.items() if size <= tokens and n * length <= PADDED * tokens), 1)
    rows = min(together * max(1, tokens // sizes[together]), most)
    if rows <= alone:
        return Held(alone * work.rows.longest, alone * work.rows.longest, work.rows.longest)
    return Held(alone * work.rows.longest, rows * length, length)


def _activations(work: Work, held: Held, device: Device) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes by part of all layers before the backward pass, and of one layer."""
    shape, size = work.shape, work.size
    adapted = None if work.technique.full else work.technique.trained / _adapted_width(work)
    own = kept_by_kind(shape, held, work.precision, device, adapted)
    keeps = work.technique.keeps * held.tokens * _outputs(shape)
    if keeps >= 0:
        own["adapters"] += keeps
    else:  # of which kinds it keeps less was not counted
        share = 1 + keeps / sum(own.values())
        own = {name: share * numbers for name, numbers in own.items()}
    freed = _freed(work, held, device)
    again = {"fast": 0, "selective": shape.layers // 2}.get(work.level, shape.layers)
    stand = shape.layers - again + (1 if again else 0)  # one recomputed layer stands whole
    found = {name: int(size * numbers * stand) for name, numbers in own.items()}
    found["checkpointed inputs"] = int(size * held.tokens * shape.width * again)
    found["fragmentation"] = int(size * freed * (LOST * stand + LOST_AGAIN * again))
    return found, {name: int(size * numbers) for name, numbers in (own | {"fragmentation": LOST * freed}).items()}


def _outputs(shape: Shape) -> float:
    """Of the linear layers of one layer."""
    return sum(outputs for outputs, _ in shape.linear_layers().values()) / shape.layers


def _freed(work: Work, held: Held, device: Device) -> float:
    """Numbers that a layer makes in its forward pass and lets go, where their place may be lost."""
    if device != "cpu":
        return 0
    shape, (width, queries, key_values) = work.shape, FREED
    of_width = width if work.technique.full else width + 2
    heads = queries * shape.heads + key_values * shape.key_value_heads
    long_rows = LONG_ROWS if held.longest > SHORT_ROW[work.precision] else 1.0
    norms = LAYER_NORMS if any(w.kind == "norm" and w.bias for w in shape.weights) else 1.0
    gathered = GATHERED if work.accumulates and work.level != "least" else 1.0
    return long_rows * norms * gathered * held.tokens * (of_width * shape.width + heads * shape.head_width)


def _adapted_width(work: Work) -> float:
    """Weights of one rank in all adapters of a layer, all layers together: trained / it are the ranks of one layer."""
    layers = work.shape.linear_layers()
    total = sum(outputs + inputs for outputs, inputs in layers.values())
    return max(1.0, total / max(len(layers) / work.shape.layers, 1))


def _logits(work: Work, chosen: int, device: Device) -> int:
    if work.outputs or not chosen:
        return 0
    vocabulary = work.shape.vocabulary
    rows = min(chosen, max(1, CHUNK[device] // vocabulary))
    wide = min(rows, max(1, WIDE[device] // vocabulary))
    return vocabulary * (work.size * rows + 2 * 4 * wide)


def refuse(limit: int | None, work: Work, device: Device, ranks: int = 1) -> None:
    """Raise MemoryNeeded where a level that was asked for cannot fit, by more than a forecast may err. No ``limit``, or
    0, refuses nothing. A GPU that runs out of memory says so, and what is trained on at once is then halved down to one
    unit; what is looked at is not."""
    if device == "cuda" and work.level != "least":
        work = replace(work, micro_tokens=work.rows.largest, look_tokens=work.looks_at)
    found = peak(work, device, ranks=ranks)
    if limit and found > SURELY * limit:
        raise MemoryNeeded(
            f"memory: train.memory: {work.level} needs about {found / 2**30:.1f} GiB with {work.at_once} tokens at "
            f"once, and there are {limit / 2**30:.2g} GiB."
        )


def choose(limit: int, work: Work, device: Device, ranks: int = 1) -> tuple[Level, int, str]:
    """(level, tokens in memory at once, reason): the first that fits into ``limit`` bytes; with 0, the one that needs
    least. Smaller micro-batches come before recomputing, which costs a third more time; ``least`` takes a step in one
    piece. Raises MemoryNeeded where nothing fits."""
    longest = work.rows.largest
    sizes = [max(longest, work.micro_tokens // n) for n in (1, 2, 4)]
    ways: list[tuple[Level, int]] = [("fast", n) for n in dict.fromkeys(sizes)]
    ways += [("selective", sizes[-1]), ("checkpoint", sizes[-1])]
    if work.technique.full:
        ways.append(("least", max(longest, work.batch_tokens)))
    tried: list[tuple[int, Level, int]] = []
    for way in ways:
        small = work.small_moments and way[0] == "least"
        one = replace(work, level=way[0], micro_tokens=way[1], small_moments=small)
        tried.append((peak(one, device, ranks=ranks), *way))
        if tried[-1][0] <= HEADROOM * limit:
            break
    told = ", ".join(f"{name} {size / 2**30:.1f} GiB with {n} tokens at once" for size, name, n in tried)
    fits = tried[-1][0] <= HEADROOM * limit
    total, level, tokens = tried[-1] if fits else min(tried, key=lambda one: one[0])
    room = f"{HEADROOM:.0%} of {limit / 2**30:.2g} GiB: {told}"
    if limit and total > limit:
        smaller = " train.batch_tokens or" if work.technique.full else ""
        raise MemoryNeeded(
            f"memory: nothing fits {room}. Raise budget.memory where the machine has more, lower{smaller} "
            "train.max_length, or take a smaller model."
        )
    if not limit:
        return level, tokens, f"the least of {told}"
    return level, tokens, f"the first that fits {room}" if fits else f"the least; tight for {room}"
