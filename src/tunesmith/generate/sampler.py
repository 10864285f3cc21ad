"""The one sampler: continuous batching with a key-value cache, for evaluation, rollouts, chat and later serving.

Notable: rows that end leave at once and waiting prompts take their places, so a long answer does not keep others
waiting. What all prompts begin with (an instruction) is read once. Each row draws from a stream of its own and may have
an adapter of its own (``models.many``), so its answer does not depend on the batch, but where two tokens are equal
within rounding (often in bf16). A token's log-probability is that of the distribution it was drawn from before any cut
of its tail: softmax(logits / temperature), as training computes it.
Legend: B rows, V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

import torch
from torch import Tensor

from tunesmith.core import seeds
from tunesmith.core.errors import ModelError, RecipeError
from tunesmith.generate.prompts import Prompts
from tunesmith.generate.slots import Slots
from tunesmith.generate.stops import Stops
from tunesmith.models.model import Model

CACHE_BYTES = 1 << 30  # of keys and values held at once
MOST_ROWS = 256
BLOCK = 256  # tokens whose shares are added up before one of them is drawn
LEAST_TEMPERATURE = 0.01  # far below it, logits divided by it are no numbers any more
FREE_SHARE = 8  # waiting prompts are read once an eighth of the slots is free: reading few costs as much as a step

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How tokens are drawn. ``temperature`` 0 is greedy. ``seed`` names the stream of each row together with the row's
    number. ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0 cut nothing. ``stops`` are texts that end a row and are no part of
    it."""

    temperature: float = 0.0
    seed: int = 0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    stops: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _refuse(
            (
                self.temperature == 0 or LEAST_TEMPERATURE <= self.temperature < float("inf"),
                f"temperature is {self.temperature}; expected 0 (the likeliest token) or a number from "
                f"{LEAST_TEMPERATURE:g} up",
            ),
            (self.top_k >= 0, f"top_k is {self.top_k}; expected 0 (all) or a number of tokens"),
            (0 < self.top_p <= 1, f"top_p is {self.top_p}; expected a number above 0 and at most 1"),
            (0 <= self.min_p < 1, f"min_p is {self.min_p}; expected a number from 0 up and below 1"),
            (all(self.stops), "a stop is an empty text; expected something to stop at"),
        )

    @property
    def cuts(self) -> bool:
        """Whether improbable tokens are left out, so that ``logp`` is not that of the tokens as they were drawn."""
        return bool(self.top_k) or self.top_p < 1.0 or self.min_p > 0.0

    def until(self, max_new_tokens: int, stop_ids: tuple[int, ...]) -> "Sampling":
        """Drawn so, up to there."""
        own = {one.name: getattr(self, one.name) for one in fields(Draw)}
        return Sampling(max_new_tokens, stop_ids, **own)


@dataclass(frozen=True, slots=True)
class Sampling(Draw):
    """How tokens are drawn, and up to where. ``stop_ids`` end a row and are no part of it."""

    max_new_tokens: int
    stop_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        Draw.__post_init__(self)
        _refuse((self.max_new_tokens >= 1, f"max_new_tokens is {self.max_new_tokens}; expected at least 1"))


def _refuse(*checks: tuple[bool, str]) -> None:
    for holds, told in checks:
        if not holds:
            raise RecipeError(f"{told}.")


@dataclass(frozen=True, slots=True)
class Token:
    """A written token of the prompt number ``row``, or the end of that row (``id`` None): why it ended, and how many of
    its tokens were ``kept`` (those of a stop text were not)."""

    row: int
    id: int | None
    logp: float = 0.0
    finish: Finish | None = None
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """``logp`` is one number a token; ``ended`` is the stop id that ended the answer, with its log-probability."""

    ids: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    finish: Finish = "length"
    ended: tuple[int, float] | None = None


def sample(
    model: Model, prompts: Sequence[Sequence[int]], sampling: Sampling, numbers: Sequence[int] = ()
) -> list[list[int]]:
    """New token ids for each prompt, in order, without the stop token. Each prompt must leave room in the context.

    ``numbers`` names the stream that each row draws from; its place when not given.
    """
    return [answer.ids for answer in answers(model, prompts, sampling, numbers)]


