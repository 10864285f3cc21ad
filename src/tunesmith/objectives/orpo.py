"""Odds ratio preference optimisation (Hong, Lee and Thorne, 2024, arXiv 2403.07691): supervised fine-tuning on the
better answer and, beside it, the log-ratio of the odds of both; no reference.

Notable: the likelihood that is learned is that of the answer alone, as in the paper; some implementations add the
prompt's.
Legend: B sequences, T tokens, P pairs.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tunesmith.core.batch import Batch
from tunesmith.objectives._objective import Objective
from tunesmith.objectives._pairs import lead, mean, pairs

CERTAIN = -1e-6  # a mean log-probability above this has odds beyond what float32 can tell


def log_odds(logp_BT: Tensor, batch: Batch) -> Tensor:
    """Of a token of each row's answer, by its mean log-likelihood [B]."""
    mean_B = mean(logp_BT, batch)
    return mean_B - torch.log1p(-mean_B.clamp(max=CERTAIN).exp())


def loss(logp_BT: Tensor, batch: Batch, *, beta: float = 0.1) -> Tensor:
    """Sum over pairs of -mean log-likelihood of the better answer - beta x log sigmoid(lead of the log-odds).

    >>> logp, weight = torch.tensor([[0.5], [0.25]]).log(), torch.ones(2, 1)  # odds 1 and 1/3
    >>> batch = Batch(*[weight.long()] * 2, weight, *[torch.ones(2)] * 2, unit=2)
    >>> loss(logp, batch, beta=1.0)  # log 2 - log sigmoid(log 3)
    tensor(0.9808)
    """
    return -(mean(logp_BT, batch)[0::2] + beta * logsigmoid(lead(log_odds(logp_BT, batch)))).sum()


PART = Objective("orpo", "token_logp", loss, pairs, unit="pair", value=log_odds, rate=0.3)
