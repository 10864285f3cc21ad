"""LISA (Pan et al., 2024): full fine-tuning of a few layers at a time, drawn anew every few steps.

Notable: embeddings, norms and the head outside the layers are trained in every step. Which layers are trained is a
function of the seed and the step, so a training that is resumed draws the same ones. Moments of a layer that is not
trained are let go; only the gradients and moments of the drawn layers stand in memory.
"""

import random

from torch import nn

from tunesmith.core.recipe import MethodRecipe
from tunesmith.models.adapters import full
from tunesmith.models.adapters._method import method
from tunesmith.models.model import Model
from tunesmith.models.schedule import Schedule
from tunesmith.models.skeleton import outline
from tunesmith.plan.targets import stack

LAYERS = 2  # at a time, as the paper has it
EVERY = 5  # steps; the paper's finest period


class _Draw(Schedule):
    """``weights[i]`` are the trained weights of layer i."""

    def __init__(self, weights: list[list[nn.Parameter]], seed: int) -> None:
        super().__init__()
        self.weights, self.seed = weights, seed

    def before(self, step: int) -> None:
        draw = random.Random(f"{self.seed}/{step // EVERY}")
        chosen = draw.sample(range(len(self.weights)), min(LAYERS, len(self.weights)))
        for i, weights in enumerate(self.weights):
            for weight in weights:
                weight.requires_grad_(i in chosen)

    def end(self) -> None:
        for weights in self.weights:
            for weight in weights:
                weight.requires_grad_(True)


def attach(model: Model, recipe: MethodRecipe, seed: int) -> None:
    """All weights trainable, a few layers in each step. Raises RecipeError where the network has no list of layers."""
    layers = stack(outline(model))
    full.PART.attach(model, recipe, seed)
    held: list[list[nn.Parameter]] = [[] for _ in range(model.card.layers)]
    for name, weight in model.network.named_parameters():
        if name.startswith(f"{layers}.") and weight.requires_grad:
            place = int(name.removeprefix(f"{layers}.").partition(".")[0])
            held[place] += [weight] if name not in model.masters.of else [weight, model.masters.of[name]]
    model.schedule = _Draw(held, seed)


PART = method("lisa", attach, full.save, full.load)
