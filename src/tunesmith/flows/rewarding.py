"""Who stands beside a policy that learns from rewards: the rewards, the reference, the critic and the judge.

Notable: policy, reference, critic and reward model are adapters on one base in memory wherever they were trained on
it (``models.twin``); a model of another base, such as a small encoder, is loaded beside. Without ``start`` the
reference is the policy with its adapter off.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tunesmith.core import files, parts, seeds
from tunesmith.core.batch import TokenRow
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.example import Example, Message, Place
from tunesmith.core.protocols import Conversation
from tunesmith.core.recipe import Recipe
from tunesmith.core.report import Prediction, Report, RolloutPoint
from tunesmith.data.batches import in_order
from tunesmith.data.render import Renderer
from tunesmith.data.split import LOCK, input_hash
from tunesmith.evaluate.rewards import Asked, Mixture, Scorer, rule
from tunesmith.flows.networks import finished
from tunesmith.models import artefact
from tunesmith.models.model import Model
from tunesmith.models.twin import twin
from tunesmith.objectives._objective import Objective
from tunesmith.records.folder import RunFolder

MOST_FAULTS = 10  # kinds, in a report
SCORED_TOKENS = 4096  # read at once by a reward model
NOWHERE = Place(file="answer", line=1)


@dataclass(frozen=True)
class Company:
    """``judge`` scores answers and trains nothing."""

    reward: Mixture
    critic: Model | None
    judge: Scorer | None

    def rewarded(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[Prediction, ...]:
        """``predictions`` with their rewards, and what the judge says of them. An answer for which no reward could be
        found counts as 0, and is counted."""
        asked, texts = [asked_of(e) for e in examples], [p.answer for p in predictions]
        rewards = self.reward(asked, texts)
        judged = [None] * len(texts) if self.judge is None else list(self.judge(asked, texts))
        return tuple(
            p.model_copy(update={"reward": 0.0 if lost else reward, "unrewarded": lost, "judged": told})
            for p, reward, told, lost in zip(predictions, rewards, judged, map(math.isnan, rewards), strict=True)
        )

    def told(self, points: Sequence[RolloutPoint]) -> tuple[str, ...]:
        """A sentence for each kind of fault that the rewards had until each of ``points``, and since the last."""
        faults = sum((Counter(dict(p.faults)) for p in points), self.reward.untold())
        times = ((fault, "once" if n == 1 else f"{n:,} times") for fault, n in faults.most_common(MOST_FAULTS))
        return tuple(f"Reward: {fault} ({often})." for fault, often in times)


def asked_of(example: Example) -> Asked:
    return Asked(example.prompt, example.answer)


def company(model: Model, recipe: Recipe, objective: Objective) -> Company | None:
    """Everyone that ``recipe`` asks for, around the untouched base ``model``; None where nothing is learned from
    rewards. Raises RecipeError, ModelError."""
    if objective.unit != "answer":
        return None
    asked = recipe.reward
    scorers: dict[str, tuple[float, Scorer]] = {name: (weight, rule(name)) for name, weight in asked.rules.items()}
    if asked.model is not None:
        scorers["model"] = (asked.weight, _scorer(model, asked.model, asked.label, "reward.model", "reward.label"))
    judge = None
    if asked.judge is not None:
        if asked.model is not None and start_hash(asked.judge) == start_hash(asked.model):
            raise RecipeError(
                f"reward.judge: {asked.judge} is the reward model itself; expected a run that was trained apart from "
                "it. Train another, or leave the judge out."
            )
        judge = _scorer(model, asked.judge, asked.judge_label, "reward.judge", "reward.judge_label")
    critic = _critic(model, recipe) if objective.needs == "token_logp_value" else None
    reward = Mixture(scorers, seconds=asked.seconds)
    reward((), ())  # what is not allowed says so now, and not when the first answers are written
    return Company(reward, critic, judge)


def before(model: Model, recipe: Recipe) -> Model | None:
    """What training goes on from, as it stays: a twin with the adapter of ``recipe.start``; None where that is the
    base."""
    if recipe.start is None:
        return None
    found = twin(model)
    begin_from(found, recipe)
    for _, parameter in found.trainable():
        parameter.requires_grad_(False)
    return found


def begin_from(model: Model, recipe: Recipe) -> None:
    """Put the adapter of the run that ``recipe`` starts from onto ``model``, to be trained further. Raises ModelError,
    RecipeError where its method is another."""
    assert recipe.start is not None  # the caller asked
    folder, report = finished(recipe.start, "start")
    then = report.recipe.method
    for key in type(then).model_fields:
        was, now = getattr(then, key), getattr(recipe.method, key)
        if was != now:
            raise RecipeError(
                f"start: {recipe.start} was trained with method.{key}: {was!r}, and this recipe has {now!r}. Training "
                "goes on with the same adapter; give the same method, or leave start out."
            )
    artefact.put_on(model, folder, trained=report.fit.best_step > 0)


def parts_of(run: str, key: str) -> dict[str, str]:
    """Part (train, dev or test) by hash of the inputs of a finished ``run``. Raises DataError."""
    folder, _ = finished(run, key)
    try:
        found = json.loads((folder.parent / "data" / LOCK).read_text(encoding="utf-8"))["inputs"]
        return {each: name for name in ("test", "dev", "train") for each in found[name]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{key}: the split of {run} cannot be read ({error}). Name another run.") from error


def parts_of_start(recipe: Recipe, examples: Sequence[Example]) -> dict[str, str] | None:
    """``parts_of`` the run that ``recipe`` starts from, where it had some of these rows. Raises RecipeError where this
    recipe would split them otherwise."""
    if recipe.start is None:
        return None
    then = parts_of(recipe.start, "start")
    if not any(input_hash(e) in then for e in examples):
        return None
    _, report = finished(recipe.start, "start")
    if report.recipe.data.split != recipe.data.split:
        raise RecipeError(
            f"data.split is not that of {recipe.start}, which training goes on from, and the rows are partly the same: "
            "rows that it has learned from would be tested on. Give the same data.split, or other rows."
        )
    return then


def seen(recipe: Recipe, test: Sequence[Example]) -> tuple[str, str]:
    """(why the test cannot be believed, what else is to be said) where rows of it were trained on by a run that this
    one stands on."""
    told: dict[str, str] = {}
    for key, run in (
        ("start", recipe.start),
        ("reward.model", recipe.reward.model),
        ("reward.judge", recipe.reward.judge),
    ):
        if run is None or not Path(run).is_dir():
            continue
        then = parts_of(run, key)
        if count := sum(then.get(input_hash(e)) == "train" for e in test):
            told[key] = f"{count:,} of {len(test):,} test rows were trained on by the run of {key}."
    return told.get("start", ""), " ".join(told[k] for k in told if k != "start")


def ancestors(recipe: Recipe) -> set[str]:
    """Folders of the runs that ``recipe`` stands on, and of those that they stand on, as far as they are there."""
    found: set[str] = set()
    asked = [recipe]
    while asked:
        one = asked.pop()
        runs = {one.start, one.reward.model, one.reward.judge} - {None} - found
        found |= {run for run in runs if run is not None}
        there = (RunFolder(Path(run)).report for run in runs if run is not None)
        asked += [Report.load(report).recipe for report in there if report.is_file()]
    return found


def start_hash(run: str) -> str:
    """Of the adapter that the finished ``run`` left. Raises RecipeError, ModelError."""
    folder, _ = finished(run, "start")
    return files.sha256(folder / files.MANIFEST)[:16]


def _critic(model: Model, recipe: Recipe) -> Model:
    """An adapter of the recipe's method and a head that expects nothing yet, or a reward model of the same base and
    method, which already knows what answers are worth (Ouyang et al., 2022)."""
    critic, seed = twin(model), seeds.stream(recipe.train.seed, "critic")
    if recipe.reward.model is not None:
        folder, report = finished(recipe.reward.model, "reward.model")
        if report.recipe.method == recipe.method and report.recipe.task == "prefer" and artefact.goes_on(folder, model):
            return artefact.put_on(critic, folder)
    critic.add_head(("value",), seed=seed)
    parts.find("models.adapters", recipe.method.name).attach(critic, recipe.method, seed)
    assert critic.head is not None  # it was added
    torch.nn.init.zeros_(critic.head.score.weight)
    return critic


def _scorer(model: Model, run: str, label: str | None, key: str, label_key: str) -> Scorer:
    """Answers to numbers, by the head of the model of a finished ``run``."""
    folder, _ = finished(run, key)
    scoring = artefact.put_on(twin(model), folder) if artefact.goes_on(folder, model) else artefact.load(folder)
    for _, parameter in scoring.trainable():
        parameter.requires_grad_(False)
    if scoring.head is None:
        raise RecipeError(f"{key}: {run} has no head to score with; expected a run with objective reward or classify.")
    labels, reads_pairs = scoring.labels, len(scoring.labels) == 1
    if reads_pairs == (label is not None) or (label is not None and label not in labels):
        wanted = "a reward model, which has no label" if reads_pairs else f"one of: {', '.join(labels[:10])}"
        raise RecipeError(f"{label_key} is {label!r} and {key} is {run}; expected {wanted}.")
    column = None if label is None else labels.index(label)
    return lambda asked, answers: scores(scoring, asked, answers, column)


@torch.no_grad()
def scores(model: Model, asked: Sequence[Asked], answers: Sequence[str], column: int | None) -> list[float]:
    """A reward model's score of each answer to its prompt, or the log-odds of the class ``column`` of the answer
    alone."""
    renderer, encoder = Renderer(model.tokenizer, max_length=model.card.context), model.card.kind == "encoder"
    turns = [Message(role="user" if column is not None else "assistant", content=text) for text in answers]
    shown = [(t,) if column is not None else (*a.prompt, t) for a, t in zip(asked, turns, strict=True)]
    rows = [_read(renderer, row, str(i), whole=encoder or column is not None) for i, row in enumerate(shown)]
    model.train(False)
    found: dict[int, float] = {}
    for batch in in_order(rows, budget=SCORED_TOKENS, pad_id=model.tokenizer.pad_token_id or 0):
        if column is None:
            values_B = model.score(batch)
        else:
            logp_B = model.class_logp(batch)[:, column]
            values_B = logp_B - torch.log1p(-logp_B.exp().clamp(max=1 - 1e-7))
        found |= {int(n): float(v) for n, v in zip(batch.example_ids, values_B, strict=True)}
    return [found[i] for i in range(len(rows))]


def _read(renderer: Renderer, turns: Conversation, name: str, *, whole: bool) -> TokenRow:
    """What a model with a head reads, as it was trained: a conversation, or the ``whole`` input of an encoder or a
    classifier. Of what is too long the end stays, for the answer stands there; of an answer alone, its beginning. At
    least one token, for nothing has no state to score."""
    row, most = Example(place=NOWHERE, messages=tuple(turns)), renderer.max_length
    ids = tuple(renderer.classify_ids(row) if whole else renderer.whole(row)[0].ids)
    assert most is not None  # the model's context
    ids = (ids[:most] if len(turns) == 1 else ids[-most:]) or (renderer.tokenizer.pad_token_id or 0,)
    return TokenRow(ids, (0.0,) * len(ids), -1, name)
