"""Simple preference optimisation (Meng, Xia and Chen, 2024, arXiv 2405.14734): no reference; the mean log-likelihood
a token is the reward, and the better answer must lead by a margin.

Notable: ``target_margin`` is the paper's gamma, in units of the reward (``beta`` included). Of two answers that are as
good as each other neither has to lead.
Legend: B sequences, T tokens, P pairs.
"""

from torch import Tensor

from tunesmith.core.batch import Batch
from tunesmith.objectives._objective import Objective
from tunesmith.objectives._pairs import bradley_terry, lead, mean, pairs, sure


def loss(logp_BT: Tensor, batch: Batch, *, beta: float = 2.0, target_margin: float = 1.0) -> Tensor:
    """Sum over pairs of -log sigmoid(beta x lead - target_margin), the lead in nats a token.

    >>> import torch
    >>> logp, weight = torch.tensor([[-1.0, -1.0], [-2.0, -2.0]]), torch.ones(2, 2)
    >>> batch = Batch(*[weight.long()] * 2, weight, *[torch.ones(2)] * 2, unit=2)
    >>> loss(logp, batch)  # -log sigmoid(2 x 1 - 1)
    tensor(0.3133)
    """
    sure_P = sure(batch)
    return bradley_terry(beta * lead(mean(logp_BT, batch)) - target_margin * (2 * sure_P - 1), sure_P).sum()


PART = Objective("simpo", "token_logp", loss, pairs, unit="pair", value=mean, ties=True, rate=0.1)
