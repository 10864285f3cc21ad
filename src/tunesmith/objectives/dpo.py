"""Direct preference optimisation (Rafailov et al., 2023, arXiv 2305.18290): a classifier of pairs whose log-odds are
``beta`` times how much more the better answer has gained over the reference than the worse one.

Notable: ``label_smoothing`` is the share of labels believed to be flipped (cDPO: Mitchell, 2023). ``robust_dpo`` is the
estimator that such flips leave unbiased.
Legend: B sequences, T tokens, P pairs.
"""

from torch import Tensor

from tunesmith.core.batch import Batch
from tunesmith.objectives._objective import Objective
from tunesmith.objectives._pairs import bradley_terry, gained, lead, pairs, sure


def loss(logp_BT: Tensor, batch: Batch, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    """Sum over pairs of -log sigmoid(beta x lead), the lead in nats.

    >>> import torch
    >>> logp, weight = torch.tensor([[-5.0], [-15.0]]), torch.ones(2, 1)  # the better answer leads by 10 nats
    >>> batch = Batch(*[weight.long()] * 2, weight, *[torch.ones(2)] * 2, unit=2, reference_B=torch.zeros(2))
    >>> loss(logp, batch), loss(logp, batch, label_smoothing=0.1)
    (tensor(0.3133), tensor(0.4133))
    >>> [round(float(loss(torch.tensor([[better], [-15.0]]), batch)), 4) for better in (-15.0, -5.0, 5.0)]  # 0, 10, 20
    [0.6931, 0.3133, 0.1269]
    """
    return bradley_terry(beta * lead(gained(logp_BT, batch)), sure(batch, label_smoothing)).sum()


PART = Objective(
    "dpo",
    "token_logp",
    loss,
    pairs,
    unit="pair",
    value=gained,
    reference=True,
    odds=True,
    ties=True,
    rate=0.1,
    adds_up=True,
)
