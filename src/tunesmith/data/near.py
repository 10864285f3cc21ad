"""Exact and near duplicates among texts, by MinHash with banding and a real Jaccard check (Broder, 1997; Leskovec et
al., ch. 3).

Notable: shingles are four characters, not words, so that typos, other scripts and texts of six words are all compared
by one rule. Everything up to the candidates is numpy over one array of all characters (70,000 short texts take a few
seconds); a pair counts only when its true Jaccard similarity, and not the estimate, reaches ``THRESHOLD``. At that
similarity a pair escapes all 16 bands of 4 rows with probability 0.0002. Texts with more than ``SKETCH`` shingles are
compared by their ``SKETCH`` smallest hashes, which estimates the same similarity (a bottom-k sketch). Digits are
kept: "2 + 3" and "2 + 4" are other questions.

Legend: N texts, S shingles (of all texts, text by text), P hash functions.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Mask = NDArray[np.bool_]

THRESHOLD = 0.8
SHINGLE = 4
SKETCH = 256
BANDS, ROWS = 16, 4
WINDOW = 64
_CHUNK = 4_000_000
_HASH_BITS = np.uint64(40)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_PUNCTUATION = re.compile(r"(?<!\d)[.,:]|[.,:](?!\d)|[;!?…\"“”„«»()\[\]{}_]")
_APOSTROPHE = re.compile("['’‘`´]")


def normalise(text: str) -> str:
    """The form in which two texts are the same: case, spaces, sentence punctuation and Unicode variants do not count.

    Signs that may change the meaning (+, -, /, %, $, a decimal point) stay. A text of punctuation alone stays as it is.

    >>> normalise("  Where's my CARD?! "), normalise("It costs 3.50, or so."), normalise("???")
    ('wheres my card', 'it costs 3.50 or so', '???')
    """
    folded = text.casefold() if text.isascii() else _INVISIBLE.sub("", unicodedata.normalize("NFKC", text).casefold())
    plain = " ".join(_PUNCTUATION.sub(" ", _APOSTROPHE.sub("", folded)).split())
    return plain or " ".join(text.split())


def exact(texts: Sequence[str]) -> Ints:
    """[N] the index of the first text with the same normal form."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(normalise(t), i) for i, t in enumerate(texts)], dtype=np.int64)


def clusters(texts: Sequence[str]) -> Ints:
    """[N] the smallest index of each text's cluster: linked, directly or through others, by near-duplicate pairs.

    >>> clusters(["Where is my card?", "something else", "where is my  CARD"]).tolist()
    [0, 1, 0]
    """
    leader, distinct, of_distinct = _distinct(texts)
    union = Union(len(distinct))
    sketch = _Sketch.of(distinct)

    def apart(a: Ints, b: Ints) -> Mask:
        roots = union.roots()
        return np.not_equal(roots[a], roots[b])

    for a, b in _near_pairs(sketch, apart):
        for one, other in zip(a.tolist(), b.tolist(), strict=True):
            union.join(one, other)
    return leader[union.roots()[of_distinct]]


def touching(texts: Sequence[str], others: Sequence[str]) -> Mask:
    """[N] whether a text is a (near-)duplicate of one of ``others``, by itself and not through a third text."""
    count = len(texts)
    _, distinct, of_distinct = _distinct([*texts, *others])
    is_text = np.zeros(len(distinct), dtype=bool)
    is_other = np.zeros(len(distinct), dtype=bool)
    is_text[of_distinct[:count]] = True
    is_other[of_distinct[count:]] = True
    hit = is_text & is_other

    def undecided(a: Ints, b: Ints) -> Mask:
        return (is_text[a] & is_other[b] & ~hit[a]) | (is_text[b] & is_other[a] & ~hit[b])

    for a, b in _near_pairs(_Sketch.of(distinct), undecided):
        hit[a] |= is_text[a] & is_other[b]
        hit[b] |= is_text[b] & is_other[a]
    return hit[of_distinct[:count]]


