"""Rollouts: what stands in each answer's row, which steps are yielded, what stops a training, and that one learns.

Notable: the networks have 64 tokens, so that answers hit upon what is rewarded: the share of one letter, which is a
token. Every answer is 6 tokens long unless a stop token comes first.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import small
from tunesmith.core import parts
from tunesmith.core.batch import Batch, TokenRow
from tunesmith.core.errors import DataError, ModelError
from tunesmith.core.recipe import RolloutRecipe
from tunesmith.core.report import RolloutPoint
from tunesmith.data.batches import collate
from tunesmith.generate.sampler import Answer, Sampling
from tunesmith.models import load as loading
from tunesmith.models.actor_critic import ActorCritic
from tunesmith.models.model import Model
from tunesmith.models.twin import reference, twin
from tunesmith.objectives._policy import Credit, Drawn, k3
from tunesmith.train import rollout
from tunesmith.train.loop import Hooks, fit
from tunesmith.train.rollout import IDLE, How, Members, Prompt, Rollouts
from tunesmith.train.state import DevResult, Settled, Snapshot

VOCABULARY, STOP = 64, 3
LETTER = "E"
PROMPTS = [Prompt(f"p{n}", (1, 10 + n, *range(20, 22 + n % 3)), f"prompt {n}") for n in range(5)]
Reward = Callable[[Sequence[int], Sequence[str]], Sequence[float]]


def share(_places: Sequence[int], texts: Sequence[str]) -> list[float]:
    """Of the letter in each answer."""
    return [text.count(LETTER) / 6 for text in texts]


def size(_places: Sequence[int], texts: Sequence[str]) -> list[float]:
    """Rewards that nearly always differ."""
    return [float(sum(map(ord, text)) % 97) for text in texts]


def shrunk(folder: Path, precision: Any = "float32") -> Model:
    model = loading.load(str(folder), precision=precision)
    model.network.resize_token_embeddings(VOCABULARY)
    return model


@dataclass
class World:
    """A policy with what stands beside it. ``asked`` are the answers that were rewarded."""

    policy: Model
    critic: Model | None
    rollouts: Rollouts
    points: list[RolloutPoint]
    asked: list[tuple[list[int], list[str]]] = field(default_factory=list)

    @property
    def trained(self) -> Any:
        return self.policy if self.critic is None else ActorCritic(self.policy, self.critic)


def how(**changes: Any) -> How:
    fields: dict[str, Any] = {
        "prompts": 2,
        "answers": 3,
        "passes": 1,
        "steps": 1,
        "kl_limit": 1e9,
        "sampling": Sampling(6, (STOP,), temperature=1.0, seed=7),
        "micro_tokens": 200,
        "pad_id": 0,
        "seed": 5,
        "total": 10,
    }
    return How(**{**fields, **changes})


def world(
    folder: Path,
    name: str = "grpo",
    *,
    reward: Reward = size,
    settings: dict[str, float] | None = None,
    prompts: Sequence[Prompt] = PROMPTS,
    moved: bool = False,
    precision: Any = "float32",
    dropout: float = 0.0,
    a_rollout: int = 2,
    **changes: Any,
) -> World:
    """Rollouts of ``a_rollout`` prompts. ``moved``: the adapters are no longer at their start, so that policy and
    reference differ."""
    objective = parts.find("objectives", name).with_settings(settings or {})
    policy = shrunk(folder, precision)
    critic = None
    if objective.needs == "token_logp_value":
        critic = twin(policy)
        critic.add_head(("value",), seed=1)
        small.attach(critic, "lora", seed=1, dropout=dropout)
    small.attach(policy, "lora", dropout=dropout)
    for model in (policy, critic):
        if moved and model is not None:
            small.stir(model, size=0.1)

    @torch.no_grad()
    def base(batch: Batch) -> Tensor:
        with reference(policy, None) as found:
            return found.token_logp(batch)

    @torch.no_grad()
    def values(batch: Batch) -> Tensor:
        assert critic is not None
        critic.train(False)
        found = critic.token_score(batch)
        critic.train(True)
        return found

    def rewarded(places: Sequence[int], texts: Sequence[str]) -> Sequence[float]:
        made.asked.append((list(places), list(texts)))
        return reward(places, texts)

    points: list[RolloutPoint] = []
    wants_base = objective.settings.get("beta", 0.0) > 0
    members = Members(rewarded, base, None if critic is None else values, held=wants_base)
    rollouts = Rollouts(policy, prompts, objective, how(prompts=a_rollout, **changes), members, points.append)
    made = World(policy, critic, rollouts, points)
    policy.train(True)
    return made


def rows_of(step: list[Batch]) -> list[tuple[str, tuple[int, ...]]]:
    """Name and ids of each row of a step."""
    return [
        (name, tuple(batch.ids_BT[b, : int(batch.length_B[b])].tolist()))
        for batch in step
        for b, name in enumerate(batch.example_ids)
    ]


def alone(of: Callable[[Batch], Tensor], ids: tuple[int, ...], start: int) -> Tensor:
    """``of`` each token of the answer that begins at ``start``, by the row alone."""
    row = TokenRow(ids, (0.0,) * start + (1.0,) * (len(ids) - start))
    with torch.no_grad():
        return of(collate([row], 0))[0, start - 1 : len(ids) - 1].float()


# -- what an answer's row is ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("micro_tokens", [200, 30, 1])
@pytest.mark.parametrize(("name", "passes"), [("grpo", 1), ("grpo", 2), ("dapo", 1), ("ppo", 1), ("ppo", 2)])
def test_every_answer_is_a_row_with_its_own_numbers(llama: Path, name: str, passes: int, micro_tokens: int) -> None:
    """Whether its group is one unit, several, or rows that stand alone."""
    here = world(llama, name, moved=True, passes=passes, micro_tokens=micro_tokens)
    (step, *_) = list(here.rollouts(0))
    here.policy.train(False)
    found = rows_of(step)
    assert len(found) == 6
    assert {batch.unit for batch in step} == {3 if micro_tokens > 1 else 1}
    places, texts = here.asked[0]
    written = sorted((PROMPTS[p].example_id, t) for p, t in zip(places, texts, strict=True))
    by_name = {p.example_id: p for p in PROMPTS}
    decode = here.policy.tokenizer.decode
    starts = {name: len(by_name[name].ids) for name, _ in found}
    assert sorted((n, decode(ids[starts[n] :], skip_special_tokens=True)) for n, ids in found) == written
    for batch in step:
        assert (batch.old_BT is None) is (passes == 1)
        assert (batch.base_BT is None) is (name == "dapo")
        assert (batch.value_BT is None) is (name != "ppo") and (batch.return_BT is None) is (name != "ppo")
        for b, example in enumerate(batch.example_ids):
            start, n = starts[example], int(batch.length_B[b])
            ids = tuple(batch.ids_BT[b, :n].tolist())
            assert ids[:start] == by_name[example].ids
            assert n - start == 6 or ids[-1] == STOP
            assert STOP not in ids[start:-1]
            weight = [0.0] * (start - 1) + [1.0] * (n - start)
            assert batch.weight_BT[b].tolist() == weight + [0.0] * (batch.ids_BT.shape[1] - len(weight))
            answer = slice(start - 1, n - 1)
            expected = {"old": here.policy.token_logp, "base": here.rollouts.members.base}
            expected |= {"value": here.rollouts.members.values}
            for track, of in expected.items():
                values_BT = getattr(batch, f"{track}_BT")
                if values_BT is not None:
                    assert of is not None
                    torch.testing.assert_close(values_BT[b, answer], alone(of, ids, start), rtol=1e-4, atol=1e-4)
                    assert not values_BT[b, : start - 1].any() and not values_BT[b, n - 1 :].any()
            assert batch.advantage_BT is not None
            assert (batch.advantage_BT[b, answer] != 0).all()
            assert not batch.advantage_BT[b, : start - 1].any() and not batch.advantage_BT[b, n - 1 :].any()


@pytest.mark.parametrize("name", ["grpo", "ppo"])
def test_how_rows_share_a_step_changes_no_track(llama: Path, name: str) -> None:
    found = []
    for micro_tokens in (200, 30, 1):
        here = world(llama, name, moved=True, passes=2, micro_tokens=micro_tokens)
        (step, *_) = list(here.rollouts(0))
        tracks = {}
        for batch in step:
            for b, row in enumerate(zip(batch.example_ids, batch.ids_BT.tolist(), strict=True)):
                n = int(batch.length_B[b])
                held = [getattr(batch, f"{t}_BT") for t in ("old", "base", "value", "return", "advantage")]
                tracks[row[0], tuple(row[1][:n])] = torch.stack([t[b, :n] for t in held if t is not None])
        found.append((len(step), tracks))
    assert [len(tracks) for _, tracks in found] == [6, 6, 6]
    assert found[0][0] < found[1][0] < found[2][0] == 6
    for _, tracks in found[1:]:
        assert tracks.keys() == found[0][1].keys()
        for key, values in tracks.items():
            torch.testing.assert_close(values, found[0][1][key], rtol=1e-4, atol=1e-4)


def test_answers_to_one_prompt_share_its_computation(llama: Path) -> None:
    (step, *_) = list(world(llama).rollouts(0))
    (batch,) = step
    assert batch.unit == 3 and batch.prefix_B is not None
    sizes = {p.example_id: len(p.ids) for p in PROMPTS}
    expected = [0 if b % 3 == 0 else sizes[name] for b, name in enumerate(batch.example_ids)]
    assert batch.prefix_B.tolist() == expected
    assert len(set(batch.example_ids[:3])) == len(set(batch.example_ids[3:])) == 1


def test_what_answers_share_counts_once_where_no_pad_reaches_the_network(llama: Path) -> None:
    """Three rows take more than 30 tokens with the prompt that they share, and fewer where it counts once."""
    for packs, unit in ((True, 3), (False, 1)):
        here = world(llama, micro_tokens=30)
        here.policy.packs = packs
        step = next(here.rollouts(0))
        assert {batch.unit for batch in step} == {unit}
        assert 3 * max(int(batch.length_B.max()) for batch in step) > 30


@pytest.mark.parametrize("folder", ["llama", "untied"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_at_the_start_the_policy_is_the_reference_and_wrote_what_it_is_trained_on(
    folder: str, precision: Any, request: pytest.FixtureRequest
) -> None:
    here = world(request.getfixturevalue(folder), passes=2, precision=precision)
    (step, *_) = list(here.rollouts(0))
    assert here.points[0].kl is not None and abs(here.points[0].kl) < 1e-5
    here.policy.train(False)
    for batch in step:
        with torch.no_grad():
            now_BT = here.policy.token_logp(batch)
        assert batch.old_BT is not None and batch.base_BT is not None
        assert float((now_BT - batch.old_BT).exp().sub(1).abs().max()) < (1e-5 if precision == "float32" else 0.05)
        assert float(k3(now_BT, batch.base_BT).abs().max()) < (1e-9 if precision == "float32" else 1e-2)


def test_kl_and_entropy_are_those_of_the_answers(llama: Path) -> None:
    here = world(llama, moved=True)
    (step, *_) = list(here.rollouts(0))
    here.policy.train(False)
    kl = surprise = 0.0
    for name, ids in rows_of(step):
        start = next(len(p.ids) for p in PROMPTS if p.example_id == name)
        base = here.rollouts.members.base
        assert base is not None
        logp = alone(here.policy.token_logp, ids, start)
        kl += float(k3(logp, alone(base, ids, start)).sum())
        surprise -= float(logp.sum())
    point = here.points[0]
    assert point.kl == pytest.approx(kl / 6, rel=1e-3) and kl > 0.01
    assert point.entropy == pytest.approx(surprise / (6 * point.length), rel=1e-4)


@pytest.mark.parametrize("passes", [1, 2])
def test_a_policy_that_is_not_held_to_the_reference_knows_its_way_by_one_prompt(llama: Path, passes: int) -> None:
    here = world(llama, "dapo", moved=True, passes=passes)
    (step, *_) = list(here.rollouts(0))
    here.policy.train(False)
    first = PROMPTS[here.asked[0][0][0]]
    base = here.rollouts.members.base
    assert base is not None
    kl = [
        float(k3(alone(here.policy.token_logp, ids, n), alone(base, ids, n)).sum())
        for (name, ids), n in ((row, len(first.ids)) for row in rows_of(step))
        if name == first.example_id
    ]
    assert len(kl) == 3
    assert here.points[0].kl == pytest.approx(sum(kl) / 3, rel=1e-3) and sum(kl) > 0.01


@pytest.mark.parametrize("far", [math.nan, math.inf, -1.0])
def test_a_distance_that_cannot_be_ends_the_run(llama: Path, monkeypatch: pytest.MonkeyPatch, far: float) -> None:
    """None is below 0 in mean, whatever the policy."""
    monkeypatch.setattr(rollout, "k3", lambda logp_BT, _: torch.full_like(logp_BT, far))
    here = world(llama)
    with pytest.raises(ModelError, match=r"distance to the reference is (nan|inf|-\d+\.\d+) after 0 steps"):
        list(here.rollouts(0))


def test_a_reference_that_gives_no_numbers_ends_the_run(llama: Path) -> None:
    here = world(llama)
    here.rollouts.members = replace(here.rollouts.members, base=lambda b: torch.full(b.ids_BT.shape, math.nan))
    with pytest.raises(ModelError, match="distance to the reference is nan after 0 steps"):
        list(here.rollouts(0))


def test_every_answer_is_compared_where_its_log_probabilities_are_there_anyway(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = rollout.answers

    def wrong(*given: Any, **more: Any) -> list[Answer]:
        *others, last = plain(*given, **more)
        return [*others, replace(last, logp=[x - 1 for x in last.logp])]

    monkeypatch.setattr(rollout, "answers", wrong)
    with pytest.raises(ModelError, match="differ by 1 nats"):
        list(world(llama, passes=2).rollouts(0))


def test_the_token_that_ends_an_answer_is_trained(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = rollout.answers

    def ended(*given: Any, **more: Any) -> list[Answer]:
        """As if the last token had been the stop."""
        return [
            replace(a, ids=a.ids[:-1], logp=a.logp[:-1], finish="stop", ended=(a.ids[-1], a.logp[-1]))
            if a.ended is None
            else a
            for a in plain(*given, **more)
        ]

    monkeypatch.setattr(rollout, "answers", ended)
    (step, *_) = list(world(llama).rollouts(0))
    for batch in step:
        for b, length in enumerate(batch.length_B.tolist()):
            assert batch.weight_BT[b, length - 2] == 1.0  # where the stop token is the target


@pytest.mark.parametrize("name", ["grpo", "ppo"])
def test_empty_answers_are_counted_and_trained_on_like_others(
    llama: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Every other answer is the stop token alone, whose log-probability is the model's."""
    plain = rollout.answers

    def some_empty(model: Model, prompts: Sequence[Sequence[int]], *given: Any, **more: Any) -> list[Answer]:
        found = plain(model, prompts, *given, **more)
        for n in range(1, len(found), 2):
            ids = (*prompts[n], STOP)
            found[n] = Answer([], [], "stop", (STOP, float(alone(model.token_logp, ids, len(ids) - 1)[0])))
        return found

    monkeypatch.setattr(rollout, "answers", some_empty)
    here = world(llama, name, reward=lambda _places, texts: [float(len(text)) for text in texts])
    step = next(iter(here.rollouts(0)))
    assert here.points[0].empty >= 3  # of two prompts with three answers each
    assert all(text == "" for text in here.asked[0][1][1::2])
    prompts = {p.example_id: p.ids for p in PROMPTS}
    trained = 0
    for batch in step:
        for (example, ids), weight_T in zip(rows_of([batch]), batch.weight_BT, strict=True):
            if ids == (*prompts[example], STOP):
                assert weight_T.nonzero()[:, 0].tolist() == [len(ids) - 2]  # where the stop token is the target
                trained += 1
    assert trained == 3
    loss = sum(here.rollouts.objective.loss(getattr(here.trained, here.rollouts.objective.needs)(b), b) for b in step)
    loss.backward()
    assert math.isfinite(float(loss.detach()))