def answers(
    model: Model,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    numbers: Sequence[int] = (),
    *,
    most: Sequence[int] = (),
    adapters: Sequence[str | None] = (),
) -> list[Answer]:
    """``sample`` with log-probabilities and how each answer ended. ``most`` is the longest answer of each row, where
    rows differ in it; none may be longer than ``sampling`` allows. ``adapters`` names that of each row among those of
    ``models.many``; None is the base. Raises ModelError for a name that is not there."""
    limits = most or [sampling.max_new_tokens] * len(prompts)
    named = zip(numbers or range(len(prompts)), limits, strict=True)
    writers = [_Writer(model, sampling, number, limit) for number, limit in named]
    for _ in _run(model, Prompts(model, prompts, adapters), sampling, writers):
        pass
    return [writer.answer() for writer in writers]


def stream(
    model: Model,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    numbers: Sequence[int] = (),
    *,
    adapters: Sequence[str | None] = (),
) -> Iterator[Token]:
    """Each token as soon as it is written, and the end of each row. Of a text that may become a stop nothing is held
    back; the row's end says how many of its tokens are the answer."""
    writers = [_Writer(model, sampling, n, sampling.max_new_tokens) for n in numbers or range(len(prompts))]
    yield from _run(model, Prompts(model, prompts, adapters), sampling, writers)


class _Writer:
    """One row: what it has written, its stream of chance, and when it ends."""

    def __init__(self, model: Model, sampling: Sampling, number: int, most: int) -> None:
        self.sampling, self.most = sampling, most
        self.stops = Stops(model.tokenizer, sampling.stops)
        self.generator = torch.Generator().manual_seed(seeds.stream(sampling.seed, f"row/{number}"))
        self.ids: list[int] = []
        self.logp: list[float] = []
        self.finish: Finish | None = None
        self.ended: tuple[int, float] | None = None

    def take(self, token: int, logp: float) -> None:
        if token in self.sampling.stop_ids:
            self.finish, self.ended = "stop", (token, logp)
            return
        self.ids.append(token)
        self.logp.append(logp)
        keep = self.stops.kept(self.ids)
        if keep is not None:
            del self.ids[keep:], self.logp[keep:]
            self.finish = "stop"
        elif len(self.ids) >= self.most:
            self.finish = "length"

    def answer(self) -> Answer:
        return Answer(self.ids, self.logp, self.finish or "length", self.ended)


