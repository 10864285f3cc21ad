"""Learning from rewards on tiny models: whole runs, who stands beside the policy, and what is refused."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import sample_report
from tests.flows.conftest import MakeRecipe

from tunesmith.core import parts
from tunesmith.core.errors import DataError, ModelError, RecipeError
from tunesmith.core.example import Message
from tunesmith.core.report import Report, RolloutPoint
from tunesmith.data import split
from tunesmith.data.batches import collate
from tunesmith.data.render import Renderer
from tunesmith.evaluate.rewards import Asked, rule
from tunesmith.flows import check_recipe, judging, keeping, rewarding
from tunesmith.flows.check_recipe import check_parts
from tunesmith.flows.finetune import finetune
from tunesmith.flows.prepare import prepare
from tunesmith.flows.rollouts import SHOWN, dev_rewards, rollouts
from tunesmith.flows.training import attach
from tunesmith.models import artefact
from tunesmith.models import load as loading
from tunesmith.models.model import adapters_off
from tunesmith.present.html import render_html
from tunesmith.records.folder import RunFolder

Finished = Callable[[str], str]
EVALUATE = {"baselines": ["zero_shot"], "max_new_tokens": 6, "limit": 12}
ONLINE: dict[str, Any] = {
    "objective": {"name": "grpo"},
    "evaluate": EVALUATE,
    "rollout": {"prompts": 8, "answers": 4},
    "data": {"limit": 16},
    "train": {"batch_tokens": "auto", "learning_rate": 1e-3, "epochs": 2},
}


def online(make_recipe: MakeRecipe, rules: dict[str, float] | None = None, **groups: Any) -> Any:
    reward = groups.pop("reward", {"rules": {"token_f1": 1.0} if rules is None else rules})
    return make_recipe(**{**ONLINE, "reward": reward, **groups})


def report_of(run: Any) -> Report:
    return Report.load(Path(run.folder) / "report.json")


# -- whole runs --------------------------------------------------------------------------------------------------------


def test_grpo_goes_on_from_a_run_and_tells_what_the_rollouts_were_like(
    make_recipe: MakeRecipe, finished: Finished, tmp_path: Path
) -> None:
    run = finetune(
        online(make_recipe, start=finished("sft"), evaluate=EVALUATE | {"baselines": "auto"}, reward={
            "rules": {"token_f1": 1.0}, "model": finished("reward"), "weight": 0.5, "judge": finished("judge")}),
        workspace=tmp_path,
    )  # fmt: skip
    report = report_of(run)
    assert run.status == "done" and report.primary == "reward"
    names = [s.name for s in report.systems]
    assert {"start", "zero_shot", "tuned"} <= set(names)
    assert report.rewarded is not None
    points = report.rewarded.points
    assert [p.answers for p in points] == [32] * len(points) and len(points) == 4
    assert points[0].kl == pytest.approx(0, abs=1e-5)  # the policy begins as its reference
    assert all(p.kl is not None and p.kl >= 0 for p in points)
    assert all(p.samples and p.samples[0].prompt for p in points)
    looks = [p for p in report.fit.curve if p.dev_loss is not None]
    asked = [tuple(a.prompt for a in p.answers) for p in looks]
    assert len(looks) > 1 and len(asked[0]) == SHOWN and set(asked) == {asked[0]}  # the same prompts each time
    assert not any(p.answers for p in report.fit.curve if p.dev_loss is None)
    lines = [json.loads(line) for line in RunFolder(Path(run.folder)).metrics.read_text().splitlines()]
    assert [tuple(a["prompt"] for a in line["answers"]) for line in lines if "answers" in line] == asked
    assert set(report.rewarded.wins) == set(report.rewarded.judged_wins) == set(names) - {"tuned"}
    by_name = {s.name: s for s in report.systems}
    assert {"reward", "judged", "token_f1"} <= set(by_name["tuned"].metrics)
    told = {n: keeping.read_predictions(RunFolder(Path(run.folder)), n) for n in ("tuned", "zero_shot")}
    test = {e.id: e for e in prepare(report.recipe).test}
    alone = artefact.load(Path(finished("reward")) / "adapter")
    for name, predictions in told.items():  # what is rewarded is what is measured
        asked, texts = [rewarding.asked_of(test[p.id]) for p in predictions], [p.answer for p in predictions]
        by_model = rewarding.scores(alone, asked, texts, None)
        by_rule = rule("token_f1")(asked, texts)
        expected = [a + 0.5 * b for a, b in zip(by_rule, by_model, strict=True)]
        assert [p.reward for p in predictions] == pytest.approx(expected, abs=1e-4)
        assert by_name[name].metrics["reward"].value == pytest.approx(sum(expected) / len(expected), abs=1e-4)
    assert points[-1].kl is not None and points[-1].kl > 1e-6  # the reference stays where it was
    lines = (Path(run.folder) / "rollouts.jsonl").read_text().splitlines()
    assert [RolloutPoint.model_validate_json(line) for line in lines] == list(points)
    html = render_html(report)
    assert "Mean reward of each rollout" in html and "Wins against zero_shot" in html


def test_ppo_learns_from_a_reward_model_on_the_same_base(
    make_recipe: MakeRecipe, finished: Finished, tmp_path: Path
) -> None:
    recipe = online(
        make_recipe,
        objective={"name": "ppo", "kl_target": 1.0},
        reward={"model": finished("reward")},
        rollout={"prompts": 8, "answers": 2, "passes": 2, "steps": 2},
    )
    run = finetune(recipe, workspace=tmp_path)
    report = report_of(run)
    assert report.rewarded is not None and run.status == "done"
    assert len({p.coefficient for p in report.rewarded.points}) > 1  # beta was adapted
    policy = prepare(make_recipe()).plan.trainable
    width = report.card.width
    assert report.fit.trainable_parameters == report.plan.trainable == 2 * policy + width  # the critic is not published
    assert report.fit.steps == report.plan.steps == 16


def test_dev_is_looked_at_by_its_mean_reward(make_recipe: MakeRecipe, finished: Finished, tmp_path: Path) -> None:
    recipe = online(make_recipe, reward={"model": finished("reward")})
    report = report_of(finetune(recipe, workspace=tmp_path))
    looks = [p.dev_loss for p in report.fit.curve if p.dev_loss is not None]
    assert report.rewarded is not None
    rewards = [p.reward for p in report.rewarded.points if p.reward is not None]
    assert looks and all(min(rewards) - 1 < -look < max(rewards) + 1 for look in looks)


def test_a_look_at_dev_is_the_mean_reward_of_what_is_sampled_turned_round(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        rewarding, "rule", lambda _name: lambda asked, _answers: [5.0 + n % 2 for n in range(len(asked))]
    )
    prepared, model = with_company(online(make_recipe))
    count = len(prepared.splits.dev)
    assert count > 1
    found = dev_rewards(model, prepared)
    assert found.loss == pytest.approx(-(5 + (count // 2) / count))
    assert [a.reward for a in found.answers] == [5.0 + n % 2 for n in range(count)][:SHOWN]
    assert [a.prompt for a in found.answers] == [e.input_text for e in prepared.splits.dev[:SHOWN]]


def test_prompts_without_room_for_an_answer_are_left_out_and_counted(make_recipe: MakeRecipe) -> None:
    prepared, model = with_company(online(make_recipe))
    room = sorted(len(Renderer(model.tokenizer).prompt_ids(e.prompt)) for e in prepared.splits.train)[8]
    told: list[str] = []
    tight = replace(prepared, max_new_tokens=model.card.context - room)
    source = rollouts(model, tight, lambda _: None, told.append)
    left = len(prepared.splits.train) - len(source.prompts)
    assert left > 0
    assert told[0].startswith(f"{left} of {len(prepared.splits.train)} train prompts leave no room for an answer of ")


# -- who stands beside the policy --------------------------------------------------------------------------------------


def company(recipe: Any) -> tuple[Any, rewarding.Company]:
    model = loading.load(recipe.model)
    found = rewarding.company(model, recipe, check_parts(recipe))
    assert found is not None
    return model, found


def with_company(recipe: Any) -> tuple[Any, Any]:
    prepared, model = prepare(recipe), loading.load(recipe.model)
    return replace(prepared, company=rewarding.company(model, recipe, prepared.objective)), model


def test_a_rollout_is_planned_with_no_more_prompts_than_there_are(make_recipe: MakeRecipe) -> None:
    all_, more = (prepare(online(make_recipe, rollout={"prompts": n})).plan for n in (16, 10**8))
    assert (more.batch_tokens, more.peak_bytes) == (all_.batch_tokens, all_.peak_bytes)


def test_answers_to_a_prompt_longer_than_the_context_are_told_apart(
    make_recipe: MakeRecipe, finished: Finished
) -> None:
    model, found = company(online(make_recipe, reward={"model": finished("reward")}))
    long = Asked((Message(role="user", content="a long story " * model.card.context),), "")
    one, other = found.reward([long, long], ["yes", "no, never"])
    assert one != pytest.approx(other, abs=1e-6)


def test_a_reward_model_scores_a_conversation_as_it_was_trained(make_recipe: MakeRecipe, finished: Finished) -> None:
    recipe = online(make_recipe, reward={"model": finished("reward")})
    _, found = company(recipe)
    alone = artefact.load(Path(finished("reward")) / "adapter")
    asked = [Asked((Message(role="user", content=text),), "") for text in ("one thing", "another")]
    told = found.reward(asked, ["yes", "no, never"])
    assert told == pytest.approx(rewarding.scores(alone, asked, ["yes", "no, never"], None), abs=1e-5)
    assert told[0] != told[1]
    prepared = prepare(make_recipe("preferred", objective="reward"))
    row = prepared.splits.test[0]
    unit = prepared.compared[row.place]
    values = found.reward([Asked(row.prompt, "")] * 2, [row.answer, row.rejected.content])  # type: ignore[union-attr]
    with torch.no_grad():
        expected = alone.score(collate([unit], 0)).tolist()
    assert values == pytest.approx(expected, abs=1e-5)


def test_members_share_the_base_and_what_is_not_trained_has_no_gradient(
    make_recipe: MakeRecipe, finished: Finished
) -> None:
    recipe = online(make_recipe, objective={"name": "ppo"}, reward={"model": finished("reward")}, start=finished("sft"))
    model, found = company(recipe)
    before = rewarding.before(model, recipe)
    assert before is not None and found.critic is not None
    assert [n for n, p in before.trainable() if p.requires_grad] == []
    base = {p.data_ptr() for n, p in model.network.named_parameters()}
    for twin in (before, found.critic):
        own = {n: p for n, p in twin.network.named_parameters() if "lora_" not in n}
        assert {p.data_ptr() for p in own.values()} == base
    assert len(found.critic.trainable()) > 1


def test_training_leaves_the_reward_model_as_it_was(
    make_recipe: MakeRecipe, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, dict[str, torch.Tensor]]] = []
    really = rewarding.scores

    def own(model: Any) -> dict[str, torch.Tensor]:
        adapter = {n: p for n, p in model.network.named_parameters() if "lora_" in n}
        return adapter | {f"head.{n}": p for n, p in model.head.named_parameters()}

    def watched(model: Any, *rest: Any) -> list[float]:
        asked.append((model, {n: p.detach().clone() for n, p in own(model).items()}))
        return really(model, *rest)

    monkeypatch.setattr(rewarding, "scores", watched)
    recipe = online(make_recipe, objective={"name": "ppo"}, reward={"model": finished("reward")}, start=finished("sft"))
    run = finetune(recipe, workspace=tmp_path)
    assert report_of(run).fit.steps >= 2 and len(asked) > 2
    model, first = asked[0]
    now = own(model)
    assert len(now) > 2 and now.keys() == first.keys()
    for name, parameter in now.items():
        assert torch.equal(parameter, first[name]) and parameter.grad is None and not parameter.requires_grad


def test_a_critic_begins_as_the_reward_model_of_its_base(make_recipe: MakeRecipe, finished: Finished) -> None:
    _, found = company(online(make_recipe, objective={"name": "ppo"}, reward={"model": finished("reward")}))
    alone = artefact.load(Path(finished("reward")) / "adapter")
    assert found.critic is not None and found.critic.head is not None and alone.head is not None
    assert torch.equal(found.critic.head.score.weight, alone.head.score.weight)
    theirs = dict(alone.trainable())
    assert all(torch.equal(p, theirs[n]) for n, p in found.critic.trainable())
    _, fresh = company(online(make_recipe, objective={"name": "ppo"}))
    assert fresh.critic is not None and fresh.critic.head is not None
    assert not fresh.critic.head.score.weight.any()


def test_each_answer_is_scored_against_its_own_row(make_recipe: MakeRecipe) -> None:
    recipe = online(make_recipe, {"exact_match": 1.0})
    prepared, model = with_company(recipe)
    source = rollouts(model, prepared, lambda _: None, lambda _: None)
    rows = {e.id: e.answer for e in prepared.splits.train}
    references = [rows[p.example_id] for p in source.prompts]
    other = next(i for i, r in enumerate(references) if r != references[0])
    assert source.members.reward([0, 0, other], [references[0], references[other], references[other]]) == (1, 0, 1)


def test_a_judge_that_is_the_reward_model_is_refused(make_recipe: MakeRecipe, finished: Finished) -> None:
    with pytest.raises(RecipeError, match="is the reward model itself"):
        company(online(make_recipe, reward={"model": finished("reward"), "judge": finished("reward")}))


def test_a_classifier_rewards_by_the_log_odds_of_a_label(make_recipe: MakeRecipe, finished: Finished) -> None:
    asked = [Asked((), "")] * 2
    texts = ["a strange fee was charged", "my new card has been lost"]
    logp = artefact.load(Path(finished("classifier")) / "adapter")
    for label in ("fee", "card"):
        recipe = online(make_recipe, reward={"model": finished("classifier"), "label": label})
        told = company(recipe)[1].reward(asked, texts)
        column = logp.labels.index(label)
        assert told == pytest.approx(rewarding.scores(logp, asked, texts, column), abs=1e-4)


@pytest.mark.parametrize(
    ("reward", "told"),
    [
        ({"model": "CLASSIFIER"}, "reward.label is None"),
        ({"model": "CLASSIFIER", "label": "fees"}, "expected one of: card, fee, login"),
        ({"model": "REWARD", "label": "fee"}, "a reward model, which has no label"),
        ({"model": "SFT"}, "has no head to score with"),
        ({"model": "/no/such/run"}, "is no folder"),
        ({"rules": {"exact_match": 1}, "judge": "SFT"}, "reward.judge"),
        ({"rules": {"perplexity": 1}}, "perplexity"),
        ({"rules": {"exact_match": 0}}, "reward.rules.exact_match is 0 and has no effect"),
        ({"rules": {"unit_tests": 1}}, "TUNESMITH_RUN_CODE"),
    ],
)
def test_what_cannot_reward_is_refused(
    make_recipe: MakeRecipe, finished: Finished, reward: dict[str, Any], told: str
) -> None:
    named = {k: finished(v.lower()) if v in ("CLASSIFIER", "REWARD", "SFT") else v for k, v in reward.items()}
    with pytest.raises(RecipeError, match=told):
        company(online(make_recipe, reward=named))


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ({"objective": {"name": "sft"}}, "reward.rules has no effect with objective sft"),
        ({"reward": {}}, "nothing rewards an answer"),
        ({"reward": {"model": "no/such/run"}}, "reward.model: no/such/run is no folder"),
        ({"reward": {"rules": {"token_f1": 1}, "judge": "nobody"}}, "reward.judge: nobody is no folder"),
        ({"reward": {"rules": {"exact_macth": 1}}}, 'reward.rules: No metric called "exact_macth"'),
        ({"method": {"name": "full"}}, "cannot be taken off"),
        ({"rollout": {"answers": 1}}, "rollout.answers is 1"),
        ({"method": {"name": "lora", "new_tokens": ["<odd>"]}}, "method.new_tokens trains weights of the base"),
        ({"method": {"name": "lora", "dropout": 0.1}, "rollout": {"steps": 2}}, "ratios to the policy"),
        ({"train": {"batch_tokens": 512}}, "train.batch_tokens has no effect"),
        ({"train": {"batch_tokens": "auto", "compile": "always"}}, "train.compile is always"),
        ({"rollout": {"kl_limit": 1.0}}, "rollout.kl_limit has no effect"),
        ({"objective": {"name": "grpo", "gamma": 0.9}}, "objective.gamma has no effect"),
        ({"objective": {"name": "grpo", "spread": 1}}, "unknown key"),
    ],
)
def test_what_goes_not_together_is_refused(make_recipe: MakeRecipe, groups: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        check_parts(online(make_recipe, **groups))


def test_another_method_than_that_of_the_start_is_refused(make_recipe: MakeRecipe, finished: Finished) -> None:
    recipe = online(make_recipe, start=finished("sft"), method={"name": "lora", "rank": 8})
    with pytest.raises(RecipeError, match=r"method\.rank: 4, and this recipe has 8"):
        rewarding.before(loading.load(recipe.model), recipe)


# -- faults ------------------------------------------------------------------------------------------------------------


def broken(values: Sequence[float]) -> Callable[..., Any]:
    def scorer(asked: Sequence[Asked], answers: Sequence[str]) -> list[float]:
        if len(answers) > 1:
            raise ValueError("too many at once")
        return [values[len(answers[0]) % len(values)]]

    return scorer


def test_an_answer_without_a_reward_is_counted_and_the_rest_is_learned_from(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewarding, "rule", lambda _name: broken([1.0, math.nan, 0.0]))
    doubts: list[str] = []
    own = judging.judge
    monkeypatch.setattr(judging, "judge", lambda *a, doubt, **k: (doubts.append(doubt), own(*a, doubt=doubt, **k))[1])
    run = finetune(online(make_recipe), workspace=tmp_path)
    report = report_of(run)
    assert report.rewarded is not None
    assert sum(p.unrewarded for p in report.rewarded.points) > 0
    assert "had no reward" in report.rewarded.sentence
    assert any("token_f1 gave nan" in w for w in report.warnings)
    assert any("evaluated answers had no reward and count as 0" in w for w in report.warnings)
    seen = sum(dict(p.faults).get("token_f1 gave nan", 0) for p in report.rewarded.points)
    assert seen >= sum(p.unrewarded for p in report.rewarded.points)  # dev and the baselines have some too
    assert "evaluated answers had no reward and count as 0" in doubts[0]  # with which nothing ships
    assert all(math.isfinite(p.loss) for p in report.fit.curve if p.loss is not None)


def test_a_reward_that_cannot_score_nothing_is_no_fault_of_the_recipe(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_recipe, "rule", lambda _name: lambda _asked, answers: [float(max(map(len, answers)))])
    assert check_parts(online(make_recipe)).name == "grpo"


def test_faults_of_an_earlier_process_are_counted_with_those_of_this_one(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = online(make_recipe)
    monkeypatch.setattr(rewarding, "rule", lambda _name: broken([math.nan, 1.0]))
    company = rewarding.company(loading.load(recipe.model), recipe, check_parts(recipe))
    assert company is not None
    company.reward([rewarding.Asked((), "")] * 4, ["", "a", "b", "cc"])
    faults = (("token_f1 gave nan", 3), ("token_f1 hung", 1))
    point = RolloutPoint(
        step=1, answers=4, reward=None, spread=None, unrewarded=4, empty=0, cut=0, equal=1.0, length=1.0, kl=None,
        entropy=0.0, repeated=0.0, faults=faults,
    )  # fmt: skip
    told = company.told([point])
    assert told[0] == "Reward: token_f1 gave nan (5 times)." and "Reward: token_f1 hung (once)." in told


def test_a_run_of_a_run_of_a_run_is_no_rival(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = online(make_recipe)
    chain = []
    for n in range(3):
        folder = RunFolder(tmp_path / str(n))
        folder.path.mkdir()
        chain.append(str(folder.path))
        if n:
            own = recipe.model_copy(update={"start": chain[n - 1]})
            sample_report.build().model_copy(update={"recipe": own}).save(folder.report)
    assert rewarding.ancestors(recipe.model_copy(update={"start": chain[2]})) == set(chain)
    assert rewarding.ancestors(recipe) == set()


def test_a_reward_that_is_always_broken_ends_with_its_name(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewarding, "rule", lambda _name: broken([math.nan]))
    with pytest.raises(RecipeError, match='reward "token_f1": found no value in 3 calls'):
        finetune(online(make_recipe), workspace=tmp_path)


def test_a_policy_that_has_learned_all_ends_as_a_run_that_is_done(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def scorer(_asked: Sequence[Asked], answers: Sequence[str]) -> list[float]:
        calls.append(len(answers))
        return [float(n % 2) if len(calls) < 8 else 1.0 for n in range(len(answers))]

    monkeypatch.setattr(rewarding, "rule", lambda _name: scorer)
    run = finetune(online(make_recipe, train=ONLINE["train"] | {"epochs": 40}), workspace=tmp_path)
    report = report_of(run)
    assert run.status == "done" and 0 < report.fit.steps < report.plan.steps
    assert report.fit.stopped == "settled: in 20 rollouts in a row the answers to a prompt are all worth the same"


def test_rewards_that_are_all_equal_teach_nothing_and_say_so(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="20 rollouts in a row taught nothing: the answers to a prompt are all worth"):
        finetune(online(make_recipe, {"exact_match": 1.0}), workspace=tmp_path)


def test_the_base_is_measured_with_the_adapter_off(make_recipe: MakeRecipe, finished: Finished) -> None:
    """``start`` answers with the adapter of its run, whatever the policy's is."""
    recipe = online(make_recipe, start=finished("sft"), evaluate=EVALUATE | {"baselines": ["start"]})
    prepared = prepare(recipe)
    model = loading.load(recipe.model)
    prepared = replace(
        prepared,
        before=rewarding.before(model, recipe),
        company=rewarding.company(model, recipe, prepared.objective),
    )
    attach(model, prepared)
    with adapters_off(model):
        found = judging.baselines(model, prepared).predictions["start"]
    then = Path(finished("sft")) / "predictions" / "tuned.jsonl"
    tuned = {p["id"]: p for p in map(json.loads, then.read_text().splitlines())}
    shared = [(p.answer, tuned[p.id]["answer"]) for p in found if p.id in tuned]
    assert shared
    assert all(mine[:4] == theirs[:4] for mine, theirs in shared)  # limits differ, beginnings do not
    assert all(p.reward is not None for p in found)


