"""What an objective is: a pure function of log-probabilities and a batch. It knows no trainer, device or file."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from torch import Tensor

from tunesmith.core.batch import Batch
from tunesmith.core.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Objective:
    """``loss(logp, batch)`` returns the *sum* of weighted losses and ``weight(batch)`` what that sum is divided by.

    The loop divides once, by the weight of the whole optimiser step (all micro-batches), so that accumulation never
    changes the result. ``needs`` says what it is given: the log-probability of each target token [B, T] or of each
    class [B, C], or a score for each row [B]. ``unit`` is what it learns from: a row alone, a pair of the better and
    the worse answer (rows 2i and 2i + 1 of the batch), or a row with a judgement (row 2i; row 2i + 1 is the same prompt
    with another row's answer). ``reference`` asks for the log-likelihoods of the model that training starts from;
    ``odds``: it makes beta times the lead the log-odds of the better answer. ``ties`` and ``margins`` say that it knows
    what to make of a pair that has one.
    Keyword arguments of ``loss`` are the settings that it reads, with their defaults.
    """

    name: str
    needs: Literal["token_logp", "class_logp", "score"]
    loss: Callable[..., Tensor]
    weight: Callable[[Batch], Tensor]
    unit: Literal["row", "pair", "judged"] = "row"
    reference: bool = False
    odds: bool = False
    ties: bool = False
    margins: bool = False
    rate: float = 1.0

    @property
    def settings(self) -> dict[str, float]:
        """Settings that it reads, with their defaults."""
        found = inspect.signature(self.loss).parameters.values()
        return {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY}

    def with_settings(self, given: Mapping[str, float]) -> "Objective":
        """The objective with settings of its own. Raises RecipeError for one that it does not read."""
        known = self.settings
        for name in given:
            if name not in known:
                reads = f"It reads: {', '.join(known)}." if known else "It reads none."
                raise RecipeError(
                    f"objective.{name} has no effect with objective.name: {self.name}. Leave it out. {reads}"
                )
        return replace(self, loss=partial(self.loss, **given)) if given else self