def test_the_error_of_a_mean_reward_is_that_of_its_prompts(llama: Path) -> None:
    here = world(llama, reward=lambda places, _texts: [10.0 * p + n % 3 for n, p in enumerate(places)])
    list(here.rollouts(0))
    one, other = (10.0 * here.asked[0][0][i] + 1 for i in (0, 3))
    assert here.points[0].error == pytest.approx(abs(one - other) / 2)  # two prompts: half of what is between them
    assert here.points[2].error is None  # of one prompt


def test_credit_hears_how_much_of_the_run_is_left(llama: Path) -> None:
    here = world(llama, total=4)
    heard: list[float] = []
    plain = here.rollouts.credit

    def credit(drawn: Drawn, **settings: Any) -> Credit:
        heard.append(drawn.left)
        return plain(drawn, **settings)

    here.rollouts.credit = credit
    for epoch in range(3):
        list(here.rollouts(epoch))
    assert heard == [max(0.0, 1 - point.step / 4) for point in here.points]
    assert (heard[0], heard[1], heard[-1]) == (1.0, 0.75, 0.0)


def test_sampling_leaves_no_gradient_behind_and_the_modes_as_they_were(llama: Path) -> None:
    here = world(llama, "ppo", moved=True, passes=2)
    assert here.critic is not None
    here.critic.train(True)
    for step in here.rollouts(0):
        assert not any(t.requires_grad for batch in step for _, t in batch._tensors())
        assert here.policy.network.training and here.critic.network.training
    for model in (here.policy, here.critic):
        assert all(p.grad is None for p in model.network.parameters())
        assert all(p.grad is None for _, p in model.trainable())


