"""Finding, checking and loading a model: the bundled base, a folder, a folder inside an installed package, or a hub id.

Notable: only safetensors are read; a folder is checked before transformers sees it (no weights, pickle-only weights,
remote code, an adapter instead of a base, a missing or damaged shard), so that each fault is a sentence. The
fingerprint is a hash of the tensors' headers and of sampled blocks, and is stored with everything trained on these
weights.
"""

import hashlib
import importlib.util
import json
import struct
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch

from tunesmith.core.card import ModelCard
from tunesmith.core.errors import ModelError
from tunesmith.models.model import Model, Precision

ENCODERS = (
    "bert",
    "roberta",
    "distilbert",
    "xlm-roberta",
    "mpnet",
    "electra",
    "deberta",
    "deberta-v2",
    "albert",
    "modernbert",
    "camembert",
)
BLOCK, SAMPLES = 4096, 4096  # a file up to 16 MB is hashed whole


def locate(reference: str) -> Path | str:
    """``bundled``, ``package:NAME/FOLDER``, an existing folder, or else a hub id (returned as it is)."""
    if reference == "bundled":
        return Path(str(resources.files("tunesmith") / "assets" / "base"))
    if reference.startswith("package:"):
        name, _, below = reference.removeprefix("package:").partition("/")
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise ModelError(
                f'model: "{reference}" names the Python package {name!r}, which is not installed. '
                "Install it, or name a folder."
            )
        return Path(next(iter(spec.submodule_search_locations))) / below
    path = Path(reference).expanduser()
    if path.exists() or reference.startswith((".", "/", "~")) or reference.count("/") > 1:
        return path
    return reference


def check_folder(folder: Path) -> None:
    """Raise ModelError with a sentence for a folder that cannot be a base."""
    if not folder.is_dir():
        raise ModelError(
            f"model: {folder} is no folder. Name a folder with config.json and safetensors weights, or model: bundled."
        )
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise ModelError(
            f"model: {folder} holds an adapter, not a base model. Name its base; adapters are loaded by tunesmith chat."
        )
    if not (folder / "config.json").is_file():
        raise ModelError(f"model: {folder} has no config.json. It is no transformers model folder.")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(
            f"model: {folder / 'config.json'} is not valid JSON ({error}). Fetch the model again."
        ) from error
    if not isinstance(config, dict) or "auto_map" in config:
        raise ModelError(
            f"model: {folder / 'config.json'} asks to run code of its own (auto_map). "
            "Tunesmith never runs a model's code."
        )
    files = _weight_files(folder)
    for path in files:
        _header(path)


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        for name in names:
            if "/" in name or "\\" in name or not (folder / name).is_file():
                raise ModelError(
                    f"model: {index} names the shard {name!r}, which is not in the folder. Fetch the model again."
                )
        return [folder / n for n in names]
    found = sorted(folder.glob("*.safetensors"))
    if found:
        return found
    unsafe = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt") for p in folder.glob(pattern))
    if unsafe:
        raise ModelError(
            f"model: {folder} has its weights as a pickle only ({unsafe[0]}). Loading one can run code; "
            "Tunesmith reads safetensors. Convert it with a tool you trust."
        )
    gguf = next((p.name for p in folder.glob("*.gguf")), None)
    what = f"only {gguf} (GGUF is for running, not for training)" if gguf else "no weights (*.safetensors)"
    raise ModelError(f"model: {folder} has {what}. Fetch the model with its safetensors.")


