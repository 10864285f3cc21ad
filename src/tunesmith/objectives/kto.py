"""Kahneman-Tversky optimisation (Ethayarajh et al., 2024, arXiv 2402.01306): answers judged one by one as wanted or
not, each against what the policy has moved away from the reference on the whole.

Notable: that movement, z0, is estimated on mismatched answers (each prompt with another row's answer) and has no
gradient. It is a mean over the rows in memory at once, so micro-batches do change it, here as elsewhere.
Legend: B sequences, T tokens, P judged rows.
"""

import torch
from torch import Tensor

from tunesmith.core.batch import Batch
from tunesmith.objectives._objective import Objective
from tunesmith.objectives._pairs import gained, pairs


def loss(logp_BT: Tensor, batch: Batch, *, beta: float = 0.1, unwanted_weight: float = 1.0) -> Tensor:
    """Sum over judged rows of 1 - sigmoid(beta (gain - z0)) where wanted, 1 - sigmoid(beta (z0 - gain)) where not.

    >>> logp, weight = torch.tensor([[-5.0], [-9.0], [-25.0], [-8.0]]), torch.ones(4, 1)
    >>> batch = Batch(*[weight.long()] * 2, weight, torch.ones(4), torch.tensor([1, 1, 0, 0]), unit=2,
    ...               reference_B=torch.tensor([-15.0, -9.0, -15.0, -8.0]))
    >>> loss(logp, batch)  # gains 10 and -10, z0 = 0: twice 1 - sigmoid(1)
    tensor(0.5379)
    """
    gain_B = gained(logp_BT, batch)
    gain_P, moved = gain_B[0::2], gain_B[1::2].detach().mean().clamp(min=0)
    wanted_P = batch.label_B[0::2] == 1
    lead_P = torch.where(wanted_P, gain_P - moved, moved - gain_P)
    weight_P = torch.where(wanted_P, 1.0, unwanted_weight)
    return (weight_P * (1 - torch.sigmoid(beta * lead_P))).sum()


PART = Objective("kto", "token_logp", loss, pairs, unit="judged", value=gained, reference=True, rate=0.1, adds_up=True)