def test_answers_are_those_of_the_seed_and_differ_from_pass_to_pass(llama: Path) -> None:
    """And the critic, the reference and how steps are cut draw nothing."""
    one, same, other = world(llama), world(llama, "ppo", micro_tokens=30, passes=2), world(llama, seed=6)
    for here in (one, same, other):
        for epoch in (0, 1):
            list(here.rollouts(epoch))
    assert one.asked == same.asked != other.asked
    half = len(one.asked) // 2
    by_prompt = [
        {(p, t) for ps, ts in part for p, t in zip(ps, ts, strict=True)}
        for part in (one.asked[:half], one.asked[half:])
    ]
    assert not by_prompt[0] & by_prompt[1]
    assert [p for p, _ in one.asked[:half]] != [p for p, _ in one.asked[half:]]


# -- which steps there are --------------------------------------------------------------------------------------------


def test_a_pass_reads_every_prompt_once_and_the_last_rollout_is_smaller(llama: Path) -> None:
    here = world(llama)
    steps = list(here.rollouts(0))
    assert [len(places) for places, _ in here.asked] == [6, 6, 3]
    assert sorted(p for places, _ in here.asked for p in places) == sorted(list(range(5)) * 3)
    assert all(places[0::3] == places[1::3] == places[2::3] for places, _ in here.asked)
    assert [len(rows_of(step)) for step in steps] == [6, 6, 3]
    assert RolloutRecipe(prompts=2).steps_of(5) == 3
    assert [p.answers for p in here.points] == [6, 6, 3]
    assert [p.step for p in here.points] == [0, 1, 2]


