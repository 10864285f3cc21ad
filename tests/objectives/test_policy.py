"""How rewards become advantages, and advantages a loss: numbers worked by hand, and slow ways to the same ones.

Notable: the group advantages are those of the papers' formulas (verl and OpenRLHF compute the same, but for their
epsilon in the denominator); every expected number can be followed on paper.
Legend: B answers, T tokens.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tunesmith.core import parts
from tunesmith.core.batch import Batch
from tunesmith.objectives import _policy
from tunesmith.objectives._objective import Objective
from tunesmith.objectives._policy import Credit, Drawn
from tunesmith.objectives.grpo import LENGTH
from tunesmith.objectives.ppo import adapted

NAN, INF = math.nan, math.inf
GROUPED = ("grpo", "rloo", "dr_grpo", "dapo")


def find(name: str, **settings: float) -> Objective:
    return parts.find("objectives", name).with_settings(settings)  # type: ignore[no-any-return]


def credited(name: str, drawn: Drawn, **settings: float) -> Credit:
    credit = find(name, **settings).credit
    assert credit is not None
    return credit(drawn)


def group_of(rewards: list[float], group: int) -> Drawn:
    """Answers of one token each."""
    count = len(rewards)
    return Drawn(torch.tensor(rewards), torch.ones(count, 1), torch.full((count, 1), -1.0), group=group)


def lead(name: str, rewards: list[float], group: int) -> list[float]:
    found: list[float] = credited(name, group_of(rewards, group)).advantage_BT[:, 0].tolist()
    return found


def batch_of(weight: list[list[float]], **tracks: Any) -> Batch:
    """A batch with these weights and tracks; a track that is one number is that number everywhere."""
    weight_BT = torch.tensor(weight, dtype=torch.float64)
    held = {k: t if isinstance(t, Tensor) else torch.full_like(weight_BT, t) for k, t in tracks.items()}
    length_B = torch.full((len(weight),), weight_BT.shape[1])
    return Batch(weight_BT.long(), weight_BT.long(), weight_BT, length_B, -torch.ones(len(weight)).long(), **held)


# -- KL --------------------------------------------------------------------------------------------------------------


def test_k3_is_never_negative_and_its_mean_is_the_kl() -> None:
    draw = torch.Generator().manual_seed(0)
    policy_V, base_V = (3 * torch.randn(50, generator=draw, dtype=torch.float64) for _ in range(2))
    policy_V, base_V = policy_V.log_softmax(0), base_V.log_softmax(0)
    k3_V = _policy.k3(policy_V, base_V)
    assert (k3_V >= 0).all()
    expected = float((policy_V.exp() * (policy_V - base_V)).sum())
    assert expected > 1
    assert float((policy_V.exp() * k3_V).sum()) == pytest.approx(expected, rel=1e-12)
    assert (_policy.k3(policy_V, policy_V) == 0).all()


# -- advantages of groups --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["grpo", "dapo"])
def test_grpo_leads_in_standard_deviations_of_the_group(name: str) -> None:
    """[3, 1, 2]: mean 2, deviation sqrt((1 + 1 + 0) / 2) = 1; [1, 0, 0, 0]: mean 1/4, deviation sqrt(3/4 / 3) = 1/2."""
    assert lead(name, [3.0, 1.0, 2.0, 30.0, 10.0, 20.0], 3) == pytest.approx([1.0, -1.0, 0.0] * 2)
    assert lead(name, [1.0, 0.0, 0.0, 0.0], 4) == pytest.approx([1.5, -0.5, -0.5, -0.5])


def test_dr_grpo_leads_over_the_mean_and_divides_by_no_spread() -> None:
    assert lead("dr_grpo", [3.0, 1.0, 2.0, 30.0, 10.0, 20.0], 3) == pytest.approx([1, -1, 0, 10, -10, 0])


def test_rloo_leads_over_the_mean_of_the_others() -> None:
    assert lead("rloo", [1.0, 0.0, 0.0, 0.0], 4) == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3])
    rewards = [0.3, 2.0, -1.0, 0.7, 5.0, 5.5, 4.0, -2.0, 0.0, 1.0]
    expected = []
    for start in range(0, len(rewards), 5):
        group = rewards[start : start + 5]
        expected += [r - sum(group[:g] + group[g + 1 :]) / 4 for g, r in enumerate(group)]
    assert lead("rloo", rewards, 5) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", GROUPED)
@pytest.mark.parametrize("reward", [0.0, 1.0, -0.1, 1e4, 0.1 + 0.2])
def test_equal_rewards_have_no_advantage_at_all(name: str, reward: float) -> None:
    """Nor has an answer that is alone; another group is not touched by it."""
    assert lead(name, [reward] * 6 + [0.0, 1.0, 0.0], 3)[:6] == [0.0] * 6
    assert lead(name, [reward] * 3, 1) == [0.0] * 3
    assert lead(name, [NAN] * 3, 3) == [0.0] * 3
    assert lead(name, [NAN, reward, NAN], 3) == [0.0] * 3


@pytest.mark.parametrize("name", GROUPED)
@pytest.mark.parametrize("missing", [NAN, INF, -INF])
def test_a_reward_that_is_no_number_is_left_out_of_its_group(name: str, missing: float) -> None:
    """The others are what they would be in a group of their own."""
    found = lead(name, [missing, 3.0, 1.0, 1.0, 7.0, 1.0, 2.0, 2.0], 4)
    assert found[0] == 0.0
    assert found[1:4] == pytest.approx(lead(name, [3.0, 1.0, 1.0], 3), rel=1e-6)
    assert found[4:] == pytest.approx(lead(name, [7.0, 1.0, 2.0, 2.0], 4), rel=1e-6)
    assert found[1] > 0 > found[2]


@pytest.mark.parametrize("name", GROUPED)
def test_advantages_of_a_group_add_up_to_nothing(name: str) -> None:
    draw = torch.Generator().manual_seed(1)
    advantages = torch.tensor(lead(name, torch.randn(24, generator=draw).tolist(), 8)).view(3, 8)
    assert float(advantages.sum(1).abs().max()) < 1e-5
    assert (advantages.abs().sum(1) > 1).all()


@pytest.mark.parametrize("name", GROUPED)
def test_each_token_of_an_answer_has_the_advantage_of_the_answer(name: str) -> None:
    mask_BT = torch.tensor([[0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]])
    found = credited(name, Drawn(torch.tensor([1.0, 0.0]), mask_BT, torch.zeros(2, 4), group=2))
    size = {"grpo": 0.5**0.5, "dapo": 0.5**0.5, "rloo": 1.0, "dr_grpo": 0.5}[name]
    torch.testing.assert_close(found.advantage_BT, torch.tensor([[size], [-size]]) * mask_BT)
    assert found.return_BT is None and found.coefficient == 1.0


def test_the_entropy_bonus_is_the_mean_surprise_of_an_answers_tokens() -> None:
    """Surprises (1 + 3) / 2 = 2 and 4 nats a token, rewards 1 and 0: 1 + 0.25 x 2 = 1.5 and 0.25 x 4 = 1."""
    mask_BT = torch.tensor([[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    logp_BT = torch.tensor([[-9.0, -1.0, -3.0], [-9.0, -4.0, -9.0]])
    drawn = Drawn(torch.tensor([1.0, 0.0]), mask_BT, logp_BT, group=2)
    assert _policy.surprise(drawn).tolist() == [2.0, 4.0]
    assert credited("rloo", drawn, entropy=0.25).advantage_BT[:, 1].tolist() == [0.5, -0.5]
    later = replace(drawn, left=0.5)  # halfway: 1 + 0.125 x 2 = 1.25 and 0.125 x 4 = 0.5
    assert credited("rloo", later, entropy=0.25).advantage_BT[:, 1].tolist() == [0.75, -0.75]
    assert credited("rloo", replace(drawn, left=0.0), entropy=0.25).advantage_BT[:, 1].tolist() == [1.0, -1.0]


# -- the clipped surrogate -------------------------------------------------------------------------------------------


def test_the_ratio_counts_further_up_than_down_where_it_is_clipped_higher() -> None:
    ratio_BT = torch.tensor([[0.5, 0.75, 0.9, 1.1, 1.25, 1.5]], dtype=torch.float64)
    for advantage, counted in ((2.0, [0.5, 0.75, 0.9, 1.1, 1.25, 1.28]), (-2.0, [0.8, 0.8, 0.9, 1.1, 1.25, 1.5])):
        batch = batch_of([[1.0] * 6], old_BT=-1.0, advantage_BT=advantage)
        logp_BT = (ratio_BT.log() - 1).requires_grad_()
        loss_BT = _policy.clipped(logp_BT, batch, 0.2, 0.28)
        assert loss_BT[0].tolist() == pytest.approx([-advantage * c for c in counted])
        loss_BT.sum().backward()  # type: ignore[no-untyped-call]
        assert logp_BT.grad is not None
        slope = [-advantage * r if r == c else 0.0 for r, c in zip(ratio_BT[0].tolist(), counted, strict=True)]
        assert logp_BT.grad[0].tolist() == pytest.approx(slope)


@pytest.mark.parametrize(
    ("name", "high"), [("grpo", 1.2), ("rloo", 1.2), ("dr_grpo", 1.2), ("dapo", 1.28), ("ppo", 1.2)]
)
def test_which_bounds_each_has(name: str, high: float) -> None:
    """Ratios of 2 and 1/2, each pushed on: the loss is -high and +0.8, over one answer of one token each."""
    objective = find(name, **({"value_weight": 0.0} if name == "ppo" else {}))
    batch = batch_of(
        [[1.0], [1.0]], old_BT=0.0, advantage_BT=torch.tensor([[1.0], [-1.0]]), value_BT=0.0, return_BT=0.0
    )
    logp_BT = torch.tensor([[2.0], [0.5]], dtype=torch.float64).log()
    loss = float(objective.loss((logp_BT, logp_BT) if name == "ppo" else logp_BT, batch))
    assert loss == pytest.approx((0.8 - high) / (LENGTH if name == "dr_grpo" else 1))


def test_how_answers_of_unequal_lengths_count() -> None:
    """One token with advantage 1 and three with -1, at ratio 1: losses -1 and +1, +1, +1.

    grpo: every answer alike, (-1 + 3/3) / 2. dapo: every token alike, (-1 + 3) / 4. dr_grpo: a constant, (-1 + 3) / 100
    for 2 answers.
    """
    weight = [[0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]]
    batch = batch_of(weight, old_BT=-2.0, base_BT=-2.0, advantage_BT=torch.tensor([[1.0], [-1.0]]).expand(2, 4))
    logp_BT = torch.full((2, 4), -2.0, dtype=torch.float64)
    expected = {"grpo": 0.0, "rloo": 0.0, "dapo": 0.5, "dr_grpo": 2 / LENGTH / 2}
    for name, mean in expected.items():
        objective = find(name)
        assert float(objective.loss(logp_BT, batch) / objective.weight(batch)) == pytest.approx(mean, abs=1e-7), name


def test_kl_is_a_part_of_the_loss_and_is_left_out_without_a_reference() -> None:
    """Policy -1, reference -2: k3 = exp(-1) - 1 + 1; its slope by the policy's logp is 1 - exp(-1)."""
    batch = batch_of([[1.0]], old_BT=-1.0, base_BT=-2.0, advantage_BT=0.0)
    logp_BT = torch.tensor([[-1.0]], dtype=torch.float64).requires_grad_()
    loss = find("grpo", beta=0.3).loss(logp_BT, batch)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.3 * math.exp(-1))
    assert logp_BT.grad is not None
    assert float(logp_BT.grad) == pytest.approx(0.3 * (1 - math.exp(-1)))
    logp_BT = logp_BT.detach()
    assert float(find("grpo", beta=0.3).loss(logp_BT, batch_of([[1.0]], old_BT=-1.0, advantage_BT=0.0))) == 0.0
    assert float(find("dapo").loss(logp_BT, batch)) == 0.0


