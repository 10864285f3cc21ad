"""One file for llama.cpp, Ollama and their kin, for networks of the Llama kind, by the ``gguf`` package (optional).

Notable: llama.cpp turns pairs of neighbouring dimensions where transformers turns the two halves of a head, so Llama's
query and key rows are reordered. A tied output matrix is written once. The tokenizer and the chat template lie inside
the file; what llama.cpp would cut up otherwise than the tokenizer does is refused, or shown by the proof.
"""

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.errors import ModelError
from tunesmith.core.report import Report
from tunesmith.models.artefact import HEAD_WEIGHTS
from tunesmith.models.exports import _llama_cpp, _ollama
from tunesmith.models.exports._export import Export, Subject
from tunesmith.models.exports._gguf_tokens import Tokens, tokens
from tunesmith.models.merge import merged
from tunesmith.models.model import Model

ARCHITECTURES = {"LlamaForCausalLM": "llama", "MistralForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}
FILE = "model.gguf"


def check(report: Report, trained: Path) -> None:
    """Raise ModelError for what a GGUF cannot hold, or where nothing here can write one."""
    if report.card.architecture not in ARCHITECTURES:
        raise ModelError(
            f"{report.card.architecture} cannot be written as GGUF here; expected one of: {', '.join(ARCHITECTURES)}. "
            "Use --to merged."
        )
    if (trained / HEAD_WEIGHTS).is_file():
        raise ModelError("A classification head has no place in a GGUF. Use --to merged, or train with objective: sft.")
    if importlib.util.find_spec("gguf") is None:
        raise ModelError("--to gguf needs the package gguf. pip install 'tunesmith[gguf]', or use --to merged.")


def write(subject: Subject, folder: Path) -> None:
    """Raises ModelError for positions or a tokenizer that llama.cpp does not know."""
    from gguf import GGUFWriter

    model, config = subject.model, subject.model.network.config
    kind = ARCHITECTURES[model.card.architecture]
    held = tokens(model.tokenizer, model.card.vocabulary)
    writer = GGUFWriter(folder / FILE, kind)
    writer.add_name(model.card.name)
    _shape(writer, config)
    _speech(writer, subject, held)
    scales = _positions(writer, config)
    if scales is not None:
        writer.add_tensor("rope_freqs.weight", scales)
    with merged(model) as network:
        _tensors(writer, network, kind, subject.weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (folder / "Modelfile").write_text(_ollama.modelfile(subject, FILE), encoding="utf-8")


def _shape(writer: Any, config: Any) -> None:
    window = getattr(config, "sliding_window", None)
    if window and window < config.max_position_embeddings and getattr(config, "use_sliding_window", True):
        raise ModelError(
            f"This network looks back {window} tokens at a time, which llama.cpp does not know of its kind. "
            "Use --to merged."
        )
    head = _head_width(config)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _head_width(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _positions(writer: Any, config: Any) -> NDArray[np.float32] | None:
    """Write how positions turn; factors of the single frequencies where Llama 3 stretches them."""
    from gguf import RopeScalingType

    rope = config.rope_parameters
    writer.add_rope_freq_base(rope["rope_theta"])
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif kind == "llama3":
        return _llama3_factors(rope, _head_width(config))
    elif kind != "default":
        raise ModelError(f"Positions are stretched by {kind}; GGUF is written for linear and llama3. Use --to merged.")
    return None


def _llama3_factors(rope: dict[str, Any], width: int) -> NDArray[np.float32]:
    """By how much each frequency is slowed: long waves by the whole factor, short ones not at all."""
    old, low, high = (rope[k] for k in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor"))
    found = []
    for place in range(0, width, 2):
        wave = 2 * math.pi * rope["rope_theta"] ** (place / width)
        share = min(max((old / wave - low) / (high - low), 0.0), 1.0)
        found.append(1 / ((1 - share) / rope["factor"] + share))
    return np.array(found, dtype=np.float32)


def _speech(writer: Any, subject: Subject, held: Tokens) -> None:
    """Tokenizer, special tokens and template; a BOS is added by the reader where the template begins with one."""
    own = subject.model.tokenizer
    writer.add_tokenizer_model(held.model)
    if held.pre:
        writer.add_tokenizer_pre(held.pre)
    writer.add_token_list(held.texts)
    writer.add_token_types(held.types)
    if held.scores:
        writer.add_token_scores(held.scores)
    if held.merges:
        writer.add_token_merges(held.merges)
    end = own.eos_token_id if own.eos_token_id is not None else subject.stop_ids[0]
    turn = next((i for i in subject.stop_ids if i != end), None)
    named = (
        (writer.add_bos_token_id, own.bos_token_id),
        (writer.add_eos_token_id, end),
        (writer.add_eot_token_id, turn),
        (writer.add_unk_token_id, own.unk_token_id),
        (writer.add_pad_token_id, own.pad_token_id),
    )
    for add, number in named:
        if number is not None:
            add(number)
    shown = _ollama.render(subject, [{"role": "user", "content": "a"}], ask=True)
    writer.add_add_bos_token(own.bos_token is not None and shown.startswith(own.bos_token))
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(held.prefix)
    writer.add_chat_template(subject.template)


def _tensors(writer: Any, network: Any, kind: str, weights: str) -> None:
    from gguf import MODEL_ARCH, GGMLQuantizationType, LlamaFileType, get_tensor_name_map
    from gguf.quants import quantize

    config = network.config
    wanted = GGMLQuantizationType[weights.upper()]
    writer.add_file_type(LlamaFileType[f"MOSTLY_{weights.upper()}"])
    names = get_tensor_name_map(MODEL_ARCH[kind.upper()], config.num_hidden_layers)
    for name, tensor in network.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        called = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if called is None:
            raise ModelError(f"{name} has no place in a GGUF of {kind}. Use --to merged.")
        values = tensor.float().cpu().numpy()
        if kind == "llama" and "self_attn" in name and ("q_proj" in name or "k_proj" in name):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            values = _neighbours(values, heads)
        narrow = values.ndim > 1 and (weights != "q8_0" or values.shape[-1] % 32 == 0)
        held = wanted if narrow else GGMLQuantizationType.F16 if values.ndim > 1 else GGMLQuantizationType.F32
        writer.add_tensor(called, quantize(np.ascontiguousarray(values), held), raw_dtype=held)


def _neighbours(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of each head in llama.cpp's order: dimension i of the first half beside dimension i of the second.

    >>> _neighbours(np.arange(4, dtype=np.float32)[:, None], 1)[:, 0].tolist()
    [0.0, 2.0, 1.0, 3.0]
    """
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def use(_model: Model, name: str) -> str:
    return (
        f"```\nllama-server -m {FILE} --jinja --temp 0\n```\n\nWith Ollama, in this folder (the `Modelfile` is not run "
        f"here):\n\n```\nollama create {name} -f Modelfile\nollama run {name}\n```\n\nvLLM serves the `merged` format "
        "better."
    )


PART = Export(
    "gguf",
    check=check,
    write=write,
    open=lambda folder: _llama_cpp.open_again(folder / FILE),
    use=use,
    library="gguf",
    merges=True,
    types=("f16", "bf16", "q8_0"),
)
