"""Contrastive preference optimisation (Xu et al., 2024, arXiv 2401.08417): DPO without a reference, held in place by
the likelihood of the better answer.

Notable: of two answers that are as good as each other both hold it in place, each by half.
Legend: B sequences, T tokens, P pairs.
"""

from torch import Tensor

from tunesmith.core.batch import Batch
from tunesmith.objectives._objective import Objective
from tunesmith.objectives._pairs import bradley_terry, lead, mean, pairs, sure, total


def loss(
    logp_BT: Tensor, batch: Batch, *, beta: float = 0.1, label_smoothing: float = 0.0, sft_weight: float = 1.0
) -> Tensor:
    """Sum over pairs of -log sigmoid(beta x lead) less ``sft_weight`` times the better answer's log-likelihood a token.

    >>> import torch
    >>> logp, weight = torch.tensor([[-5.0], [-15.0]]), torch.ones(2, 1)
    >>> batch = Batch(*[weight.long()] * 2, weight, *[torch.ones(2)] * 2, unit=2)
    >>> loss(logp, batch), loss(logp, batch, sft_weight=0.0)
    (tensor(5.3133), tensor(0.3133))
    """
    won_P = bradley_terry(beta * lead(total(logp_BT, batch)), sure(batch, label_smoothing))
    mean_B, better_P = mean(logp_BT, batch), sure(batch)
    return (won_P - sft_weight * (better_P * mean_B[0::2] + (1 - better_P) * mean_B[1::2])).sum()


PART = Objective("cpo", "token_logp", loss, pairs, unit="pair", value=total, ties=True, rate=0.1)