@pytest.mark.parametrize(("passes", "steps", "micro_tokens"), [(3, 1, 200), (2, 2, 200), (2, 4, 1), (1, 3, 1)])
def test_every_answer_is_trained_on_once_a_pass_in_parts_that_change(
    llama: Path, passes: int, steps: int, micro_tokens: int
) -> None:
    here = world(llama, "ppo", passes=passes, steps=steps, micro_tokens=micro_tokens, prompts=PROMPTS[:4])
    taken = [rows_of(step) for step in here.rollouts(0)]
    assert all(taken)
    assert len(taken) == RolloutRecipe(prompts=2, passes=passes, steps=steps).steps_of(4)
    for first in range(0, len(taken), passes * steps):
        parts = taken[first : first + passes * steps]
        turns = [sorted(row for part in parts[t : t + steps] for row in part) for t in range(0, len(parts), steps)]
        assert all(turn == turns[0] for turn in turns) and len(turns[0]) == 6
    orders = {tuple(map(tuple, taken[t : t + steps])) for t in range(0, passes * steps, steps)}
    assert len(orders) > 1 or passes == 1


@pytest.mark.parametrize("micro_tokens", [200, 1])
def test_a_rollout_of_fewer_units_than_steps_has_fewer_steps(llama: Path, micro_tokens: int) -> None:
    """And how far the policy went is measured where the first part of a pass is empty."""
    here = world(llama, "ppo", passes=2, steps=4, kl_limit=1e8, prompts=PROMPTS[:3], micro_tokens=micro_tokens)
    taken = [rows_of(step) for step in here.rollouts(0)]
    units = [2, 1] if micro_tokens == 200 else [6, 3]
    assert len(taken) == sum(2 * min(4, count) for count in units)
    assert sorted(map(len, taken)) == sorted([3] * 6 if micro_tokens == 200 else [1, 1, 2, 2] * 2 + [1] * 6)


