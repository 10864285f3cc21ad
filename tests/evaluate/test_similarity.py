"""Neighbours by TF-IDF and by embedding."""

from collections.abc import Sequence

import numpy as np

from tunesmith.core.protocols import Embedder
from tunesmith.evaluate import similarity
from tunesmith.evaluate.similarity import Remembered, nearest

TEXTS = ["where is my refund", "card was stolen", "fees for cash abroad", "my card is lost"]


def test_each_text_is_its_own_nearest(letters: Embedder) -> None:
    for embedder in (None, letters):
        assert nearest(TEXTS, TEXTS, 1, embedder)[:, 0].tolist() == [0, 1, 2, 3]


def test_typos_still_find_the_row() -> None:
    assert nearest(["were is my refnud", "crad stolen"], TEXTS, 1)[:, 0].tolist() == [0, 1]


def test_k_is_capped_and_sorted() -> None:
    found = nearest(["lost card"], TEXTS, 9)
    assert found.shape == (1, 4)
    assert found[0].tolist()[:2] == [3, 1]


def test_empty_and_foreign_text_does_not_fail() -> None:
    assert nearest(["", "東京", "?!"], ["", "!!", "東京 駅"], 2).shape == (3, 2)
    assert nearest([], TEXTS, 2).shape == (0, 2)


def test_chunks_change_nothing() -> None:
    rng = np.random.default_rng(0)
    rows = ["".join(rng.choice(list("abcde "), 20)) for _ in range(300)]
    whole = nearest(rows, rows[:50], 3)
    parts = np.concatenate([nearest(rows[n : n + 7], rows[:50], 3) for n in range(0, 300, 7)])
    assert len(rows) > 2 * similarity.CHUNK
    np.testing.assert_array_equal(whole, parts)


def test_each_text_is_embedded_once(letters: Embedder) -> None:
    asked: list[str] = []

    class Counted:
        def embed(self, texts: Sequence[str]) -> list[list[float]]:
            asked.extend(texts)
            return letters.embed(texts)

    known = Remembered(Counted())
    for texts in (TEXTS[:2], TEXTS, [TEXTS[1], TEXTS[0], TEXTS[1]]):
        assert np.allclose(known.embed(texts), letters.embed(texts), atol=1e-6)
    assert asked == TEXTS
    assert nearest(TEXTS, TEXTS, 2, known).tolist() == nearest(TEXTS, TEXTS, 2, letters).tolist()
