"""A reward model: a head that scores answers so that differences are the log-odds of being preferred (Bradley and
Terry, 1952; Ouyang et al., 2022, arXiv 2203.02155).

Notable: where a pair tells by how much its better answer is better, the difference has to be at least that margin
(Touvron et al., 2023, arXiv 2307.09288); a tie draws both together.
Legend: B sequences, P pairs.
"""

from torch import Tensor

from tunesmith.core.batch import Batch
from tunesmith.objectives._objective import Objective
from tunesmith.objectives._pairs import bradley_terry, lead, pairs, sure


def loss(score_B: Tensor, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
    """Sum over pairs of -log sigmoid(difference of scores - margin).

    >>> import torch
    >>> weight = torch.zeros(4, 1)
    >>> batch = Batch(*[weight.long()] * 2, weight, *[torch.ones(4)] * 2, unit=2,
    ...               margin_B=torch.tensor([0.0, 0.0, 1.0, 1.0]), sure_B=torch.tensor([1.0, 1.0, 0.5, 0.5]))
    >>> loss(torch.tensor([2.0, 1.0, 3.0, 2.0]), batch)  # -log sigmoid(1), and a tie that leads by its margin
    tensor(1.0064)
    """
    lead_P = lead(score_B)
    if batch.margin_B is not None:
        lead_P = lead_P - batch.margin_B[0::2]
    return bradley_terry(lead_P, sure(batch, label_smoothing)).sum()


PART = Objective("reward", "score", loss, pairs, unit="pair", odds=True, ties=True, margins=True)
