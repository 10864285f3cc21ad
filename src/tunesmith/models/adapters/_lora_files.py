"""Adapters of the LoRA family as files: PEFT's names, keys and settings, both ways.

Notable: what PEFT would apply differently from this layer is refused by name; nothing is dropped in silence. Ranks and
alphas that differ from layer to layer are PEFT's patterns; lengths (DoRA) and the root of the rank (rsLoRA) are its
flags. A start that is not zero is written as plain LoRA of twice the rank, so any tool puts it on the untouched base.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.models import own_weights
from tunesmith.models.lora_layer import LoraLinear
from tunesmith.models.lora_stack import Update
from tunesmith.models.model import Model
from tunesmith.models.skeleton import HasNetwork, outline
from tunesmith.plan.targets import whole

PREFIX = "base_model.model."
OWN = "own weights"  # among the adapted layers: what is trained beside them
TOKENS = "new_tokens.json"
KNOWN = (  # settings of PEFT that are read here, or that change nothing once an adapter is trained
    *("peft_type", "task_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "target_modules"),
    *("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "init_lora_weights", "ensure_weight_tying"),
    *("inference_mode", "peft_version", "revision", "auto_mapping", "megatron_core", "loftq_config", "eva_config"),
    *("corda_config", "lora_ga_config", "layers_pattern", "qalora_group_size", "runtime_config"),
    *("modules_to_save", "trainable_token_indices"),
)
INITIAL = (None, True, False, "gaussian", "orthogonal", "eva")  # the other initialisations change the base's weights


@dataclass(frozen=True, slots=True)
class Setting:
    """Of one layer: its update is ``alpha / rank * B A``, by the root of the rank with ``root``."""

    rank: int
    alpha: float
    root: bool = False
    magnitude: bool = False

    @property
    def scale(self) -> float:
        return self.alpha / (self.rank**0.5 if self.root else self.rank)


def linear(model: HasNetwork) -> dict[str, nn.Linear]:
    """Every linear layer but the output head, by its full name."""
    output = model.network.get_output_embeddings() if model.card.kind == "decoder" else None
    return {n: m for n, m in model.network.named_modules() if isinstance(m, nn.Linear) and m is not output}


def wrap(model: Model, settings: Mapping[str, Setting], *, dropout: float, seed: int) -> None:
    """Put an adapter onto each named layer and freeze all else."""
    model.network.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, setting in settings.items():
        layer = LoraLinear(
            model.network.get_submodule(name),
            rank=setting.rank,
            scale=setting.scale,
            dropout=dropout,
            generator=generator,
        )
        if setting.magnitude:
            layer.decompose()
        parent, _, leaf = name.rpartition(".")
        setattr(model.network.get_submodule(parent), leaf, layer)
        model.adapted[name] = layer
    model.adapter_settings = dict(settings)


def layers(model: Model) -> dict[str, LoraLinear]:
    """The layers with an adapter, by their full names."""
    return {n: layer for n, layer in model.adapted.items() if isinstance(layer, LoraLinear)}


def save(model: Model, folder: Path) -> None:
    """``adapter_model.safetensors`` and ``adapter_config.json`` as PEFT writes them; with new tokens the tokenizer too,
    and their list."""
    tensors: dict[str, torch.Tensor] = {}
    own = model.adapted.get(OWN)
    if own is not None:
        tensors |= {f"{PREFIX}{name}": t for name, t in own_weights.tensors(model, own).items()}
        if own.rows:
            model.tokenizer.save_pretrained(folder)
            texts = model.tokenizer.convert_ids_to_tokens(list(own.rows))
            (folder / TOKENS).write_text(json.dumps(texts, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, layer in layers(model).items():
        a_RI, b_OR = layer.plain()
        tensors |= {
            f"{PREFIX}{name}.lora_A.weight": a_RI.contiguous(),
            f"{PREFIX}{name}.lora_B.weight": b_OR.contiguous(),
        }
        if layer.magnitude is not None:
            tensors[f"{PREFIX}{name}.lora_magnitude_vector"] = layer.magnitude.weight.detach().float()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    text = json.dumps(_config(model), indent=2, sort_keys=True) + "\n"
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")


def _config(model: Model) -> dict[str, Any]:
    """PEFT's settings; the most frequent rank and alpha stand for all, the others are patterns."""
    adapted, own = layers(model), model.adapted.get(OWN)
    double = {n: 2 if layer.start is not None else 1 for n, layer in adapted.items()}
    ranks = {n: double[n] * s.rank for n, s in model.adapter_settings.items()}
    alphas = {n: double[n] * s.alpha for n, s in model.adapter_settings.items()}
    rank, alpha = (Counter(found.values()).most_common(1)[0][0] for found in (ranks, alphas))
    first = next(iter(model.adapter_settings.values()))
    layer = next(iter(adapted.values()))
    return ({} if own is None else own_weights.settings(model, own)) | {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if model.card.kind == "decoder" else "FEATURE_EXTRACTION",
        "base_model_name_or_path": model.card.path,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": layer.dropout,
        "target_modules": sorted(adapted),
        "rank_pattern": {_whole(n): r for n, r in ranks.items() if r != rank},
        "alpha_pattern": {_whole(n): a for n, a in alphas.items() if a != alpha},
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": first.root,
        "use_dora": first.magnitude,
        "inference_mode": True,
    }


