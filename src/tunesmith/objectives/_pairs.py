"""What the objectives that compare answers share: log-likelihoods of answers, and the better one beside the worse one.

Legend: B sequences, T tokens, P pairs; rows 2i and 2i + 1 of a batch are the better and the worse answer of pair i.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tunesmith.core.batch import Batch


def total(logp_BT: Tensor, batch: Batch) -> Tensor:
    """Log-likelihood of each row's weighted tokens [B]."""
    return (logp_BT * batch.weight_BT).sum(1)


def mean(logp_BT: Tensor, batch: Batch) -> Tensor:
    """Log-likelihood of each row a weighted token [B]."""
    return total(logp_BT, batch) / tokens(batch)


def tokens(batch: Batch) -> Tensor:
    """The weight of each row [B]; at least a tiny one, for a row of none has no likelihood to divide."""
    return batch.weight_BT.sum(1).clamp(min=1e-9)


def gained(logp_BT: Tensor, batch: Batch) -> Tensor:
    """How much likelier each row's answer is than under the reference [B], in nats."""
    assert batch.reference_B is not None
    return total(logp_BT, batch) - batch.reference_B


def lead(values_B: Tensor) -> Tensor:
    """The better answer's value minus the worse one's [P]."""
    return values_B[0::2] - values_B[1::2]


def pairs(batch: Batch) -> Tensor:
    return torch.tensor(float(batch.units), device=batch.weight_BT.device)


def sure(batch: Batch, flipped: float = 0.0) -> Tensor:
    """How likely the better answer of each pair is the better one [P], where a share of all pairs is ``flipped``."""
    if batch.sure_B is None:
        return torch.full((batch.units,), 1 - flipped, device=batch.weight_BT.device)
    sure_P = batch.sure_B[0::2]
    return sure_P * (1 - flipped) + (1 - sure_P) * flipped


def bradley_terry(lead_P: Tensor, sure_P: Tensor) -> Tensor:
    """Cross-entropy [P] of the better answer winning with the log-odds ``lead_P`` (Bradley and Terry, 1952).

    >>> bradley_terry(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 1.0, 0.5]))
    tensor([0.6931, 0.3133, 1.1269])
    """
    return -(sure_P * logsigmoid(lead_P) + (1 - sure_P) * logsigmoid(-lead_P))
