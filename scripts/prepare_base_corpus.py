"""Train the bundled base model's tokenizer and write its pre-training corpus.

What is notable:
* Every byte is representable and the tokenizer normalises nothing, so decode(encode(text)) == text.
* The chat template writes `<|bos|>` itself and there is no post-processor: never encode a render with a second BOS.
* Only sets whose licences allow shipping trained weights are read, and of them only train rows: no file named test or
  dev, and of instruct_rasbt_1100 only the first 85%. `books_valid` and wikitext are tokenised for evaluation alone.
  MedQuAD is CC-BY-4.0: whoever ships the weights has to name it.
* Changed on the way in: CRLF and runs of blank lines in books, the `<<48/2=24>>` calculator marks of GSM8K, the
  number placeholders and the spaced-out punctuation of MAWPS/ASDiv, and long MedQuAD answers (cut at a sentence end).
* A few-shot ICD-10 conversation shows, where it can, an earlier example with the wanted code: looking back pays.
* The output depends only on the data, the seeds below and the versions of Python, `tokenizers` and `transformers`.
"""

import argparse
import gzip
import hashlib
import json
import os
import random
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

os.environ |= {"RAYON_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "true"}

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, trainers
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from transformers import PreTrainedTokenizerFast

VOCAB_SIZE = 8192
SPECIAL = PAD, BOS, IM_START, IM_END = ("<|pad|>", "<|bos|>", "<|im_start|>", "<|im_end|>")
HAS_SPECIAL = re.compile("|".join(map(re.escape, SPECIAL))).search
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = r"""{{- bos_token }}
{%- set start = 1 if tools and messages[0].role == 'system' else 0 %}
{%- if tools %}
    {{- '<|im_start|>system\n' + (messages[0].content + '\n\n' if start else '') }}
    {{- 'You can call these functions:\n<tools>' }}
    {%- for tool in tools %}{{- '\n' + (tool | tojson) }}{%- endfor %}{{- '\n</tools><|im_end|>\n' }}
{%- endif %}
{%- for message in messages[start:] %}
    {{- '<|im_start|>' + message.role + '\n' + (message.content or '') }}
    {%- for call in message.tool_calls or [] %}{%- set function = call.function or call %}
        {%- set arguments = function.arguments if function.arguments is string else function.arguments | tojson %}
        {{- ('\n' if message.content or not loop.first else '') + '<tool_call>\n{"name": ' }}
        {{- (function.name | tojson) + ', "arguments": ' + arguments + '}\n</tool_call>' }}
    {%- endfor %}{{- '<|im_end|>\n' }}
{%- endfor %}
{{- '<|im_start|>assistant\n' if add_generation_prompt }}"""
SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer briefly.",
    "Answer the user's request.",
    "You are a careful and polite assistant.",
    "Follow the instruction and reply with the answer only.",
)
SOURCES = {"rasbt": "instruct_rasbt_1100/instruct_1100.jsonl"}
SOURCES |= {name: f"instruct_gpteacher/{name}.jsonl" for name in ("codegen", "roleplay", "toolformer")}
SOURCES |= {
    "gsm8k": "gsm8k/train.jsonl",
    "mawps_asdiv": "svamp_mawps_asdiv/mawps_asdiv_train.jsonl",
    "medquad": "medquad/train.jsonl.gz",
    "icd10": "icd10_coding/train.jsonl",
}
PLAIN = {
    "books": "classic_books/books_train.jsonl.gz",
    "books_valid": "classic_books/books_valid.jsonl.gz",
    "wikitext_valid": "wikitext2/valid.txt",
}
FEW_SHOT_SOURCES = ("rasbt", "mawps_asdiv", "icd10", "gsm8k")
SAMPLE_CHARS, PIECE_CHARS, ICD_ROWS, FEW_SHOT, COPIES = 40_000_000, 20_000, 10_000, 6_000, 3_000
Row = dict[str, Any]
Pair = tuple[str, str]
Talk = tuple[str, list[dict[str, str]]]  # the source it is counted under, and its messages


