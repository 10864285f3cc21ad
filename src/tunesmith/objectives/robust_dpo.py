"""DPO for labels of which a known share is flipped (Chowdhury, Kini and Natarajan, 2024, arXiv 2403.00409): the
expectation of this loss over the flips is the loss of the true labels.

Legend: B sequences, T tokens, P pairs.
"""

from dataclasses import replace

from torch import Tensor
from torch.nn.functional import logsigmoid

from tunesmith.core.batch import Batch
from tunesmith.objectives import dpo
from tunesmith.objectives._pairs import gained, lead


def loss(logp_BT: Tensor, batch: Batch, *, beta: float = 0.1, label_smoothing: float = 0.1) -> Tensor:
    """Sum over pairs; ``label_smoothing`` e is the share of flipped labels: ((1 - e) l(d) - e l(-d)) / (1 - 2 e).

    >>> import torch
    >>> logp, weight = torch.tensor([[-5.0], [-15.0]]), torch.ones(2, 1)  # l(1) = 0.3133, l(-1) = 1.3133
    >>> batch = Batch(*[weight.long()] * 2, weight, *[torch.ones(2)] * 2, unit=2, reference_B=torch.zeros(2))
    >>> loss(logp, batch, label_smoothing=0.1), loss(logp, batch, label_smoothing=0.0)
    (tensor(0.1883), tensor(0.3133))
    """
    flipped, lead_P = label_smoothing, beta * lead(gained(logp_BT, batch))
    loss_P = -(1 - flipped) * logsigmoid(lead_P) + flipped * logsigmoid(-lead_P)
    return loss_P.sum() / (1 - 2 * flipped)


PART = replace(dpo.PART, name="robust_dpo", loss=loss, ties=False)