def test_further_passes_are_left_out_where_the_policy_has_gone_too_far(llama: Path) -> None:
    taken = {}
    for limit in (1e-3, 1e9):
        here = world(llama, passes=3, steps=2, kl_limit=limit)
        taken[limit] = 0
        for n, _ in enumerate(here.rollouts(0)):
            taken[limit] += 1
            if n == 2:  # in the second pass of the first rollout; what is left of that pass is still trained on
                small.stir(here.policy, size=0.3)
    assert taken == {1e-3: 4 + 6 + 3, 1e9: 6 + 6 + 3}


def test_how_far_the_policy_went_is_measured_without_dropout_and_without_a_trace(llama: Path) -> None:
    here = world(llama, passes=2, dropout=0.5, moved=True)
    random = torch.get_rng_state()
    steps = list(here.rollouts(0))
    assert len(steps) == 2 * 3
    assert torch.equal(torch.get_rng_state(), random)
    assert here.rollouts._moved(here.rollouts._at.units) < 1e-9  # type: ignore[union-attr]
    assert here.policy.network.training


# -- what teaches nothing ---------------------------------------------------------------------------------------------


def test_groups_of_equal_rewards_are_no_steps_and_end_the_run_after_a_while(llama: Path) -> None:
    here = world(llama, reward=lambda places, _: [float(p) for p in places])
    with pytest.raises(
        DataError, match=rf"{IDLE} rollouts in a row taught nothing: the answers to a prompt are all"
    ) as e:
        list(here.rollouts(0))
    assert "rollout.answers" in str(e.value)
    assert len(here.points) == IDLE
    assert all(p.equal == 1.0 and p.unrewarded == 0 for p in here.points)
    assert here.points[0].spread == pytest.approx(0.5 * abs(here.asked[0][0][0] - here.asked[0][0][-1]))


