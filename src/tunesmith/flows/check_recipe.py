"""What a recipe asks for that cannot be: parts that do not exist or do not go together, and keys that would act on
nothing. Only the recipe is looked at.
"""

from collections.abc import Iterator
from pathlib import Path

from tunesmith.core import parts
from tunesmith.core.errors import PartError, RecipeError
from tunesmith.core.learnable import check_task
from tunesmith.core.recipe import OBJECTIVE, Recipe
from tunesmith.evaluate.rewards import Mixture, rule
from tunesmith.evaluate.score import find_metric
from tunesmith.evaluate.systems import find_baseline
from tunesmith.flows.networks import TO_COME
from tunesmith.models.adapters._method import Method
from tunesmith.objectives._objective import Objective


def check_parts(recipe: Recipe) -> Objective:
    """The objective with its settings; raises when a named part does not exist or does not go with the task."""
    _check_method(recipe)
    for metric in recipe.evaluate.metrics:
        if find_metric(metric).needs == "likelihood" and recipe.task != "generate":
            raise RecipeError(
                f"evaluate.metrics: {metric} scores written text and task is {recipe.task}. Leave it out."
            )
    if not recipe.evaluate.baselines:
        raise RecipeError("evaluate.baselines is empty; a verdict needs something to beat. Name one, or leave it out.")
    for baseline in recipe.evaluate.baselines if recipe.evaluate.baselines != "auto" else ():
        find_baseline(baseline)
    name = recipe.objective.name
    objective: Objective = parts.find("objectives", OBJECTIVE[recipe.task] if name == "auto" else name)
    check_task(recipe.task, objective.name, needs=objective.needs, unit=objective.unit)
    _check_rewards(recipe, objective)
    return objective.with_settings(recipe.objective.given)


def _check_rewards(recipe: Recipe, objective: Objective) -> None:
    """Raise for what learning from rewards needs and has not, and for keys that act there alone."""
    wrong = next(_wrong_of_rewards(recipe, objective) if objective.unit == "answer" else _idle(recipe, objective), None)
    if wrong is not None:
        raise RecipeError(wrong)


def _idle(recipe: Recipe, objective: Objective) -> Iterator[str]:
    for group in ("reward", "rollout"):
        for key in sorted(getattr(recipe, group).changed()):
            yield (
                f"{group}.{key} has no effect with objective {objective.name}, which learns from examples. Leave it "
                "out, or set objective: grpo."
            )


def _wrong_of_rewards(recipe: Recipe, objective: Objective) -> Iterator[str]:
    name, method, rollout = objective.name, parts.find("models.adapters", recipe.method.name), recipe.rollout
    if not recipe.reward.rules and recipe.reward.model is None:
        yield f"objective is {name} and nothing rewards an answer. Set reward.rules, such as {{exact_match: 1}}."
    for key in ("model", "judge"):
        run = getattr(recipe.reward, key)
        if run is not None and Path(run).name != TO_COME and not Path(run).is_dir():
            yield f"reward.{key}: {run} is no folder; expected that of a finished run, such as runs/<id>."
    for rule_name, weight in recipe.reward.rules.items():
        _known_rule(rule_name)
        if not weight:
            yield f"reward.rules.{rule_name} is 0 and has no effect. Leave it out, or give it a weight."
    if rollout.steps > rollout.prompts:
        yield f"rollout.steps is {rollout.steps} and rollout.prompts {rollout.prompts}: steps would be empty. Lower it."
    if not method.is_adapter or method.soft or method.score is not None:
        yield (
            f"objective is {name}, whose reference is the model without its adapter, and method.name is {method.name}, "
            "which cannot be taken off. Set method.name: lora."
        )
    for key in ("modules_to_save", "new_tokens"):
        if getattr(recipe.method, key):
            yield f"method.{key} trains weights of the base, which is the reference of {name} as well. Leave it out."
    if recipe.method.dropout and rollout.passes * rollout.steps > 1:
        yield (
            f"method.dropout is {recipe.method.dropout:g} and each rollout is trained on in several steps: ratios to "
            "the policy that wrote the answers would be noise. Set it to 0, or take one step."
        )
    if objective.needs == "token_logp" and rollout.answers < 2:
        yield f"rollout.answers is 1; {name} compares the answers to a prompt with each other. Set at least 2."
    if recipe.train.batch_tokens != "auto":
        yield f"train.batch_tokens has no effect with {name}: rollout.prompts x rollout.answers do. Leave it out."
    if recipe.train.compile == "always":
        yield f"train.compile is always; {name} compiles no layers, for no two rollouts are alike. Leave it out."
    if "kl_limit" in rollout.changed() and rollout.passes == 1:
        yield "rollout.kl_limit has no effect with one pass over each rollout. Leave it out, or raise rollout.passes."


def _known_rule(name: str) -> None:
    """Raise for what rewards nothing, is not there or not allowed."""
    try:
        scorer = rule(name)
    except PartError as error:
        raise RecipeError(f"reward.rules: {error}") from error
    Mixture({name: (1.0, scorer)})((), ())


def _check_method(recipe: Recipe) -> None:
    """Raise for a method that does not exist, and for keys that would act on nothing: a key acts or is refused."""
    method: Method = parts.find("models.adapters", recipe.method.name)
    unread = sorted(recipe.method.changed() - {"name", *method.reads})
    if unread:
        reads = f"It reads: {', '.join(method.reads)}." if method.reads else "Set method.name: lora, which reads it."
        raise RecipeError(f"method.{unread[0]} has no effect with method.name: {method.name}. Leave it out. {reads}")
    if recipe.train.compile == "always" and method.four_bits:
        raise RecipeError("train.compile is always; layers of four bits cannot be compiled. Leave it out.")
    if recipe.train.memory == "least" and method.is_adapter:
        raise RecipeError("train.memory least has nothing more to give with an adapter. Set train.memory: checkpoint.")
