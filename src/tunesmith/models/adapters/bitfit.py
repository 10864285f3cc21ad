"""BitFit (Ben Zaken et al., 2022): biases and norms alone; the result is a plain transformers folder.

Notable: norms are trained beside biases, for many decoders have no bias at all.
"""

from tunesmith.core.errors import RecipeError
from tunesmith.core.recipe import MethodRecipe
from tunesmith.models.adapters import full
from tunesmith.models.skeleton import HasNetwork


def vectors(model: HasNetwork, _recipe: MethodRecipe) -> list[str]:
    """Every vector of the network. Raises RecipeError where it has none."""
    found = [name for name, p in model.network.named_parameters() if p.ndim == 1]
    if not found:
        raise RecipeError(f"method.name: bitfit: {model.card.architecture} has neither biases nor norms. Use lora.")
    return found


PART = full.method("bitfit", vectors, rate=10.0)
