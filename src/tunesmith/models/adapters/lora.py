"""LoRA (Hu et al., 2021): a frozen linear layer plus ``alpha / rank * B A``, in PEFT's file format.

Notable: one autograd function a layer (``lora_linear``), which keeps nothing but its input and the rank-sized product
with A; it takes a stack of adapters as well, each row of a batch naming its own. B starts at zero, so the adapted
model begins as the base; A and B are float32 and are cast to the base's type in each pass; ``enabled = False`` is the
base itself, so that comparing with it needs no second copy. ``all-linear`` is every linear layer but the output head
("LoRA Without Regret": all layers).
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunesmith.core.errors import ModelError, RecipeError, did_you_mean
from tunesmith.core.recipe import MethodRecipe
from tunesmith.models.adapters._method import Method
from tunesmith.models.lora_linear import lora_linear, lora_update
from tunesmith.models.model import Model

PREFIX = "base_model.model."
KNOWN = (  # settings of PEFT that are read here, or that change nothing once an adapter is trained
    *("peft_type", "task_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "target_modules"),
    *("use_rslora", "inference_mode", "peft_version", "revision", "auto_mapping", "megatron_core", "loftq_config"),
    *("eva_config", "corda_config", "lora_ga_config", "layers_pattern", "qalora_group_size", "runtime_config"),
    *("init_lora_weights", "ensure_weight_tying"),
)
INITIAL = (None, True, False, "gaussian", "orthogonal", "eva")  # the other initialisations change the base's weights


class LoraLinear(nn.Module):
    """``base(x) + scale * dropout(x) A^T B^T``; ``base`` is frozen."""

    def __init__(self, base: nn.Linear, *, rank: int, alpha: float, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        self.dropout = dropout
        self.enabled = True
        a = torch.empty(rank, base.in_features)
        nn.init.kaiming_uniform_(a, a=5**0.5, generator=generator)
        device = base.weight.device
        self.lora_A = nn.Parameter(a.to(device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        if not self.enabled:
            out: Tensor = self.base(x)
            return out
        base = self.base
        if self.dropout and self.training:  # the update sees another input than the base
            thinned = nn.functional.dropout(x, self.dropout)
            return base(x) + lora_update(thinned, self.lora_A, self.lora_B, self.scale)  # type: ignore[no-any-return]
        return lora_linear(x, base.weight, base.bias, self.lora_A, self.lora_B, self.scale)


def _linear(model: Model) -> dict[str, nn.Linear]:
    """Every linear layer but the output head, by its full name."""
    output = model.network.get_output_embeddings() if model.card.kind == "decoder" else None
    return {n: m for n, m in model.network.named_modules() if isinstance(m, nn.Linear) and m is not output}


def targets(model: Model, wanted: tuple[str, ...]) -> list[str]:
    """Full names of the linear layers to adapt. Raises RecipeError when a wanted name matches none."""
    pooler = getattr(model.network, "pooler", None)
    unused = {id(m) for m in pooler.modules()} if pooler is not None else set()
    linear = {name: module for name, module in _linear(model).items() if id(module) not in unused}
    if not linear:
        raise RecipeError(
            f"method.name: lora: {model.card.name} ({model.card.architecture}) has no linear layer to adapt. "
            "Use method.name: full."
        )
    if wanted == ("all-linear",):
        return list(linear)
    leaves = sorted({name.rsplit(".", 1)[-1] for name in linear})
    if not wanted:
        raise RecipeError(f"method.target_modules is empty; expected all-linear, or some of: {', '.join(leaves)}.")
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
    """Adapt the wanted layers; all else is frozen. Raises RecipeError."""
    alpha = recipe.alpha if recipe.alpha is not None else 2.0 * recipe.rank
    names = targets(model, recipe.target_modules)
    smallest = min(min(model.network.get_submodule(n).weight.shape) for n in names)
    if recipe.rank > smallest:
        raise RecipeError(
            f"method.rank is {recipe.rank}; the smallest adapted layer of {model.card.name} has {smallest} dimensions. "
            "Lower it."
        )
    _wrap(model, names, rank=recipe.rank, alpha=alpha, dropout=recipe.dropout, seed=seed)


def _wrap(model: Model, names: list[str], *, rank: int, alpha: float, dropout: float, seed: int) -> None:
    model.network.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        layer = LoraLinear(
            model.network.get_submodule(name),
            rank=rank,
            alpha=alpha,
            dropout=dropout,
            generator=generator,
        )
        parent, _, leaf = name.rpartition(".")
        setattr(model.network.get_submodule(parent), leaf, layer)
        model.adapted[name] = layer
    model.adapter_config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if model.card.kind == "decoder" else "FEATURE_EXTRACTION",
        "base_model_name_or_path": model.card.path,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
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
    rank, alpha, wanted = _read_config(folder / "adapter_config.json")
    _wrap(model, _named(_linear(model), wanted), rank=rank, alpha=alpha, dropout=0.0, seed=0)
    tensors = load_file(folder / "adapter_model.safetensors")
    expected = {
        f"{PREFIX}{n}.lora_{x}.weight": getattr(layer, f"lora_{x}") for n, layer in model.adapted.items() for x in "AB"
    }
    odd = sorted(set(expected) ^ set(tensors))
    if odd or not expected:
        raise ModelError(
            f"{folder}: the adapter's weights do not match {model.card.name}: "
            f"{f'{odd[0]} and {len(odd) - 1} more' if odd else f'no layer is called {wanted}'}. Name its own base."
        )
    with torch.no_grad():
        for key, parameter in expected.items():
            if parameter.shape != tensors[key].shape:
                raise ModelError(
                    f"{folder}: {key} is {list(tensors[key].shape)}, the base needs {list(parameter.shape)}."
                )
            parameter.copy_(tensors[key])


def _read_config(path: Path) -> tuple[int, float, list[str] | str]:
    """(rank, alpha, target modules). Raises ModelError for what is not plain LoRA: it would be applied wrongly."""
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rank, alpha, wanted = int(config["r"]), float(config["lora_alpha"]), config["target_modules"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} cannot be read ({type(error).__name__}: {error}); expected PEFT's LoRA configuration."
        ) from error
    off: tuple[Any, ...] = (None, False, "none", [], {})
    odd = {key: value for key, value in config.items() if key not in KNOWN and value not in off}
    if rank < 1:
        odd["r"] = rank
    if config.get("peft_type") != "LORA":
        odd["peft_type"] = config.get("peft_type")
    if config.get("init_lora_weights") not in INITIAL:
        odd["init_lora_weights"] = config["init_lora_weights"]
    if odd:
        name, value = next(iter(odd.items()))
        raise ModelError(f"{path}: {name} is {value!r}; plain LoRA is read here. Merge the adapter with peft instead.")
    return rank, alpha * rank**0.5 if config.get("use_rslora") else alpha, wanted


def _named(linear: dict[str, nn.Linear], wanted: list[str] | str) -> list[str]:
    """The layers that PEFT would adapt: a text is a regular expression, or all-linear."""
    if isinstance(wanted, str):
        return list(linear) if wanted == "all-linear" else [n for n in linear if re.fullmatch(wanted, n)]
    return [n for n in linear if any(n == w or n.endswith("." + w) for w in wanted)]


PART = Method("lora", attach, save, load, is_adapter=True)
