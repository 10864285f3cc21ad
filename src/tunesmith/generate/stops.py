"""Texts that end an answer, found while it is written, at a cost that does not grow with the answer.

Notable: only a tail of the tokens is decoded, from an anchor on. The anchor moves up to a token where the text from
there on is exactly the end of the text so far, long enough to hold any stop that is still to come, and free of broken
characters: there no character of a byte-level vocabulary is cut, no run of byte tokens is left open, and a space that a
decoder strips in front makes no difference to what follows.
"""

from collections.abc import Sequence
from typing import Any

BROKEN = "\N{REPLACEMENT CHARACTER}"
SETTLED = 16  # characters at the end that later tokens may still change: a space before a full stop, a contraction


class Stops:
    """Looks for ``texts`` in what ``tokenizer`` makes of one answer's tokens."""

    def __init__(self, tokenizer: Any, texts: Sequence[str]) -> None:
        self._decode, self._texts = tokenizer.decode, texts
        self._least = max(map(len, texts), default=0) + SETTLED
        self._anchor = 0

    def kept(self, ids: Sequence[int]) -> int | None:
        """After each token: None while no stop is in the text, else how many tokens stand wholly before it."""
        if not self._texts:
            return None
        tail = self._decode(ids[self._anchor :])
        if not any(text in tail for text in self._texts):
            self._move(ids, tail)
            return None
        text = self._decode(ids)
        found = [text.find(stop) for stop in self._texts if stop in text]
        if not found:
            return None
        keep, first = len(ids), min(found)
        while keep and len(self._decode(ids[:keep])) > first:
            keep -= 1
        return keep

    def _move(self, ids: Sequence[int], tail: str) -> None:
        """Leave the first half of the tail behind, where that is safe."""
        if len(tail) < 2 * self._least:
            return
        middle = (self._anchor + len(ids)) // 2
        end = self._decode(ids[middle:])
        if len(end) >= self._least and BROKEN not in end and tail.endswith(end):
            self._anchor = middle