def test_an_answer_counts_where_something_of_it_is_learned() -> None:
    batch = batch_of([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert float(_policy.answers(batch)) == 2.0
    assert float(_policy.tokens(batch)) == 3.0


# -- PPO -------------------------------------------------------------------------------------------------------------


def slow_gae(reward: list[float], value: list[float], gamma: float, lam: float) -> list[float]:
    """The sum of (gamma lam)^k delta(t + k), term by term."""
    size = len(reward)
    delta = [reward[t] + gamma * (value[t + 1] if t + 1 < size else 0.0) - value[t] for t in range(size)]
    return [sum((gamma * lam) ** k * delta[t + k] for k in range(size - t)) for t in range(size)]


@pytest.mark.parametrize(("gamma", "lam"), [(0.9, 0.95), (1.0, 0.95), (1.0, 1.0), (0.9, 0.0)])
def test_gae_is_the_sum_over_all_later_tokens(gamma: float, lam: float) -> None:
    """Answers of 5, 1, 3 and 0 tokens after prompts of 2, 4, 1 and 3; prompt and pads hold numbers as well."""
    draw = torch.Generator().manual_seed(0)
    reward_BT, value_BT = (torch.randn(4, 8, generator=draw, dtype=torch.float64) for _ in range(2))
    spans = [(2, 7), (4, 5), (1, 4), (3, 3)]
    mask_BT = torch.zeros(4, 8, dtype=torch.float64)
    expected_BT = torch.zeros(4, 8, dtype=torch.float64)
    for b, (start, end) in enumerate(spans):
        mask_BT[b, start:end] = 1.0
        own = slow_gae(reward_BT[b, start:end].tolist(), value_BT[b, start:end].tolist(), gamma, lam)
        expected_BT[b, start:end] = torch.tensor(own, dtype=torch.float64)
    found_BT = _policy.gae(reward_BT, value_BT, mask_BT, gamma=gamma, lam=lam)
    torch.testing.assert_close(found_BT, expected_BT, rtol=1e-12, atol=1e-12)


def test_gae_by_hand() -> None:
    """Values 1, 2, 3 and a reward of 4 at the end, gamma 0.9, lambda 0.95: deltas 0.8, 0.7, 1; gamma lambda = 0.855."""
    found_BT = _policy.gae(
        torch.tensor([[0.0, 0.0, 4.0]]), torch.tensor([[1.0, 2.0, 3.0]]), torch.ones(1, 3), gamma=0.9, lam=0.95
    )
    assert found_BT[0].tolist() == pytest.approx([0.8 + 0.855 * (0.7 + 0.855), 0.7 + 0.855, 1.0])


def test_whitening_is_numpys() -> None:
    draw = torch.Generator().manual_seed(0)
    values_BT = 5 + 3 * torch.randn(4, 7, generator=draw, dtype=torch.float64)
    mask_BT = (torch.rand(4, 7, generator=draw) < 0.6).double()
    found_BT = _policy.whiten(values_BT, mask_BT)
    held = values_BT.numpy()[mask_BT.numpy() == 1]
    np.testing.assert_allclose(found_BT.numpy()[mask_BT.numpy() == 1], (held - held.mean()) / held.std(ddof=1))
    assert (found_BT[mask_BT == 0] == 0).all()


@pytest.mark.parametrize("count", [0, 1, 5])
def test_whitening_what_does_not_differ_gives_nothing(count: int) -> None:
    mask_BT = (torch.arange(5) < count).float()[None]
    assert (_policy.whiten(torch.full((1, 5), 3.0), mask_BT) == 0).all()


def ppo_drawn(**changes: Any) -> Drawn:
    """Two answers of three and of one token, after a prompt of one."""
    fields: dict[str, Any] = {
        "reward_B": torch.tensor([2.0, -1.0]),
        "mask_BT": torch.tensor([[0.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0]]),
        "logp_BT": torch.full((2, 4), -1.0),
        "base_BT": torch.tensor([[-9.0, -1.0, -2.0, -1.0], [-9.0, -3.0, -9.0, -9.0]]),
        "value_BT": torch.zeros(2, 4),
    }
    return Drawn(**{**fields, **changes})


def test_ppo_pays_at_the_last_token_and_takes_for_each_that_leaves_the_reference() -> None:
    """Without a critic's opinion and with lambda 1 a return is the sum of what is still to come. -1 is 1 nat above -2,
    and 2 above -3."""
    found = credited("ppo", ppo_drawn(), beta=0.5, lam=1.0)
    first, second = 0.5 * 1, 0.5 * 2
    expected_BT = torch.tensor([[0.0, 2 - first, 2 - first, 2.0], [0.0, -1 - second, 0.0, 0.0]])
    assert found.return_BT is not None
    torch.testing.assert_close(found.return_BT, expected_BT)
    torch.testing.assert_close(found.advantage_BT, _policy.whiten(expected_BT, ppo_drawn().mask_BT))
    paid = credited("ppo", ppo_drawn(), beta=0.5, lam=0.0).return_BT  # value after the step + what the step itself paid
    assert paid is not None
    torch.testing.assert_close(paid, torch.tensor([[0.0, 0.0, -first, 2.0], [0.0, -1 - second, 0.0, 0.0]]))


def test_ppo_returns_are_advantages_before_whitening_plus_values() -> None:
    draw = torch.Generator().manual_seed(0)
    drawn = ppo_drawn(value_BT=torch.randn(2, 4, generator=draw), base_BT=None)
    found = credited("ppo", drawn, gamma=0.9, lam=0.95)
    assert found.return_BT is not None and drawn.value_BT is not None
    for b, size in ((0, 3), (1, 1)):
        value = drawn.value_BT[b, 1 : 1 + size].tolist()
        own = slow_gae([0.0] * (size - 1) + [float(drawn.reward_B[b])], value, 0.9, 0.95)
        assert found.return_BT[b, 1 : 1 + size].tolist() == pytest.approx(
            [a + v for a, v in zip(own, value, strict=True)]
        )


def test_ppo_penalty_grows_with_the_coefficient() -> None:
    found = [credited("ppo", ppo_drawn(coefficient=c), beta=b, lam=1.0).return_BT for c, b in ((3.0, 0.1), (1.0, 0.3))]
    assert found[0] is not None and found[1] is not None
    torch.testing.assert_close(found[0], found[1])


def test_ppo_rewards_count_in_what_is_usual_and_penalties_do_not() -> None:
    found = credited("ppo", ppo_drawn(scale=4.0), beta=0.5, lam=1.0).return_BT
    plain = credited("ppo", ppo_drawn(reward_B=torch.tensor([0.5, -0.25])), beta=0.5, lam=1.0).return_BT
    assert found is not None and plain is not None
    torch.testing.assert_close(found, plain)


def test_ppo_entropy_pays_the_surprise_of_each_token() -> None:
    logp_BT = torch.tensor([[-9.0, -1.0, -2.0, -3.0], [-9.0, -4.0, -9.0, -9.0]])
    found = credited("ppo", ppo_drawn(logp_BT=logp_BT, base_BT=None), entropy=0.1, lam=1.0).return_BT
    assert found is not None
    torch.testing.assert_close(found, torch.tensor([[0.0, 2.6, 2.5, 2.3], [0.0, -0.6, 0.0, 0.0]]))
    later = credited("ppo", ppo_drawn(logp_BT=logp_BT, base_BT=None, left=0.5), entropy=0.1, lam=1.0).return_BT
    assert later is not None
    torch.testing.assert_close(later, torch.tensor([[0.0, 2.3, 2.25, 2.15], [0.0, -0.8, 0.0, 0.0]]))


@pytest.mark.parametrize("missing", [NAN, INF])
def test_ppo_has_no_credit_for_an_answer_without_a_reward(missing: float) -> None:
    """And the other one's is what it would be alone."""
    value_BT = torch.tensor([[0.0, 0.3, -0.2, 0.1], [0.0, 0.7, 0.0, 0.0]])
    found = credited("ppo", ppo_drawn(reward_B=torch.tensor([2.0, missing]), value_BT=value_BT))
    whole = ppo_drawn(value_BT=value_BT)
    one = {n: getattr(whole, n)[:1] for n in ("reward_B", "mask_BT", "logp_BT", "base_BT", "value_BT")}
    alone = credited("ppo", Drawn(**one))
    assert found.return_BT is not None and alone.return_BT is not None
    assert (found.advantage_BT[1] == 0).all() and (found.return_BT[1] == 0).all()
    torch.testing.assert_close(found.advantage_BT[:1], alone.advantage_BT)
    torch.testing.assert_close(found.return_BT[:1], alone.return_BT)
    assert alone.advantage_BT.any()


def test_the_coefficient_follows_the_kl() -> None:
    """KL an answer: (1/e + 1 + exp(-2)) / 2 = 0.75 nats; which answers had a reward does not matter."""
    kl = (math.exp(-1) + 1 + math.exp(-2)) / 2
    for target, factor in ((kl / 4, 1.02), (kl * 4, 0.98), (kl / 1.1, 1.01), (kl / 0.95, 0.995), (0.0, 1.0)):
        for rewards in ([2.0, -1.0], [NAN, 1.0], [NAN, NAN]):
            found = credited("ppo", ppo_drawn(reward_B=torch.tensor(rewards), coefficient=3.0), kl_target=target)
            assert found.coefficient == pytest.approx(3 * factor, rel=1e-6), (target, rewards)


def test_the_coefficient_stays_where_the_kl_is_as_wanted_and_stays_positive() -> None:
    assert adapted(0.7, 6.0, 6.0) == 0.7
    coefficient = 1.0
    for _ in range(1000):
        coefficient = adapted(coefficient, 0.0, 6.0)
    assert 0 < coefficient < 1e-8


@pytest.mark.parametrize(
    ("value", "wanted", "loss", "slope"),
    [
        (0.1, 1.0, 0.81, -0.9),  # within the clip: (0.1 - 1)^2
        (0.5, 1.0, 0.64, 0.0),  # beyond it and right: as if at 0.2, and no further
        (0.5, -1.0, 2.25, 1.5),  # beyond it and wrong: counts whole, and is drawn back
        (-0.5, -1.0, 0.64, 0.0),
        (-0.5, 1.0, 2.25, -1.5),
    ],
)
def test_the_critic_is_clipped_where_it_has_moved_far_enough(
    value: float, wanted: float, loss: float, slope: float
) -> None:
    batch = batch_of([[1.0]], old_BT=0.0, value_BT=0.0, return_BT=wanted, advantage_BT=0.0)
    value_BT = torch.tensor([[value]], dtype=torch.float64).requires_grad_()
    found = find("ppo", value_weight=1.0).loss((torch.zeros(1, 1, dtype=torch.float64), value_BT), batch)
    found.backward()
    assert float(found.detach()) == pytest.approx(0.5 * loss)
    assert value_BT.grad is not None
    assert float(value_BT.grad) == pytest.approx(slope)


def test_ppo_counts_every_token_alike() -> None:
    batch = batch_of([[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    assert float(find("ppo").weight(batch)) == 3.0


@pytest.mark.parametrize("share", [0.3, 0.6, 0.75, 0.9, 0.99])
def test_the_penalty_of_ppo_alone_leads_back_to_the_reference(share: float) -> None:
    """Answers of one token in the exact proportions of a policy over two tokens, whose reference is even: the step that
    the advantages ask for lowers the exact KL (as a reward, k3 would not)."""
    count = 1000
    first = round(share * count)
    logit = torch.tensor(share / (1 - share)).log().requires_grad_()
    logp = torch.stack([torch.nn.functional.logsigmoid(logit), torch.nn.functional.logsigmoid(-logit)])
    chosen_BT = torch.tensor([0] * first + [1] * (count - first))[:, None]
    drawn = Drawn(
        torch.zeros(count), torch.ones(count, 1), logp.detach()[chosen_BT], torch.full((count, 1), 0.5).log(),
        torch.zeros(count, 1),
    )  # fmt: skip
    advantage_BT = credited("ppo", drawn, beta=0.1).advantage_BT
    (rises,) = torch.autograd.grad((logp[chosen_BT] * advantage_BT).sum(), logit, retain_graph=True)
    (kl_rises,) = torch.autograd.grad((logp.exp() * (logp - torch.tensor(0.5).log())).sum(), logit)
    assert float(rises * kl_rises) < 0