def _whole(name: str) -> str:
    """A pattern of PEFT's that fits this layer alone."""
    return "^" + re.escape(name)


def load(model: Model, folder: Path) -> None:
    """Attach the adapter in ``folder``; every key must match. Raises ModelError."""
    path = folder / "adapter_config.json"
    config = _read_config(path)
    if (folder / TOKENS).is_file():
        own_weights.grow(model, json.loads((folder / TOKENS).read_text(encoding="utf-8")))
    names = _named(linear(model), config["target_modules"])
    wrap(model, {n: _setting(n, config) for n in names}, dropout=0.0, seed=0)
    tensors = _tensors(folder)
    expected: dict[str, nn.Parameter] = {}
    _load_own(model, config, tensors)
    for name, layer in layers(model).items():
        expected |= {f"{PREFIX}{name}.lora_{x}.weight": getattr(layer, f"lora_{x}") for x in "AB"}
        if layer.magnitude is not None:
            expected[f"{PREFIX}{name}.lora_magnitude_vector"] = layer.magnitude.weight
    _check(model, folder, {key: list(p.shape) for key, p in expected.items()}, tensors)
    with torch.no_grad():
        for key, parameter in expected.items():
            parameter.copy_(tensors[key])


def updates(model: Model, folder: Path, linear: Mapping[str, nn.Linear]) -> dict[str, Update]:
    """What the adapter in ``folder`` adds to each of the base's ``linear`` layers; every key must match. Raises
    ModelError, also for what is more than such an addition."""
    config = _read_config(folder / "adapter_config.json")
    beside = [key for key in ("use_dora", "modules_to_save", "trainable_token_indices") if config.get(key)]
    if beside or (folder / TOKENS).is_file():
        raise ModelError(
            f"{folder} has {beside[0] if beside else TOKENS}: it changes more of the base than an update of its linear "
            "layers, which is all that adapters side by side can have. Load it alone, or train it as lora or rslora."
        )
    settings = {name: _setting(name, config) for name in _named(linear, config["target_modules"])}
    shapes = {}
    for name, one in settings.items():
        shapes[f"{PREFIX}{name}.lora_A.weight"] = [one.rank, linear[name].in_features]
        shapes[f"{PREFIX}{name}.lora_B.weight"] = [linear[name].out_features, one.rank]
    tensors = _tensors(folder)
    _check(model, folder, shapes, tensors)
    found = {}
    for name, one in settings.items():
        a_RI, b_OR = (tensors[f"{PREFIX}{name}.lora_{x}.weight"] for x in "AB")
        found[name] = Update(a_RI, b_OR, one.scale)
    return found


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    path = folder / "adapter_model.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read ({type(error).__name__}: {error}). Copy the adapter again.") from error


