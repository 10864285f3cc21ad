"""The plan of a run that is prepared: what its method trains, and what fits where it runs."""

from collections.abc import Sequence
from typing import Any

from tunesmith.core import parts
from tunesmith.core.batch import TokenRow
from tunesmith.core.card import ModelCard
from tunesmith.core.errors import MemoryNeeded
from tunesmith.core.plan import Plan, Technique
from tunesmith.core.recipe import Recipe
from tunesmith.flows.networks import Network, with_scorers
from tunesmith.models.adapters._method import Method
from tunesmith.models.machine import machine
from tunesmith.models.skeleton import skeleton
from tunesmith.objectives._objective import Objective
from tunesmith.plan import rates
from tunesmith.plan.fit import Job, would_fit
from tunesmith.plan.resolve import Data, resolve
from tunesmith.plan.trained import technique, with_heads
from tunesmith.plan.work import Rollouts

LOOKS = 10  # at dev, where each writes answers


def technique_of(recipe: Recipe, card: ModelCard, config: Any, objective: Objective, classes: int) -> Technique:
    """What the recipe's method trains; ``classes`` is 0 without a head."""
    method: Method = parts.find("models.adapters", recipe.method.name)
    outputs = 1 if objective.needs == "score" else classes
    trained = method.count(skeleton(card, config, head=bool(outputs)), recipe.method)
    trained = with_heads(trained, objective.needs, classes=classes, width=card.width)
    return technique(method, trained, objective.rate)


def resolved(recipe: Recipe, network: Network, objective: Objective, data: Data, technique: Technique) -> Plan:
    """Raises MemoryNeeded with what would fit."""
    (card, shape), here = network, machine()
    try:
        plan, _ = resolve(recipe, card, data, shape=shape, machine=here, technique=technique, rates=rates.kept())
    except MemoryNeeded as error:
        raise MemoryNeeded(f"{error} {would_fit(Job(recipe, objective.name, card, shape, data), here)}") from error
    return plan


def rollouts_planned(
    recipe: Recipe,
    network: Network,
    objective: Objective,
    rows: Sequence[TokenRow],
    longest_answer: int,
    technique: Technique,
) -> Plan:
    """The plan where a policy writes the answers itself: steps are counted in rollouts."""
    how, count = recipe.rollout, len(rows)
    prompts = min(how.prompts, count)  # of a rollout; there are no more
    asked = [len(r.ids) - r.trained for r in rows]
    steps = how.steps_of(count)
    rollouts = Rollouts(
        prompts,
        how.answers,
        sum(asked) // max(count, 1),
        longest_answer,
        how.steps * how.passes,
        critic=objective.needs == "token_logp_value",
    )
    data = Data(
        [n + longest_answer for n in asked],
        lambda *_: steps,
        dev_tokens=0,
        trained=count * longest_answer,
        longest=max(asked, default=1) + longest_answer,
        rollouts=with_scorers(rollouts, recipe, network)[0],
    )
    plan = resolved(recipe, network, objective, data, technique)
    tokens = prompts * how.answers * (sum(asked) // max(count, 1) + longest_answer) // how.steps
    written = f"{prompts} prompts x {how.answers} answers a rollout, {how.passes} x {how.steps} steps on them"
    why = {
        "batch_tokens": f"at most, with answers of {longest_answer} tokens: {written}",
        "steps": f"{recipe.train.epochs:g} passes over {count:,} prompts; {written}",
        "eval_every": f"about {LOOKS} looks at dev a run, each of which writes answers",
    }
    each = max(how.passes * how.steps, plan.steps // LOOKS)
    return plan.model_copy(
        update={"batch_tokens": tokens, "eval_every": each, "compiled": False, "reasons": plan.reasons | why}
    )
