"""Finding, checking and loading a model: the bundled base, a folder, a folder inside an installed package, or a hub id.

Notable: only safetensors are read; a folder is checked before transformers sees it (no weights, pickle-only weights,
remote code, an adapter instead of a base, a missing or damaged shard), so that each fault is a sentence. The
fingerprint is a hash of the tensors' headers and of sampled blocks, and is stored with everything trained on these
weights.
"""

import hashlib
import json
import math
import re
import struct
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open

from tunesmith.core.card import ModelCard
from tunesmith.core.errors import ModelError
from tunesmith.models import few_bits
from tunesmith.models.allocator import keep_freed_memory, return_freed_memory
from tunesmith.models.locate import locate
from tunesmith.models.machine import default_device
from tunesmith.models.model import FIRST_POSITION_AFTER_PAD, Model, Precision, narrow
from tunesmith.models.template import check_template

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
FAULTS = (  # what reading a strange config may raise; memory is the machine's fault, not the model's
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
IDLE = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}  # of a config
BLOCK, SAMPLES = 4096, 4096  # a file up to 16 MB is hashed whole


def check_folder(folder: Path) -> None:
    """Raise ModelError with a sentence for a folder that cannot be a base."""
    if not folder.is_dir():
        raise ModelError(
            f"model: {folder} is no folder. Name a folder with config.json and safetensors weights, or model: bundled."
        )
    if (folder / "adapter_config.json").is_file():  # transformers would follow it to another base
        raise ModelError(
            f"model: {folder} holds an adapter (adapter_config.json), not a base model. "
            "Name its base; adapters are loaded by tunesmith chat."
        )
    if not (folder / "config.json").is_file():
        raise ModelError(f"model: {folder} has no config.json. It is no transformers model folder.")
    for path in sorted(folder.glob("*config.json")):  # the tokenizer's and the processor's can name code as well
        _check_config(path)
    for path in _weight_files(folder):
        _header(path)


def _check_config(path: Path) -> None:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"model: {path} is not valid JSON ({_line(error)}). Fetch the model again.") from error
    if not isinstance(config, dict):
        if path.name != "config.json":  # a file of the makers' own, such as the data_config.json of MiniLM
            return
        raise ModelError(f"model: {path} holds a {type(config).__name__}; expected keys. Fetch the model again.")
    if "auto_map" in config:
        raise ModelError(
            f"model: {path} asks to run code of its own (auto_map). Tunesmith never runs a model's code. "
            "Use another model."
        )


def _weight_files(folder: Path) -> list[Path]:
    """The files that transformers would read, in its order of preference."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        return _shards(index)
    other = next((p.name for p in sorted(folder.glob("*.safetensors"))), None)
    if other:
        raise ModelError(
            f"model: {folder} has {other}, but no model.safetensors. Rename the file, or fetch the model again."
        )
    unsafe = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt") for p in folder.glob(pattern))
    if unsafe:
        raise ModelError(
            f"model: {folder} has its weights as a pickle only ({unsafe[0]}). Loading one can run code; "
            "Tunesmith reads safetensors. Convert it with a tool you trust."
        )
    gguf = next((p.name for p in folder.glob("*.gguf")), None)
    what = f"only {gguf} (GGUF is for running, not for training)" if gguf else "no weights (*.safetensors)"
    raise ModelError(f"model: {folder} has {what}. Fetch the model with its safetensors.")


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"model: {index} is damaged ({type(error).__name__}: {error}); expected a weight_map. Fetch it again."
        ) from error
    for name in names:
        if "/" in name or "\\" in name or not (index.parent / name).is_file():
            raise ModelError(
                f"model: {index} names the shard {name!r}, which is not in the folder. Fetch the model again."
            )
    if not names:
        raise ModelError(f"model: {index} names no shard. Fetch the model again.")
    return [index.parent / name for name in names]


def _header(path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file; sizes, types and offsets are checked by the library."""
    try:
        with safe_open(path, "pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"model: {path} ({path.stat().st_size} bytes) is damaged, or no safetensors file: {error}. Fetch it again."
        ) from error
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, Any] = json.loads(stream.read(length))
    return header


def fingerprint(folder: Path) -> str:
    """16 hex digits over names, shapes and sampled bytes of all weights, and over what the config makes of them."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256(json.dumps({k: v for k, v in config.items() if k not in IDLE}, sort_keys=True).encode())
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


def _line(error: Exception) -> str:
    """The start of a library's message, on one line, after the kind of error where the message may not tell it."""
    said = " ".join(str(error).split())[:200].rstrip(" .:!,")
    if isinstance(error, OSError | ValueError | RuntimeError) and said and not isinstance(error, RecursionError):
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _check_template(folder: Path, tokenizer: Any) -> None:
    """Raise ModelError for a template that cannot be rendered safely; the bundled one is known."""
    template = tokenizer.chat_template
    if template is None or template == _bundled_template():
        return
    if not isinstance(template, str):
        raise ModelError(
            f"model: {folder} has {len(template)} chat templates ({', '.join(sorted(template))}); expected one. "
            "Leave the one to train with in its chat_template.jinja."
        )
    check_template(folder, template, {k: v for k, v in tokenizer.special_tokens_map.items() if isinstance(v, str)})


def _bundled_template() -> str:
    return (Path(str(resources.files("tunesmith"))) / "assets" / "base" / "chat_template.jinja").read_text("utf-8")