def read_rows(path: Path) -> list[Row]:
    """Rows of a .jsonl or .jsonl.gz file."""
    data = path.read_bytes()
    return [json.loads(line) for line in (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()]


def read_books(path: Path) -> list[str]:
    """Book texts with plain newlines and at most one blank line in a row."""
    return [re.sub(r"\n{3,}", "\n\n", row["text"].replace("\r\n", "\n")) for row in read_rows(path)]


def to_pair(source: str, row: Row) -> Pair:
    """Question and answer of one row of `source`."""
    match source:
        case "gsm8k":
            return row["question"], re.sub(r"<<[^>]*>>", "", row["answer"])
        case "icd10":
            return f"Give the ICD-10 category for: {row['text']}", row["code"]
        case "mawps_asdiv":
            numbers = [number.removesuffix(".0") for number in row["Numbers"].split()]
            question = re.sub(r"\bnumber(\d+)\b", lambda found: numbers[int(found[1])], row["Question"])
            return re.sub(r" +([.,?!;:])", r"\1", question), row["Answer"].removesuffix(".0")
        case "medquad":
            answer = re.sub(r"[ \t]+", " ", row["answer"]).strip()
            if len(answer) > 600:
                ends = [found.end() for found in re.finditer(r"[.!?](?=\s)", answer[:601])]
                answer = answer[: ends[-1]] if ends else answer[:600].rsplit(" ", 1)[0]
            return row["question"].replace(" ?", "?"), answer
    question = f"{row['instruction']}\n\n{row['input']}" if row["input"].strip() else row["instruction"]
    return question, row["output"]


def read_pairs(data: Path) -> dict[str, list[Pair]]:
    """Pairs of every allowed set, train rows only, less those that are empty or hold a special string."""
    pairs: dict[str, list[Pair]] = {}
    for source, file in SOURCES.items():
        rows = read_rows(data / file)
        if source == "rasbt":
            rows = rows[: int(len(rows) * 0.85)]
        elif source == "icd10":
            rows = random.Random(0).sample(rows, ICD_ROWS)
        found = (to_pair(source, row) for row in rows)
        pairs[source] = [pair for pair in found if all(part.strip() and not HAS_SPECIAL(part) for part in pair)]
    return pairs


def talk_of(source: str, turns: list[Pair], rng: random.Random) -> Talk:
    """Turns as messages, half the time under a system message."""
    messages = [{"role": "system", "content": rng.choice(SYSTEM_MESSAGES)}] if rng.random() < 0.5 else []
    for question, answer in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return source, messages


def few_shot(pairs: dict[str, list[Pair]], rng: random.Random) -> Iterator[Talk]:
    """Conversations whose earlier turns are examples of the final turn's task."""
    short = {name: [pair for pair in pairs[name] if sum(map(len, pair)) <= 400] for name in FEW_SHOT_SOURCES}
    for number in range(FEW_SHOT):
        name = FEW_SHOT_SOURCES[number % len(FEW_SHOT_SOURCES)]
        *examples, final = rng.sample(short[name], rng.randint(3, 6))
        alike = [pair for pair in pairs[name] if pair[1] == final[1] and pair != final]
        if name == "icd10" and alike and not any(pair[1] == final[1] for pair in examples):
            examples[rng.randrange(len(examples))] = rng.choice(alike)
        yield talk_of("few_shot", [*examples, final], rng)


def copy_pair(sentence: str, rng: random.Random) -> Pair:
    """A request about a sentence that can be answered by copying from it."""
    words = sentence.split()
    bare = [word.strip(".,;:!?\"'()_*“”‘’-—") or word for word in words]
    count, word, ends = rng.randint(2, 4), rng.choice(bare[:-1]), {"first_word": bare[0], "last_word": bare[-1]}
    templates: list[tuple[str, str | Row]] = [
        ("Repeat the text exactly:", sentence),
        ("Answer with a JSON object with the keys first_word and last_word.", ends),
        ("Answer with a JSON object with the keys text and words.", {"text": sentence, "words": len(words)}),
        ("How many words are in this text?", str(len(words))),
        ("What is the last word of this text?", bare[-1]),
        (f"Write only the first {count} words of this text.", " ".join(words[:count])),
        (f'Which word follows the first "{word}" in this text?', bare[bare.index(word) + 1]),
        ("Write this text in capital letters.", sentence.upper()),
    ]
    request, answer = rng.choice(templates)
    return f"{request}\n\n{sentence}", answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def copies(books: list[str], rng: random.Random) -> Iterator[Talk]:
    """Endless copy and extract conversations over single sentences of the training books."""
    while True:
        book = rng.choice(books)
        start = rng.randrange(len(book))
        text = " ".join(book[start : start + 1200].split())
        sentences = [s for s in re.findall(r"(?<=[.!?] )[A-Z][^.!?]*[.!?]", text) if 4 <= len(s.split()) <= 25]
        if sentences:
            yield talk_of("copy", [copy_pair(rng.choice(sentences), rng)], rng)


def tokenizer_sample(books: list[str], talks: list[Talk], rng: random.Random) -> Iterator[str]:
    """Pieces of all books up to the wanted size, then every conversation once (few-shot repeats left out)."""
    share = min(1.0, SAMPLE_CHARS / sum(len(book) for book in books))
    for book in books:
        pieces = [book[i : i + PIECE_CHARS] for i in range(0, len(book), PIECE_CHARS)]
        yield from rng.sample(pieces, max(1, round(len(pieces) * share)))
    for source, messages in talks:
        if source != "few_shot":
            yield "".join(f"{message['role']}\n{message['content']}\n" for message in messages)


def train_tokenizer(texts: Iterable[str], folder: Path) -> PreTrainedTokenizerFast:
    """Train the byte-level BPE and save it as a transformers folder."""
    bpe = Tokenizer(models.BPE())
    split, to_bytes = Split(Regex(SPLIT), behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = Sequence([split, to_bytes])
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCAB_SIZE,
            show_progress=False,
            initial_alphabet=ByteLevel.alphabet(),
            special_tokens=[AddedToken(text, special=True, normalized=False) for text in SPECIAL],
        ),
    )
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=IM_END,
        pad_token=PAD,
        unk_token=None,
        model_max_length=1024,
        extra_special_tokens=[IM_START],
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
    tokenizer.save_pretrained(folder)
    config_path = folder / "tokenizer_config.json"  # in names that transformers 4 reads too
    config = json.loads(config_path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    config["additional_special_tokens"] = config.pop("extra_special_tokens")
    config_path.write_text(json.dumps(config, indent=2) + "\n")
    if len(tokenizer) != VOCAB_SIZE or tokenizer.convert_tokens_to_ids(list(SPECIAL)) != [0, 1, 2, 3]:
        raise ValueError(f"vocabulary has {len(tokenizer)} entries, or the special tokens are not ids 0 to 3")
    return tokenizer


def write_array(bpe: Tokenizer, path: Path, documents: list[Pair], chunk: int) -> dict[str, Row]:
    """Encode (source, text) documents into one array; the account per source counts bytes without the BOS."""
    account, arrays = dict[str, Row](), list[np.ndarray[Any, np.dtype[np.uint16]]]()
    for start in range(0, len(documents), chunk):
        part = documents[start : start + chunk]
        encodings = bpe.encode_batch_fast([text for _, text in part], add_special_tokens=False)
        for (source, text), encoding in zip(part, encodings, strict=True):
            arrays.append(np.array(encoding.ids, dtype=np.uint16))
            sizes = {"documents": 1, "tokens": len(encoding.ids), "bytes": len(text.removeprefix(BOS).encode("utf-8"))}
            account[source] = {key: account.get(source, {}).get(key, 0) + size for key, size in sizes.items()}
    np.save(path, np.concatenate(arrays))
    print(f"{path.name}: {len(documents)} documents, {sum(map(len, arrays))} tokens", flush=True)
    return account


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the base model's tokenizer and tokenise its corpus.")
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer/ and corpus/")
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder that holds data/")
    args = parser.parse_args()
    data, corpus = args.shared / "data", args.out / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    origin = {source: data / file for source, file in (SOURCES | PLAIN).items()}
    books, pairs, rng = read_books(origin["books"]), read_pairs(data), random.Random("system")
    if any(map(HAS_SPECIAL, books)):
        raise ValueError("a book contains one of the special strings")
    talks = [talk_of(source, [pair], rng) for source, found in pairs.items() for pair in found]
    talks += [*few_shot(pairs, random.Random("few_shot")), *islice(copies(books, random.Random("copy")), COPIES)]
    print(f"training the tokenizer on {len(books)} books and {len(talks)} conversations", flush=True)
    tokenizer = train_tokenizer(tokenizer_sample(books, talks, random.Random("sample")), args.out / "tokenizer")
    random.Random(0).shuffle(books)
    random.Random(0).shuffle(talks)
    plan: dict[str, tuple[int, list[Pair]]] = {
        "books": (4, [("books", BOS + book) for book in books]),
        "instruct": (2000, [(name, str(tokenizer.apply_chat_template(talk, tokenize=False))) for name, talk in talks]),
        "books_valid": (4, [("books_valid", BOS + book) for book in read_books(origin["books_valid"])]),
        "wikitext_valid": (1, [("wikitext_valid", BOS + origin["wikitext_valid"].read_bytes().decode("utf-8"))]),
    }
    sources: dict[str, Row] = {}
    for name, (chunk, documents) in plan.items():
        sources |= write_array(tokenizer.backend_tokenizer, corpus / f"{name}.u16.npy", documents, chunk)
        if name.endswith("_valid"):
            (corpus / f"{name}.json").write_text(json.dumps(sources[name]) + "\n")
    for source in origin:
        sources[source]["sha256"] = hashlib.sha256(origin[source].read_bytes()).hexdigest()
    arrays = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(corpus.glob("*.npy"))}
    (corpus / "corpus.json").write_text(json.dumps({"sources": sources, "arrays_sha256": arrays}, indent=2) + "\n")


if __name__ == "__main__":
    main()
