"""Identity preference optimisation (Azar et al., 2023, arXiv 2310.12036): the lead is drawn to 1 / (2 beta) and no
further, so that pairs that are certain do not pull without end.

Notable: the lead is that of the mean log-likelihood a token, as the authors' correction has it (and TRL).
Legend: B sequences, T tokens, P pairs.
"""

from torch import Tensor

from tunesmith.core.batch import Batch
from tunesmith.objectives._objective import Objective
from tunesmith.objectives._pairs import gained, lead, pairs, tokens


def gain(logp_BT: Tensor, batch: Batch) -> Tensor:
    """How much likelier each row's answer is than under the reference [B], in nats a token."""
    return gained(logp_BT, batch) / tokens(batch)


def loss(logp_BT: Tensor, batch: Batch, *, beta: float = 0.1) -> Tensor:
    """Sum over pairs of (lead - 1 / (2 beta))^2, the lead in nats a token.

    >>> import torch
    >>> logp, weight = torch.tensor([[-1.0, -1.0], [-3.0, -3.0]]), torch.ones(2, 2)
    >>> batch = Batch(*[weight.long()] * 2, weight, *[torch.ones(2)] * 2, unit=2, reference_B=torch.zeros(2))
    >>> loss(logp, batch, beta=0.1)  # (2 - 5)^2
    tensor(9.)
    """
    return (lead(gain(logp_BT, batch)) - 1 / (2 * beta)).square().sum()


PART = Objective("ipo", "token_logp", loss, pairs, unit="pair", value=gain, reference=True, rate=0.1)
