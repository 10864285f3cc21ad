"""Pre-trains the bundled base with the package's own loop: the ``sft`` objective with every token trained.

Notable: the schedule follows time (``--minutes``), so the rate has annealed when the budget ends, on any machine;
rows start short (256 tokens, cheap) and end at the full context of 1,024. Run ``scripts/prepare_base_corpus.py``
first.

    python scripts/pretrain_base.py --corpus base/corpus --tokenizer base/tokenizer --out base/model --minutes 100
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tunesmith.core import files
from tunesmith.core.batch import Batch
from tunesmith.core.card import ModelCard
from tunesmith.core.plan import Plan
from tunesmith.core.recipe import MethodRecipe
from tunesmith.core.report import CurvePoint
from tunesmith.models.adapters import full
from tunesmith.models.model import Model
from tunesmith.objectives.sft import PART as SFT
from tunesmith.train.loop import Hooks, fit
from tunesmith.train.optimiser import muon
from tunesmith.train.state import DevResult

CONTEXT = 1024
LENGTHS = ((0.65, 256), (0.88, 512), (2.0, CONTEXT))  # (until this share of the budget, tokens a row)
INSTRUCT_SHARE = ((0.75, 0.10), (2.0, 0.30))  # (until this share of the budget, share of instruction rows)

CARD = """---
language: en
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---

# tunesmith-base

The small base that ships with Tunesmith, so that everything works with no download: a Llama of {parameters:,}
parameters (4 layers, width 384, tied embeddings), context 1,024, byte-level BPE of 8,192 entries, ChatML template. It
writes English-like text and follows simple instructions badly; it is a thing to fine-tune, not to talk to.

Licence: Apache-2.0 for the weights. Trained on public-domain books and on instruction sets under MIT, Apache-2.0 and
CC-BY-4.0 (MedQuAD, Ben Abacha and Demner-Fushman, 2019; attribution is due where you pass the weights on).

## Training

{tokens:,} tokens in {steps:,} steps, {minutes:.0f} minutes on {device} (two cores, shared with other work), by
`scripts/prepare_base_corpus.py` and `scripts/pretrain_base.py`: Tunesmith's own loop, the sft objective with every
token trained, Muon for the matrices and AdamW for the rest, rows of 256, then 512, then 1,024 tokens.

| source | documents | tokens at hand |
|---|---|---|
{rows}

Windows were drawn at random, so not every token at hand was seen, and some were seen twice. The training rows of these
sets (never their test rows) were part of it: keep that in mind when you tune on them.

## Measured

| text | bits per byte |
|---|---|
| books_valid (12 books, none of them trained on) | {bits_per_byte_books_valid} |
| WikiText-2 valid | {bits_per_byte_wikitext2_valid} |

