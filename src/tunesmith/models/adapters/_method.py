"""What a method is: how it changes a loaded model before training, and how it leaves it on disk."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunesmith.core.recipe import MethodRecipe
from tunesmith.models.model import Model


@dataclass(frozen=True, slots=True)
class Method:
    """``attach`` makes the right weights trainable; ``save`` writes files that transformers or PEFT load; ``load``
    puts a saved folder onto a fresh base. ``reads`` names the keys of ``method`` that act, ``rate`` is the learning
    rate that suits it, in times that of full fine-tuning; ``four_bits``: the base is loaded in four bits."""

    name: str
    attach: Callable[[Model, MethodRecipe, int], None]
    save: Callable[[Model, Path], None]
    load: Callable[[Model, Path], None]
    is_adapter: bool
    reads: tuple[str, ...] = ()
    rate: float = 10.0
    four_bits: bool = False
