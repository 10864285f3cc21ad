"""SHiRA (Bhardwaj et al., 2024): a random few of each matrix's weights, as many as LoRA of ``method.rank`` has; by
PEFT.

Notable: ``scored`` makes its siblings, which choose the weights by what ``model.scores`` says of them.
"""

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from tunesmith.core.recipe import MethodRecipe
from tunesmith.models.adapters._method import Method
from tunesmith.models.adapters._peft import method
from tunesmith.models.model import Model
from tunesmith.models.scores import Score, largest


def scored(name: str, score: Score) -> Method:
    """SHiRA on the weights with the largest ``score``, which must be in ``model.scores`` when it is attached."""

    def attach(model: Model, recipe: MethodRecipe, seed: int) -> None:
        held = {id(model.network.get_submodule(n)): value for n, value in model.scores.items()}

        def mask(layer: nn.Linear, rank: int, **_: Any) -> Tensor:
            return largest(held[id(layer)], rank * (layer.in_features + layer.out_features)).bool()

        def configure(peft: Any, recipe: MethodRecipe, names: list[str], _seed: int) -> Any:
            config = peft.ShiraConfig(r=recipe.rank, target_modules=names)
            config.mask_fn = mask
            return config

        method(name, configure).attach(model, recipe, seed)
        model.scores = {}

    return replace(PART, name=name, attach=attach, score=score)


PART = method(
    "shira",
    lambda peft, recipe, names, seed: peft.ShiraConfig(r=recipe.rank, target_modules=names, random_seed=seed % 2**31),
    reads=("rank", "target_modules"),
)
