"""Supervised fine-tuning: maximum likelihood of the trained tokens.

Notable: continued pre-training is this objective with every token's weight 1.
Legend: B sequences, T tokens.
"""

from torch import Tensor

from tunesmith.core.batch import Batch
from tunesmith.objectives._objective import Objective


def loss(logp_BT: Tensor, batch: Batch) -> Tensor:
    """Sum over tokens of -weight x log-probability.

    >>> import torch
    >>> logp, weight = torch.tensor([[-1.0, -2.0, -4.0]]), torch.tensor([[0.0, 1.0, 0.5]])
    >>> batch = Batch(*[torch.zeros(1, 3).long()] * 2, weight, torch.tensor([3]), torch.tensor([-1]))
    >>> loss(logp, batch), weight_sum(batch)
    (tensor(4.), tensor(1.5000))
    """
    return -(batch.weight_BT * logp_BT).sum()


def weight_sum(batch: Batch) -> Tensor:
    return batch.weight_BT.sum()


PART = Objective("sft", "token_logp", loss, weight_sum)
