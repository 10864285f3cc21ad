"""A trained model on disk: what it was trained on is written beside it, and loading refuses anything else.

Notable: ``tunesmith.json`` holds the base's fingerprint and the tokenizer's and template's hashes; the manifest is
verified; an adapter that does not change the base's answers is refused (it was not applied).
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tunesmith.core import files, parts
from tunesmith.core.errors import DiskError, ModelError
from tunesmith.models import load as loading
from tunesmith.models.adapters import _lora_files, _peft, prompt
from tunesmith.models.model import Model, Precision, adapters_off

NOTE, HEAD_WEIGHTS = "tunesmith.json", "head.safetensors"
OWN = {"LORA": _lora_files.load, "PROMPT_TUNING": prompt.load}  # what PEFT's kinds are read by here
UNREAD = ("PREFIX_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING", "ADAPTION_PROMPT", "CPT", "CARTRIDGE")


def publish(model: Model, method: str, folder: Path, extra: dict[str, str]) -> None:
    """Write the trained weights to ``folder`` in one rename. ``extra`` are more files by name (the model card). Raises
    ModelError, DiskError."""
    for name, parameter in model.trainable():
        if not bool(torch.isfinite(parameter).all()):
            raise ModelError(
                f"{name} holds values that are not finite; such weights are not published. Lower train.learning_rate."
            )
    with files.publish(folder) as temporary:
        try:
            _write(model, method, temporary, extra)
        except (OSError, SafetensorError) as error:
            raise DiskError(f"Cannot write {folder}: {error}. Free space or choose another folder.") from error


def _write(model: Model, method: str, folder: Path, extra: dict[str, str]) -> None:
    parts.find("models.adapters", method).save(model, folder)
    note: dict[str, Any] = {
        "method": method,
        "base": model.card.path,
        "base_fingerprint": model.card.fingerprint,
        "tokenizer_hash": model.card.tokenizer_hash,
        "template_hash": model.card.template_hash,
        "precision": model.precision,
    }
    if model.head is not None:
        note |= {"labels": list(model.labels), "pool": model.head.pool}
        save_file(
            {f"score.{k}": v.detach().float() for k, v in model.head.score.state_dict().items()},
            folder / HEAD_WEIGHTS,
        )
    (folder / NOTE).write_text(json.dumps(note, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, text in extra.items():
        (folder / name).write_text(text, encoding="utf-8")


def load(
    folder: Path, base: str | None = None, *, precision: Precision | None = None, four_bits: bool | None = None
) -> Model:
    """The trained model in ``folder``, on the base it names or on ``base``, which is held in four bits where its method
    has it so, or as ``four_bits`` says. Raises ModelError, DataError."""
    note = _note(folder)
    few = parts.find("models.adapters", note["method"]).four_bits if four_bits is None else four_bits
    model = loading.load(base or note["base"], precision=precision or note["precision"], four_bits=few)
    return _put(model, folder, note)


def goes_on(folder: Path, model: Model) -> bool:
    """Whether ``folder`` holds an adapter of the base that ``model`` is, in the same precision."""
    note = _note(folder)
    method = parts.find("models.adapters", note["method"])
    same = (note["base_fingerprint"], note["precision"]) == (model.card.fingerprint, model.precision)
    return bool(method.is_adapter and same)


def put_on(model: Model, folder: Path, *, trained: bool = True) -> Model:
    """Load what was trained in ``folder`` onto its untouched base ``model``. Raises ModelError, DataError; ModelError
    also for an adapter that changes nothing, where it should have been ``trained``."""
    return _put(model, folder, _note(folder), trained=trained)


def _put(model: Model, folder: Path, note: Mapping[str, Any], *, trained: bool = True) -> Model:
    method = parts.find("models.adapters", note["method"])
    check_base(model, folder, note)
    if "labels" in note:
        model.add_head(note["labels"], seed=0)
        assert model.head is not None
        model.head.load_state_dict(load_file(folder / HEAD_WEIGHTS))
    method.load(model, folder)
    if method.is_adapter and trained:
        check_changes(model, folder)
    model.train(False)
    return model


def check_base(model: Model, folder: Path, note: Mapping[str, Any]) -> None:
    """Raise ModelError where ``note``, of what was trained in ``folder``, names another base than ``model``."""
    for what, found in (
        ("base_fingerprint", model.card.fingerprint),
        ("tokenizer_hash", model.card.tokenizer_hash),
        ("template_hash", model.card.template_hash),
    ):
        if note[what] != found:
            raise ModelError(
                f"{folder} was trained with {what} {note[what]}; {model.card.path} has {found}. "
                "These weights belong to another model; its answers would be noise. Name the right base."
            )


def _note(folder: Path) -> dict[str, Any]:
    if not (folder / NOTE).is_file():
        raise ModelError(f"{folder} has no {NOTE}: it holds no model trained by Tunesmith, or the run did not finish.")
    files.verify(folder)
    found: dict[str, Any] = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    return found


def adopt(folder: Path, base: str, *, precision: Precision = "float32") -> tuple[Model, str]:
    """An adapter in PEFT's format that was made elsewhere, on ``base``; and what of it is not proven, as a sentence.

    Raises ModelError where a key or a shape does not fit, a setting would be applied differently, or nothing changes.
    """
    path = folder / "adapter_config.json"
    try:
        kind = str(json.loads(path.read_text(encoding="utf-8"))["peft_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} cannot be read ({type(error).__name__}: {error}); expected an adapter in PEFT's format."
        ) from error
    if kind in UNREAD:
        raise ModelError(f"{path}: adapters of the kind {kind} are not read here. Run it with peft.")
    model = loading.load(base, precision=precision)
    OWN.get(kind, _peft.load)(model, folder)
    check_changes(model, folder)
    model.train(False)
    return model, (
        f"{folder} names no fingerprint of its base: its keys and shapes fit {model.card.name}, which other models' "
        "would as well. Make sure that it was trained on this base."
    )


def check_changes(model: Model, folder: Path) -> None:
    """Raise ModelError when the adapter leaves the hidden states as they are."""
    ids_BT = torch.arange(5, 21, device=model.device)[None] % model.card.vocabulary
    length_B = torch.tensor([16], device=model.device)
    with torch.no_grad():
        with_adapter = model.hidden(ids_BT, length_B).float()
        with adapters_off(model):
            without = model.hidden(ids_BT, length_B).float()
    if math.isclose(float((with_adapter - without).abs().max()), 0.0, abs_tol=0.0):
        raise ModelError(
            f"{folder}: the adapter does not change the model's states: it was not trained, or not applied."
        )