def _header(path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file, checked against the file's size."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(size - 8, 100_000_000):
            raise ModelError(
                f"model: {path} is no safetensors file ({size} bytes, header of {length}). Fetch it again."
            )
        try:
            header: dict[str, Any] = json.loads(stream.read(length))
        except ValueError as error:
            raise ModelError(f"model: the header of {path} is damaged ({error}). Fetch it again.") from error
    ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
    if max(ends, default=0) + 8 + length != size:
        raise ModelError(
            f"model: {path} has {size} bytes; its header promises {max(ends, default=0) + 8 + length}. Fetch it again."
        )
    return header


def fingerprint(folder: Path) -> str:
    """16 hex digits over names, shapes and sampled bytes of all weights."""
    digest = hashlib.sha256()
    for path in _weight_files(folder):
        header = _header(path)
        digest.update(json.dumps({k: v for k, v in header.items() if k != "__metadata__"}, sort_keys=True).encode())
        size = path.stat().st_size
        step = max(BLOCK, size // SAMPLES)
        with path.open("rb") as stream:
            for offset in range(0, size, step):
                stream.seek(offset)
                digest.update(stream.read(BLOCK))
    return digest.hexdigest()[:16]


def _kind(config: Any) -> Literal["decoder", "encoder"]:
    names = " ".join(config.architectures or ())
    if "CausalLM" in names or "LMHeadModel" in names:
        return "decoder"
    return "encoder" if config.model_type in ENCODERS else "decoder"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def card_of(reference: str) -> tuple[ModelCard, Any, Any]:
    """(card, config, tokenizer) of a model without its weights in memory. Raises ModelError."""
    from transformers import AutoConfig, AutoTokenizer

    where = locate(reference)
    if isinstance(where, Path):
        check_folder(where)
    else:
        where = _from_hub(where)
    try:
        config = AutoConfig.from_pretrained(where)
        tokenizer = AutoTokenizer.from_pretrained(where)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"model: {where} cannot be read: {str(error).splitlines()[0]}") from error
    text = config.get_text_config()
    headers = [_header(p) for p in _weight_files(where)]
    parameters = sum(_size(v["shape"]) for h in headers for k, v in h.items() if k != "__metadata__")
    vocabulary = int(text.vocab_size)
    if len(tokenizer) > vocabulary:
        raise ModelError(
            f"model: the tokenizer of {where} has {len(tokenizer)} ids, the embedding {vocabulary} rows. "
            "They do not belong together."
        )
    card = ModelCard(
        name=reference if not Path(reference).is_dir() else Path(reference).name,
        path=str(where),
        kind=_kind(config),
        architecture=(config.architectures or [type(config).__name__])[0],
        parameters=parameters,
        layers=int(text.num_hidden_layers),
        width=int(text.hidden_size),
        vocabulary=vocabulary,
        context=int(getattr(text, "max_position_embeddings", 0) or tokenizer.model_max_length),
        fingerprint=fingerprint(where),
        tokenizer_hash=_short_hash(tokenizer.backend_tokenizer.to_str()),
        template_hash=_short_hash(tokenizer.chat_template or ""),
    )
    return card, config, tokenizer


def _size(shape: list[int]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


def _from_hub(name: str) -> Path:
    """A hub model in the local cache or, when online, fetched into it (safetensors, JSON and tokenizer files only)."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["*.safetensors", "*.json", "*.jinja", "tokenizer*", "*.txt"]
    try:
        folder = Path(snapshot_download(name, allow_patterns=wanted))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise ModelError(
            f'model: "{name}" is no folder here, is not in the local cache, and could not be fetched '
            f"({type(error).__name__}). Name a local folder, or use model: bundled."
        ) from error
    check_folder(folder)
    return folder


def load(reference: str, *, precision: Precision = "float32", device: str | None = None) -> Model:
    """The model of ``reference`` in float32 on ``device`` (CUDA when there, else CPU). Raises ModelError."""
    from transformers import AutoModel, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    card, config, tokenizer = card_of(reference)
    family = AutoModelForCausalLM if card.kind == "decoder" else AutoModel
    if card.kind == "decoder" and hasattr(config, "use_cache"):
        config.use_cache = False
    try:
        network = family.from_pretrained(card.path, config=config, dtype=torch.float32, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"model: {card.path} cannot be loaded: {str(error).splitlines()[0]}") from error
    if tokenizer.pad_token_id is None:  # a pad is masked by position, never by id, so any id serves
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    network.eval()
    torch.nn.Module.to(network, device or default_device())
    return Model(network, tokenizer, card, precision=precision)


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def has_fast_bfloat16() -> bool:
    """Whether bf16 products are faster than float32 here: any CUDA device, or a CPU with AMX or AVX-512 BF16."""
    return torch.cuda.is_available() or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