def test_a_policy_that_has_learned_all_there_is_has_settled(llama: Path) -> None:
    """Which is known where a step was taken before, and how many rollouts were idle outlives a restart."""
    here = world(llama, reward=lambda p, t: size(p, t) if len(here.points) < 2 else [1.0] * len(t))
    steps = here.rollouts(0)
    assert len([next(steps), next(steps)]) == 2 and here.rollouts.idle == 0
    with pytest.raises(Settled, match=f"settled: in {IDLE} rollouts in a row the answers to a prompt are all worth"):
        for epoch in range(100):
            list(steps if epoch == 0 else here.rollouts(epoch))
    other = world(llama)
    here.rollouts.idle, here.rollouts.unknown = 7, 3
    other.rollouts.restore(here.rollouts.held())
    assert (other.rollouts.idle, other.rollouts.unknown, other.rollouts.step) == (7, 3, 2)


def test_the_last_look_at_dev_does_not_say_why_it_ended(llama: Path) -> None:
    here = world(llama, reward=lambda p, t: size(p, t) if len(here.points) < 3 else [1.0] * len(t))
    looks: list[int] = []

    def evaluate() -> DevResult:
        looks.append(len(here.points))
        return DevResult(1.0, (1.0,))

    plan = small.plan(steps=50, eval_every=2, patience=1)
    done = fit(
        here.policy, here.rollouts.objective, here.rollouts, plan, Hooks(source=here.rollouts, evaluate=evaluate)
    )
    assert len(looks) == 2 and done.since_best == 1
    assert (done.step, done.stopped.partition(":")[0]) == (3, "settled")


def test_rewards_that_fail_at_last_do_not_undo_what_was_learned(llama: Path) -> None:
    def reward(places: Any, texts: Any) -> list[float]:
        seen = len(here.points)
        return size(places, texts) if seen < 2 else [1.0 if seen < IDLE else math.nan] * len(texts)

    here = world(llama, reward=reward)
    with pytest.raises(Settled, match="the answers to a prompt are all worth the same"):
        for epoch in range(100):
            list(here.rollouts(epoch))
    assert here.points[-1].reward is None
    here = world(llama, reward=lambda p, t: size(p, t) if len(here.points) < 2 else [math.nan] * len(t))
    with pytest.raises(DataError, match="no answer had a reward"):
        for epoch in range(100):
            list(here.rollouts(epoch))


def test_a_source_that_has_settled_ends_the_training_with_what_was_learned(llama: Path) -> None:
    here = world(llama, reward=lambda p, t: size(p, t) if len(here.points) < 2 else [1.0] * len(t))
    before = [p.clone() for _, p in here.policy.trainable()]
    done = fit(
        here.policy,
        here.rollouts.objective,
        here.rollouts,
        small.plan(steps=50, learning_rate=1e-2),
        Hooks(source=here.rollouts),
    )
    assert (done.step, done.stopped.partition(":")[0]) == (2, "settled")
    assert any(not torch.equal(a, b) for a, (_, b) in zip(before, here.policy.trainable(), strict=True))


def test_prompts_are_answered_anew_until_a_pass_has_a_step(llama: Path) -> None:
    """A small set may teach nothing at first; the loop would find an empty pass."""
    here = world(
        llama, prompts=PROMPTS[:2], reward=lambda p, t: size(p, t) if len(here.points) == 4 else [0.0] * len(t)
    )
    (step,) = list(here.rollouts(0))
    assert len(here.points) == 5
    assert [p for p, _ in rows_of(step)[::3]] != [] and len(rows_of(step)) == 6
    answers = [tuple(texts) for _, texts in here.asked]
    assert len(set(answers)) == 5  # other answers each time
    assert here.rollouts.idle == 0


def test_a_step_in_which_no_answer_is_better_is_not_taken(llama: Path) -> None:
    """Rewards differ for one prompt of two: of the two steps of a pass one is left, in each pass."""
    here = world(
        llama,
        passes=2,
        steps=2,
        prompts=PROMPTS[:2],
        reward=lambda places, texts: [s if p == 1 else 0.0 for p, s in zip(places, size(places, texts), strict=True)],
    )
    taken = [rows_of(step) for step in here.rollouts(0)]
    assert [{name for name, _ in rows} for rows in taken] == [{"p1"}, {"p1"}]
    assert here.points[0].equal == 0.5
    assert here.rollouts.step == 2


def some_missing(places: Sequence[int], texts: Sequence[str]) -> list[float]:
    """The second of three answers has no reward, and none to the prompt 0."""
    return [
        math.nan if n % 3 == 1 or p == 0 else x
        for n, (p, x) in enumerate(zip(places, size(places, texts), strict=True))
    ]


