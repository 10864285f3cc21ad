"""Group relative policy optimisation (Shao et al., 2024, arXiv 2402.03300): several answers to each prompt, each one's
advantage its lead over the group in standard deviations; no critic.

Notable: its kin are one line each. ``rloo`` takes the mean of the other answers for a baseline (Ahmadian et al., 2024,
arXiv 2402.14740); ``dr_grpo`` divides neither by the group's spread nor by an answer's length (Liu et al., 2025, arXiv
2503.20783); ``dapo`` counts every token alike, clips higher than lower and drops the reference (Yu et al., 2025, arXiv
2503.14476). KL to the reference is a part of the loss, as in the paper.
Legend: B answers, T tokens.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from tunesmith.core.batch import Batch
from tunesmith.objectives import _policy
from tunesmith.objectives._objective import Objective
from tunesmith.objectives._policy import Credit, Drawn

RATE = 0.15  # of the method's learning rate: a rollout's advantages are noisy
LENGTH = 100.0  # tokens by which dr_grpo divides every answer: a constant, which no answer's length changes


def loss(
    logp_BT: Tensor,
    batch: Batch,
    *,
    clip: float = 0.2,
    clip_high: float = 0.2,
    beta: float = 0.04,
    a_token: Callable[[Tensor], Tensor | float],
) -> Tensor:
    """Sum over tokens of -min(ratio x advantage, clipped) + beta x KL, each times what ``a_token`` makes of the mask.

    >>> import torch
    >>> held = torch.zeros(1, 2).long()
    >>> batch = Batch(held, held, torch.ones(1, 2), torch.tensor([2]), torch.tensor([-1]), old_BT=torch.zeros(1, 2),
    ...               base_BT=torch.tensor([[0.0, -1.0]]), advantage_BT=torch.ones(1, 2))
    >>> loss(torch.zeros(1, 2), batch, beta=0.1, a_token=by_answer)  # -1, and 0.1 x (1/e) / 2 for the second token
    tensor(-0.9816)
    """
    loss_BT = _policy.clipped(logp_BT, batch, clip, clip_high)
    if beta > 0 and batch.base_BT is not None:
        loss_BT = loss_BT + beta * _policy.k3(logp_BT, batch.base_BT)
    mask_BT = _policy.mask(batch)
    return (loss_BT * mask_BT * a_token(mask_BT)).sum()


def by_answer(mask_BT: Tensor) -> Tensor:
    """Every answer counts alike, whatever its length."""
    return 1 / mask_BT.sum(1, keepdim=True).clamp(min=1)


def credit(drawn: Drawn, *, entropy: float = 0.0, spread: bool, others: bool = False) -> Credit:
    """The lead over the group, the same for each token; with ``others`` over the mean of the others. ``entropy`` is
    added as it is, so that it never counts for more where rewards are alike.

    >>> import torch
    >>> drawn = Drawn(torch.tensor([1.0, 0.0, 0.0]), torch.ones(3, 1), torch.zeros(3, 1), group=3)
    >>> credit(drawn, spread=False, others=True).advantage_BT[:, 0]
    tensor([ 1.0000, -0.5000, -0.5000])
    """
    advantage_B = _policy.over_group(drawn.reward_B, drawn.group, spread=spread)
    if bonus := entropy * drawn.left:
        advantage_B = advantage_B + _policy.over_group(bonus * _policy.surprise(drawn), drawn.group, spread=False)
    if others:  # r - mean of the n - 1 others = (r - mean of all) x n / (n - 1)
        known_N1 = drawn.reward_B.view(-1, drawn.group).isfinite().sum(1, keepdim=True)
        advantage_B = (advantage_B.view(-1, drawn.group) * known_N1 / (known_N1 - 1).clamp(min=1)).flatten()
    return Credit(advantage_B[:, None] * drawn.mask_BT)


def family(
    name: str,
    *,
    spread: bool = False,
    others: bool = False,
    a_token: Callable[[Tensor], Tensor | float] = by_answer,
    weight: Callable[[Batch], Tensor] = _policy.answers,
) -> Objective:
    """A member: what advantages are divided by, what each token counts, and what the sum is divided by."""
    return Objective(
        name,
        "token_logp",
        partial(loss, a_token=a_token),
        weight,
        unit="answer",
        credit=partial(credit, spread=spread, others=others),
        fixed=("a_token", "spread", "others"),
        rate=RATE,
    )


PART = family("grpo", spread=True)
