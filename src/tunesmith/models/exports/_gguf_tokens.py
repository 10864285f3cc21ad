"""A fast tokenizer as GGUF has it: byte-level BPE with its merges, or SentencePiece's BPE with scores.

Notable: llama.cpp knows ways of cutting text up before BPE by name, not by rule; the rule of the tokenizer is looked up
here, and one that is not known is refused rather than named wrongly. SentencePiece's scores are not in a
``tokenizer.json``; the order of its merges stands for them.
"""

import json
from dataclasses import dataclass
from typing import Any

from tunesmith.core.errors import ModelError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CUTS = {  # the rule, and llama.cpp's name of it
    _SHORT + _WORDS + r"\p{N}" + _TAIL: "qwen2",
    _SHORT + _WORDS + r"\p{N}{1,3}" + _TAIL: "llama-bpe",
    _GPT2: "gpt-2",
}


@dataclass(frozen=True)
class Tokens:
    """``model`` and ``pre`` are llama.cpp's names; ``prefix``: a space goes before a text."""

    model: str
    pre: str
    texts: list[str]
    types: list[int]
    scores: list[float]
    merges: list[str]
    prefix: bool


def tokens(tokenizer: Any, vocabulary: int) -> Tokens:
    """The tokens of ``tokenizer``, filled up to ``vocabulary``. Raises ModelError for a kind that is not known."""
    held = json.loads(tokenizer.backend_tokenizer.to_str())
    bpe = held["model"]
    if bpe["type"] != "BPE":
        raise ModelError(f"The tokenizer is {bpe['type']}; GGUF is written for BPE. Use --to merged.")
    merges = [m if isinstance(m, str) else " ".join(m) for m in bpe["merges"]]
    texts = {number: text for text, number in bpe["vocab"].items()}
    types = dict.fromkeys(texts, NORMAL)
    for token in held["added_tokens"]:
        texts[token["id"]] = token["content"]
        types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    for number in range(vocabulary):
        if number not in texts:
            texts[number], types[number] = f"[PAD{number}]", UNUSED
    order = range(vocabulary)
    listed = [texts[n] for n in order]
    if not bpe["byte_fallback"]:
        return Tokens("gpt2", _cut(held["pre_tokenizer"]), listed, [types[n] for n in order], [], merges, False)
    rank = {"".join(m.split(" ")): -float(place) for place, m in reversed(list(enumerate(merges, 1)))}
    for number, text in texts.items():
        if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            types[number] = BYTE
    if tokenizer.unk_token_id is not None:
        types[tokenizer.unk_token_id] = UNKNOWN
    last = -float(len(merges) + 1)
    prefix = any(step.get("type") == "Prepend" for step in (held["normalizer"] or {}).get("normalizers", ()))
    scores = [rank.get(text, last) for text in listed]
    return Tokens("llama", "", listed, [types[n] for n in order], scores, [], prefix)


def _cut(steps: dict[str, Any] | None) -> str:
    """llama.cpp's name of the rule. Raises ModelError where it has none that is known here."""
    found = (steps or {}).get("pretokenizers", [steps or {}])
    rules = [step["pattern"].get("Regex", "") for step in found if step.get("type") == "Split"]
    rules += [_GPT2 for step in found if step.get("type") == "ByteLevel" and step.get("use_regex")]
    name = CUTS.get(rules[0]) if len(rules) == 1 else None
    if name is None:
        raise ModelError(
            f"The tokenizer cuts text up by {rules or steps}, for which llama.cpp has no name that is known here. "
            "Use --to merged."
        )
    return name
