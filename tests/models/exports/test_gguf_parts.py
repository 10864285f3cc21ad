"""What a GGUF says of tokens, and what an Ollama template is made of."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import small
from tunesmith.core.errors import ModelError
from tunesmith.models.exports import _ollama
from tunesmith.models.exports._gguf_tokens import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, tokens
from tunesmith.models.exports.gguf import _llama3_factors

TRIMMED = "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>{% endfor %}"
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


@pytest.fixture
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(small.ASSETS)


def subject(tokenizer: Any, template: str) -> Any:
    model = SimpleNamespace(tokenizer=tokenizer, card=SimpleNamespace(context=64))
    return SimpleNamespace(model=model, template=template, stop_ids=(3,))


def test_the_bundled_tokenizer_is_named_and_typed(tokenizer: Any) -> None:
    tokenizer.add_tokens(["<sql>"])
    held = tokens(tokenizer, small.VOCABULARY + 4)
    assert (held.model, held.pre, held.prefix) == ("gpt2", "qwen2", False)
    assert len(held.texts) == len(held.types) == small.VOCABULARY + 4
    assert [held.types[i] for i in (0, 3, 300, -4, -1)] == [CONTROL, CONTROL, NORMAL, USER_DEFINED, UNUSED]
    assert len(held.merges) == 7932
    assert all(m.count(" ") == 1 for m in held.merges)


@pytest.mark.shared
def test_sentencepiece_is_ordered_by_its_merges(shared_folder: Path) -> None:
    folder = shared_folder / "models" / "stories260K"
    held = tokens(AutoTokenizer.from_pretrained(folder), 512)
    merges = json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]
    first, last = ("".join(m if isinstance(m, list) else m.split(" ")) for m in (merges[0], merges[-1]))
    score = dict(zip(held.texts, held.scores, strict=True))
    assert (held.model, held.pre, held.prefix, held.merges) == ("llama", "", True, [])
    assert score[first] == -1 > score[last] == -len(merges)
    assert held.types[:4] == [UNKNOWN, CONTROL, CONTROL, BYTE]


def test_an_unknown_way_of_cutting_is_refused(tokenizer: Any) -> None:
    from tokenizers import Regex, pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+"), "isolated")
    with pytest.raises(ModelError, match=r"cuts text up by .*Use --to merged"):
        tokens(tokenizer, small.VOCABULARY)


def test_llama3_positions_are_slowed_as_transformers_slows_them() -> None:
    rope = {"rope_theta": 1e4, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope["original_max_position_embeddings"] = 64
    config = LlamaConfig(hidden_size=32, num_attention_heads=4, rope_parameters=rope)
    slowed, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1e4 ** -(torch.arange(0, 8, 2) / 8)
    assert (plain / slowed).tolist() == pytest.approx(_llama3_factors(rope, 8).tolist(), rel=1e-5)


def test_a_template_that_joins_turns_becomes_go(tokenizer: Any) -> None:
    text = _ollama.modelfile(subject(tokenizer, tokenizer.chat_template), "model.gguf")
    assert text.startswith("FROM ./model.gguf\n")
    assert '{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n{{ else if' in text
    assert '{{ end }}{{ end }}<|im_start|>assistant\n"""\n' in text
    assert "<|bos|>" not in text  # Ollama puts it
    assert 'PARAMETER stop "<|im_end|>"' in text
    turns = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    found = _ollama.pieces(subject(tokenizer, tokenizer.chat_template))
    assert found is not None
    assert found.joined(turns) == tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages | length }}" + TRIMMED,
        "{{ raise_exception('no') }}",
        TRIMMED + ASK,
        "{% if messages[0].role != 'system' %}Be kind.{% endif %}" + TRIMMED.replace(" | trim", "") + ASK,
    ],
)
def test_a_template_that_does_more_is_left_out(tokenizer: Any, template: str) -> None:
    text = _ollama.modelfile(subject(tokenizer, template), "model.gguf")
    assert "# TEMPLATE is left out" in text
    assert '"""' not in text


def test_a_plain_template_passes_the_same_probes(tokenizer: Any) -> None:
    plain = TRIMMED.replace(" | trim", "") + ASK
    assert 'TEMPLATE """' in _ollama.modelfile(subject(tokenizer, plain), "model.gguf")