@pytest.mark.parametrize("micro_tokens", [200, 1])
@pytest.mark.parametrize("name", ["grpo", "dapo", "ppo"])
def test_answers_without_a_reward_are_counted_and_the_others_train(llama: Path, name: str, micro_tokens: int) -> None:
    """They have no weight: neither KL nor a critic's error is of them."""
    here = world(
        llama, name, reward=some_missing, moved=True, prompts=PROMPTS[:3], a_rollout=3, micro_tokens=micro_tokens
    )
    (step,) = list(here.rollouts(0))
    (point,) = here.points
    assert point.unrewarded == 3 + 2
    assert point.reward is not None and point.spread is not None and math.isfinite(point.reward + point.spread)
    assert point.equal == pytest.approx(1 / 3)
    weighted = [
        (name, ids)
        for batch in step
        for (name, ids), weight_T in zip(rows_of([batch]), batch.weight_BT, strict=True)
        if weight_T.any()
    ]
    assert sorted(n for n, _ in weighted) == ["p1", "p1", "p2", "p2"]
    assert not any("p0" in batch.example_ids for batch in step)
    objective = here.rollouts.objective
    tokens = sum(len(ids) - next(len(p.ids) for p in PROMPTS if p.example_id == n) for n, ids in weighted)
    assert sum(float(objective.weight(b)) for b in step) == (4 if name == "grpo" else tokens)
    for batch in step:
        loss = objective.loss(getattr(here.trained, objective.needs)(batch), batch)
        loss.backward()
        assert math.isfinite(float(loss.detach()))
    assert small.gradient_norm(here.policy) > 0


@pytest.mark.parametrize("name", ["grpo", "ppo"])
def test_without_any_reward_nothing_is_trained(llama: Path, name: str) -> None:
    here = world(llama, name, reward=lambda _, texts: [math.nan] * len(texts), settings={"beta": 0.1})
    with pytest.raises(DataError, match=rf"{IDLE} rollouts in a row taught nothing: no answer had a reward"):
        list(here.rollouts(0))
    assert here.points[0].reward is None and here.points[0].spread is None
    assert here.points[0].unrewarded == 6 and here.points[0].equal == 1.0
    assert {s.reward for s in here.points[0].samples} == {None}
    assert here.rollouts.coefficient == 1.0


def test_the_best_and_the_worst_answer_are_kept_to_be_read(llama: Path) -> None:
    here = world(llama)
    list(here.rollouts(0))
    places, texts = here.asked[0]
    rewards = size(places, texts)
    best, worst = rewards.index(max(rewards)), rewards.index(min(rewards))
    told = [(s.prompt, s.answer, s.reward) for s in here.points[0].samples]
    assert told == [(f"prompt {places[n]}", texts[n], rewards[n]) for n in (best, worst)]
    assert here.points[0].reward == pytest.approx(sum(rewards) / 6)


def test_rewards_count_in_deviations_of_the_first_rollout_that_has_some(llama: Path) -> None:
    """0.9 is no float32: rewards that are all 0.9 seem to differ by rounding, which is no measure."""
    rewards = iter([[0.9] * 6, [math.nan] * 6, [0.0, 4.0, 0.0, 4.0, math.nan, math.inf], [1.0] * 6])
    here = world(llama, "ppo", reward=lambda _p, _t: next(rewards), prompts=PROMPTS[:4])
    scales = []
    credit = here.rollouts.credit
    here.rollouts.credit = lambda drawn: (scales.append(drawn.scale), credit(drawn))[1]
    for epoch in (0, 1):
        list(here.rollouts(epoch))
    assert scales == [1.0, 1.0, 2.0, 2.0]
    fresh = world(llama, "ppo")
    fresh.rollouts.restore(here.rollouts.held())
    assert fresh.rollouts.scale == 2.0


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.7}, {"temperature": 0.0}, {"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1}, {"stops": ("x",)}],
)
def test_rollouts_are_of_the_distribution_that_is_trained(options: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="sampled at temperature 1 without top_k, top_p, min_p or stops"):
        how(sampling=Sampling(6, (STOP,), **{"temperature": 1.0, **options}))


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("fault", [0.01, math.nan, math.inf])
def test_a_sampler_that_disagrees_with_training_stops_the_run(
    llama: Path, monkeypatch: pytest.MonkeyPatch, fault: float, passes: int
) -> None:
    here = world(llama, passes=passes)
    own = here.policy.token_logp

    def off(batch: Batch) -> Tensor:
        found = own(batch)
        row, place = (batch.weight_BT > 0).nonzero()[-1].tolist()
        found[row, place] += fault  # of one token of one answer
        return found

    monkeypatch.setattr(here.policy, "token_logp", off)
    with pytest.raises(ModelError, match=r"Sampling and training differ by .* nats .* LlamaForCausalLM"):
        list(here.rollouts(0))


