"""Everything that a training is at the end of a step, as tensors and plain values, and back again.

Notable: steps are whole when a snapshot is taken, so no gradient belongs to it; the order of the rows is a function of
(seed, epoch), so ``epoch`` and ``place`` are all there is to say of it. A training that is put back goes on with the
very bits of one that was never stopped (``tests/train/test_resume.py``). A snapshot that was copied has no reference to
the training: it may be written while that goes on.
"""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from tunesmith.core.errors import ModelError
from tunesmith.core.report import CurvePoint, SampledAnswer
from tunesmith.train.optimiser import NamedParameters

SOURCE = "source/"  # names of what the source of batches keeps
SPIKE_LEAST, SPIKE_WINDOW = 20, 50  # losses that tell what is usual


class Settled(Exception):
    """A source of batches has nothing more to teach; the text says why. What was trained until then stays."""


@dataclass(frozen=True)
class DevResult:
    """``loss`` a unit of weight; ``rank`` is compared, lower is better: the loss, or (error rate, loss); ``answers``
    that were written, to be read."""

    loss: float
    rank: tuple[float, ...]
    answers: tuple[SampledAnswer, ...] = ()


@dataclass
class Progress:
    """What the loop has done so far. ``place`` counts the steps of the epoch that are done, ``halvings`` how often
    micro-batches are cut in two because memory did not suffice."""

    step: int = 0
    epoch: int = 0
    place: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    halvings: int = 0
    best: DevResult | None = None
    best_step: int = 0
    since_best: int = 0
    stopped: str = "all steps done"
    seconds: float = 0.0
    curve: list[CurvePoint] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """JSON values; ``of_plain`` takes them back."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        best = None if self.best is None else {"loss": self.best.loss, "rank": list(self.best.rank)}
        return values | {"best": best, "curve": [p.model_dump(mode="json") for p in self.curve]}

    @classmethod
    def of_plain(cls, values: dict[str, Any]) -> "Progress":
        best, curve = values["best"], [CurvePoint.model_validate(p) for p in values["curve"]]
        found = None if best is None else DevResult(float(best["loss"]), tuple(map(float, best["rank"])))
        return cls(**{**values, "best": found, "curve": curve})


class Best:
    """A copy of the trainable weights at the best dev result, in the processor's memory."""

    def __init__(self, parameters: NamedParameters) -> None:
        self.parameters = parameters
        self.values: list[Tensor] | None = None

    def keep(self) -> None:
        self.values = [p.detach().to("cpu", copy=True) for _, p in self.parameters]

    def restore(self) -> None:
        if self.values is not None:
            with torch.no_grad():
                for (_, parameter), value in zip(self.parameters, self.values, strict=True):
                    parameter.copy_(value)


@dataclass(frozen=True)
class Snapshot:
    """``tensors`` are weights, moments and random states on the processor; ``best`` the weights of step ``best_step``,
    None where there are none; ``numbers`` what optimisers keep beside tensors."""

    progress: dict[str, Any]
    tensors: dict[str, Tensor]
    best: dict[str, Tensor] | None
    numbers: dict[str, dict[str, float]]

    @property
    def step(self) -> int:
        return int(self.progress["step"])

    @property
    def source(self) -> dict[str, Tensor]:
        """What the source of batches kept."""
        return {k.removeprefix(SOURCE): t for k, t in self.tensors.items() if k.startswith(SOURCE)}

    def with_source(self, held: dict[str, Tensor]) -> "Snapshot":
        return dataclasses.replace(self, tensors=self.tensors | {f"{SOURCE}{k}": t for k, t in held.items()})


