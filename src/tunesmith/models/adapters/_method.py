"""What a method is: how it changes a loaded model before training, and how it leaves it on disk."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunesmith.core.recipe import MethodRecipe
from tunesmith.models.model import Model
from tunesmith.models.scores import Score
from tunesmith.models.skeleton import HasNetwork, outline
from tunesmith.plan.trained import method_facts

Attach = Callable[[Model, MethodRecipe, int], None]
Files = Callable[[Model, Path], None]


@dataclass(frozen=True, slots=True)
class Method:
    """``count`` is how many weights it would train beside a head, by names and shapes alone. ``attach`` makes them
    trainable; ``save`` writes files that transformers or PEFT load; ``load`` puts a saved folder onto a fresh base.
    ``reads`` names the keys of ``method`` that act, ``rate`` is the learning rate that suits it, in times that of full
    fine-tuning, at most ``most_rate``. ``four_bits``: the base is loaded in four bits. ``soft``: ``method.rank``
    tokens stand before every row, so the adapted model does not begin as the base. ``score`` is what ``model.scores``
    must hold of each weight when the method is attached. ``keeps``: as in ``plan/trained.py``.
    ``unmergeable``: why its result cannot stand inside the base's weights, in words that follow "method X"."""

    name: str
    count: Callable[[HasNetwork, MethodRecipe], int]
    attach: Attach
    save: Files
    load: Files
    is_adapter: bool
    reads: tuple[str, ...] = ()
    rate: float = 10.0
    most_rate: float = 2e-3
    four_bits: bool = False
    soft: bool = False
    keeps: float = 0.0
    score: Score | None = None
    unmergeable: str = ""


def method(
    name: str, attach: Attach, save: Files, load: Files, *, reads: tuple[str, ...] = (), unmergeable: str = ""
) -> Method:
    """A method of this package: the rest of what it is stands in ``plan/trained.py``, where a plan finds it."""
    facts = method_facts(name)
    return Method(
        name,
        lambda model, recipe: facts.count(outline(model), recipe),
        attach,
        save,
        load,
        is_adapter=facts.is_adapter,
        reads=reads,
        rate=facts.rate,
        most_rate=facts.most_rate,
        four_bits=facts.four_bits,
        soft=facts.soft,
        keeps=facts.keeps,
        unmergeable=unmergeable,
    )
