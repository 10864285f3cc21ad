"""Methods that PEFT implements, one configuration each, behind the same door as our own.

Notable: PEFT changes the network in place, and the network is called as ever, so packing, sampling and the checks of
a run do not know the difference. The seed is set for the moment in which PEFT draws its weights. Its files are its own;
keys that do not match when they come back, which PEFT passes over, are an error here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tunesmith.core.errors import ModelError, RecipeError
from tunesmith.core.recipe import MethodRecipe
from tunesmith.models.adapters import _method
from tunesmith.models.adapters._method import Method
from tunesmith.models.adapters.lora import targets
from tunesmith.models.model import Model

Configure = Callable[[Any, MethodRecipe, list[str], int], Any]  # peft, recipe, layers, seed -> its configuration


@dataclass
class Switch:
    """All of PEFT's layers at once, on or off."""

    layers: Any

    @property
    def enabled(self) -> bool:
        return not any(layer.disable_adapters for layer in self.layers)

    @enabled.setter
    def enabled(self, on: bool) -> None:
        trained = [(p, p.requires_grad) for layer in self.layers for p in layer.parameters()]
        for layer in self.layers:
            layer.enable_adapters(on)
        for parameter, wanted in trained:  # which PEFT changes along
            parameter.requires_grad_(wanted)


def method(name: str, configure: Configure, *, reads: tuple[str, ...] = ("target_modules",)) -> Method:
    """A method whose configuration is ``configure``'s."""

    def attach(model: Model, recipe: MethodRecipe, seed: int) -> None:
        import peft

        made.count(model, recipe)  # refuses what does not fit
        names = targets(model, recipe.target_modules)
        try:
            config = configure(peft, recipe, names, seed)
            config.task_type = "CAUSAL_LM" if model.card.kind == "decoder" else "FEATURE_EXTRACTION"
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                wrapped = peft.get_peft_model(model.network, config)
        except (ValueError, TypeError, RuntimeError) as error:
            told = str(error).rstrip(" .")
            raise RecipeError(f"method.name: {name}: {told}. Change method, or use method.name: lora.") from error
        wrapped.peft_config["default"].base_model_name_or_path = model.card.path
        _take(model, wrapped)

    made = _method.method(name, attach, save, load, reads=reads)
    return made


def _take(model: Model, wrapped: Any) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [m for m in model.network.modules() if isinstance(m, BaseTunerLayer)]
    model.adapted = {"peft": Switch(layers)}
    model.wrapped = wrapped


def save(model: Model, folder: Path) -> None:
    """The adapter as PEFT writes it."""
    model.wrapped.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # a card without content


def load(model: Model, folder: Path) -> None:
    """Attach the adapter in ``folder``; every key must match. Raises ModelError."""
    import peft

    try:
        wrapped = peft.PeftModel.from_pretrained(model.network, str(folder), low_cpu_mem_usage=False)
    except (ValueError, TypeError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"{folder}: the adapter does not fit {model.card.name}: {error}. Name its own base."
        ) from error
    found = set(load_file(folder / "adapter_model.safetensors"))
    expected = set(peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    odd = sorted(found ^ expected)
    if odd:
        raise ModelError(
            f"{folder}: the adapter's weights do not match {model.card.name}: {odd[0]} and {len(odd) - 1} more. "
            "Name its own base."
        )
    _take(model, wrapped)
