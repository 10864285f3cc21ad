"""AdaLoRA (Zhang et al., 2023): LoRA as P E Q, whose ranks move to the layers that need them; by PEFT.

Notable: every layer begins with half as much rank again as ``method.rank``; between the first tenth and the last three
tenths of the planned steps the least important directions are switched off, until ``method.rank`` a layer is left on
average. Weights that were best on dev before that, or a time budget that ends first, leave more; so do trainings of
too few steps to have such a phase.
What PEFT's allocator remembers between steps lies in ``schedule.state``, so a resumed training allocates as one that
never stopped. P and Q are held near orthogonal by the paper's penalty.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.core.recipe import MethodRecipe
from tunesmith.models.adapters._method import Method
from tunesmith.models.adapters._peft import method
from tunesmith.models.model import Model
from tunesmith.models.schedule import Schedule
from tunesmith.plan.trained import adalora_begins_at

WARM, FINAL = 0.1, 0.3  # of the steps: before the ranks fall, and after they have fallen
PENALTY = 0.5


class _Allocate(Schedule):
    """Around PEFT's AdaLoRA ``tuner``."""

    def __init__(self, tuner: Any) -> None:
        super().__init__()
        self.tuner = tuner
        self.allocates = True
        for name, weight in self._weights("lora_"):
            self.state |= {f"{kind}/{name}": torch.zeros_like(weight.data) for kind in ("sensitivity", "uncertainty")}
        self.may_rest = frozenset(name for name, _ in self._weights("lora_E"))  # what is switched off is zero again
        for name, weight in self._weights("lora_E"):
            self.state[f"kept/{name}"] = torch.ones(len(weight), dtype=torch.bool)

    def _weights(self, kind: str) -> Iterator[tuple[str, nn.Parameter]]:
        return ((n, p) for n, p in self.tuner.model.named_parameters() if kind in n)

    def begin(self, steps: int) -> None:
        config = self.tuner.peft_config["default"]
        config.total_step, config.tinit, config.tfinal = steps, int(WARM * steps), max(1, int(FINAL * steps))
        self.allocates = steps - config.tfinal > config.tinit

    def penalty(self) -> Tensor:
        found = [_distance(p @ p.T) for _, p in self._weights("lora_A")]
        found += [_distance(p.T @ p) for _, p in self._weights("lora_B")]
        return PENALTY * torch.stack(found).mean()

    def after(self, step: int) -> None:
        if not self.allocates:
            return
        config, allocator = self.tuner.peft_config["default"], self.tuner.rankallocator
        memory = {"sensitivity": allocator.exp_avg_ipt, "uncertainty": allocator.exp_avg_unc}
        for kind, held in memory.items():
            held |= self._named(kind)
            allocator.ipt |= held  # which is computed anew before it is read
        config.rank_pattern = {name: kept.tolist() for name, kept in self._named("kept").items()}
        self.tuner.update_and_allocate(step)
        found = {"sensitivity": allocator.exp_avg_ipt, "uncertainty": allocator.exp_avg_unc}
        for kind, held in found.items():
            for name, value in held.items():
                self.state[f"{kind}/{name}"].copy_(value)
        for name, kept in config.rank_pattern.items():
            self.state[f"kept/{name}"].copy_(torch.tensor(kept))
        config.rank_pattern = None  # a direction that is switched off stays in the file, as zero

    def _named(self, kind: str) -> dict[str, Tensor]:
        return {n.removeprefix(f"{kind}/"): t for n, t in self.state.items() if n.startswith(f"{kind}/")}


def _distance(square_RR: Tensor) -> Tensor:
    found: Tensor = torch.linalg.matrix_norm(square_RR - torch.eye(len(square_RR), device=square_RR.device))
    return found


BY_PEFT = method(
    "adalora",
    lambda peft, recipe, names, seed: peft.AdaLoraConfig(
        target_r=recipe.rank,
        init_r=adalora_begins_at(recipe.rank),
        lora_alpha=2 * recipe.rank if recipe.alpha is None else recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=names,
        total_step=1000,  # until a training begins
    ),
    reads=("rank", "alpha", "dropout", "target_modules"),
)


def attach(model: Model, recipe: MethodRecipe, seed: int) -> None:
    BY_PEFT.attach(model, recipe, seed)
    model.schedule = _Allocate(model.wrapped.base_model)


PART: Method = replace(BY_PEFT, attach=attach)
