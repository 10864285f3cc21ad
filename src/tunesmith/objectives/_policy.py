"""What the objectives share that learn from a policy's own answers and their rewards: how a reward becomes an advantage
for each token, and the clipped ratio that keeps a step near the policy that wrote the answers.

Notable: everything is a function of tensors, so each line is checked by hand. The ratio is taken against the
log-probability that training itself computes; where an answer is used for one step alone that is the policy at hand,
and the ratio is exactly 1 with the gradient of the log-probability.
Legend: B answers, T tokens, N prompts, G answers to each prompt.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tunesmith.core.batch import Batch

EQUAL = 1e-6  # rewards of a group that differ by less tell nothing


@dataclass(frozen=True, slots=True)
class Drawn:
    """Answers of a policy: ``reward_B`` is not a number where no reward could be found; ``mask_BT`` is 1 for tokens of
    the answer. ``group`` consecutive answers are to one prompt. ``scale`` is the standard deviation of the first
    rollout's rewards, ``coefficient`` what the penalty for leaving the reference has grown to, in times what it was;
    ``left`` the share of the run's steps that are still to come: a policy is paid for staying open as long as there is
    something to find, and should be sure in the end."""

    reward_B: Tensor
    mask_BT: Tensor
    logp_BT: Tensor
    base_BT: Tensor | None = None
    value_BT: Tensor | None = None
    group: int = 1
    scale: float = 1.0
    coefficient: float = 1.0
    left: float = 1.0


@dataclass(frozen=True, slots=True)
class Credit:
    """``advantage_BT`` is 0 wherever nothing is to be learned, ``return_BT`` what a critic should expect."""

    advantage_BT: Tensor
    return_BT: Tensor | None = None
    coefficient: float = 1.0


def k3(logp: Tensor, base: Tensor) -> Tensor:
    """KL of the policy to the reference by one token each, never below 0 and right in the mean (Schulman, 2020).

    >>> k3(torch.tensor([-1.0, -1.0]), torch.tensor([-1.0, -2.0]))
    tensor([0.0000, 0.3679])
    """
    difference = base - logp
    return difference.expm1() - difference


def over_group(reward_B: Tensor, group: int, *, spread: bool) -> Tensor:
    """How much better each answer is than the mean of its group [B], in standard deviations with ``spread``. A reward
    that is not a number is left out of its group and has no advantage; equal rewards have none either.

    >>> over_group(torch.tensor([1.0, 0.0, 5.0, 5.0]), 2, spread=False)
    tensor([ 0.5000, -0.5000,  0.0000,  0.0000])
    >>> over_group(torch.tensor([1.0, 0.0, float("nan")]), 3, spread=True)
    tensor([ 0.7071, -0.7071,  0.0000])
    """
    reward_NG = reward_B.view(-1, group)
    known_NG = reward_NG.isfinite()
    count_N1 = known_NG.sum(1, keepdim=True)
    held_NG = reward_NG.nan_to_num(0.0, 0.0, 0.0)
    lead_NG = torch.where(known_NG, held_NG - held_NG.sum(1, keepdim=True) / count_N1.clamp(min=1), 0.0)
    variance_N1 = lead_NG.square().sum(1, keepdim=True) / (count_N1 - 1).clamp(min=1)
    differs_N1 = variance_N1.sqrt() > EQUAL
    found_NG = lead_NG / variance_N1.sqrt().clamp(min=EQUAL) if spread else lead_NG
    return torch.where(differs_N1, found_NG, 0.0).flatten()


def surprise(drawn: Drawn) -> Tensor:
    """The policy's own surprise at each of its answers [B], in nats a token: not a number where the reward is none."""
    mean_B = -(drawn.logp_BT * drawn.mask_BT).sum(1) / drawn.mask_BT.sum(1).clamp(min=1)
    return torch.where(drawn.reward_B.isfinite(), mean_B, float("nan"))


def gae(reward_BT: Tensor, value_BT: Tensor, mask_BT: Tensor, *, gamma: float, lam: float) -> Tensor:
    """Generalised advantage estimates [B, T] (Schulman et al., 2016, arXiv 1506.02438). ``mask_BT`` is 1 in one stretch
    of each row; after it the value is 0.

    >>> gae(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.5]]), torch.ones(1, 2), gamma=1.0, lam=1.0)
    tensor([[0.5000, 0.5000]])
    >>> gae(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.5]]), torch.ones(1, 2), gamma=0.9, lam=0.95)
    tensor([[0.3775, 0.5000]])
    """
    advantage_BT = torch.zeros_like(reward_BT)
    later_B = after_B = torch.zeros_like(reward_BT[:, 0])
    for t in reversed(range(reward_BT.shape[1])):
        delta_B = reward_BT[:, t] + gamma * after_B - value_BT[:, t]
        later_B = mask_BT[:, t] * (delta_B + gamma * lam * later_B)
        after_B = mask_BT[:, t] * value_BT[:, t]
        advantage_BT[:, t] = later_B
    return advantage_BT


def whiten(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 where ``mask_BT`` is 1; 0 elsewhere.

    >>> whiten(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[1.0, 1.0, 0.0]]))
    tensor([[-0.7071,  0.7071,  0.0000]])
    """
    count = mask_BT.sum()
    mean = (values_BT * mask_BT).sum() / count.clamp(min=1)
    centred_BT = (values_BT - mean) * mask_BT
    variance = centred_BT.square().sum() / (count - 1).clamp(min=1)
    return centred_BT / variance.sqrt().clamp(min=EQUAL)


def clipped(logp_BT: Tensor, batch: Batch, low: float, high: float) -> Tensor:
    """Minus the clipped surrogate [B, T] (Schulman et al., 2017, arXiv 1707.06347): a token's ratio to the policy that
    wrote it counts from 1 - ``low`` to 1 + ``high``, on the side on which the advantage pushes.

    >>> held = torch.zeros(1, 3).long()
    >>> batch = Batch(held, held, torch.ones(1, 3), torch.tensor([3]), torch.tensor([-1]), old_BT=torch.zeros(1, 3),
    ...               advantage_BT=torch.tensor([[1.0, 1.0, -1.0]]))
    >>> clipped(torch.tensor([[1.1, 1.5, 1.5]]).log(), batch, 0.2, 0.3)
    tensor([[-1.1000, -1.3000,  1.5000]])
    """
    assert batch.advantage_BT is not None
    old_BT = logp_BT.detach() if batch.old_BT is None else batch.old_BT
    ratio_BT = (logp_BT - old_BT).exp()
    near_BT = ratio_BT.clamp(1 - low, 1 + high)
    return -torch.minimum(ratio_BT * batch.advantage_BT, near_BT * batch.advantage_BT)


def mask(batch: Batch) -> Tensor:
    """1 for each token of an answer, and 0 elsewhere [B, T]."""
    return (batch.weight_BT > 0).float()


def tokens(batch: Batch) -> Tensor:
    return mask(batch).sum()


def answers(batch: Batch) -> Tensor:
    """Those of which something is learned."""
    return mask(batch).amax(1).sum()
