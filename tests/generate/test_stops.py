"""Stop texts found in a tail against stop texts found in the whole text, after every token of many answers."""

import random
from pathlib import Path
from typing import Any

import pytest
from tests import small
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tunesmith.generate.stops import Stops

TEXT = (
    "The parcel isn't here . Straße, naïve — 漢字かな交じり文 👩‍👩‍👧 🇨🇭 done!\n"
    "\n## Next\n  def f(x):\n\treturn x ** 2  # 'tis\r\n"
    "User: where? Assistant: здесь, ไทย, עברית. \N{REPLACEMENT CHARACTER} </s> <|im_end|>   three spaces"
)


def in_pieces() -> Any:
    """As Llama 2's: a space is a character of the piece, the first one is stripped, and what no piece has is bytes."""
    pieces = [*"▁abcdefghijklmnopqrstuvwxyz.,'", "▁the", "▁▁", "ing", "the", "▁n", "n't", "▁do", "▁漢", "字"]
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    held = Tokenizer(models.BPE({n: i for i, n in enumerate(names)}, [], unk_token="<unk>", byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    held.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=held)


def in_words() -> Any:
    """As an older BERT's: word parts, full stops and contractions drop spaces, some only when the next word comes."""
    names = "[UNK] . , ? ! ' n't 'm do not no are is you the s t ##t ##s ##ing ##not i we n don don't"
    held = Tokenizer(models.WordLevel({n: i for i, n in enumerate(names.split())}, unk_token="[UNK]"))
    held.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    held.decoder = decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(tokenizer_object=held, clean_up_tokenization_spaces=True)


def by_the_whole_text(tokenizer: Any, texts: tuple[str, ...], ids: list[int]) -> tuple[int, int] | None:
    """After how many tokens a stop is there, and how many of them stay."""
    for written in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:written])
        found = [text.find(stop) for stop in texts if stop in text]
        if found:
            keep = written
            while keep and len(tokenizer.decode(ids[:keep])) > min(found):
                keep -= 1
            return written, keep
    return None


def by_the_tail(tokenizer: Any, texts: tuple[str, ...], ids: list[int]) -> tuple[int, int] | None:
    stops = Stops(tokenizer, texts)
    for written in range(1, len(ids) + 1):
        keep = stops.kept(ids[:written])
        if keep is not None:
            return written, keep
    return None


def answer(tokenizer: Any, rng: random.Random) -> list[int]:
    """Tokens of real text, tokens at random, and single bytes of characters, in turn."""
    ids: list[int] = []
    real = tokenizer(TEXT, add_special_tokens=False).input_ids
    size = len(tokenizer)
    while len(ids) < 90:
        start, kind = rng.randrange(len(real)), rng.random()
        if kind < 0.6:
            ids += real[start : start + rng.randrange(2, 40)]
        elif kind < 0.8:
            ids += [rng.randrange(size) for _ in range(rng.randrange(1, 12))]
        else:
            ids += [rng.randrange(min(size, 260)) for _ in range(rng.randrange(1, 12))]
    return ids


def assert_the_same(tokenizer: Any, answers: int, *, stopped: float = 0.5) -> None:
    rng, held = random.Random(0), 0
    for _ in range(answers):
        ids = answer(tokenizer, rng)
        whole = tokenizer.decode(ids)
        texts = []
        for _ in range(rng.randrange(1, 4)):
            start = rng.randrange(len(whole) // 3, len(whole))
            texts.append(whole[start : start + rng.choice((2, 3, 5, 8, 20, 60))] + rng.choice(("", "", "", "@")))
        expected = by_the_whole_text(tokenizer, tuple(texts), ids)
        assert by_the_tail(tokenizer, tuple(texts), ids) == expected, (texts, ids)
        held += expected is not None and expected[0] > 30
    assert held > stopped * answers  # most answers were well under way


def test_the_bundled_tokenizer_byte_for_byte() -> None:
    assert_the_same(AutoTokenizer.from_pretrained(small.ASSETS), 150)


def test_pieces_that_fall_back_on_bytes_and_a_stripped_space() -> None:
    assert_the_same(in_pieces(), 300)


def test_words_whose_spaces_go_when_the_next_comes() -> None:
    assert_the_same(in_words(), 300, stopped=0.1)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["gpt2", "qwen2", "bert-uncased"])
def test_tokenizers_of_others(name: str, shared_folder: Path) -> None:
    assert_the_same(AutoTokenizer.from_pretrained(shared_folder / "tokenizers" / name), 100)


def in_bytes(tokenizer: Any, text: bytes) -> list[int]:
    return [tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in text]


@pytest.mark.parametrize("size", range(10, 42))
def test_a_character_in_byte_tokens_is_seen_when_its_last_byte_comes(size: int) -> None:
    """While it is open, the whole run of bytes is broken, however long."""
    tokenizer = in_pieces()
    ids = in_bytes(tokenizer, ("語" * size + "終").encode())
    assert by_the_tail(tokenizer, ("終",), ids) == (3 * size + 3, 3 * size)
    assert by_the_tail(tokenizer, ("語終",), ids) == (3 * size + 3, 3 * size - 3)


def test_a_run_of_bytes_that_stays_broken_is_so_to_its_end() -> None:
    """Its second half alone would read as letters."""
    tokenizer = in_pieces()
    ids = [*in_bytes(tokenizer, b"\xff" + b"a" * 80), tokenizer.convert_tokens_to_ids("x")]
    assert by_the_tail(tokenizer, ("\N{REPLACEMENT CHARACTER}x",), ids) == (82, 80)


def test_work_grows_with_the_answer_and_not_with_its_square() -> None:
    tokenizer = AutoTokenizer.from_pretrained(small.ASSETS)
    read = 0

    class Counting:
        def decode(self, ids: list[int]) -> str:
            nonlocal read
            read += len(ids)
            return str(tokenizer.decode(ids))

    ids = (tokenizer(TEXT, add_special_tokens=False).input_ids * 30)[:2000]
    stops = Stops(Counting(), ("never to be seen", "\n\n\n\n"))
    for written in range(1, len(ids) + 1):
        assert stops.kept(ids[:written]) is None
    assert read < 100 * len(ids)  # the whole text each time: 1000 * len(ids)
