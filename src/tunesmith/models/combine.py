"""Several LoRA adapters of one base become one, by PEFT: a weighted sum of their updates, or what is left of it.

Notable: all ways work on whole updates, not on A and B apart, whose sums are no sum of updates. ``linear`` is exact:
ranks add up. The others end in a singular value decomposition down to ``rank``: ``svd`` of the sum, ``ties`` (Yadav et
al., 2023) of what the largest entries agree on in sign, ``dare`` (Yu et al., 2024) of entries drawn at random and
scaled up. The result is proven: put on the base again, it gives the states that PEFT's own layers give.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import safe_open
from torch import Tensor

from tunesmith.core import files, parts
from tunesmith.core.errors import ModelError, RecipeError, did_you_mean
from tunesmith.models import artefact
from tunesmith.models import load as loading
from tunesmith.models.adapters import _lora_files as lora_files
from tunesmith.models.adapters._method import Method
from tunesmith.models.model import Model

By = Literal["linear", "svd", "ties", "dare"]
BY: tuple[By, ...] = get_args(By)
KINDS = {"linear": "cat", "svd": "svd", "ties": "ties_svd", "dare": "dare_linear_svd"}
SAME = ("base_fingerprint", "tokenizer_hash", "template_hash")
ADDABLE = "LoRA, rsLoRA, LoRA+, PiSSA, OLoRA and QLoRA adapters can be combined."
NOTHING = 1e-5  # of the largest state: what is left by rounding of parts that cancel
BOUND = 1e-3  # of the largest state: float32 products in another order


@dataclass(frozen=True, slots=True)
class Way:
    """``rank`` and ``density`` (the share of entries that ties and dare keep) act where the way reads them."""

    by: str = "linear"
    rank: int = 16
    density: float = 0.5
    seed: int = 0


def check(folders: Sequence[Path], weights: Sequence[float], way: Way) -> dict[str, Any]:
    """The note of the first adapter, once all fit together. Raises RecipeError, ModelError."""
    if way.by not in BY:
        raise RecipeError(f'--by is "{way.by}".{did_you_mean(way.by, BY)} Expected one of: {", ".join(BY)}.')
    if len(folders) < 2 or len(weights) != len(folders):
        raise RecipeError(
            f"{len(folders)} adapters and {len(weights)} weights; expected two adapters or more, and a weight for each."
        )
    twice = next((f for i, f in enumerate(folders) if f.resolve() in {g.resolve() for g in folders[:i]}), None)
    if twice is not None:
        raise RecipeError(f"{twice} is named twice. Leave one out; --weights counts an adapter more than once.")
    if not all(map(math.isfinite, weights)):
        raise RecipeError(f"--weights are {', '.join(f'{w:g}' for w in weights)}; expected finite numbers.")
    if not 0 < way.density <= 1 or way.rank < 1:
        raise RecipeError(f"density is {way.density:g} and rank {way.rank}; expected above 0 to 1, and 1 or more.")
    first, *others = [_note(folder) for folder in folders]
    smallest = _smallest(folders[0])
    if way.by != "linear" and way.rank > smallest:
        raise RecipeError(f"--rank is {way.rank}; a layer of {folders[0]} has {smallest} dimensions. Lower it.")
    for folder, note in zip(folders[1:], others, strict=True):
        if _four_bits(note) != _four_bits(first):
            raise ModelError(
                f"Of {folder} and {folders[0]} one was trained on a base of four bits: their bases differ."
            )
        for what in SAME:
            if note[what] != first[what]:
                raise ModelError(
                    f"{folder} has {what} {note[what]}, {folders[0]} has {first[what]}: they were trained on "
                    "different models, and no sum of theirs means anything."
                )
    return first


def _smallest(folder: Path) -> int:
    """The least dimension of an adapted layer."""
    with safe_open(folder / "adapter_model.safetensors", "pt") as held:
        shapes: dict[str, list[int]] = {name: held.get_slice(name).get_shape() for name in held.keys()}  # noqa: SIM118
    return min(shape[1] if ".lora_A." in name else shape[0] for name, shape in shapes.items())


def _note(folder: Path) -> dict[str, Any]:
    """What was trained in ``folder``. Raises ModelError for what has no plain sum."""
    if not (folder / artefact.NOTE).is_file():
        raise ModelError(f"{folder} holds no adapter trained by Tunesmith. {ADDABLE}")
    files.verify(folder)
    note: dict[str, Any] = json.loads((folder / artefact.NOTE).read_text(encoding="utf-8"))
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    beside = config.get("modules_to_save") or config.get("trainable_token_indices")
    why = (
        "has a classification head, and heads have no sum"
        if "labels" in note
        else f"was trained with {note['method']}, which is no plain LoRA"
        if config.get("peft_type") != "LORA" or config.get("use_dora")
        else "trained weights beside its adapter"
        if beside
        else None
    )
    if why:
        raise ModelError(f"{folder} {why}. {ADDABLE}")
    return note


def combine(folders: Sequence[Path], weights: Sequence[float], way: Way, out: Path) -> Model:
    """Write the combined adapter to ``out`` in one rename and return the model with it. Raises RecipeError,
    ModelError, DataError, DiskError."""
    note = check(folders, weights, way)
    four_bits = _four_bits(note)
    model = loading.load(note["base"], four_bits=four_bits)  # in float32, by which the sum is proven
    base = _states(model)
    with files.publish(out) as temporary:
        expected = _sum(model, folders, weights, way, temporary)
        lora_files.load(model, temporary)
        far = float((_states(model) - expected).abs().max() / expected.abs().max())
        if not far <= BOUND:
            raise ModelError(f"The sum's states are {far:.1e} off PEFT's own; expected {BOUND:g}. It is not written.")
        if float((expected - base).abs().max()) <= NOTHING * float(base.abs().max()):
            raise ModelError("The sum does nothing: its parts cancel, or nothing of them was kept. Change --weights.")
        about = {"by": way.by, "weights": list(weights), "of": [str(folder) for folder in folders]}
        own = note | {"method": "qlora" if four_bits else "lora", "combined": about}
        text = json.dumps(own, indent=2, ensure_ascii=False)
        (temporary / artefact.NOTE).write_text(text + "\n", encoding="utf-8")
    return model


def _four_bits(note: dict[str, Any]) -> bool:
    method: Method = parts.find("models.adapters", note["method"])
    return method.four_bits


def _sum(model: Model, folders: Sequence[Path], weights: Sequence[float], way: Way, target: Path) -> Tensor:
    """Write PEFT's sum to ``target`` and return the states that its layers give; ``model`` is the base again."""
    import peft

    names = [f"part{i}" for i in range(len(folders))]
    wrapped: Any = peft.PeftModel.from_pretrained(model.network, str(folders[0]), adapter_name=names[0])
    for name, folder in zip(names[1:], folders[1:], strict=True):
        wrapped.load_adapter(str(folder), adapter_name=name)
    wrapped.peft_config[names[0]].use_rslora = False  # the sum's scale is 1, whatever its parts were scaled by
    kind, dials = KINDS[way.by], {"svd_rank": way.rank, "density": way.density, "svd_full_matrices": False}
    with torch.random.fork_rng():
        torch.manual_seed(way.seed)
        wrapped.base_model.add_weighted_adapter(names, list(weights), "sum", kind, **dials)
    wrapped.set_adapter("sum")
    found = _states(model)
    with tempfile.TemporaryDirectory() as beside:
        wrapped.save_pretrained(beside, selected_adapters=["sum"])
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copyfile(Path(beside) / "sum" / name, target / name)
    wrapped.unload()
    return found


@torch.no_grad()
def _states(model: Model) -> Tensor:
    ids_BT = torch.arange(5, 37, device=model.device)[None] % model.card.vocabulary
    model.train(False)
    return model.hidden(ids_BT, torch.tensor([32], device=model.device)).float()
