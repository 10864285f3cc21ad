"""Networks as a plan sees them, without weights and without torch: the recipe's own, and those of runs that score
answers.

Notable: the report of a run tells its base, and the base's config.json its shape. Where no weights were read there is
no fingerprint, and a base is known by its folder.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunesmith.core.card import ModelCard
from tunesmith.core.errors import ModelError, RecipeError
from tunesmith.core.recipe import Recipe
from tunesmith.core.report import Report
from tunesmith.models.locate import locate
from tunesmith.plan import known
from tunesmith.plan.families import shape_like, shape_of
from tunesmith.plan.shape import Shape
from tunesmith.plan.trained import METHODS, method_facts, trained, with_heads
from tunesmith.plan.work import Rollouts, Scorer
from tunesmith.records.folder import RunFolder

TO_COME = "(an earlier stage)"  # stands for the run of a stage that has not run yet
Network = tuple[ModelCard, Shape]


def network_of(reference: str) -> tuple[ModelCard, Shape, Path | None]:
    """(card, shape, folder) of a model here, or of one known by name (no folder). Raises ModelError."""
    where = locate(reference)
    if isinstance(where, str):
        model = known.find(where)
        return _card(model.name, "", model.shape(), model.licence), model.shape(), None
    path = where / "config.json"
    if not path.is_file():
        raise ModelError(
            f"model: {where} has no config.json. Name a folder with one, or a known model such as "
            "meta-llama/Llama-3.1-8B."
        )
    shape = shape_of(_config(path, "model", "Fetch the model again."), str(path))
    name = reference if reference == "bundled" else where.name
    return _card(name, str(where), shape, "unknown"), shape, where


def _card(name: str, path: str, shape: Shape, licence: str) -> ModelCard:
    return ModelCard(
        name=name,
        path=path,
        kind=shape.kind,
        architecture=shape.model_type,
        parameters=shape.parameters,
        layers=shape.layers,
        width=shape.width,
        vocabulary=shape.vocabulary,
        context=shape.context,
        fingerprint="",
        tokenizer_hash="",
        template_hash="",
        licence=licence,
    )


def with_scorers(
    rollouts: Rollouts, recipe: Recipe, network: Network, rewards: Recipe | None = None
) -> tuple[Rollouts, list[str]]:
    """``rollouts`` with the networks that ``recipe`` lets score answers, and what was taken for granted of them. Of a
    reward model whose stage is to come, ``rewards`` is the recipe; None where that is not known. Raises RecipeError,
    ModelError."""
    asked, assumed = recipe.reward, list[str]()
    reward = judge = None
    if asked.model is not None and Path(asked.model).name == TO_COME:
        reward, told = _to_come(rewards or recipe, network)
        assumed.append(f"reward.model: the run of an earlier stage, taken to leave {told}.")
    elif asked.model is not None:
        reward = _of_run(asked.model, "reward.model", network)
    if asked.judge is not None:
        judge = _of_run(asked.judge, "reward.judge", network)
    return replace(rollouts, reward=reward, judge=judge), assumed


def _to_come(recipe: Recipe, network: Network) -> tuple[Scorer, str]:
    """What the stage of ``recipe`` will leave, and how that is said."""
    card, shape, _ = network_of(recipe.model)
    method, precision = method_facts(recipe.method.name), recipe.train.precision
    adapter = 0
    if method.is_adapter:
        count = trained(shape, recipe.method, card.name, classifies=True)
        adapter = with_heads(count, "score", classes=0, width=shape.width)
    shared = method.is_adapter and _same(card, network[0])
    told = f"what method {recipe.method.name} trains on {card.name}"
    return Scorer(shape, adapter, None if precision == "auto" else precision, method.four_bits, shared), told


def _of_run(run: str, key: str, network: Network) -> Scorer:
    """What the finished ``run`` left."""
    _, report = finished(run, key)
    card, shape = network
    method = METHODS.get(report.recipe.method.name)
    adapts = method is None or method.is_adapter  # one of another package is taken to be an adapter
    shared = adapts and _same(report.card, card)
    return Scorer(
        shape if shared else _shape(report.card, key),
        report.plan.trainable if adapts else 0,
        report.plan.precision,
        method is not None and method.four_bits,
        shared,
    )


def finished(run: str, key: str) -> tuple[Path, Report]:
    """(folder of what was trained, report) of a finished ``run`` that the recipe's ``key`` names. Raises RecipeError,
    ModelError."""
    folder = RunFolder(Path(run))
    if not folder.path.is_dir():
        raise RecipeError(f"{key}: {run} is no folder; expected that of a finished run, such as runs/<id>.")
    report = folder.finished(f"use as {key}")
    return folder.path / report.adapter, report


def _same(base: ModelCard, card: ModelCard) -> bool:
    """Whether both are the same network with the same weights."""
    if base.fingerprint and card.fingerprint:
        return base.fingerprint == card.fingerprint
    if not (base.path and card.path):
        return not base.path and not card.path and base.name == card.name
    return Path(base.path).resolve() == Path(card.path).resolve()


def _shape(base: ModelCard, key: str) -> Shape:
    way_out = "It is of the base of the run: put it back, or train the run anew."
    return shape_like(base, _config(Path(base.path) / "config.json", key, way_out))


def _config(path: Path, key: str, way_out: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{key}: {path} cannot be read as JSON ({error}). {way_out}") from error
