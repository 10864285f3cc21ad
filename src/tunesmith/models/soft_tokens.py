"""Tokens that are no text: a few that stand before every row, with trained embeddings, or keys and values of their own.

Notable: they have ids behind the vocabulary, so whoever calls the network (packed rows, the sampler with its cache)
treats them as tokens like others; no text renders to them and no logit is made for them. Prompt tuning trains their
embeddings. Prefix tuning trains what each layer's attention takes for their keys and values, before positions turn
the keys, which is as good as after: each has one position only.
Legend: K soft tokens, D width, O outputs of a layer.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from tunesmith.core.batch import Batch


class SoftTokens:
    """Which places of the pass at hand are soft tokens: ``which`` is shaped like the ids, -1 for text."""

    def __init__(self, count: int, first_id: int) -> None:
        self.ids = tuple(range(first_id, first_id + count))
        self.enabled = True
        self.which: Tensor | None = None

    def put(self, rows: nn.Parameter, text: Tensor) -> Tensor:
        """``text`` [..., D or O] with the soft tokens' own rows [K, D or O] in their places."""
        assert self.which is not None  # the embedding comes before all layers
        own = rows[self.which.clamp(min=0)].to(text.dtype)
        return torch.where((self.which >= 0)[..., None], own, text)


class SoftEmbedding(nn.Module):
    """The network's embedding, which also knows the ids of soft tokens; ``rows`` are their embeddings, where these are
    trained."""

    def __init__(self, base: nn.Module, soft: SoftTokens, rows: nn.Parameter | None) -> None:
        super().__init__()
        self.base = base
        self.soft = (soft,)
        self.rows = rows

    @property
    def weight(self) -> Tensor:
        found: Tensor = self.base.weight  # type: ignore[assignment]
        return found

    def forward(self, ids: Tensor) -> Tensor:
        (soft,) = self.soft
        first = soft.ids[0]
        soft.which = torch.where(ids >= first, ids - first, -1)
        text: Tensor = self.base(torch.where(ids >= first, 0, ids))
        return text if self.rows is None else soft.put(self.rows, text)


class SoftLinear(nn.Module):
    """A layer that makes keys or values: those of soft tokens are ``rows`` [K, O]."""

    def __init__(self, base: nn.Linear, soft: SoftTokens, rows: nn.Parameter) -> None:
        super().__init__()
        self.base = base
        self.soft = (soft,)
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        return self.soft[0].put(self.rows, self.base(x))


def with_soft(ids_BT: Tensor, length_B: Tensor, soft: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Rows that begin with the soft tokens, and their lengths.

    >>> with_soft(torch.tensor([[5, 6], [7, 0]]), torch.tensor([2, 1]), (9,))
    (tensor([[9, 5, 6],
            [9, 7, 0]]), tensor([3, 2]))
    """
    if not soft:
        return ids_BT, length_B
    before_BK = torch.tensor([soft], device=ids_BT.device).expand(len(ids_BT), -1)
    return torch.cat([before_BK, ids_BT], 1), length_B + len(soft)


def led(batch: Batch, soft: tuple[int, ...]) -> Batch:
    """The batch with the soft tokens before its rows; nothing is to be predicted in their places."""
    if not soft:
        return batch
    ids_BT, length_B = with_soft(batch.ids_BT, batch.length_B, soft)
    target_BT, weight_BT = (nn.functional.pad(x, (len(soft), 0)) for x in (batch.target_BT, batch.weight_BT))
    prefix_B = batch.prefix_B
    if prefix_B is not None:  # all but the first row of a unit begin with its soft tokens too
        first_B = torch.arange(len(prefix_B), device=prefix_B.device) % batch.unit == 0
        prefix_B = torch.where(first_B, 0, prefix_B + len(soft))
    return replace(batch, ids_BT=ids_BT, length_B=length_B, target_BT=target_BT, weight_BT=weight_BT, prefix_B=prefix_B)