class Union:
    """Disjoint sets over 0..n-1; a set is named by its smallest member."""

    def __init__(self, n: int) -> None:
        self.parent = array("q", range(n))

    def find(self, x: int) -> int:
        parent = self.parent
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        return x

    def join(self, a: int, b: int) -> None:
        a, b = self.find(a), self.find(b)
        self.parent[max(a, b)] = min(a, b)

    def roots(self) -> Ints:
        """[n] the name of each member's set."""
        parent = np.frombuffer(self.parent, dtype=np.int64).copy()  # a list would be read value by value
        while not np.array_equal(parent, above := parent[parent]):
            parent = above
        return parent


def _distinct(texts: Sequence[str]) -> tuple[Ints, list[str], Ints]:
    """First index of each distinct normal form, these forms, and for each text which one it is."""
    number: dict[str, int] = {}
    leader: list[int] = []
    which = np.empty(len(texts), dtype=np.int64)
    for i, text in enumerate(texts):
        form = normalise(text)
        which[i] = number.setdefault(form, len(number))
        if which[i] == len(leader):
            leader.append(i)
    return np.array(leader, dtype=np.int64), list(number), which


@dataclass(frozen=True, slots=True)
class _Sketch:
    """Text ``i`` has ``hashes_S[start_N[i]:start_N[i + 1]]``, sorted; ``signature_NP`` is their MinHash."""

    hashes_S: Hashes
    start_N: Ints
    signature_NP: NDArray[np.uint32]

    @classmethod
    def of(cls, texts: Sequence[str]) -> _Sketch:
        pieces, counts = list[Hashes](), list[Ints]()
        for chunk in _chunks(texts):
            hashes, count = _shingles(chunk)
            pieces.append(hashes)
            counts.append(count)
        hashes_S = np.concatenate(pieces) if pieces else np.empty(0, np.uint64)
        start_N = np.concatenate([[0], *counts]).astype(np.int64).cumsum()
        return cls(hashes_S, start_N, _signatures(hashes_S, start_N))

    def similarity(self, a: Ints, b: Ints) -> NDArray[np.float64]:
        """Jaccard similarity of each pair's shingles; for long texts over the union's ``SKETCH`` smallest."""
        count_N = np.diff(self.start_N)
        out = np.empty(len(a))
        long = np.maximum(count_N[a], count_N[b]) >= SKETCH
        for i in np.flatnonzero(long):
            first, second = (self.hashes_S[self.start_N[x] : self.start_N[x + 1]] for x in (a[i], b[i]))
            shared = np.isin(np.union1d(first, second)[:SKETCH], np.intersect1d(first, second))
            out[i] = shared.mean()
        for some in np.array_split(short := np.flatnonzero(~long), len(short) // 8192 + 1):
            keys = np.concatenate([self._keyed(a[some]), self._keyed(b[some])])
            keys.sort(kind="stable")  # two sorted runs: one merge
            twice = keys[1:][keys[1:] == keys[:-1]] >> _HASH_BITS
            both = np.bincount(twice.astype(np.int64), minlength=len(some))
            out[some] = both / (count_N[a[some]] + count_N[b[some]] - both)
        return out

    def _keyed(self, which: Ints) -> Hashes:
        """The hashes of the texts ``which``, one after the other, each under the number of its place in ``which``."""
        count = np.diff(self.start_N)[which]
        offset = np.repeat(self.start_N[which] - (count.cumsum() - count), count)
        place = np.repeat(np.arange(len(which), dtype=np.uint64), count)
        keyed: Hashes = (place << _HASH_BITS) | self.hashes_S[np.arange(len(offset)) + offset]
        return keyed


def _chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    held, size = list[str](), 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size > _CHUNK:
            yield held
            held, size = [], 0
    if held:
        yield held


def _mix(x: Hashes) -> Hashes:
    """splitmix64: every bit of the result depends on every bit of ``x``."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _shingles(texts: list[str]) -> tuple[Hashes, Ints]:
    """Distinct shingle hashes of each text, sorted, at most ``SKETCH`` (the smallest) a text; and how many each has."""
    padded = [f" {t} ".ljust(SHINGLE) for t in texts]
    length_N = np.array([len(t) for t in padded], dtype=np.int64)
    code_S = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    gram_S = np.zeros(len(code_S) - SHINGLE + 1, dtype=np.uint64)
    for i in range(SHINGLE):
        gram_S = gram_S * np.uint64(0x100000001B3) + code_S[i : i + len(gram_S)]
    text_S = np.repeat(np.arange(len(texts), dtype=np.uint64), length_N)
    end_S = np.repeat(length_N.cumsum(), length_N)[: len(gram_S)]
    inside = np.arange(len(gram_S)) + SHINGLE <= end_S
    keyed = (text_S[: len(gram_S)][inside] << _HASH_BITS) | (_mix(gram_S[inside]) >> (np.uint64(64) - _HASH_BITS))
    keyed.sort()
    keyed = keyed[np.diff(keyed, prepend=~keyed[:1]) != 0]  # np.unique hashes, which is slower than sorting
    owner = (keyed >> _HASH_BITS).astype(np.int64)
    count_N = np.bincount(owner, minlength=len(texts))
    rank = np.arange(len(keyed)) - np.repeat(count_N.cumsum() - count_N, count_N)
    kept = keyed[rank < SKETCH] & ((np.uint64(1) << _HASH_BITS) - np.uint64(1))
    return kept, np.minimum(count_N, SKETCH)


def _signatures(hashes_S: Hashes, start_N: Ints) -> NDArray[np.uint32]:
    signature = np.empty((len(start_N) - 1, BANDS * ROWS), dtype=np.uint32)
    if not len(signature):
        return signature
    seeds = _mix(np.arange(1, BANDS * ROWS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    for p, seed in enumerate(seeds):
        mixed = ((hashes_S ^ (seed >> np.uint64(24))) * (seed | np.uint64(1))) >> np.uint64(32)
        signature[:, p] = np.minimum.reduceat(mixed.astype(np.uint32), start_N[:-1])
    return signature


def _near_pairs(sketch: _Sketch, wanted: Callable[[Ints, Ints], Mask]) -> Iterator[tuple[Ints, Ints]]:
    """Pairs of near-duplicates among those ``wanted`` (asked anew for each batch: what is settled costs no more).

    Candidates share a band; those come on whose sizes and signatures allow the threshold; the real similarity decides.
    """
    signature = sketch.signature_NP
    size_N = np.diff(sketch.start_N)
    enough = (THRESHOLD - 0.14) * signature.shape[1]  # nearly three standard deviations of the estimate below
    for band in range(BANDS):
        rows = signature[:, band * ROWS : (band + 1) * ROWS].astype(np.uint64)
        key_N = np.zeros(len(rows), dtype=np.uint64)
        for r in range(ROWS):
            key_N = _mix(key_N ^ (rows[:, r] + np.uint64(r + 1)))
        order = np.argsort(key_N, kind="stable")
        key_N = key_N[order]
        for distance in range(1, WINDOW + 1):
            same = np.flatnonzero(key_N[distance:] == key_N[:-distance])
            if not len(same):
                break
            a, b = order[same], order[same + distance]
            fits = wanted(a, b) & (np.minimum(size_N[a], size_N[b]) >= THRESHOLD * np.maximum(size_N[a], size_N[b]))
            a, b = a[fits], b[fits]
            fits = (signature[a] == signature[b]).sum(axis=1) >= enough
            a, b = a[fits], b[fits]
            near = sketch.similarity(a, b) >= THRESHOLD
            yield a[near], b[near]
