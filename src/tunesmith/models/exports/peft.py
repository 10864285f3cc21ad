"""The adapter by itself, in PEFT's format, with the tokenizer, the template and the stop tokens it was trained with."""

import json
import shutil
from pathlib import Path
from typing import Any

from tunesmith.core import parts
from tunesmith.core.errors import ModelError
from tunesmith.core.files import MANIFEST
from tunesmith.core.report import Report
from tunesmith.models import few_bits
from tunesmith.models.adapters._lora_files import OWN, layers
from tunesmith.models.artefact import NOTE
from tunesmith.models.exports._export import Export, Subject
from tunesmith.models.exports._transformers import GENERATION, TransformersReader, in_words, loader, write_beside
from tunesmith.models.machine import default_device
from tunesmith.models.model import Model

CONFIG = "adapter_config.json"
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank takes


def check(report: Report, trained: Path) -> None:
    """Raise ModelError for a run without an adapter, or one whose files are not PEFT's."""
    method = report.recipe.method.name
    if not parts.find("models.adapters", method).is_adapter:
        raise ModelError(f"{method} trained the model's own weights; there is no adapter to export. Use --to merged.")
    if not (trained / CONFIG).is_file():
        raise ModelError(f"{trained} has no {CONFIG}: PEFT does not know {method}. tunesmith chat runs it as it is.")


def write(subject: Subject, folder: Path) -> None:
    for path in subject.trained.iterdir():
        if path.name not in (MANIFEST, "README.md"):
            shutil.copy(path, folder / path.name)
    write_beside(subject, folder)


def open_again(folder: Path) -> TransformersReader:
    import peft
    import torch
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    family: Any = AutoModelForCausalLM if (folder / GENERATION).is_file() else AutoModel
    if parts.find("models.adapters", note["method"]).four_bits:
        base = family.from_pretrained(note["base"], **few_bits.in_four_bits(note["precision"], None))
    else:
        base = family.from_pretrained(note["base"], dtype=getattr(torch, note["precision"])).to(default_device())
    size = len(AutoTokenizer.from_pretrained(folder))
    if size > base.get_input_embeddings().num_embeddings:  # tokens that the run has added
        base.resize_token_embeddings(size, mean_resizing=False)
    return TransformersReader(peft.PeftModel.from_pretrained(base, str(folder)), folder)


def use(model: Model, name: str) -> str:
    kind = loader(model)
    grown = f"base.resize_token_embeddings({model.card.vocabulary})\n" if model.adapted.get(OWN) else ""
    text = (
        f"```python\nfrom peft import PeftModel\nfrom transformers import {kind}\n\n"
        f'base = {kind}.from_pretrained("the/base")  # the {model.card.architecture} it was trained on\n{grown}'
        'model = PeftModel.from_pretrained(base, "path/to/this/folder")\n```'
    )
    return in_words(model, text, _vllm(model, name))


def _vllm(model: Model, name: str) -> str:
    """A command line, or why there is none."""
    found = list(model.adapter_settings.values())
    if not found or OWN in model.adapted:
        merge = "" if model.soft is not None else " Use `--to merged`."
        return f"vLLM serves adapters of the LoRA family only, with nothing trained beside them.{merge}"
    if any(s.magnitude for s in found):
        return "vLLM does not serve DoRA adapters. Use `--to merged`."
    if len(set(found)) > 1:
        return "vLLM does not read ranks or alphas of single layers. Use `--to merged`."
    rank = max(len(layer.plain()[0]) for layer in layers(model).values())
    most = next((r for r in VLLM_RANKS if r >= rank), None)
    if most is None:
        return f"vLLM serves ranks up to {VLLM_RANKS[-1]}; this one has {rank}. Use `--to merged`."
    return (
        f"With vLLM (not run here):\n\n```\nvllm serve the/base --enable-lora --max-lora-rank {most} "
        f"--lora-modules {name}=path/to/this/folder --chat-template path/to/this/folder/chat_template.jinja "
        f"--generation-config path/to/this/folder --max-model-len {model.card.context}\n```"
    )


PART = Export(
    "peft",
    check=check,
    write=write,
    open=open_again,
    use=use,
    library="peft",
    merges=False,
)