def capture(
    parameters: NamedParameters,
    optimisers: Iterable[Optimizer],
    best: Best,
    progress: Progress,
    beside: dict[str, Tensor],
    *,
    copy: bool,
) -> Snapshot:
    """The training as it stands between two steps, with the tensors that its method keeps ``beside`` the weights;
    without ``copy`` it changes with the next step."""
    tensors = {f"weight/{name}": _kept(p, copy) for name, p in parameters}
    tensors |= {f"method/{name}": _kept(t, copy) for name, t in beside.items()}
    numbers: dict[str, dict[str, float]] = {}
    held = {id(p): optimiser.state[p] for optimiser in optimisers for g in optimiser.param_groups for p in g["params"]}
    for name, parameter in parameters:
        for key, value in held.get(id(parameter), {}).items():
            if isinstance(value, Tensor):
                tensors[f"moment/{name}/{key}"] = _kept(value, copy)
            else:
                numbers.setdefault(name, {})[key] = value
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        for n, state in enumerate(torch.cuda.get_rng_state_all()):
            tensors[f"random/cuda{n}"] = state
    kept = None
    if best.values is not None:  # not changed in place by anyone, so no copy
        kept = {name: value for (name, _), value in zip(parameters, best.values, strict=True)}
    return Snapshot(progress.plain(), tensors, kept, numbers)


def _kept(tensor: Tensor, copy: bool) -> Tensor:
    return tensor.detach().to("cpu", copy=copy).contiguous()


@torch.no_grad()
def restore(
    snapshot: Snapshot,
    parameters: NamedParameters,
    optimisers: Iterable[Optimizer],
    best: Best,
    beside: dict[str, Tensor],
) -> Progress:
    """Put a training back where ``snapshot`` was taken. Raises ModelError where it is of other weights."""
    wanted = {f"weight/{name}": tuple(p.shape) for name, p in parameters}
    wanted |= {f"method/{name}": tuple(t.shape) for name, t in beside.items()}
    found = {k: tuple(t.shape) for k, t in snapshot.tensors.items() if k.startswith(("weight/", "method/"))}
    if wanted != found:
        odd = sorted(set(wanted.items()) ^ set(found.items()))[0][0]
        raise ModelError(f"The checkpoint holds other weights than this training has, such as {odd}. Start over.")
    owner = {id(p): optimiser for optimiser in optimisers for g in optimiser.param_groups for p in g["params"]}
    for name, parameter in parameters:
        parameter.copy_(snapshot.tensors[f"weight/{name}"])
        start = f"moment/{name}/"
        moments: dict[str, Any] = {
            key.removeprefix(start): t.to(parameter.device, copy=True)
            for key, t in snapshot.tensors.items()
            if key.startswith(start)
        }
        moments |= snapshot.numbers.get(name, {})
        if moments:
            owner[id(parameter)].state[parameter] = moments
    for name, tensor in beside.items():
        tensor.copy_(snapshot.tensors[f"method/{name}"])
    torch.set_rng_state(snapshot.tensors["random/cpu"])
    if torch.cuda.is_available() and "random/cuda0" in snapshot.tensors:
        held = [snapshot.tensors.get(f"random/cuda{n}") for n in range(torch.cuda.device_count())]
        for n, state in enumerate(held):
            if state is not None:
                torch.cuda.set_rng_state(state, n)
    if snapshot.best is not None:
        best.values = [snapshot.best[name].to(p.device, copy=True) for name, p in parameters]
    return Progress.of_plain(snapshot.progress)


def drop_idle(optimisers: Iterable[Optimizer]) -> None:
    """Let go of the moments of weights that are not trained for now."""
    for optimiser in optimisers:
        for parameter in [p for p in optimiser.state if not p.requires_grad]:
            del optimiser.state[parameter]


def spike(losses: list[float], loss: float) -> float | None:
    """The usual loss, where ``loss`` stands far above the last of ``losses``; else None.

    Far: more than 8 robust standard deviations (median and median absolute deviation), and more than twice the median.

    >>> spike([1.0, 1.1, 0.9, 1.0, 1.05] * 4, 1.2), spike([1.0, 1.1, 0.9, 1.0, 1.05] * 4, 3.0)
    (None, 1.0)
    """
    if len(losses) < SPIKE_LEAST or not math.isfinite(loss):
        return None
    middle = _median(losses)
    spread = 1.4826 * _median([abs(x - middle) for x in losses])
    return middle if loss > max(middle + 8 * spread, 2 * middle) else None


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
