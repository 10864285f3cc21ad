"""What an objective is: a pure function of log-probabilities and a batch. It knows no trainer, device or file."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from torch import Tensor

from tunesmith.core.batch import Batch
from tunesmith.core.errors import RecipeError
from tunesmith.objectives._policy import Credit


@dataclass(frozen=True, slots=True)
class Objective:
    """``loss(logp, batch)`` returns the *sum* of weighted losses and ``weight(batch)`` what that sum is divided by.

    The loop divides once, by the weight of the whole optimiser step (all micro-batches), so that accumulation never
    changes the result. ``needs`` says what it is given: the log-probability of each target token [B, T] or of each
    class [B, C], a score for each row [B], or log-probabilities with a critic's values. ``unit`` is what it learns
    from: a row alone, a pair of the better and the worse answer (rows 2i and 2i + 1 of the batch), a row with a
    judgement (row 2i; row 2i + 1 is the same prompt with another row's answer), or an answer that the policy wrote
    itself, whose reward ``credit(drawn)`` turns into advantages.
    ``value(logp, batch)`` is what one that compares answers makes of each row [B]: the answer with the higher one is
    preferred. ``reference`` asks for the log-likelihoods of the model that training starts from;
    ``odds``: it makes beta times the lead the log-odds of the better answer. ``ties`` and ``margins`` say that it knows
    what to make of a pair that has one. ``rate``: times the method's learning rate; ``adds_up``: what it compares adds
    up over the tokens of an answer, and the rate falls with their number.
    Keyword arguments of ``loss`` and of ``credit`` are the settings that it reads, with their defaults, but those
    which a family of objectives has ``fixed``.
    """

    name: str
    needs: Literal["token_logp", "class_logp", "score", "token_logp_value"]
    loss: Callable[..., Tensor]
    weight: Callable[[Batch], Tensor]
    unit: Literal["row", "pair", "judged", "answer"] = "row"
    value: Callable[[Tensor, Batch], Tensor] | None = None
    reference: bool = False
    odds: bool = False
    ties: bool = False
    margins: bool = False
    rate: float = 1.0
    adds_up: bool = False
    credit: Callable[..., Credit] | None = None
    fixed: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, float]:
        """Settings that it reads, with their defaults."""
        return self._read_by(self.loss) | self._read_by(self.credit)

    def _read_by(self, function: Callable[..., object] | None) -> dict[str, float]:
        found = inspect.signature(function).parameters.values() if function is not None else ()
        return {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY and p.name not in self.fixed}

    def with_settings(self, given: Mapping[str, float]) -> "Objective":
        """The objective with settings of its own. Raises RecipeError for one that it does not read."""
        known = self.settings
        for name in given:
            if name not in known:
                reads = f"It reads: {', '.join(known)}." if known else "It reads none."
                raise RecipeError(
                    f"objective.{name} has no effect with objective.name: {self.name}. Leave it out. {reads}"
                )
        if not given:
            return self
        loss, credit = ({k: v for k, v in given.items() if k in self._read_by(f)} for f in (self.loss, self.credit))
        credited = None if self.credit is None else partial(self.credit, **credit)
        return replace(self, loss=partial(self.loss, **loss), credit=credited)
