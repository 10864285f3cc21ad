"""Rollouts as a source of batches: the policy answers some prompts, the answers are rewarded, and what the rewards say
of each token becomes the next few optimiser steps. The loop does not know the difference.

Notable: answers are sampled from the whole distribution at temperature 1, the one whose log-probabilities training
computes, so that ratios are exact; both sides are compared in each rollout. All answers to a prompt share its
computation. A step in which no answer is better than another is not taken (where entropy has a bonus, or advantages are
whitened, all teach); an answer without a reward has no weight. ``held`` is all that a checkpoint needs to go on in the
middle of a rollout, with the same bits.
Legend: B answers, T tokens, G answers to each prompt.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tunesmith.core import seeds
from tunesmith.core.batch import TRACKS, Batch, TokenRow
from tunesmith.core.errors import DataError, ModelError
from tunesmith.core.report import RolloutPoint, SampledAnswer
from tunesmith.data.batches import collate, cut, in_order, together
from tunesmith.generate.sampler import Answer, Sampling, answers
from tunesmith.models.model import Model
from tunesmith.objectives._objective import Objective
from tunesmith.objectives._policy import EQUAL, Drawn, k3, over_group
from tunesmith.train.state import Settled

Of = Callable[[Batch], Tensor]  # a batch's values [B, T], without a gradient
AGREE = {"float32": 1e-3, "bfloat16": 0.5}  # largest difference of a token's log-probability, sampler and trainer
BELOW = 1e-3  # nats that rounding may bring the KL of an answer below 0, where it never is
IDLE = 20  # rollouts in a row that teach nothing


@dataclass(frozen=True, slots=True)
class Prompt:
    """``ids`` is what the policy reads; ``text`` is for people."""

    example_id: str
    ids: tuple[int, ...]
    text: str = ""


@dataclass(frozen=True, slots=True)
class How:
    """``prompts`` x ``answers`` are written in each rollout, and trained on in ``passes`` passes of ``steps`` steps
    each; passes end early where the policy is ``kl_limit`` nats an answer away from the one that wrote them. The run
    takes ``total`` steps."""

    prompts: int
    answers: int
    passes: int
    steps: int
    kl_limit: float
    sampling: Sampling
    micro_tokens: int
    pad_id: int
    seed: int
    total: int

    def __post_init__(self) -> None:
        if self.sampling.cuts or self.sampling.temperature != 1.0 or self.sampling.stops:
            raise ModelError(
                "Rollouts are sampled at temperature 1 without top_k, top_p, min_p or stops: otherwise answers come "
                "from another distribution than the one that is trained, and every ratio is wrong."
            )


@dataclass(frozen=True, slots=True)
class Members:
    """Who takes part beside the policy. ``reward`` gives each (place of a prompt, text of an answer) a number, not a
    number where it cannot; ``base`` are the reference's log-probabilities, ``values`` the critic's. Where the policy
    is not ``held`` to the reference, that is asked for the answers to one prompt of each rollout, to know the way."""

    reward: Callable[[Sequence[int], Sequence[str]], Sequence[float]]
    base: Of | None = None
    values: Of | None = None
    held: bool = True


@dataclass
class _Rollout:
    """One rollout that is being trained on: ``done`` of its steps are behind it, ``yielded`` of the epoch's were
    taken."""

    epoch: int
    number: int
    yielded: int
    units: list[TokenRow] = field(default_factory=list)
    done: int = 0


class Rollouts:
    """``rollouts(epoch)`` yields the optimiser steps of one pass over the prompts, or of the first pass that has some.
    ``tell`` hears of each rollout."""

    def __init__(
        self,
        policy: Model,
        prompts: Sequence[Prompt],
        objective: Objective,
        how: How,
        members: Members,
        tell: Callable[[RolloutPoint], None] = lambda _: None,
    ) -> None:
        assert objective.credit is not None  # the caller chose one that learns from its own answers
        self.policy, self.prompts, self.objective, self.how = policy, prompts, objective, how
        self.members, self.tell, self.credit = members, tell, objective.credit
        self.coefficient, self.scale = 1.0, 0.0  # of the penalty, and of the first rewards
        self.step = self.drawn = self.idle = self.unknown = 0  # steps, answers, rollouts in a row that taught nothing
        self._at: _Rollout | None = None

    def __call__(self, epoch: int) -> Iterator[list[Batch]]:
        order = list(range(len(self.prompts)))
        random.Random(seeds.stream(self.how.seed, f"prompts/{epoch}")).shuffle(order)
        turns = -(-len(order) // self.how.prompts)
        at = self._at
        if at is not None and at.epoch == epoch:  # training goes on where it stopped
            yield from ([] for _ in range(at.yielded))
            yield from self._steps(at)
        else:
            at = _Rollout(epoch, -1, 0)
        while turns and (at.number + 1 < turns or not at.yielded):
            self._at = at = _Rollout(epoch, at.number + 1, at.yielded)
            at.units = self._written(order[at.number % turns * self.how.prompts :][: self.how.prompts])
            yield from self._steps(at)

    def _steps(self, at: _Rollout) -> Iterator[list[Batch]]:
        """What is left of a rollout's steps."""
        how = self.how
        while at.units and at.done < how.passes * how.steps:
            turn, place = divmod(at.done, how.steps)
            order = list(range(len(at.units)))
            random.Random(seeds.stream(how.seed, f"rollout/{at.epoch}/{at.number}/{turn}")).shuffle(order)
            ends = [len(order) * i // how.steps for i in range(how.steps + 1)]
            part = [at.units[i] for i in order[ends[place] : ends[place + 1]]]
            if turn and place == 0 and self._moved([at.units[i] for i in order]) > how.kl_limit:
                return
            at.done += 1
            if any(map(_teaches, part)):
                at.yielded += 1
                self.step += 1
                yield [collate(own, how.pad_id) for own in cut(part, how.micro_tokens)]

    @torch.no_grad()
    def _moved(self, units: Sequence[TokenRow]) -> float:
        """How far the policy is from the one that wrote ``units``, by the first of them: KL in nats an answer."""
        batch = collate(cut(units, self.how.micro_tokens)[0], self.how.pad_id).to(self.policy.device)
        assert batch.old_BT is not None  # more than one step is trained on these
        self.policy.train(False)
        on_BT = batch.weight_BT > 0
        kl_BT = k3(batch.old_BT, self.policy.token_logp(batch)) * on_BT
        self.policy.train(True)
        return float(kl_BT.sum() / on_BT.any(1).sum())

    # -- a rollout -----------------------------------------------------------------------------------------------------

    def _written(self, chosen: Sequence[int]) -> list[TokenRow]:
        """A rollout on the prompts at the places ``chosen``: units whose tokens know their advantage; none where
        nothing can be learned."""
        how = self.how
        places = [i for i in chosen for _ in range(how.answers)]
        numbers = range(self.drawn, self.drawn + len(places))
        self.drawn += len(places)
        self.policy.train(False)
        found = answers(self.policy, [self.prompts[i].ids for i in places], how.sampling, numbers)
        texts = [self.policy.tokenizer.decode(a.ids, skip_special_tokens=True) for a in found]
        reward_B = torch.tensor([float(x) for x in self.members.reward(places, texts)], dtype=torch.float32)
        rows = [_row(self.prompts[i], a) for i, a in zip(places, found, strict=True)]
        known_b = reward_B[reward_B.isfinite()]
        if not self.scale and len(known_b) and (spread := float(known_b.std(correction=0))) > EQUAL:
            self.scale = spread
        drawn, rows = self._judged(rows, found, reward_B)
        self.policy.train(True)
        credit = self.credit(drawn)
        self.tell(self._point(places, drawn, texts, found, self._distance(drawn, rows)))
        self.coefficient = credit.coefficient
        self._watch_idling(bool(credit.advantage_BT.any()), known_b)
        if not credit.advantage_BT.any():
            return []
        tracks = {"advantage": credit.advantage_BT} | ({} if credit.return_BT is None else {"return": credit.return_BT})
        known = reward_B.isfinite().tolist()
        rows = [replace(row, weight=tuple(w * known[b] for w in row.weight)) for b, row in enumerate(rows)]
        units = self._together([_with(row, tracks, b) for b, row in enumerate(rows)])
        return [unit for unit in units if any(row.trained for row in unit.unit)]

    @torch.no_grad()
    def _judged(self, rows: list[TokenRow], found: Sequence[Answer], reward_B: Tensor) -> tuple[Drawn, list[TokenRow]]:
        """What credit needs, and the rows with what the objective will need of it."""
        several = self.how.passes * self.how.steps > 1
        written = _padded([[0.0] * (len(r.ids) - len(_logp(a))) + _logp(a) for r, a in zip(rows, found, strict=True)])
        wanted = {"base": self.members.base if self.members.held else None, "value": self.members.values}
        wanted |= {"old": self.policy.token_logp if several else None}
        values = {name: self._of(of, rows) for name, of in wanted.items() if of is not None}
        for name, values_BT in values.items():
            rows = [_with(row, {name: values_BT}, b) for b, row in enumerate(rows)]
        mask_BT = _padded([[float(w > 0) for w in row.weight] for row in rows])
        logp_BT = values.get("old", written)
        self._agree(
            logp_BT if several else self._of(self.policy.token_logp, rows[: self.how.answers]), written, mask_BT
        )
        drawn = Drawn(reward_B, mask_BT, logp_BT, values.get("base"), values.get("value"), self.how.answers)
        left = max(0.0, 1 - self.step / self.how.total)
        return replace(drawn, scale=self.scale or 1.0, coefficient=self.coefficient, left=left), rows

    def _of(self, of: Of, rows: Sequence[TokenRow]) -> Tensor:
        """``of`` of each token of ``rows`` [B, T], in their order; a token's number stands in its own place."""
        named = self._together([replace(row, example_id=str(b)) for b, row in enumerate(rows)])
        found = torch.zeros(len(rows), max(len(row.ids) for row in rows))
        for batch in in_order(named, budget=2 * self.how.micro_tokens, pad_id=self.how.pad_id):
            values_BT = of(batch).float().cpu()
            for name, values_T in zip(batch.example_ids, values_BT, strict=True):
                found[int(name), 1 : len(values_T)] = values_T[: len(values_T) - 1]
        return found

    def _agree(self, now_BT: Tensor, written_BT: Tensor, mask_BT: Tensor) -> None:
        """Raise ModelError where training computes other log-probabilities ``now_BT`` (of all rows, or the first of
        them) than the sampler drew from."""
        count, wide = now_BT.shape
        worst = float(((now_BT - written_BT[:count, :wide]) * mask_BT[:count, :wide]).abs().max())
        if not worst <= AGREE[self.policy.precision]:
            raise ModelError(
                f"Sampling and training differ by {worst:.3g} nats in the log-probability of a token; expected at most "
                f"{AGREE[self.policy.precision]:g}. Ratios would be wrong. Please report the model: "
                f"{self.policy.card.architecture}."
            )

    def _together(self, rows: Sequence[TokenRow]) -> list[TokenRow]:
        return together(rows, self.how.answers, self.how.micro_tokens, packs=self.policy.packs)

    def _watch_idling(self, learns: bool, known_b: Tensor) -> None:
        """Raise Settled, or DataError where nothing was learned before, or no answer had a reward."""
        self.idle = 0 if learns else self.idle + 1
        self.unknown = 0 if learns else self.unknown + (not len(known_b))  # of those, without any reward
        if self.idle < IDLE:
            return
        known = self.unknown < IDLE
        told = "the answers to a prompt are all worth the same" if known else "no answer had a reward"
        if known and self.step:
            raise Settled(f"settled: in {IDLE} rollouts in a row {told}")
        raise DataError(
            f"{IDLE} rollouts in a row taught nothing: {told}. Choose a reward that tells these answers apart, "
            "tune on examples first (start), or raise rollout.answers."
        )

    def _distance(self, drawn: Drawn, rows: Sequence[TokenRow]) -> float | None:
        """KL to the reference in nats an answer, of the answers to the first prompt alone where the policy is not held
        to it. Raises ModelError where it is not a number."""
        count, base_BT = drawn.group, drawn.base_BT
        if self.members.base is None:
            return None
        if base_BT is None:
            base_BT = self._of(self.members.base, [replace(row, tracks=None) for row in rows[:count]])
        else:
            count = len(base_BT)
        wide = base_BT.shape[1]
        kl = float((k3(drawn.logp_BT[:count, :wide], base_BT) * drawn.mask_BT[:count, :wide]).sum()) / count
        if not -BELOW < kl < math.inf:
            raise ModelError(
                f"The distance to the reference is {kl} after {self.step:,} steps: its log-probabilities of some "
                "answer are no numbers, or no distribution's. Lower train.learning_rate, or look at the run of start."
            )
        return max(0.0, kl)

    def _point(
        self, places: Sequence[int], drawn: Drawn, texts: Sequence[str], found: Sequence[Answer], kl: float | None
    ) -> RolloutPoint:
        """What the answers to the prompts at ``places`` are like; the best one and the worst are kept to be read."""
        known_B = drawn.reward_B.isfinite()
        reward_b = drawn.reward_B[known_B]
        tokens = float(drawn.mask_BT.sum())
        equal_N = ~over_group(drawn.reward_B, drawn.group, spread=False).view(-1, drawn.group).any(1)
        best = drawn.reward_B.masked_fill(~known_B, float("-inf")).argsort(descending=True)
        return RolloutPoint(
            step=self.step,
            answers=len(places),
            reward=float(reward_b.mean()) if len(reward_b) else None,
            spread=float(reward_b.std(correction=0)) if len(reward_b) else None,
            error=_error_of_mean(drawn.reward_B, drawn.group),
            unrewarded=int((~known_B).sum()),
            empty=sum(not text.strip() for text in texts),
            cut=sum(a.finish == "length" for a in found),
            equal=float(equal_N.float().mean()),
            length=tokens / len(places),
            kl=kl,
            entropy=-float((drawn.logp_BT * drawn.mask_BT).sum()) / max(tokens, 1),
            repeated=sum(map(repeated, (a.ids for a in found))) / len(found),
            coefficient=drawn.coefficient,
            samples=tuple(
                SampledAnswer.of(self.prompts[places[b]].text, texts[b], float(drawn.reward_B[b]))
                for b in (int(best[0]), int(best[-1]))
            ),
        )

    # -- between two processes -----------------------------------------------------------------------------------------

    def held(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: the rollout at hand with how far it has been trained on."""
        numbers = [self.coefficient, self.scale, self.step, self.drawn, self.idle, self.unknown]
        if (at := self._at) is None:
            return {"numbers": torch.tensor(numbers, dtype=torch.float64)}
        rows = [row for unit in at.units for row in unit.unit]
        numbers += [at.epoch, at.number, at.yielded, at.done, len(at.units[0].unit) if at.units else 1]
        found = {"numbers": torch.tensor(numbers, dtype=torch.float64)}
        if not rows:
            return found
        found["length"] = torch.tensor([len(row.ids) for row in rows])
        found["prefix"] = torch.tensor([row.prefix for row in rows])
        found["ids"] = torch.tensor([i for row in rows for i in row.ids])
        found["weight"] = torch.tensor([w for row in rows for w in row.weight])
        for name in TRACKS:
            if rows[0].tracks is not None and name in rows[0].tracks:
                found[name] = torch.cat([row.tracks[name] for row in rows if row.tracks is not None])
        return found

    def restore(self, held: dict[str, Tensor]) -> None:
        """Go on where ``held`` was taken."""
        self.coefficient, self.scale, *counts = held["numbers"].tolist()
        self.step, self.drawn, self.idle, self.unknown, *rest = map(int, counts)
        if not rest:
            return
        epoch, number, yielded, done, unit = rest
        self._at = _Rollout(epoch, number, yielded, done=done)
        if "ids" not in held:
            return
        sizes: list[int] = held["length"].tolist()
        split = {name: torch.split(t, sizes) for name, t in held.items() if name in ("ids", "weight", *TRACKS)}
        rows = [
            TokenRow(
                tuple(split["ids"][b].tolist()),
                tuple(split["weight"][b].tolist()),
                prefix=int(held["prefix"][b]),
                tracks={name: split[name][b] for name in TRACKS if name in split},
            )
            for b in range(len(sizes))
        ]
        self._at.units = [replace(rows[i], others=tuple(rows[i + 1 : i + unit])) for i in range(0, len(rows), unit)]


def repeated(ids: Sequence[int], size: int = 3) -> float:
    """Share of the stretches of ``size`` tokens that stood in the answer before.

    >>> repeated([1, 2, 3, 1, 2, 3]), repeated([1, 2])
    (0.25, 0.0)
    """
    stretches = [tuple(ids[i : i + size]) for i in range(len(ids) - size + 1)]
    return 1 - len(set(stretches)) / len(stretches) if stretches else 0.0


def _error_of_mean(reward_B: Tensor, group: int) -> float | None:
    """Standard error of the mean reward over prompts, whose answers are alike; None where fewer than two have one.

    >>> _error_of_mean(torch.tensor([1.0, 1.0, 3.0, 3.0]), 2)
    1.0
    """
    mean_N = reward_B.view(-1, group).nanmean(1)
    mean_n = mean_N[mean_N.isfinite()]
    return float(mean_n.std() / len(mean_n) ** 0.5) if len(mean_n) > 1 else None


def _teaches(unit: TokenRow) -> bool:
    """Whether some answer of the unit was better or worse than expected."""
    return any(row.tracks is not None and bool(row.tracks["advantage"].any()) for row in unit.unit)


def _row(prompt: Prompt, answer: Answer) -> TokenRow:
    """Prompt and answer as one row in which the answer, with the token that ended it, alone has weight."""
    written = (*answer.ids, *(() if answer.ended is None else (answer.ended[0],)))
    return TokenRow(
        (*prompt.ids, *written), (0.0,) * len(prompt.ids) + (1.0,) * len(written), example_id=prompt.example_id
    )


def _logp(answer: Answer) -> list[float]:
    return [*answer.logp, *(() if answer.ended is None else (answer.ended[1],))]


def _padded(rows: Sequence[Sequence[float]]) -> Tensor:
    wide = max(map(len, rows))
    return torch.tensor([[*row, *[0.0] * (wide - len(row))] for row in rows])


def _with(row: TokenRow, values: dict[str, Tensor], b: int) -> TokenRow:
    """``row`` with row ``b`` of each of ``values`` [B, T] as its tracks."""
    more = {name: values_BT[b, : len(row.ids)] for name, values_BT in values.items()}
    return replace(row, tracks=dict(row.tracks or {}) | more)
