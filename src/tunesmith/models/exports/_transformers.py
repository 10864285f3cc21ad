"""What every folder for transformers has beside its weights, and such a folder opened again.

Notable: the chat template and the stop tokens are written out as they were in training, also where the base has none of
its own; decoding is greedy, for that is what was proven. Nothing else of the base's generation settings goes along.
Legend: T tokens, V vocabulary, C classes, D width.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunesmith.models.artefact import HEAD_WEIGHTS
from tunesmith.models.exports._export import Subject
from tunesmith.models.model import Model, pooled

HEAD, GENERATION = "head.json", "generation_config.json"


def write_beside(subject: Subject, folder: Path) -> None:
    """Tokenizer and template; for a decoder how it writes; where there is a head, its weights and labels."""
    from transformers import AutoTokenizer, GenerationConfig

    model = subject.model
    grown = (subject.trained / "tokenizer.json").is_file()  # by tokens that the run has added
    tokenizer = AutoTokenizer.from_pretrained(subject.trained if grown else model.card.path)
    if model.card.kind == "decoder":
        tokenizer.chat_template = subject.template
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else subject.stop_ids[0]
        stops = list(subject.stop_ids)
        settings = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": stops, "pad_token_id": pad}
        made: Any = GenerationConfig
        made(**settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if model.head is not None:
        state = model.head.score.state_dict().items()
        save_file({f"score.{k}": v.detach().float().cpu() for k, v in state}, folder / HEAD_WEIGHTS)
        about = {"labels": list(model.labels), "pool": model.head.pool}
        (folder / HEAD).write_text(json.dumps(about, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


class TransformersReader:
    """``network`` as transformers or PEFT loaded it, with what lies beside it in ``folder``."""

    def __init__(self, network: Any, folder: Path) -> None:
        from transformers import AutoTokenizer, GenerationConfig

        self.network = network.eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.writes = GenerationConfig.from_pretrained(folder) if (folder / GENERATION).is_file() else None
        self.head = load_file(folder / HEAD_WEIGHTS) if (folder / HEAD).is_file() else None
        self.pool = json.loads((folder / HEAD).read_text(encoding="utf-8"))["pool"] if self.head else None

    def chat_ids(self, turns: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> list[int]:
        found: Any = self.tokenizer.apply_chat_template(
            list(turns), tools=list(tools) or None, add_generation_prompt=True, return_dict=False
        )
        return [int(i) for i in found]

    def text_ids(self, text: str) -> list[int]:
        if self.head is not None:
            return list(self.tokenizer(text).input_ids)
        bos = self.tokenizer.bos_token_id
        return ([] if bos is None else [bos]) + list(self.tokenizer(text, add_special_tokens=False).input_ids)

    @torch.no_grad()
    def logits_TV(self, ids: Sequence[int]) -> Tensor:
        logits: Tensor = self.network(**self._asked(ids)).logits[0]
        return logits[-len(ids) :].float().cpu()  # PEFT's soft tokens stand before them

    @torch.no_grad()
    def greedy(self, ids: Sequence[int], most: int) -> list[int]:
        assert self.writes is not None  # only decoders are asked
        self.writes.max_new_tokens = most
        out = self.network.generate(**self._asked(ids), generation_config=self.writes)
        new: list[int] = out[0, len(ids) :].tolist()
        stops = set(self.writes.eos_token_id)
        return new[: next((i for i, token in enumerate(new) if token in stops), len(new))]

    @torch.no_grad()
    def class_logp_C(self, ids: Sequence[int]) -> Tensor:
        assert self.head is not None  # only classifiers are asked
        assert self.pool is not None
        out = self.network(**self._asked(ids), output_hidden_states=True)
        states_TD = out.hidden_states[-1][0, -len(ids) :].float().cpu()
        vector_1D = pooled(states_TD, torch.tensor([len(ids)]), self.pool)
        logits_1C = torch.nn.functional.linear(vector_1D, self.head["score.weight"], self.head["score.bias"])
        return logits_1C[0].log_softmax(-1)

    def _asked(self, ids: Sequence[int]) -> dict[str, Tensor]:
        ids_1T = torch.tensor([list(ids)], device=self.network.device)
        return {"input_ids": ids_1T, "attention_mask": torch.ones_like(ids_1T)}


def loader(model: Model) -> str:
    """The class of transformers that loads it."""
    return "AutoModelForCausalLM" if model.card.kind == "decoder" else "AutoModel"


def in_words(model: Model, loading: str, serving: str) -> str:
    """How it is loaded; then how it is served, or what a reader of the card has to know of its head."""
    if model.head is None:
        return loading if model.card.kind == "encoder" else f"{loading}\n\n{serving}"
    return (
        f"{loading}\n\nThe classes are scored by `head.safetensors`: a linear layer on the pooled last hidden states; "
        "`head.json` names the labels and the pooling (`mean` of all tokens, or the `last`). vLLM and Ollama run no "
        "such head."
    )