Windows of 1,024 tokens that overlap by half; each token is scored with at least 512 tokens of context.
"""


def at(table: tuple[tuple[float, float], ...], share: float) -> float:
    return next(value for until, value in table if share < until)


def network(layers: int, width: int) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=8192,
            hidden_size=width,
            intermediate_size=width * 8 // 3,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=3,
            initializer_range=0.02,
        )
    )


class Corpus:
    """Random windows of the books and of the instruction conversations; the clock decides their length and mixture."""

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        self.books = np.load(folder / "books.u16.npy", mmap_mode="r")
        self.instruct = np.load(folder / "instruct.u16.npy", mmap_mode="r")
        self.starts = np.flatnonzero(np.asarray(self.instruct) == 1)
        self.args = args
        self.random = np.random.default_rng(args.seed)
        self.started = time.monotonic()

    def share(self) -> float:
        return float((time.monotonic() - self.started) / (self.args.minutes * 60))

    def steps(self, _epoch: int) -> Iterator[list[Batch]]:
        while True:
            length = int(at(LENGTHS, self.share()))
            rows = self.args.batch_tokens // length
            instruct = self.random.random(rows) < at(INSTRUCT_SHARE, self.share())
            block = np.stack([self.window(bool(i), length + 1) for i in instruct])
            yield [batch(part) for part in np.array_split(block, max(1, rows * length // self.args.micro_tokens))]

    def window(self, instruct: bool, size: int) -> np.ndarray:
        if instruct:
            start = int(self.random.choice(self.starts))
            start = min(start, len(self.instruct) - size)
            return np.asarray(self.instruct[start : start + size])
        start = int(self.random.integers(0, len(self.books) - size))
        return np.asarray(self.books[start : start + size])


def batch(block: np.ndarray) -> Batch:
    tokens = torch.from_numpy(block.astype(np.int64))
    rows, width = tokens.shape[0], tokens.shape[1] - 1
    lengths = torch.full((rows,), width)
    return Batch(tokens[:, :-1], tokens[:, 1:].contiguous(), torch.ones(rows, width), lengths, -torch.ones(rows).long())


def bits_per_byte(model: Model, folder: Path, name: str, limit: int | None = None) -> float:
    """Bits per UTF-8 byte of a held-out text, in windows of the full context that overlap by half (``limit``: a quick
    part)."""
    ids = np.load(folder / f"{name}.u16.npy")
    meta = json.loads((folder / f"{name}.json").read_text())
    bytes_per_token = meta["bytes"] / meta["tokens"]
    starts = list(range(0, len(ids) - CONTEXT - 1, CONTEXT // 2))
    if limit:
        starts = starts[:: max(1, len(starts) // limit)]
    total, count = 0.0, 0
    with torch.no_grad():
        for first in range(0, len(starts), 8):
            part = batch(np.stack([ids[s : s + CONTEXT + 1] for s in starts[first : first + 8]]))
            fresh = part.weight_BT.clone()
            fresh[:, : CONTEXT // 2] = 0.0  # these were scored by the window before, with more context here
            scored = Batch(part.ids_BT, part.target_BT, fresh, part.length_B, part.label_B).to(model.device)
            total -= float((model.token_logp(scored) * scored.weight_BT).sum())
            count += int(fresh.sum())
    return float(total / count / math.log(2) / bytes_per_token)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=100.0)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--micro-tokens", type=int, default=8192)
    parser.add_argument("--eval-every", type=int, default=250)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--init", type=Path, help="continue from this model folder")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net: Any = (
        LlamaForCausalLM.from_pretrained(args.init, dtype=torch.float32)
        if args.init
        else network(args.layers, args.width)
    )
    net.to(device)
    if args.compile:
        for layer in net.model.layers:
            layer.compile()
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    parameters = sum(p.numel() for p in net.parameters())
    card = ModelCard(
        name="tunesmith-base",
        path=str(args.out),
        kind="decoder",
        architecture="LlamaForCausalLM",
        parameters=parameters,
        layers=args.layers,
        width=args.width,
        vocabulary=8192,
        context=CONTEXT,
        fingerprint="",
        tokenizer_hash="",
        template_hash="",
    )
    model = Model(net, tokenizer, card, precision="bfloat16")
    full.PART.attach(model, MethodRecipe(name="full"), args.seed)
    corpus = Corpus(args.corpus, args)
    plan = Plan(
        learning_rate=args.learning_rate, epochs=1, steps=10**9, warmup_steps=2 * 10**7, batch_tokens=args.batch_tokens,
        micro_tokens=args.micro_tokens, eval_every=args.eval_every, patience=10**9, weight_decay=0.01, clip_norm=1.0,
        precision="bfloat16", memory="fast", max_length=CONTEXT, seconds=args.minutes * 60, seed=args.seed, reasons={},
    )  # fmt: skip

    def evaluate() -> DevResult:
        value = bits_per_byte(model, args.corpus, "books_valid", limit=24)
        return DevResult(
            loss=value, rank=(-time.monotonic(),)
        )  # the newest is kept: pre-training does not overfit here

    def on_step(point: CurvePoint, _total: int, speed: float) -> None:
        if point.step % 10 == 0 or point.dev_loss is not None:
            dev = "" if point.dev_loss is None else f" valid {point.dev_loss:.4f} bits/byte"
            print(
                f"step {point.step} {point.seconds:.0f}s tokens {point.tokens} loss {point.loss:.4f} "
                f"{speed:.0f} tok/s{dev}",
                flush=True,
            )

    def snapshot(step: int, last: bool, _snapshot: object) -> None:
        if last or step % plan.eval_every == 0:
            save(model, args.out / "latest")

    hooks = Hooks(evaluate=evaluate, on_step=on_step, after_step=snapshot, make_optimisers=muon)
    state = fit(model, SFT, corpus.steps, plan, hooks)
    earlier = json.loads((args.init / "facts.json").read_text()) if args.init else {}
    facts = {
        "parameters": parameters,
        "steps": state.step + earlier.get("steps", 0),
        "tokens": state.tokens + earlier.get("tokens", 0),
        "seconds": round(state.seconds) + earlier.get("seconds", 0),
        "device": device,
        "bits_per_byte_books_valid": round(bits_per_byte(model, args.corpus, "books_valid"), 4),
        "bits_per_byte_wikitext2_valid": round(bits_per_byte(model, args.corpus, "wikitext_valid"), 4),
        "corpus": json.loads((args.corpus / "corpus.json").read_text()),
    }
    with files.publish(args.out / "published") as folder:
        save(model, folder)
        (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
        (folder / "README.md").write_text(model_card(facts))
    print({k: v for k, v in facts.items() if k != "corpus"}, flush=True)


def model_card(facts: dict[str, Any]) -> str:
    """The bundled base's model card, from the facts of its training."""
    rows = "\n".join(
        f"| {name} | {source['documents']:,} | {source['tokens']:,} |"
        for name, source in facts["corpus"]["sources"].items()
        if not name.endswith("_valid")
    )
    return CARD.format(rows=rows, minutes=facts["seconds"] / 60, **{k: v for k, v in facts.items() if k != "corpus"})


def save(model: Model, folder: Path) -> None:
    """bf16 safetensors with config, tokenizer and template."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.to(torch.bfloat16) for k, v in model.network.state_dict().items() if k != "lm_head.weight"}
    model.network.config.dtype = torch.bfloat16
    model.network.save_pretrained(folder, state_dict=state)
    model.tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
