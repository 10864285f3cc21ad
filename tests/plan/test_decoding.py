"""Writing answers, worked out by hand on a toy, and what must hold on a real network."""

from dataclasses import replace
from typing import Any

import pytest

from plan import toy
from tunesmith.plan import decoding, time
from tunesmith.plan.decoding import looked, rollout, writing
from tunesmith.plan.devices import find
from tunesmith.plan.known import find as find_model
from tunesmith.plan.passes import Net
from tunesmith.plan.rates import of_device
from tunesmith.plan.work import Rollouts, Scorer

NET = Net(toy.shape(), toy.rates(), "float32")


def test_writing_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "DRAW_SECONDS", 0.01)
    found = writing(NET, 2, 3, 4, 5)
    # 2 prompts of 4 tokens: 8 x 2 x 64 operations, attention 8 x 2 x 8 x 4 x 2, and two rows of logits
    assert found["reading prompts"] == pytest.approx(1.024 + 1.024 + 0.16)
    # five steps of 6 rows: products 6 x 2 x 64, attention 6 x 2 x 8 x 2 and logits 6 x 2 x 40
    assert found["writing answers"] == pytest.approx(5 * (0.768 + 0.192 + 0.48))
    assert found["drawing tokens"] == pytest.approx(30 * 10 * 0.01)


def test_keys_and_values_are_read_each_step() -> None:
    slow = replace(NET, rates=toy.rates(products={"float32": ((1, 1e30), (2, 1e30))}, bandwidth=1e6))
    short, long = (writing(slow, 1, 1, n, 10)["writing answers"] for n in (10, 110))
    assert long - short == pytest.approx(10 * 100 * 8 * 2 * 4 / 1e6)  # ten steps, 8 numbers in two layers


def test_a_rollout_asks_its_members() -> None:
    how = Rollouts(2, 3, 4, 5, 1)
    work = toy.work(technique=toy.LORA, rollouts=how)
    plain = rollout(work, how, NET)
    assert "critic" not in plain
    assert "reward" not in plain
    several = rollout(work, replace(how, steps=4), NET)
    assert several["own log-probabilities"] == pytest.approx(2 * plain["own log-probabilities"])  # of all, not of one
    whole = rollout(work, replace(how, critic=True, reward=Scorer(toy.shape())), NET)
    assert whole["reference"] == pytest.approx(looked(NET, work, 2 * (4 + 15), 30, 9))
    assert whole["critic"] == pytest.approx(looked(NET, work, 2 * (4 + 15), 0, 9))
    assert whole["reward"] == pytest.approx(looked(NET, work, 6 * 9, 0, 9))


def test_a_run_has_a_rollout_for_every_few_steps() -> None:
    how = Rollouts(2, 3, 4, 5, 2)
    work = toy.work(technique=toy.LORA, rollouts=how, steps=5)
    net = Net(toy.shape(), toy.rates(), "float32", adapter=48)
    run, step = time.run(work, toy.rates()), time.step(work, toy.rates())
    own = sum(rollout(work, how, net).values())
    assert step.total > own / 2
    assert run.total == pytest.approx(5 * (step.total - own / 2) + 3 * own)


@pytest.mark.parametrize("device", ["laptop", "a100-80gb"])
def test_more_answers_take_longer_but_less_each(device: str) -> None:
    net = Net(find_model("SmolLM2-360M").shape(), of_device(find(device)), "float32")

    def takes(*args: Any) -> float:
        return sum(writing(net, *args).values())

    assert takes(8, 4, 100, 64) < takes(8, 8, 100, 64) < 2 * takes(8, 4, 100, 64)
    assert takes(8, 4, 100, 64) < takes(8, 4, 100, 128)
    assert takes(8, 4, 100, 64) < takes(8, 4, 200, 64)
    assert takes(1, 4, 100, 64) < takes(4, 1, 100, 64)  # one prompt is read once
