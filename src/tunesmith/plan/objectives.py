"""What a plan knows of every objective without torch; the rest of it is in its file in ``objectives``.

Notable: that room stands on the same floor and its files need torch, so these few words are there as well; the tests
compare them, file by file.
"""

from dataclasses import dataclass
from typing import Literal

from tunesmith.core.errors import RecipeError, did_you_mean


@dataclass(frozen=True, slots=True)
class ObjectiveFacts:
    """As in ``objectives/_objective.py``. ``unit`` is what it learns from, ``needs`` what the model computes of it,
    ``reference`` whether log-likelihoods of the model that training starts from are needed; ``rate``: times the
    method's learning rate."""

    needs: Literal["token_logp", "class_logp", "score", "token_logp_value"]
    unit: Literal["row", "pair", "judged", "answer"] = "row"
    reference: bool = False
    rate: float = 1.0


def objective_facts(name: str) -> ObjectiveFacts:
    """Raises RecipeError for an objective of another package, or none at all."""
    if name not in OBJECTIVES:
        raise RecipeError(
            f'objective.name: "{name}" is none that a plan knows without loading it.{did_you_mean(name, OBJECTIVES)} '
            f"It knows: {', '.join(sorted(OBJECTIVES))}. Name one of them, or run the recipe."
        )
    return OBJECTIVES[name]


GAINED = ObjectiveFacts("token_logp", "pair", reference=True, rate=0.1)
LED = ObjectiveFacts("token_logp", "pair", rate=0.1)
WRITTEN = ObjectiveFacts("token_logp", "answer", rate=0.15)
OBJECTIVES = {
    "sft": ObjectiveFacts("token_logp"),
    "classify": ObjectiveFacts("class_logp"),
    "reward": ObjectiveFacts("score", "pair"),
    "dpo": GAINED,
    "robust_dpo": GAINED,
    "ipo": GAINED,
    "kto": ObjectiveFacts("token_logp", "judged", reference=True, rate=0.1),
    "cpo": LED,
    "simpo": LED,
    "orpo": ObjectiveFacts("token_logp", "pair", rate=0.3),
    "grpo": WRITTEN,
    "dr_grpo": WRITTEN,
    "dapo": WRITTEN,
    "rloo": WRITTEN,
    "ppo": ObjectiveFacts("token_logp_value", "answer", rate=0.15),
}
