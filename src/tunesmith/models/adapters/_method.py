"""What a method is: how it changes a loaded model before training, and how it leaves it on disk."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunesmith.core.recipe import MethodRecipe
from tunesmith.models.model import Model
from tunesmith.models.scores import Score
from tunesmith.models.skeleton import HasNetwork


@dataclass(frozen=True, slots=True)
class Method:
    """``count`` is how many weights it would train beside a head, by names and shapes alone. ``attach`` makes them
    trainable; ``save`` writes files that transformers or PEFT load; ``load`` puts a saved folder onto a fresh base.
    ``reads`` names the keys of ``method`` that act, ``rate`` is the learning rate that suits it, in times that of full
    fine-tuning, at most ``most_rate``. ``four_bits``: the base is loaded in four bits. ``soft``: ``method.rank``
    tokens stand before every row, so the adapted model does not begin as the base. ``score`` is what ``model.scores``
    must hold of each weight when the method is attached.
    ``unmergeable``: why its result cannot stand inside the base's weights, in words that follow "method X"."""

    name: str
    count: Callable[[HasNetwork, MethodRecipe], int]
    attach: Callable[[Model, MethodRecipe, int], None]
    save: Callable[[Model, Path], None]
    load: Callable[[Model, Path], None]
    is_adapter: bool
    reads: tuple[str, ...] = ()
    rate: float = 10.0
    most_rate: float = 2e-3
    four_bits: bool = False
    soft: bool = False
    score: Score | None = None
    unmergeable: str = ""
