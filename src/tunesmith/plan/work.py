"""What a training computes, as far as its memory and its time depend on it: a network, a method, rows, and settings."""

from dataclasses import dataclass
from typing import Literal

from tunesmith.core.plan import Technique
from tunesmith.plan.shape import Shape

Level = Literal["fast", "selective", "checkpoint", "least"]
Precision = Literal["float32", "bfloat16"]
SIZE: dict[Precision, int] = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class Rows:
    """Of one pass: ``count`` rows (units where ``unit`` rows are compared with each other), ``tokens`` as the network
    reads them (what rows of a unit begin with alike once), ``trained`` of them in the loss, ``longest`` in one row,
    ``longest_unit`` in one unit (0: as many rows of that length); ``typical`` is the mean over tokens of the length of
    their row. ``units``: (tokens of a unit, the longest row of such units, how many they are), the largest first; none
    where all are taken to be as long as the longest."""

    count: int
    tokens: int
    trained: int
    longest: int
    typical: int
    unit: int = 1
    longest_unit: int = 0
    units: tuple[tuple[int, int, int], ...] = ()

    @property
    def largest(self) -> int:
        """Tokens that stand in memory together at least."""
        return max(1, self.longest_unit or self.longest * self.unit)

    @property
    def share(self) -> float:
        """Of the tokens, those in the loss."""
        return self.trained / max(self.tokens, 1)


@dataclass(frozen=True, slots=True)
class Scorer:
    """A network that scores answers: ``adapter`` numbers on a base of this ``shape`` (0: the base itself was trained).
    ``precision`` None is the policy's. ``shared``: it is an adapter on the base of the policy, which is in memory
    already where the precision is the same."""

    shape: Shape
    adapter: int = 0
    precision: Precision | None = None
    four_bits: bool = False
    shared: bool = False

    def stands_on(self, precision: Precision) -> bool:
        """Whether it stands on the base of a policy in this ``precision``."""
        return self.shared and self.precision in (None, precision)


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Where a policy writes the rows itself: answers a rollout, tokens of a prompt and of an answer (means), steps that
    a rollout is trained on. ``critic`` is a second adapter and head on the base; ``reward`` and ``judge`` score
    answers, the first in every rollout, None where there is none."""

    prompts: int
    answers: int
    prompt_tokens: int
    answer_tokens: int
    steps: int
    critic: bool = False
    reward: Scorer | None = None
    judge: Scorer | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """``micro_tokens`` stand in memory at once, ``batch_tokens`` make an optimiser step; ``outputs`` of a head (0: the
    language model's own). ``reference``: log-probabilities of the base are computed before the first step.
    ``looks``: rows of dev are looked at during training, and the best weights kept beside; ``searches``: a baseline
    has searched the rows before, whose libraries stay. ``look_tokens``: as ``looks_at``; 0 where it follows from
    those."""

    shape: Shape
    technique: Technique
    rows: Rows
    precision: Precision
    micro_tokens: int
    batch_tokens: int
    steps: int
    level: Level = "fast"
    outputs: int = 0
    reference: bool = False
    looks: bool = True
    small_moments: bool = False
    compiled: bool = False
    searches: bool = False
    rollouts: Rollouts | None = None
    look_tokens: int = 0

    @property
    def size(self) -> int:
        """Bytes of a number in the network."""
        return SIZE[self.precision]

    @property
    def at_once(self) -> int:
        """Tokens in memory at once: a micro-batch, of which there is at least one row, and no more than a step."""
        return max(min(self.micro_tokens, self.batch_tokens), self.rows.largest)

    @property
    def looks_at(self) -> int:
        """Tokens that the network reads at once where nothing is trained, rows as far as there are."""
        return self.look_tokens or 2 * self.at_once

    @property
    def accumulates(self) -> bool:
        """Whether a step is more than one micro-batch."""
        return self.batch_tokens > self.at_once
