"""LoRA (Hu et al., 2021): a frozen linear layer plus ``alpha / rank * B A``, in PEFT's file format.

Notable: B starts at zero, so the adapted model begins as the base; the base is kept in bf16 when products run in
bf16, the update in float32; ``enabled = False`` is the base itself, so that comparing with it needs no second copy.
``all-linear`` is every linear layer but the output head ("LoRA Without Regret": all layers).
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunesmith.core.errors import ModelError, RecipeError, did_you_mean
from tunesmith.core.recipe import MethodRecipe
from tunesmith.models.adapters._method import Method
from tunesmith.models.model import Model

PREFIX = "base_model.model."


class LoraLinear(nn.Module):
    """``base(x) + scale * dropout(x) A^T B^T``; ``base`` is frozen."""

    def __init__(
        self, base: nn.Linear, *, rank: int, alpha: float, dropout: float, narrow: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        if (
            narrow
        ):  # what autocast would make of the weight in every pass, made once: the base's answers stay the same bits
            self.base.weight.data = self.base.weight.data.bfloat16()
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.enabled = True
        a = torch.empty(rank, base.in_features)
        nn.init.kaiming_uniform_(a, a=5**0.5, generator=generator)
        device = base.weight.device
        self.lora_A = nn.Parameter(a.to(device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x)
        if not self.enabled:
            return out
        low = nn.functional.linear(self.dropout(x).to(self._dtype(x)), self.lora_A)
        return out + (nn.functional.linear(low, self.lora_B) * self.scale).to(out.dtype)

    def _dtype(self, x: Tensor) -> torch.dtype:
        return x.dtype if torch.is_autocast_enabled(x.device.type) else self.lora_A.dtype


def targets(model: Model, wanted: tuple[str, ...]) -> list[str]:
    """Full names of the linear layers to adapt. Raises RecipeError when a wanted name matches none."""
    output = model.network.get_output_embeddings() if model.card.kind == "decoder" else None
    pooler = getattr(model.network, "pooler", None)
    unused = {id(m) for m in pooler.modules()} if pooler is not None else set()
    linear = {
        name: module
        for name, module in model.network.named_modules()
        if isinstance(module, nn.Linear) and module is not output and id(module) not in unused
    }
    if wanted == ("all-linear",):
        return list(linear)
    leaves = sorted({name.rsplit(".", 1)[-1] for name in linear})
    chosen: list[str] = []
    for want in wanted:
        matched = [name for name in linear if name == want or name.endswith("." + want)]
        if not matched:
            raise RecipeError(
                f'method.target_modules: "{want}" matches no linear layer of {model.card.name}.'
                f"{did_you_mean(want, leaves)} "
                f"There are: {', '.join(leaves)}; or all-linear."
            )
        chosen += matched
    return list(dict.fromkeys(chosen))


def attach(model: Model, recipe: MethodRecipe, seed: int) -> None:
    alpha = recipe.alpha if recipe.alpha is not None else 2.0 * recipe.rank
    names = targets(model, recipe.target_modules)
    smallest = min(min(model.network.get_submodule(n).weight.shape) for n in names)
    if recipe.rank > smallest:
        raise RecipeError(
            f"method.rank is {recipe.rank}; the smallest adapted layer of {model.card.name} has {smallest} dimensions. "
            "Lower it."
        )
    model.network.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        layer = LoraLinear(
            model.network.get_submodule(name),
            rank=recipe.rank,
            alpha=alpha,
            dropout=recipe.dropout,
            narrow=model.precision == "bfloat16",
            generator=generator,
        )
        parent, _, leaf = name.rpartition(".")
        setattr(model.network.get_submodule(parent), leaf, layer)
        model.adapted[name] = layer
    model.adapter_config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if model.card.kind == "decoder" else "FEATURE_EXTRACTION",
        "base_model_name_or_path": model.card.path,
        "r": recipe.rank,
        "lora_alpha": alpha,
        "lora_dropout": recipe.dropout,
        "target_modules": sorted(names),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "inference_mode": True,
    }


def save(model: Model, folder: Path) -> None:
    """``adapter_model.safetensors`` and ``adapter_config.json`` as PEFT writes them."""
    tensors = {}
    for name, layer in model.adapted.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = layer.lora_A.detach().float().contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = layer.lora_B.detach().float().contiguous()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(
        json.dumps(model.adapter_config, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )


def load(model: Model, folder: Path) -> None:
    """Attach the adapter in ``folder``; every key must match. Raises ModelError."""
    config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    wanted = config["target_modules"]
    recipe = MethodRecipe(
        rank=config["r"],
        alpha=config["lora_alpha"],
        target_modules=tuple([wanted] if isinstance(wanted, str) else wanted),
    )
    attach(model, recipe, seed=0)
    tensors = load_file(folder / "adapter_model.safetensors")
    expected = {
        f"{PREFIX}{n}.lora_{x}.weight": getattr(layer, f"lora_{x}") for n, layer in model.adapted.items() for x in "AB"
    }
    if odd := set(expected) ^ set(tensors):
        raise ModelError(
            f"{folder}: the adapter's weights do not match the base: {sorted(odd)[0]} and {len(odd) - 1} more."
        )
    with torch.no_grad():
        for key, parameter in expected.items():
            if parameter.shape != tensors[key].shape:
                raise ModelError(
                    f"{folder}: {key} is {list(tensors[key].shape)}, the base needs {list(parameter.shape)}."
                )
            parameter.copy_(tensors[key])


PART = Method("lora", attach, save, load, is_adapter=True)
