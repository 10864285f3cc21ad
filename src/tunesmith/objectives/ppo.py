"""Proximal policy optimisation (Schulman et al., 2017, arXiv 1707.06347) as in learning from human feedback (Ouyang et
al., 2022, arXiv 2203.02155): a critic expects the reward token by token, and leaving the reference costs some of it.

Notable: rewards count in standard deviations of the first rollout, so that ``beta`` means the same for every reward: a
nat away from the reference costs that much of one. A token's penalty is the log of its ratio to the reference (k1), for
as a reward that alone has the gradient of the KL (k3, which is never negative, has not: near the reference its gradient
vanishes). The KL itself is measured by k3; with ``kl_target`` the penalty grows or shrinks after each rollout towards
that many nats an answer (Ziegler et al., 2019, arXiv 1909.08593). The reward comes with the last token. Advantages are
whitened over the whole rollout. ``lam`` is 1 where the papers take 0.95: the reward comes once, with the last token,
and at 0.95 a token 45 before it hears a tenth of it, while the critic, which may begin at 0, cannot tell the rest. The
last tokens would learn before the others, and to end the answer is one of them (``benchmarks/results/rlhf.md``).
Legend: B answers, T tokens.
"""

import torch
from torch import Tensor

from tunesmith.core.batch import Batch
from tunesmith.objectives import _policy
from tunesmith.objectives._objective import Objective
from tunesmith.objectives._policy import Credit, Drawn
from tunesmith.objectives.grpo import RATE


def loss(
    logp_value_BT: tuple[Tensor, Tensor],
    batch: Batch,
    *,
    clip: float = 0.2,
    clip_high: float = 0.2,
    value_clip: float = 0.2,
    value_weight: float = 0.5,
) -> Tensor:
    """Sum over tokens of the clipped surrogate's loss and ``value_weight`` x the critic's squared error, which counts
    from where its value has moved by ``value_clip`` at most.

    >>> held = torch.zeros(1, 2).long()
    >>> batch = Batch(held, held, torch.ones(1, 2), torch.tensor([2]), torch.tensor([-1]), old_BT=torch.zeros(1, 2),
    ...               value_BT=torch.zeros(1, 2), return_BT=torch.ones(1, 2), advantage_BT=torch.ones(1, 2))
    >>> loss((torch.zeros(1, 2), torch.tensor([[0.1, 0.9]])), batch)  # -2 + 0.25 x (0.9^2 + 0.8^2)
    tensor(-1.6375)
    """
    assert batch.value_BT is not None and batch.return_BT is not None
    logp_BT, value_BT = logp_value_BT
    near_BT = batch.value_BT + (value_BT - batch.value_BT).clamp(-value_clip, value_clip)
    missed_BT = torch.maximum((value_BT - batch.return_BT).square(), (near_BT - batch.return_BT).square())
    loss_BT = _policy.clipped(logp_BT, batch, clip, clip_high) + 0.5 * value_weight * missed_BT
    return (loss_BT * _policy.mask(batch)).sum()


def credit(
    drawn: Drawn,
    *,
    beta: float = 0.2,
    kl_target: float = 0.0,
    gamma: float = 1.0,
    lam: float = 1.0,
    entropy: float = 0.0,
) -> Credit:
    """Rewards minus penalties, as advantages and returns. An answer without a reward teaches nothing.

    >>> drawn = Drawn(torch.tensor([1.0]), torch.tensor([[0.0, 1.0, 1.0]]), torch.zeros(1, 3), torch.zeros(1, 3),
    ...               torch.full((1, 3), 0.5))
    >>> credit(drawn).return_BT
    tensor([[0., 1., 1.]])
    """
    assert drawn.value_BT is not None
    known_B1 = drawn.reward_B.isfinite()[:, None]
    mask_BT = drawn.mask_BT * known_B1
    base_BT = drawn.logp_BT if drawn.base_BT is None else drawn.base_BT
    reward_BT = -beta * drawn.coefficient * (drawn.logp_BT - base_BT) - entropy * drawn.left * drawn.logp_BT
    place_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    last_B = (drawn.mask_BT * place_T).argmax(1)
    ends_BT = (place_T == last_B[:, None]) * mask_BT
    worth_B = drawn.reward_B.nan_to_num(0.0, 0.0, 0.0) / drawn.scale
    reward_BT = (reward_BT + ends_BT * worth_B[:, None]) * mask_BT
    value_BT = drawn.value_BT * mask_BT
    advantage_BT = _policy.gae(reward_BT, value_BT, mask_BT, gamma=gamma, lam=lam)
    kl = float((_policy.k3(drawn.logp_BT, base_BT) * drawn.mask_BT).sum() / len(mask_BT))
    return Credit(
        _policy.whiten(advantage_BT, mask_BT), advantage_BT + value_BT, adapted(drawn.coefficient, kl, kl_target)
    )


def adapted(coefficient: float, kl: float, target: float) -> float:
    """The coefficient after a rollout whose KL was ``kl``: at most 2% up or down; as it was without a target.

    >>> adapted(1.0, 12.0, 6.0), adapted(1.0, 5.4, 6.0), adapted(1.0, 9.0, 0.0)
    (1.02, 0.99, 1.0)
    """
    return coefficient if target <= 0 else coefficient * (1 + 0.1 * max(-0.2, min(0.2, kl / target - 1)))


PART = Objective("ppo", "token_logp_value", loss, _policy.tokens, unit="answer", credit=credit, rate=RATE)