@torch.no_grad()
def _run(model: Model, prompts: Prompts, sampling: Sampling, writers: Sequence[_Writer]) -> Iterator[Token]:
    if not writers:
        return
    room = max(map(len, prompts.ids)) + sampling.max_new_tokens
    slots = Slots(model, _slots(model, room, len(writers)), room)
    active: list[int] = []
    while prompts or active:
        free = slots.count - len(active)
        if prompts and (not active or free >= max(1, slots.count // FREE_SHARE)):
            rows, logits_BV = prompts.read(slots, free)
            start = len(active)
            active += rows
        else:
            start, rows = 0, list(active)
            logits_BV = slots.extend(0, [[writers[i].ids[-1]] for i in active])
        chosen = choose(logits_BV, sampling, [writers[i].generator for i in rows])
        for place, (row, (token, logp)) in reversed(list(enumerate(zip(rows, chosen, strict=True), start))):
            if not math.isfinite(logp):
                raise ModelError(
                    f"Prompt {row + 1} of {len(writers)}, new token {len(writers[row].ids) + 1}: the model's logits "
                    "are not finite, so no token can be chosen. Its weights or its adapter are spoilt, as by a "
                    "training that diverged (lower train.learning_rate), or too large for its precision: load it in "
                    "float32."
                )
            writer = writers[row]
            writer.take(token, logp)
            if writer.ended is None:
                yield Token(row, token, logp)
            if writer.finish is not None:
                yield Token(row, None, finish=writer.finish, kept=len(writer.ids))
                slots.close(place)
                last = active.pop()
                if place < len(active):
                    active[place] = last


def _slots(model: Model, room: int, rows: int) -> int:
    text = model.network.config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    a_token = 2 * text.num_hidden_layers * heads * width * (2 if model.precision == "bfloat16" else 4)
    return max(1, min(rows, MOST_ROWS, int(CACHE_BYTES // (a_token * room))))


def choose(logits_BV: Tensor, draw: Draw, generators: Sequence[torch.Generator]) -> list[tuple[int, float]]:
    """A token for each row and its log-probability under softmax(logits / temperature); greedy: at temperature 1. Where
    logits are not finite, neither is the log-probability."""
    if draw.temperature == 0.0:
        logp_BV = logits_BV.log_softmax(-1)
        best = logp_BV.max(-1)
        return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    logp_BV = (logits_BV / draw.temperature).log_softmax(-1).cpu()
    share_BV = cut(logp_BV, draw).exp() if draw.cuts else logp_BV.exp()
    chance_B = torch.cat([torch.rand(1, generator=g, dtype=torch.float64) for g in generators])
    chosen = drawn(share_BV, chance_B).tolist()
    return [(token, float(logp_BV[b, token])) for b, token in enumerate(chosen)]


def drawn(share_BV: Tensor, chance_B: Tensor) -> Tensor:
    """Of each row the token at which the shares, added up, pass the row's number between 0 and 1; never one whose share
    is 0, and just any where shares are no numbers. First the block of tokens is found by its sum, then the token in it:
    a sum is ten times as fast as a running one, and no random number a token is needed.

    >>> drawn(torch.tensor([[0.5, 0.0, 0.25, 0.25]] * 4), torch.tensor([0.0, 0.5, 0.7, 0.99])).tolist()
    [0, 2, 2, 3]
    """
    rows = torch.arange(len(share_BV))
    blocks_BKb = torch.nn.functional.pad(share_BV, (0, -share_BV.shape[1] % BLOCK)).view(len(rows), -1, BLOCK)
    sum_BK = blocks_BKb.sum(-1).double()
    edge_BK = sum_BK.cumsum(-1)
    point_B = chance_B.double().clamp(max=1 - 1e-12) * edge_BK[:, -1]
    block_B = torch.searchsorted(edge_BK, point_B[:, None], right=True)[:, 0].clamp(max=edge_BK.shape[1] - 1)
    own_B = sum_BK[rows, block_B]
    within_B = ((point_B - (edge_BK[rows, block_B] - own_B)) / own_B).clamp(0, 1 - 1e-12)
    inner_Bb = blocks_BKb[rows, block_B].double().cumsum(-1)
    inner_B = torch.searchsorted(inner_Bb, (within_B * inner_Bb[:, -1])[:, None], right=True)[:, 0]
    return (block_B * BLOCK + inner_B).clamp(max=share_BV.shape[1] - 1)


def cut(logp_BV: Tensor, draw: Draw) -> Tensor:
    """Log-probabilities with the improbable tokens at minus infinity: all but the ``top_k`` likeliest, those less
    likely than ``min_p`` times the likeliest (Nguyen et al., 2024), and those beyond the likeliest that together have
    ``top_p`` (Holtzman et al., 2020). The likeliest always stays.

    >>> logp = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    >>> [(cut(logp, Draw(temperature=1.0, **{k: v})) > -1e9).sum().item() for k, v in
    ...  (("top_k", 2), ("top_p", 0.7), ("top_p", 0.5), ("min_p", 0.25))]
    [2, 2, 1, 3]
    """
    order = logp_BV.sort(-1, descending=True)
    keep = torch.ones_like(logp_BV, dtype=torch.bool)
    if draw.top_k:
        keep[:, draw.top_k :] = False
    if draw.min_p > 0:
        keep &= order.values >= order.values[:, :1] + torch.tensor(draw.min_p).log()
    if draw.top_p < 1:
        before = order.values.exp().cumsum(-1) - order.values.exp()
        keep &= before < draw.top_p - 1e-6
    keep[:, 0] = True
    return logp_BV.masked_fill(~torch.zeros_like(keep).scatter(1, order.indices, keep), float("-inf"))
