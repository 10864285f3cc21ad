"""What both sides are given: a tokenizer, a model with random weights, rows in a fixed order, the start of an adapter.

Notable: runs in a process of its own and keeps what it made, so no side pays for it. SmolLM2's tokenizer is not at
hand, so one of the same size and kind (byte-level BPE, ChatML) is trained on GSM8K's training questions
and answers and on public-domain books; its template carries ``{% generation %}`` marks, for TRL finds the assistant's
tokens by them, and puts the line break before a turn instead of behind it, so that both sides see the same ids. The
adapter is what our own LoRA method starts from (B is zero), saved in PEFT's format, so both sides start equal.
"""

import gzip
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHATML = (
    "{% for m in messages %}{% if not loop.first %}{{ '\\n' }}{% endif %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
BOOK_CHARACTERS = 30_000_000
SEED = 0


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file, gzipped or plain."""
    packed = path.suffix == ".gz"
    with gzip.open(path, "rt", encoding="utf-8") if packed else path.open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def make_tokenizer(folder: Path, shared: Path, *, size: int, books: int) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    def texts() -> Iterator[str]:
        for row in lines(shared / "data" / "gsm8k" / "train.jsonl"):
            yield row["question"]
            yield row["answer"]
        left = books
        for row in lines(shared / "data" / "classic_books" / "books_train.jsonl.gz"):
            if left <= 0:
                return
            yield row["text"][:left]
            left -= len(row["text"])

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    whole = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=SPECIAL[2], pad_token=SPECIAL[0], model_max_length=8192
    )
    whole.chat_template = CHATML
    whole.save_pretrained(folder)


def make_model(folder: Path, tokenizer: Path, shape: dict[str, Any]) -> None:
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    held = AutoTokenizer.from_pretrained(tokenizer)
    config = LlamaConfig(**shape, bos_token_id=0, eos_token_id=held.eos_token_id, pad_token_id=held.pad_token_id)
    LlamaForCausalLM(config).save_pretrained(folder)
    held.save_pretrained(folder)


def make_adapter(folder: Path, model: Path, rank: int) -> None:
    """The adapter that ours starts from, as PEFT reads it."""
    from tunesmith.core import parts
    from tunesmith.core.recipe import MethodRecipe
    from tunesmith.models import load as loading

    method = parts.find("models.adapters", "lora")
    loaded = loading.load(str(model))
    method.attach(loaded, MethodRecipe(name="lora", rank=rank), SEED)
    folder.mkdir(parents=True, exist_ok=True)
    method.save(loaded, folder)


def make_chats(path: Path, tokenizer: Path, shared: Path, count: int, group: int) -> dict[str, Any]:
    """GSM8K training rows as chats, shuffled once, each ``group`` of them (a step) sorted by length, so that whoever
    pads pads little; returns how long they are."""
    from transformers import AutoTokenizer

    held: Any = AutoTokenizer.from_pretrained(tokenizer)
    rows = list(lines(shared / "data" / "gsm8k" / "train.jsonl"))
    random.Random(SEED).shuffle(rows)
    lengths: list[int] = []
    trained, found = 0, []
    for row in rows[:count]:
        turns = [("user", row["question"]), ("assistant", row["answer"])]
        chat = [{"role": role, "content": text} for role, text in turns]
        ids = held.apply_chat_template(chat, return_assistant_tokens_mask=True, return_dict=True)
        lengths.append(len(ids["input_ids"]))
        trained += sum(ids["assistant_masks"])
        found.append((lengths[-1], json.dumps({"messages": chat}, ensure_ascii=False) + "\n"))
    steps = [sorted(found[i : i + group]) for i in range(0, count, group)]
    path.write_text("".join(text for step in steps for _, text in step), encoding="utf-8")
    return {"tokens": sum(lengths), "longest": max(lengths), "trained_share": round(trained / sum(lengths), 4)}


def make_blocks(
    path: Path, tokenizer: Path, shared: Path, *, length: int, count: int, trained: float
) -> dict[str, Any]:
    """``count`` rows of exactly ``length`` tokens of books, the last ``trained`` share of each in the loss."""
    from transformers import AutoTokenizer

    held = AutoTokenizer.from_pretrained(tokenizer)
    ids: list[int] = []
    books = lines(shared / "data" / "classic_books" / "books_train.jsonl.gz")
    while len(ids) < length * count:
        ids += held(next(books)["text"][:200_000], add_special_tokens=False, verbose=False).input_ids
    prompt = round(length * (1 - trained))
    with path.open("w", encoding="utf-8") as stream:
        for start in range(0, length * count, length):
            row = {"ids": ids[start : start + length], "weight": [0] * prompt + [1] * (length - prompt)}
            stream.write(json.dumps(row) + "\n")
    return {"tokens": length * count, "longest": length, "trained_share": 1 - prompt / length}


def make_pairs(path: Path, tokenizer: Path, shared: Path, count: int, group: int, longest: int) -> dict[str, Any]:
    """UltraFeedback pairs of at most ``longest`` tokens an answer with its prompt, shuffled once, as messages; each
    ``group`` of them (a step) sorted by length."""
    from transformers import AutoTokenizer

    held: Any = AutoTokenizer.from_pretrained(tokenizer)
    rows = list(lines(shared / "data" / "pref_ultrafeedback_slice" / "train.jsonl"))
    random.Random(SEED).shuffle(rows)
    found: list[tuple[int, str]] = []
    asked = 0
    for row in rows:
        prompt = [{"role": "user", "content": row["prompt"]}]
        answers = {name: [{"role": "assistant", "content": row[name]}] for name in ("chosen", "rejected")}
        sizes = [
            len(held.apply_chat_template(prompt + turn, return_dict=True)["input_ids"]) for turn in answers.values()
        ]
        if max(sizes) <= longest and len(found) < count:
            found.append((sum(sizes), json.dumps({"prompt": prompt} | answers, ensure_ascii=False) + "\n"))
            asked += len(held.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"])
    steps = [sorted(found[i : i + group]) for i in range(0, count, group)]
    path.write_text("".join(text for step in steps for _, text in step), encoding="utf-8")
    total = sum(size for size, _ in found)
    return {"tokens_a_pair": round(total / count, 1), "prompt_share": round(2 * asked / total, 4)}


def make_prompts(
    path: Path, tokenizer: Path, shared: Path, *, count: int, group: int, longest_new: int
) -> dict[str, Any]:
    """GSM8K questions as messages and as the ids of prompts, each with a number of tokens to write: half of the answers
    are short. Each ``group`` of them (a step) is sorted by length."""
    from transformers import AutoTokenizer

    held: Any = AutoTokenizer.from_pretrained(tokenizer)
    rows = list(lines(shared / "data" / "gsm8k" / "train.jsonl"))
    rng = random.Random(SEED)
    rng.shuffle(rows)
    found, news = [], []
    for n, row in enumerate(rows[:count]):
        turn = [{"role": "user", "content": row["question"]}]
        ids = held.apply_chat_template(turn, add_generation_prompt=True, return_dict=True)["input_ids"]
        new = rng.randint(longest_new // 8, longest_new // 3 if n % 2 else longest_new)
        found.append((len(ids), json.dumps({"ids": ids, "new": new, "prompt": turn}) + "\n"))
        news.append(new)
    lengths = [size for size, _ in found]
    steps = [sorted(found[i : i + group]) for i in range(0, count, group)]
    path.write_text("".join(text for step in steps for _, text in step), encoding="utf-8")
    return {
        "prompt_tokens": [min(lengths), round(sum(lengths) / count, 1), max(lengths)],
        "new_tokens": [min(news), round(sum(news) / count, 1), max(news)],
    }


def make(want: dict[str, Any]) -> dict[str, Any]:
    """Make what is not there yet; returns facts of the rows."""
    work, shared, shape = Path(want["work"]), Path(want["shared"]), want["shape"]
    tokenizer = work / f"tokenizer-{shape['vocab_size']}"
    if not tokenizer.exists():
        make_tokenizer(tokenizer, shared, size=shape["vocab_size"], books=want["books"])
    model, adapter, rows = Path(want["model"]), Path(want["adapter"]), Path(want["rows"])
    if not model.exists():
        make_model(model, tokenizer, shape)
    if not adapter.exists():
        make_adapter(adapter, model, want["rank"])
    if "longest_new" in want:
        sizes = {key: want[key] for key in ("count", "group", "longest_new")}
        return make_prompts(rows, tokenizer, shared, **sizes)
    if "pairs" in want:
        return make_pairs(rows, tokenizer, shared, want["count"], want["group"], want["pairs"])
    if "length" not in want:
        return make_chats(rows, tokenizer, shared, want["count"], want["group"])
    size = {key: want[key] for key in ("length", "count", "trained")}
    return make_blocks(rows, tokenizer, shared, **size)


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    Path(wanted["out"]).write_text(json.dumps(make(wanted)), encoding="utf-8")
