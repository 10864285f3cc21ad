"""Token F1 as in SQuAD (Rajpurkar et al., 2016): overlap of the bags of words after lower-casing and dropping
punctuation and a, an, the.

Notable: words are separated by white space, as in the original script; two empty answers agree.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

from tunesmith.evaluate.metrics._metric import Array, Metric, per_row

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def words(text: str) -> list[str]:
    """SQuAD's normalised words.

    >>> words("The refund, please!")
    ['refund', 'please']
    """
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _f1(answer: str, reference: str) -> float:
    found, expected = words(answer), words(reference)
    if not found or not expected:
        return float(found == expected)
    common = (Counter(found) & Counter(expected)).total()
    return 2 * common / (len(found) + len(expected))


def rows(answers: Sequence[str], references: Sequence[str]) -> Array:
    """Statistics [N, 2].

    >>> rows(["call the bank"], ["call your bank now"])[0, 0].round(4).item()  # 2 common of 2 and 4 words
    0.6667
    """
    return per_row(_f1(a, r) for a, r in zip(answers, references, strict=True))


PART = Metric(
    "token_f1", "Mean overlap of the words of answer and reference, order left aside (SQuAD F1).", "row_mean", rows
)