# -- what a run stands on ----------------------------------------------------------------------------------------------


def with_rows(source: Path, target: Path, rows: Sequence[dict[str, Any]]) -> Path:
    target.write_text(source.read_text() + "".join(json.dumps(row) + "\n" for row in rows))
    return target


def test_rows_that_the_start_has_learned_from_are_not_tested_on(
    make_recipe: MakeRecipe, finished: Finished, tmp_path: Path
) -> None:
    """Also where the file has another name and more rows."""
    base = make_recipe()
    fresh = [{"prompt": f"where is the lost garden number {i} of the mountain", "completion": "no"} for i in (1, 2, 3)]
    path = with_rows(Path(base.data.train), tmp_path / "other.jsonl", fresh)
    recipe = online(make_recipe, start=finished("sft"), data={"train": str(path)})
    then = json.loads((Path(finished("sft")) / "data" / "splits.json").read_text())["inputs"]
    found = prepare(recipe).splits
    assert {split.input_hash(e) for e in found.test} == set(then["test"])
    assert not {split.input_hash(e) for e in found.train} & {*then["test"], *then["dev"]}
    assert {e.input_text for e in found.train} >= {row["prompt"] for row in fresh}
    assert "3 rows that it did not have are trained on" in found.how


def test_a_test_file_with_rows_that_the_start_has_learned_from_ships_nothing(
    make_recipe: MakeRecipe, finished: Finished, tmp_path: Path
) -> None:
    base, held = make_recipe(), tmp_path / "held.jsonl"
    then = json.loads((Path(finished("sft")) / "data" / "splits.json").read_text())
    lines = Path(base.data.train).read_text().splitlines()
    numbers = [int(name.rsplit(":", 1)[1]) for name in then["train"][:10]]
    held.write_text("".join(lines[n - 1] + "\n" for n in numbers))
    prepared = prepare(make_recipe(start=finished("sft"),
                                   data={"test": str(held)}))  # fmt: skip
    assert prepared.doubt == "10 of 10 test rows were trained on by the run of start."
    assert prepared.doubt in prepared.warnings


