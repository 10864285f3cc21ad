"""Classification: cross-entropy of the label under a head's class probabilities.

Legend: B sequences, C classes.
"""

import torch
from torch import Tensor

from tunesmith.core.batch import Batch
from tunesmith.objectives._objective import Objective


def loss(logp_BC: Tensor, batch: Batch) -> Tensor:
    """Sum over rows of -log-probability of the label.

    >>> logp = torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log()
    >>> batch = Batch(*[torch.zeros(2, 1).long()] * 2, torch.zeros(2, 1), torch.tensor([1, 1]), torch.tensor([1, 0]))
    >>> loss(logp, batch), weight_sum(batch)
    (tensor(0.9808), tensor(2.))
    """
    return -logp_BC.gather(1, batch.label_B[:, None]).sum()


def weight_sum(batch: Batch) -> Tensor:
    return torch.tensor(float(len(batch.label_B)), device=batch.label_B.device)


PART = Objective("classify", "class_logp", loss, weight_sum)