def card_of(reference: str) -> tuple[ModelCard, Any, Any]:
    """(card, config, tokenizer) of a model without its weights in memory. Raises ModelError."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoTokenizer

    where = locate(reference)
    if isinstance(where, Path):
        check_folder(where)
    else:
        where = _from_hub(where)
    try:
        config = AutoConfig.from_pretrained(where)
        text = config.get_text_config()
        vocabulary, layers, width = int(text.vocab_size), int(text.num_hidden_layers), int(text.hidden_size)
    except (
        *FAULTS,
        StrictDataclassError,
    ) as error:  # a number may be zero, absent or a word
        raise ModelError(
            f"model: {where / 'config.json'} cannot be read: {_line(error)}. Fetch the model again, or use another."
        ) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(where)
    except FAULTS as error:
        raise ModelError(
            f"model: the tokenizer of {where} cannot be read: {_line(error)}. "
            "Fetch tokenizer.json and tokenizer_config.json of this model."
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"model: the tokenizer of {where} ({type(tokenizer).__name__}) gives no offsets, by which trained tokens "
            "are found. Fetch its tokenizer.json."
        )
    _check_template(where, tokenizer)
    headers = [_header(p) for p in _weight_files(where)]
    parameters = sum(_size(v["shape"]) for h in headers for k, v in h.items() if k != "__metadata__")
    if len(tokenizer) > vocabulary:
        raise ModelError(
            f"model: the tokenizer of {where} has {len(tokenizer)} ids, the embedding {vocabulary} rows. "
            "They do not belong together."
        )
    context = int(getattr(text, "max_position_embeddings", 0) or tokenizer.model_max_length)
    if config.model_type in FIRST_POSITION_AFTER_PAD:
        context -= config.pad_token_id + 1
    card = ModelCard(
        name=reference if not Path(reference).is_dir() else Path(reference).name,
        path=str(where),
        kind=_kind(config),
        architecture=(config.architectures or [type(config).__name__])[0],
        parameters=parameters,
        layers=layers,
        width=width,
        vocabulary=vocabulary,
        context=context,
        fingerprint=fingerprint(where),
        tokenizer_hash=_short_hash(tokenizer.backend_tokenizer.to_str() + _special_tokens(tokenizer)),
        template_hash=_short_hash(tokenizer.chat_template or ""),
        licence=_licence(where),
    )
    return card, config, tokenizer


def _special_tokens(tokenizer: Any) -> str:
    """Which token has which part: end of a turn, beginning, pad. Templates ask for them."""
    return str(sorted((name, str(token)) for name, token in tokenizer.special_tokens_map.items()))


def _licence(folder: Path) -> str:
    """What the model's own card says in its front matter (``license: apache-2.0``), or unknown."""
    card = folder / "README.md"
    head = card.read_text(encoding="utf-8", errors="replace")[:20_000] if card.is_file() else ""
    front = head.split("---")[1] if head.startswith("---") and head.count("---") > 1 else ""
    found = re.search(r"^license:\s*['\"]?([\w.+-]{1,60})", front, re.MULTILINE)
    return found[1] if found else "unknown"


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


def load(
    reference: str, *, precision: Precision = "float32", device: str | None = None, four_bits: bool = False
) -> Model:
    """The model of ``reference`` in ``precision`` on ``device`` (CUDA when there, else CPU); with ``four_bits`` its
    linear layers but the head are NF4, quantised one by one as they are read. Raises ModelError."""
    from transformers import AutoModel, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return_freed_memory()
    card, config, tokenizer = card_of(reference)
    family = AutoModelForCausalLM if card.kind == "decoder" else AutoModel
    try:
        loaded: Any = family.from_pretrained(
            card.path,
            config=config,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, by name
            **(few_bits.in_four_bits(precision, device) if four_bits else {"dtype": torch.float32}),
        )
    except FAULTS as error:
        raise ModelError(
            f"model: {card.path} cannot be loaded: {_line(error)}. Fetch the model again, or use another."
        ) from error
    network, told = loaded
    _check_complete(card, told)
    _check_finite(card, network)
    if tokenizer.pad_token_id is None:  # a pad is masked by position, never by id, so any id serves
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    network.eval()
    if four_bits and precision == "float32":
        few_bits.let_go_of_the_file(network)
    narrow(network, precision)  # before it moves, so that a GPU never holds the float32 weights
    torch.nn.Module.to(network, device or default_device())
    keep_freed_memory()
    return Model(network, tokenizer, card, precision=precision)


def _check_complete(card: ModelCard, told: dict[str, Any]) -> None:
    """Raise ModelError for weights that transformers would have made up at random (a pooler is not used)."""
    for name, found, wanted in sorted(told["mismatched_keys"]):
        raise ModelError(
            f"model: {card.path}: {name} is {list(found)} in the weights, {list(wanted)} by config.json. "
            "Fetch the model again."
        )
    missing = sorted(name for name in told["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise ModelError(
            f"model: {card.path} has no weights for {missing[0]} and {len(missing) - 1} more of {card.architecture}. "
            "Fetch the model again."
        )


def _check_finite(card: ModelCard, network: torch.nn.Module) -> None:
    """Raise ModelError for weights that hold NaN or infinity: every loss would be one, whatever the rows."""
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        low, high = (float(x) for x in tensor.aminmax())  # one pass and no copy; NaN comes through
        if not (math.isfinite(low) and math.isfinite(high)):
            found = low if not math.isfinite(low) else high
            raise ModelError(
                f"model: {card.path}: {name} holds {found} among its {tensor.numel():,} weights; expected finite "
                "numbers. Fetch the model again, or name another."
            )
