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
from collections.abc import Iterator, Sequence
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
    for key_N in _band_keys(sketch):
        order = np.argsort(key_N, kind="stable")
        key_N = key_N[order]
        for distance in range(1, WINDOW + 1):
            same = np.flatnonzero(key_N[distance:] == key_N[:-distance])
            if not len(same):
                break
            roots = union.roots()
            a, b = order[same], order[same + distance]
            apart = roots[a] != roots[b]
            a, b = a[apart], b[apart]
            near = _near(sketch, a, b, _likely(sketch, a, b))
            for one, other in zip(a[near].tolist(), b[near].tolist(), strict=True):
                union.join(one, other)
    return leader[union.roots()[of_distinct]]


def touching(texts: Sequence[str], others: Sequence[str]) -> Mask:
    """[N] whether a text is a (near-)duplicate of one of ``others``, by itself and not through a third text.

    A text meets every other of its bands, once each, until one of them is near. After many comparisons in vain it asks
    with each for signatures that agree more, so that a large family just below the threshold stays cheap.
    """
    count = len(texts)
    _, distinct, of_distinct = _distinct([*texts, *others])
    hit = np.zeros(len(distinct), dtype=bool)
    hit[of_distinct[count:]] = True
    other = np.flatnonzero(hit)
    sketch = _Sketch.of(distinct)
    vain_N = np.zeros(len(distinct), dtype=np.int64)
    met = list[Hashes]()
    for key_N in _band_keys(sketch):
        other = other[np.argsort(key_N[other], kind="stable")]
        left = np.flatnonzero(~hit)
        at, end = (np.searchsorted(key_N[other], key_N[left], side) for side in ("left", "right"))
        while len(left := left[more := at < end]):
            at, end = at[more], end[more]
            likely = _likely(sketch, left, other[at], np.maximum(vain_N[left] - WINDOW, 0))
            for earlier_N in met:
                likely &= earlier_N[left] != earlier_N[other[at]]
            near = _near(sketch, left, other[at], likely)
            hit[left[near]] = True
            vain_N[left[likely & ~near]] += 1
            left, at, end = left[~near], at[~near] + 1, end[~near]
        met.append(key_N)
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
    """Text ``i`` has ``hashes_S[start_N[i]:start_N[i + 1]]``, sorted; ``signature_NP`` is their MinHash and
    ``low_NP`` its lowest bytes, which are quicker to compare and disagree as often but for one time in 256."""

    hashes_S: Hashes
    start_N: Ints
    signature_NP: NDArray[np.uint32]
    low_NP: NDArray[np.uint8]

    @classmethod
    def of(cls, texts: Sequence[str]) -> _Sketch:
        pieces, counts = list[Hashes](), list[Ints]()
        for chunk in _chunks(texts):
            hashes, count = _shingles(chunk)
            pieces.append(hashes)
            counts.append(count)
        hashes_S = np.concatenate(pieces) if pieces else np.empty(0, np.uint64)
        start_N = np.concatenate([[0], *counts]).astype(np.int64).cumsum()
        signature_NP = _signatures(hashes_S, start_N)
        return cls(hashes_S, start_N, signature_NP, signature_NP.astype(np.uint8))

    def similarity(self, a: Ints, b: Ints) -> NDArray[np.float64]:
        """Jaccard similarity of each pair's shingles; for long texts over the union's ``SKETCH`` smallest."""
        count_N = np.diff(self.start_N)
        most = np.where(np.maximum(count_N[a], count_N[b]) >= SKETCH, SKETCH, 2 * SKETCH)
        out = np.empty(len(a))
        for some in np.array_split(np.arange(len(a)), len(a) // 2048 + 1):
            keys = np.concatenate([self._keyed(a[some]), self._keyed(b[some])])
            keys.sort(kind="stable")  # two sorted runs: one merge
            twice = np.diff(keys, prepend=~keys[:1]) == 0
            owner = (keys >> _HASH_BITS).astype(np.int64)
            union = np.bincount(owner[~twice], minlength=len(some))
            rank = (~twice).cumsum() - (union.cumsum() - union)[owner]
            both = np.bincount(owner[twice & (rank <= most[some][owner])], minlength=len(some))
            out[some] = both / np.minimum(union, most[some])
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


def _band_keys(sketch: _Sketch) -> Iterator[Hashes]:
    """[N] a number for each text, band by band; candidates are those that have the same number in a band."""
    for band in range(BANDS):
        rows = sketch.signature_NP[:, band * ROWS : (band + 1) * ROWS].astype(np.uint64)
        key_N = np.zeros(len(rows), dtype=np.uint64)
        for r in range(ROWS):
            key_N = _mix(key_N ^ (rows[:, r] + np.uint64(r + 1)))
        yield key_N


def _likely(sketch: _Sketch, a: Ints, b: Ints, more: Ints | int = 0) -> Mask:
    """Which pairs may be near by their sizes and signatures; ``more`` hashes must agree than the threshold asks for."""
    size_N = np.diff(sketch.start_N)
    low = sketch.low_NP
    enough = (THRESHOLD - 0.14) * BANDS * ROWS  # nearly three standard deviations of the estimate below
    agree = (low[a] == low[b]).view(np.uint64).sum(axis=1) * np.uint64(0x0101010101010101) >> np.uint64(56)
    likely: Mask = agree.astype(np.int64) >= enough + more
    likely &= np.minimum(size_N[a], size_N[b]) >= THRESHOLD * np.maximum(size_N[a], size_N[b])
    return likely


def _near(sketch: _Sketch, a: Ints, b: Ints, likely: Mask) -> Mask:
    near = likely.copy()
    near[likely] = sketch.similarity(a[likely], b[likely]) >= THRESHOLD
    return near
