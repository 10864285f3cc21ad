"""What a plan knows of every objective without torch; the rest of it is in its file in ``objectives``.

Notable: that room stands on the same floor and its files need torch, so these few words are there as well; the tests
compare them, file by file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from tunesmith.core.errors import RecipeError, did_you_mean

Facts = TypeVar("Facts")


@dataclass(frozen=True, slots=True)
class ObjectiveFacts:
    """As in ``objectives/_objective.py``. ``unit`` is what it learns from, ``needs`` what the model computes of it,
    ``reference`` whether log-likelihoods of the model that training starts from are needed; ``rate``: times the
    method's learning rate; ``adds_up``: what it compares adds up over the tokens of an answer."""

    needs: Literal["token_logp", "class_logp", "score", "token_logp_value"]
    unit: Literal["row", "pair", "judged", "answer"] = "row"
    reference: bool = False
    rate: float = 1.0
    adds_up: bool = False


def objective_facts(name: str) -> ObjectiveFacts:
    """Raises RecipeError for an objective of another package, or none at all."""
    return known("objective.name", name, OBJECTIVES)


def known(key: str, name: str, table: Mapping[str, Facts]) -> Facts:
    """The row of ``table`` that the recipe's ``key`` names. Raises RecipeError with the nearest name."""
    if name not in table:
        raise RecipeError(
            f'{key}: "{name}" is none that a plan knows without loading it.{did_you_mean(name, table)} '
            f"It knows: {', '.join(sorted(table))}. Name one of them, or run the recipe."
        )
    return table[name]


GAINED = ObjectiveFacts("token_logp", "pair", reference=True, rate=0.1, adds_up=True)
WRITTEN = ObjectiveFacts("token_logp", "answer", rate=0.15)
OBJECTIVES = {
    "sft": ObjectiveFacts("token_logp"),
    "classify": ObjectiveFacts("class_logp"),
    "reward": ObjectiveFacts("score", "pair"),
    "dpo": GAINED,
    "robust_dpo": GAINED,
    "ipo": ObjectiveFacts("token_logp", "pair", reference=True, rate=0.1),
    "kto": ObjectiveFacts("token_logp", "judged", reference=True, rate=0.1, adds_up=True),
    "cpo": ObjectiveFacts("token_logp", "pair", rate=0.1),
    "simpo": ObjectiveFacts("token_logp", "pair", rate=0.1),
    "orpo": ObjectiveFacts("token_logp", "pair", rate=0.3),
    "grpo": WRITTEN,
    "dr_grpo": WRITTEN,
    "dapo": WRITTEN,
    "rloo": WRITTEN,
    "ppo": ObjectiveFacts("token_logp_value", "answer", rate=0.15),
}
