"""One folder that transformers and vLLM load without knowing of adapters: the adapter is inside the weights.

Notable: an adapter that was trained on four bits is merged into those same weights, written out (the caller makes them
dense), never into the 16-bit ones it has not seen.
"""

import json
from pathlib import Path
from typing import Any

from tunesmith.models.exports._export import Export, Subject
from tunesmith.models.exports._transformers import GENERATION, TransformersReader, in_words, loader, write_beside
from tunesmith.models.machine import default_device
from tunesmith.models.merge import merged
from tunesmith.models.model import Model


def write(subject: Subject, folder: Path) -> None:
    config = json.loads((Path(subject.model.card.path) / "config.json").read_text(encoding="utf-8"))
    as_read = "quantization_config" not in config  # few bits cannot be written as they were read: they are dense now
    with merged(subject.model) as network:
        network.save_pretrained(folder, save_original_format=as_read)
    write_beside(subject, folder)


def open_again(folder: Path) -> TransformersReader:
    from transformers import AutoModel, AutoModelForCausalLM

    family: Any = AutoModelForCausalLM if (folder / GENERATION).is_file() else AutoModel
    return TransformersReader(family.from_pretrained(folder, dtype="auto").to(default_device()), folder)


def use(model: Model, name: str) -> str:
    kind = loader(model)
    text = (
        f"```python\nfrom transformers import AutoTokenizer, {kind}\n\n"
        f'model = {kind}.from_pretrained("path/to/this/folder")\n'
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")\n```'
    )
    serving = (
        f"With vLLM (not run here):\n\n```\nvllm serve path/to/this/folder --served-model-name {name} "
        f"--max-model-len {model.card.context}\n```"
    )
    return in_words(model, text, serving)


PART = Export(
    "merged",
    check=lambda report, trained: None,
    write=write,
    open=open_again,
    use=use,
    library="transformers",
    merges=True,
)
