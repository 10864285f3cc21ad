"""The most similar training rows of each test row: by an encoder's embedding, or by TF-IDF of words and letters.

Notable: hashed features need no vocabulary, so empty or foreign text never fails; work goes in chunks of test rows, so
15,000 x 3,000 rows fit in little memory.
Legend: Q test rows, N train rows, k neighbours.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.protocols import Embedder

CHUNK = 128
MAX_CHARACTERS = 1_000
FEATURES = 2**18


def nearest(
    queries: Sequence[str], texts: Sequence[str], k: int, embedder: Embedder | None = None
) -> NDArray[np.int64]:
    """Indices [Q, min(k, N)] into ``texts``, the most similar first; of equals the earlier row.

    >>> nearest(["lost my card"], ["fees abroad", "I lost a card", "card fees"], k=2).tolist()
    [[1, 2]]
    """
    if not queries:
        return np.zeros((0, min(k, len(texts))), dtype=np.int64)
    left, right = _unit_rows(queries, texts, embedder)
    best = [_top(_similarity(left[start : start + CHUNK], right), k) for start in range(0, len(queries), CHUNK)]
    return np.concatenate(best)


class Remembered:
    """An embedder that embeds each text once; the model behind it must not change meanwhile."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        self.known: dict[str, NDArray[np.float32]] = {}

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            self.known |= zip(new, np.asarray(self.embedder.embed(new), dtype=np.float32), strict=True)
        return [self.known[text].tolist() for text in texts]


def _unit_rows(queries: Sequence[str], texts: Sequence[str], embedder: Embedder | None) -> tuple[Any, Any]:
    if embedder is not None:
        vectors = np.asarray(embedder.embed([*queries, *texts]), dtype=np.float32)
        return vectors[: len(queries)], vectors[len(queries) :]
    vectorise = _fit_tfidf(texts)
    return vectorise(queries), vectorise(texts)


def _fit_tfidf(texts: Sequence[str]) -> Callable[[Sequence[str]], Any]:
    """TF-IDF fitted on ``texts``: words and word pairs, and letter n-grams, each half of the cosine."""
    from scipy import sparse
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    common = {"n_features": FEATURES, "alternate_sign": False, "norm": None}
    views = (
        HashingVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", **common),
        HashingVectorizer(analyzer="char_wb", ngram_range=(3, 4), **common),
    )
    weighted = [(view, TfidfTransformer(sublinear_tf=True).fit(view.transform(_cut(texts)))) for view in views]

    def vectorise(rows: Sequence[str]) -> Any:
        halves = [weight.transform(view.transform(_cut(rows))) for view, weight in weighted]
        return sparse.hstack(halves, format="csr", dtype=np.float32)

    return vectorise


def _cut(texts: Sequence[str]) -> list[str]:
    return [text[:MAX_CHARACTERS] for text in texts]


def _similarity(left: Any, right: Any) -> NDArray[np.float32]:
    product = left @ right.T
    dense: NDArray[np.float32] = product if isinstance(product, np.ndarray) else product.toarray()
    return dense


def _top(similarity: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Indices [Q, k] of the largest entries of each row, largest first, the earlier of equals first."""
    if k == 1:
        return np.asarray(np.argmax(similarity, axis=1)[:, None], dtype=np.int64)
    return np.asarray(np.argsort(-similarity, axis=1, kind="stable")[:, :k], dtype=np.int64)