def _check(model: Model, folder: Path, shapes: Mapping[str, list[int]], tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise ModelError where keys or shapes are not those that the base needs."""
    odd = sorted(set(shapes) ^ set(tensors))
    if odd or not shapes:
        what = f"{odd[0]} and {len(odd) - 1} more" if odd else "no layer has the name of a target module"
        raise ModelError(f"{folder}: the adapter's weights do not match {model.card.name}: {what}. Name its own base.")
    for key, shape in shapes.items():
        if list(tensors[key].shape) != shape:
            raise ModelError(f"{folder}: {key} is {list(tensors[key].shape)}, the base needs {shape}.")


def _load_own(model: Model, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Take what was trained beside the layers out of ``tensors``."""
    indices = config.get("trainable_token_indices") or []
    rows = next(iter(indices.values()), []) if isinstance(indices, dict) else indices
    wanted = config.get("modules_to_save") or []
    if rows and not 0 <= min(rows) <= max(rows) < model.card.vocabulary:
        raise ModelError(
            f"The adapter trains the rows of tokens up to {max(rows)}; {model.card.name} has {model.card.vocabulary} "
            "tokens. Name the base with the tokens that it was given."
        )
    if not wanted and not rows:
        return
    own = own_weights.OwnWeights(model, whole(outline(model), wanted, layers(model)), rows)
    model.adapted[OWN] = own
    found = {k: tensors.pop(k) for k in list(tensors) if ".lora_" not in k}
    own_weights.take(model, own, {k.removeprefix(PREFIX): t for k, t in found.items()})


def _read_config(path: Path) -> dict[str, Any]:
    """PEFT's settings. Raises ModelError for what is not of the LoRA family: it would be applied wrongly."""
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        numbers = [config["r"], *(config.get("rank_pattern") or {}).values()]
        alphas = [config["lora_alpha"], *(config.get("alpha_pattern") or {}).values()]
        smallest, _ = min(map(int, numbers)), [float(alpha) for alpha in alphas]
        config |= {"r": int(config["r"]), "lora_alpha": float(config["lora_alpha"])}
        _ = config["target_modules"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} cannot be read ({type(error).__name__}: {error}); expected PEFT's LoRA configuration."
        ) from error
    off: tuple[Any, ...] = (None, False, "none", [], {})
    odd = {key: value for key, value in config.items() if key not in KNOWN and value not in off}
    if smallest < 1:
        odd["r" if config["r"] < 1 else "rank_pattern"] = smallest
    if config.get("peft_type") != "LORA":
        odd["peft_type"] = config.get("peft_type")
    if config.get("init_lora_weights") not in INITIAL:
        odd["init_lora_weights"] = config["init_lora_weights"]
    if odd:
        name, value = next(iter(odd.items()))
        raise ModelError(
            f"{path}: {name} is {value!r}; LoRA, rsLoRA and DoRA are read here. Merge the adapter with peft instead."
        )
    return config


def _setting(name: str, config: dict[str, Any]) -> Setting:
    def own(key: str, usual: Any) -> Any:
        """As PEFT looks a layer up: the first pattern that fits the end of its name."""
        found = config.get(key) or {}
        return next((value for pattern, value in found.items() if re.match(rf"(.*\.)?({pattern})$", name)), usual)

    return Setting(
        int(own("rank_pattern", config["r"])),
        float(own("alpha_pattern", config["lora_alpha"])),
        root=bool(config.get("use_rslora")),
        magnitude=bool(config.get("use_dora")),
    )


def _named(linear: Mapping[str, nn.Linear], wanted: list[str] | str) -> list[str]:
    """The layers that PEFT would adapt: a text is a regular expression, or all-linear."""
    if isinstance(wanted, str):
        return list(linear) if wanted == "all-linear" else [n for n in linear if re.fullmatch(wanted, n)]
    return [n for n in linear if any(n == w or n.endswith("." + w) for w in wanted)]
