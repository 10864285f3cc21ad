"""Every field of the recipe acts: the table names each one, a change of it, and where the change must show.

Notable: nothing is trained here. A field that shows in none of these places would be an option read by nothing.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests import small
from tests.flows.conftest import MakeRecipe, asked, write_jsonl

from tunesmith.core import recipe_file
from tunesmith.core.errors import TunesmithError
from tunesmith.core.recipe import Recipe
from tunesmith.core.report import Prediction
from tunesmith.core.sentences import leaves
from tunesmith.data.batches import collate
from tunesmith.flows import judging, training
from tunesmith.flows.prepare import Prepared, prepare
from tunesmith.flows.rewarding import company
from tunesmith.flows.rollouts import rollouts
from tunesmith.generate.remote import RemoteModel
from tunesmith.models import load as loading
from tunesmith.models.adapters import _lora_files as lora_files

See = Callable[[Recipe], Any]


@cache
def _prepared(text: str) -> Prepared:
    return prepare(Recipe.model_validate_json(text))


def prepared(recipe: Recipe) -> Prepared:
    return _prepared(recipe.model_dump_json())


def plan(name: str) -> See:
    return lambda recipe: getattr(prepared(recipe).plan, name)


def splits(recipe: Recipe) -> Any:
    found = prepared(recipe).splits
    return [[e.id for e in rows] for rows in (found.train, found.dev, found.test)]


def outcome(recipe: Recipe) -> Any:
    """Findings and quarantined rows, or the sentence that stopped."""
    try:
        found = prepared(recipe)
    except TunesmithError as error:
        return str(error)
    return [f.severity for f in found.data.findings], len(found.bad_rows)


def adapter(recipe: Recipe) -> Any:
    """The layers that LoRA wraps, with scale, rank and dropout."""
    model = loading.load(recipe.model)
    training.attach(model, prepared(recipe))
    layers = {n: (m.scale, tuple(m.lora_A.shape), str(m.dropout)) for n, m in lora_files.layers(model).items()}
    return layers, {n: tuple(p.shape) for n, p in model.trainable() if "lora_" not in n}


def rates(recipe: Recipe) -> Any:
    model = loading.load(recipe.model)
    training.attach(model, prepared(recipe))
    return model.rates


def bars(recipe: Recipe) -> Any:
    """What each baseline was shown and wrote."""
    found = judging.baselines(loading.load(recipe.model), prepared(recipe))
    return {name: [(p.prompt_tokens, p.new_tokens) for p in answers] for name, answers in found.predictions.items()}


def rival(recipe: Recipe) -> Any:
    """Whom the baseline of that name would ask, and with which key."""
    found = judging.context_of(loading.load(recipe.model), prepared(recipe)).rival
    assert isinstance(found, RemoteModel)
    found.ready()
    return found.url, found.model, found._key


def rule(recipe: Recipe) -> str:
    ready = prepared(recipe)
    model = loading.load(recipe.model)
    found = judging.baselines(model, ready)
    result, predictions = judging.tuned(model, ready)
    answers = found.predictions | {"tuned": predictions}
    ruler = judging.ruler(ready)
    verdict = judging.judge(result, found.results, answers, ruler, min_gain=recipe.evaluate.min_gain)
    return verdict.rule


def lost(recipe: Recipe) -> float:
    """The loss of the first rows."""
    ready = prepared(recipe)
    model, batch = loading.load(recipe.model), collate(ready.train_rows[:4], 0)
    return float(ready.objective.loss(model.token_logp(batch), batch).detach())


def keywords(recipe: Recipe) -> Any:
    """The settings that loss and credit are called with."""
    objective = prepared(recipe).objective
    return [getattr(f, "keywords", {}) for f in (objective.loss, objective.credit)]


def worth(recipe: Recipe) -> Any:
    """What an answer is worth, what the judge says of it, and how long the rewards may take."""
    ready = prepared(recipe)
    found = company(loading.load(recipe.model), recipe, ready.objective)
    assert found is not None
    rows = ready.test[:2]
    told = found.rewarded(rows, [Prediction(id=r.id, answer=r.answer) for r in rows])
    return [(p.reward, p.judged) for p in told], found.reward._seconds


def begun(recipe: Recipe) -> float:
    """The sum of the trained weights before a step."""
    model = loading.load(recipe.model)
    training.attach(model, prepared(recipe))
    return sum(float(p.double().abs().sum().detach()) for _, p in model.trainable())


def far(recipe: Recipe) -> float:
    ready = prepared(recipe)
    model = loading.load(recipe.model)
    ready = replace(ready, company=company(model, recipe, ready.objective))
    found = rollouts(model, ready, lambda _: None, lambda _: None)
    assert found.how.total == ready.plan.steps
    return found.how.kl_limit


ALONE = ("objective.name=grpo", "train.batch_tokens=auto", "evaluate.max_new_tokens=8")
REWARDED = (*ALONE, "reward.rules={exact_match: 1}")
SCORED = (*REWARDED, "reward.model=REWARD")
CHOSEN = (*REWARDED, "reward.model=CLASSIFIER", "reward.label=card")
JUDGED = (*REWARDED, "reward.judge=CLASSIFIER", "reward.judge_label=card")
PPO = (*REWARDED, "objective.name=ppo")
FEW = ("evaluate.limit=3", "evaluate.baselines=[few_shot]", "evaluate.max_new_tokens=4")
LABELS = ("labelled", "task=classify")
RIVAL = ("evaluate.rival.url=http://127.0.0.1:9/v1", "evaluate.rival.model=other")

# field: (the new value, where it shows, what the recipe is before)
ACTS: dict[str, tuple[Any, See, tuple[str, ...]]] = {
    "model": ("OTHER", lambda r: prepared(r).card.fingerprint, ()),
    "start": ("SFT", begun, ("evaluate.max_new_tokens=8",)),
    "task": ("classify", lambda r: (prepared(r).labels, prepared(r).objective.name), ("labelled", "task=generate")),
    "objective.name": ("sft", lambda r: (prepared(r).objective.name, prepared(r).train_rows[0].label), LABELS),
    "objective.beta": (0.7, lost, ("preferred", "objective.name=cpo")),
    "objective.label_smoothing": (0.2, lost, ("preferred", "objective.name=cpo")),
    "objective.target_margin": (0.3, lost, ("preferred", "objective.name=simpo")),
    "objective.sft_weight": (0.4, lost, ("preferred", "objective.name=cpo")),
    "objective.unwanted_weight": (1.7, lost, ("judged", "objective.name=kto")),
    "objective.clip": (0.3, keywords, REWARDED),
    "objective.clip_high": (0.3, keywords, REWARDED),
    "objective.value_clip": (0.3, keywords, PPO),
    "objective.value_weight": (0.3, keywords, PPO),
    "objective.kl_target": (3.0, keywords, PPO),
    "objective.gamma": (0.9, keywords, PPO),
    "objective.lam": (0.9, keywords, PPO),
    "objective.entropy": (0.1, keywords, REWARDED),
    "reward.rules": ({"json_valid": 0.5}, worth, REWARDED),
    "reward.model": ("REWARD", worth, REWARDED),
    "reward.weight": (0.5, worth, SCORED),
    "reward.label": ("fee", worth, CHOSEN),
    "reward.judge": ("JUDGE", worth, REWARDED),
    "reward.judge_label": ("fee", worth, JUDGED),
    "reward.seconds": (7, worth, REWARDED),
    "rollout.prompts": (4, plan("steps"), REWARDED),
    "rollout.answers": (4, plan("batch_tokens"), REWARDED),
    "rollout.passes": (2, plan("steps"), REWARDED),
    "rollout.steps": (2, plan("steps"), REWARDED),
    "rollout.kl_limit": (0.5, far, (*REWARDED, "rollout.passes=2")),
    "data.train": ("HELD", splits, ()),
    "data.dev": ("HELD", splits, ()),
    "data.test": ("HELD", splits, ()),
    "data.format": ("plain_text", lambda r: prepared(r).data.format, ("labelled", "task=generate")),
    "data.columns": ({"completion": "other"}, lambda r: prepared(r).splits.train[0].answer, ()),
    "data.split.dev": (0.3, splits, ()),
    "data.split.test": (0.3, splits, ()),
    "data.split.group_by": ("who", splits, ()),
    "data.split.seed": (1, splits, ()),
    "data.on_bad_row": ("quarantine", outcome, ("broken",)),
    "data.allow": (["empty"], outcome, ("hollow",)),
    "data.limit": (20, lambda r: len(prepared(r).train_rows), ()),
    "method.name": ("full", plan("learning_rate"), ("method.rank=16",)),
    "method.rank": (2, adapter, ()),
    "method.alpha": (3.0, adapter, ()),
    "method.dropout": (0.25, adapter, ()),
    "method.target_modules": (["q_proj"], adapter, ()),
    "method.rank_pattern": ({"q_proj": 2}, adapter, ()),
    "method.alpha_pattern": ({"q_proj": 2.0}, adapter, ()),
    "method.modules_to_save": (["norm"], adapter, ()),
    "method.new_tokens": (["<odd>"], adapter, ()),
    "method.b_rate": (4.0, rates, ("method.name=lora_plus",)),
    "evaluate.rival.url": ("http://127.0.0.1:10/v1", rival, RIVAL),
    "evaluate.rival.model": ("another", rival, RIVAL),
    "evaluate.rival.key": ("HOME", rival, RIVAL),
    "train.epochs": (5, plan("steps"), ()),
    "train.learning_rate": (0.007, plan("learning_rate"), ()),
    "train.batch_tokens": (600, lambda r: (plan("batch_tokens")(r), plan("steps")(r)), ()),
    "train.warmup": (0.5, plan("warmup_steps"), ()),
    "train.weight_decay": (0.1, plan("weight_decay"), ()),
    "train.clip_norm": (0.3, plan("clip_norm"), ()),
    "train.patience": (9, plan("patience"), ()),
    "train.max_length": (60, lambda r: (plan("max_length")(r), max(len(x.ids) for x in prepared(r).train_rows)), ()),
    "train.precision": ("bfloat16", plan("precision"), ()),
    "train.memory": ("checkpoint", plan("memory"), ()),
    "train.compile": ("always", plan("compiled"), ()),
    "train.save_every": ("30s", plan("save_seconds"), ()),
    "train.seed": (1, plan("seed"), ()),
    "evaluate.metrics": (["chrf"], lambda r: prepared(r).metrics, ()),
    "evaluate.baselines": (["majority", "zero_shot"], lambda r: sorted(bars(r)), FEW),
    "evaluate.shots": (1, bars, FEW),
    "evaluate.max_new_tokens": (9, bars, FEW),
    "evaluate.prompt": ("Say yes.", bars, FEW),
    "evaluate.min_gain": (0.2, rule, (*FEW[::2], "evaluate.baselines=[majority]")),
    "evaluate.limit": (4, lambda r: len(prepared(r).test), ()),
    "budget.memory": ("600MB", outcome, ()),
    "budget.time": ("30m", plan("seconds"), ()),
}


@pytest.fixture(scope="module")
def folder(store: Path) -> Path:
    rows = asked(60)
    write_jsonl(store / "hollow.jsonl", [*rows, {**rows[0], "prompt": "And this one?", "completion": " "}])
    with write_jsonl(store / "broken.jsonl", rows).open("a") as stream:
        stream.write('{"prompt": "no end\n')
    return store


def test_the_table_holds_every_field() -> None:
    assert sorted(ACTS) == sorted(".".join(path) for path, _ in leaves(Recipe))


@pytest.mark.parametrize("field", ACTS)
def test_each_field_acts(
    make_recipe: MakeRecipe,
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    finished: Callable[[str], str],
    field: str,
) -> None:
    value, see, before = ACTS[field]
    data = before[0] if before and "=" not in before[0] else "asked"
    for kind in ("SFT", "REWARD", "JUDGE", "CLASSIFIER"):
        value = finished(kind.lower()) if value == kind else value
        before = tuple(s.replace(f"={kind}", f"={finished(kind.lower())}") if f"={kind}" in s else s for s in before)
    base = recipe_file.override(make_recipe(data), [s for s in before if "=" in s])
    if value == "OTHER":
        value = str(small.llama(tmp_path_factory.mktemp("other") / "llama", seed=1, max_position_embeddings=256))
    if value == "HELD":
        value = str(folder / "held.jsonl")
    changed = recipe_file.override(base, [f"{field}={value if isinstance(value, str) else json.dumps(value)}"])
    assert changed != base
    assert see(changed) != see(base)