# -- between two processes --------------------------------------------------------------------------------------------

RESUMED: dict[str, dict[str, Any]] = {
    "grpo": {"name": "grpo", "dropout": 0.2, "passes": 1, "steps": 2, "micro_tokens": 40},
    "idle": {"name": "dapo", "reward": share, "passes": 2, "steps": 2, "prompts": PROMPTS[:3]},
    "unrewarded": {"name": "rloo", "reward": some_missing, "passes": 2, "steps": 2, "dropout": 0.2},
    "limited": {"name": "grpo", "passes": 3, "steps": 1, "kl_limit": 0.02, "dropout": 0.2},
    "ppo": {
        "name": "ppo",
        "passes": 2,
        "steps": 2,
        "dropout": 0.2,
        "prompts": PROMPTS[:4],
        "settings": {"kl_target": 0.5, "beta": 0.2},
    },
}


def trained(folder: Path, kind: str, resume: Snapshot | None = None) -> tuple[World, list[Snapshot]]:
    here = world(folder, **RESUMED[kind])
    taken: list[Snapshot] = []
    torch.manual_seed(5 if resume is None else 99)
    hooks = Hooks(
        source=here.rollouts,
        resume=resume,
        after_step=lambda _step, _last, snapshot: taken.append(small.through_json(snapshot(True))),
    )
    plan = small.plan(steps=9, warmup_steps=1, learning_rate=2e-2)
    fit(here.trained, here.rollouts.objective, here.rollouts, plan, hooks)
    return here, taken


@pytest.mark.parametrize("kind", RESUMED)
def test_resuming_after_any_step_gives_the_same_bits_and_the_same_answers(llama: Path, kind: str) -> None:
    whole, taken = trained(llama, kind)
    ends = {name: p.detach().clone() for name, p in whole.trained.trainable()}
    assert len(taken) == 9 and taken[-1].progress["epoch"] >= 1
    if kind == "ppo":
        assert whole.rollouts.coefficient != 1.0
    if kind == "idle":
        assert any(p.equal == 1.0 for p in whole.points)
    if kind == "limited":
        assert len(whole.points) > 9 / 3
    for at, snapshot in enumerate(taken):
        again, later = trained(llama, kind, snapshot)
        assert len(later) == 8 - at
        assert all(torch.equal(p, ends[n]) for n, p in again.trained.trainable()), at
        told = whole.points[len(whole.points) - len(again.points) :]
        assert again.points == told, at
        assert again.rollouts.coefficient == whole.rollouts.coefficient
        held, own = again.rollouts.held(), whole.rollouts.held()
        assert held.keys() == own.keys()
        assert all(torch.equal(held[k], own[k]) for k in own), at


@pytest.mark.parametrize("name", ["grpo", "ppo"])
def test_what_is_held_does_not_change_with_the_training(llama: Path, name: str) -> None:
    here = world(llama, name, passes=2, steps=2)
    assert set(here.rollouts.held()) == {"numbers"}
    source = here.rollouts(0)
    next(source)
    held = here.rollouts.held()
    kept = copy.deepcopy(held)
    for _ in source:
        pass
    assert all(torch.equal(held[k], kept[k]) for k in kept)
    expected = {"numbers", "length", "prefix", "ids", "weight", "old", "base", "advantage"}
    assert set(held) == expected | ({"value", "return"} if name == "ppo" else set())
    fresh = world(llama, name, passes=2, steps=2)
    fresh.rollouts.restore(held)
    assert all(torch.equal(t, fresh.rollouts.held()[k]) for k, t in held.items())


# -- and it learns ----------------------------------------------------------------------------------------------------

TASKS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "rloo": {},
    "dr_grpo": {},
    "dapo": {},
    "ppo": {"passes": 2, "settings": {"kl_target": 6.0}},
}


@pytest.mark.parametrize("name", TASKS)
def test_what_is_rewarded_is_written_more_and_more(llama: Path, name: str) -> None:
    options = {"reward": share, "prompts": PROMPTS[:4], **TASKS[name]}
    here = world(llama, name, **options, a_rollout=4, answers=16, micro_tokens=1000)
    progress = fit(here.trained, here.rollouts.objective, here.rollouts, small.plan(steps=24, learning_rate=1e-2))
    rewards = [p.reward for p in here.points if p.reward is not None]
    assert progress.step == 24
    assert len(rewards) == 24 // here.rollouts.how.passes  # none is written for a step that is not taken
    assert rewards[0] < 0.1
    assert sum(rewards[-3:]) / 3 > 0.5