def test_a_test_file_with_rows_that_the_reward_model_has_learned_from_is_told_of(
    make_recipe: MakeRecipe, finished: Finished
) -> None:
    recipe = online(make_recipe, reward={"model": finished("reward"), "judge": finished("judge")})
    doubt, told = rewarding.seen(recipe, prepare(make_recipe("preferred", objective="reward")).splits.train[:10])
    assert doubt == ""
    assert told.startswith("10 of 10 test rows were trained on by the run of reward.model.")


def test_a_run_that_did_not_learn_can_be_gone_on_from(
    make_recipe: MakeRecipe, finished: Finished, tmp_path: Path
) -> None:
    """Its adapter changes nothing, which is refused of a run that did learn."""
    folder = Path(shutil.copytree(finished("sft"), tmp_path / "still"))
    report = Report.load(folder / "report.json")
    untrained = loading.load(make_recipe().model)
    parts.find("models.adapters", "lora").attach(untrained, report.recipe.method, 0)
    shutil.rmtree(folder / "adapter")
    artefact.publish(untrained, "lora", folder / "adapter", {})
    recipe = make_recipe(start=str(folder))
    with pytest.raises(ModelError, match="does not change the model's states"):
        rewarding.before(loading.load(recipe.model), recipe)
    still = report.model_copy(update={"fit": report.fit.model_copy(update={"best_step": 0})})
    still.save(folder / "report.json")
    assert rewarding.before(loading.load(recipe.model), recipe) is not None
