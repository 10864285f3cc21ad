"""A GGUF opened with llama.cpp's Python binding: the one file that imports llama_cpp, which is optional.

Legend: T tokens, V vocabulary.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def installed() -> bool:
    return importlib.util.find_spec("llama_cpp") is not None


def open_again(path: Path) -> "LlamaReader | str":
    if not installed():
        return "llama-cpp-python is not installed (pip install 'tunesmith[llama-cpp]' builds it)"
    return LlamaReader(path)


class LlamaReader:
    """Prompts by the file's own tokenizer and template, on the processor."""

    def __init__(self, path: Path) -> None:
        import llama_cpp
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        threads = torch.get_num_threads()
        self.llama: Any = llama_cpp.Llama(
            str(path),
            n_ctx=0,
            n_gpu_layers=0,
            n_threads=threads,
            n_threads_batch=threads,
            logits_all=True,
            verbose=False,
        )
        self.begins = self.llama.metadata.get("tokenizer.ggml.bos_token_id")
        bos, eos = self.llama.token_bos(), self.llama.token_eos()
        words = [self.llama.detokenize([i], special=True).decode() if i >= 0 else "" for i in (eos, bos)]
        self.render: Any = Jinja2ChatFormatter(self.llama.metadata["tokenizer.chat_template"], words[0], words[1])
        vocabulary = llama_cpp.llama_model_get_vocab(self.llama.model)
        is_end: Any = llama_cpp.llama_vocab_is_eog
        self.ends: Any = lambda token: bool(is_end(vocabulary, token))

    def chat_ids(self, turns: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> list[int]:
        text = self.render(messages=list(turns), tools=list(tools) or None).prompt
        return list(self.llama.tokenize(text.encode(), add_bos=False, special=True))

    def text_ids(self, text: str) -> list[int]:
        bos = [] if self.begins is None else [int(self.begins)]
        return bos + list(self.llama.tokenize(text.encode(), add_bos=False, special=False))

    def logits_TV(self, ids: Sequence[int]) -> Tensor:
        self.llama.reset()
        self.llama.eval(list(ids))
        return torch.from_numpy(self.llama.scores[: len(ids)].copy())

    def greedy(self, ids: Sequence[int], most: int) -> list[int]:
        found: list[int] = []
        self.llama.reset()
        new: Any = self.llama.generate(list(ids), temp=0.0, repeat_penalty=1.0)
        for token in new:
            if self.ends(token):
                break
            found.append(token)
            if len(found) == most:
                break
        return found
