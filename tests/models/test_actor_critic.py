"""A policy and a critic that are trained as one: whose gradient reaches whom, what weights are called, a ``fit``."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import small
from tunesmith.core.batch import Batch
from tunesmith.data.batches import collate
from tunesmith.models import load as loading
from tunesmith.models.actor_critic import CRITIC, ActorCritic
from tunesmith.models.model import Model
from tunesmith.models.twin import twin
from tunesmith.objectives.ppo import PART as PPO
from tunesmith.train.loop import fit


def pair(folder: Path, method: str = "lora", precision: Any = "float32") -> ActorCritic:
    """Both adapters have moved, so that none of their weights is without a gradient."""
    policy = loading.load(str(folder), precision=precision)
    critic = twin(policy)
    critic.add_head(("value",), seed=0)
    small.stir(small.attach(critic, method, seed=1), seed=1)
    return ActorCritic(small.stir(small.attach(policy, method)), critic)


def tracked() -> Batch:
    """Answers with everything that PPO reads."""
    batch = collate([small.unit(small.answers_to_one_prompt(3, seed=n), 5) for n in range(2)], 0)
    draw = torch.Generator().manual_seed(0)
    names = ("old_BT", "value_BT", "return_BT", "advantage_BT")
    noise: dict[str, Any] = {n: torch.randn(batch.weight_BT.shape, generator=draw) for n in names}
    return replace(batch, **noise)


def reached(model: Model) -> set[str]:
    return {name for name, p in model.trainable() if p.grad is not None and bool(p.grad.any())}


def all_of(model: Model) -> set[str]:
    return {name for name, _ in model.trainable()}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_neither_loss_reaches_the_other_ones_weights(llama: Path, precision: Any) -> None:
    both = pair(llama, precision=precision)
    both.train(True)
    logp_BT, value_BT = both.token_logp_value(tracked())
    logp_BT.sum().backward()  # type: ignore[no-untyped-call]
    assert reached(both.policy) == all_of(both.policy) and not reached(both.critic)
    small.gradient_norm(both.policy)
    value_BT.sum().backward()  # type: ignore[no-untyped-call]
    assert reached(both.critic) == all_of(both.critic) and not reached(both.policy)
    assert len(all_of(both.critic)) == len(all_of(both.policy)) + 1  # the head, whose bias stays 0


def test_it_answers_what_the_two_answer_alone(llama: Path) -> None:
    both, batch = pair(llama), tracked()
    both.train(False)
    with torch.no_grad():
        logp_BT, value_BT = both.token_logp_value(batch)
        assert torch.equal(logp_BT, both.policy.token_logp(batch))
        assert torch.equal(value_BT, both.critic.token_score(batch))
    assert value_BT.any() and not torch.equal(logp_BT, value_BT)


@pytest.mark.parametrize("method", ["lora", "lora_plus"])
def test_weights_of_the_critic_are_named_so_and_learn_at_their_own_rates(llama: Path, method: str) -> None:
    both = pair(llama, method)
    names = [name for name, _ in both.trainable()]
    assert len(set(names)) == len(names)
    own = [name for name, _ in both.policy.trainable()]
    assert names == own + [f"{CRITIC}{name}" for name, _ in both.critic.trainable()]
    assert not any(name.startswith(CRITIC) for name in own)
    expected = both.policy.rates | {f"{CRITIC}{n}": rate for n, rate in both.critic.rates.items()}
    assert both.rates == expected
    assert len(both.rates) == (2 * len(both.policy.rates)) and set(both.rates) <= set(names)
    assert bool(both.rates) is (method == "lora_plus")


def test_modes_and_hooks_are_for_both(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = pair(llama)
    for mode in (True, False):
        both.train(mode)
        assert both.policy.network.training is both.critic.network.training is mode
        assert both.critic.head is not None and both.critic.head.training is mode
    told: list[torch.nn.Parameter] = []
    both.on_gradient(told.append)
    logp_BT, value_BT = both.token_logp_value(tracked())
    (logp_BT.sum() + value_BT.sum()).backward()
    assert {id(p) for p in told} == {id(p) for _, p in both.trainable()}
    assert both.device == both.policy.device
    assert both.schedule is both.policy.schedule
    refreshed: list[str] = []
    monkeypatch.setattr(both.policy, "refresh", lambda: refreshed.append("policy"))
    monkeypatch.setattr(both.critic, "refresh", lambda: refreshed.append("critic"))
    both.refresh()
    assert refreshed == ["policy", "critic"]


def test_what_may_rest_in_the_critic_is_named_so(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = pair(llama)

    def rests(self: Model) -> Collection[str]:
        return {"a"} if self is both.policy else {"b"}

    monkeypatch.setattr(Model, "may_rest", property(rests))
    assert both.may_rest == {"a", f"{CRITIC}b"}


@pytest.mark.parametrize("memory", ["fast", "least"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_moves_both_and_the_base_stays(llama: Path, precision: Any, memory: Any) -> None:
    both = pair(llama, precision=precision)
    before = {name: p.detach().clone() for name, p in both.trainable()}
    frozen = {n: p for n, p in both.policy.network.named_parameters() if not p.requires_grad}
    base = {n: p.detach().clone() for n, p in frozen.items()}
    progress = fit(both, PPO, small.listed([tracked()]), small.plan(steps=6, memory=memory, clip_norm=1.0))
    assert progress.step == 6 and progress.skipped == 0
    assert all(not torch.equal(p, before[name]) for name, p in both.trainable())
    assert all(torch.equal(p, base[name]) for name, p in frozen.items()) and len(base) > 10


def test_the_critic_learns_what_to_expect(llama: Path) -> None:
    both = pair(llama)
    batch = replace(tracked(), old_BT=None)

    def missed() -> float:
        assert batch.return_BT is not None
        with torch.no_grad():
            return float(((both.critic.token_score(batch) - batch.return_BT) * (batch.weight_BT > 0)).square().sum())

    before = missed()
    objective = PPO.with_settings({"value_clip": 1e9})
    fit(both, objective, small.listed([batch]), small.plan(steps=40, learning_rate=3e-2))
    assert missed() < 0.3 * before
