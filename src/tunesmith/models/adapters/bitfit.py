"""BitFit (Ben Zaken et al., 2022): biases and norms alone; the result is a plain transformers folder.

Notable: norms are trained beside biases, for many decoders have no bias at all.
"""

from tunesmith.core.errors import RecipeError
from tunesmith.core.recipe import MethodRecipe
from tunesmith.models.adapters import full
from tunesmith.models.adapters._method import Method
from tunesmith.models.model import Model


def attach(model: Model, _recipe: MethodRecipe, _seed: int) -> None:
    """Train every vector of the network. Raises RecipeError where it has none."""
    vectors = [name for name, p in model.network.named_parameters() if p.ndim == 1]
    if not vectors:
        raise RecipeError(f"method.name: bitfit: {model.card.architecture} has neither biases nor norms. Use lora.")
    full.train_only(model, vectors)


PART = Method("bitfit", attach, full.save, full.load, is_adapter=False)
