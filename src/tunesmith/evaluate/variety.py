"""Are there patterns to learn? How much alike inputs are, and whether like inputs have like answers.

Notable: likeness is looked at between rows that do not (nearly) repeat each other, for repeats stand on one side of a
split. An answer is doubted where the five nearest rows, asked without it, all give one other answer (the idea of
confident learning: Northcutt et al., 2021, with neighbours for a model). Inputs that repeat and answers that differ
are counted apart: there no model can be right on both.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from tunesmith.core import seeds
from tunesmith.core.advice import Variety
from tunesmith.core.example import Example
from tunesmith.core.protocols import Embedder
from tunesmith.core.report import Prediction
from tunesmith.data import near
from tunesmith.evaluate.score import find_metric, statistics
from tunesmith.evaluate.similarity import nearest

MOST_ROWS, MOST_ASKED = 4_000, 500
NEIGHBOURS, SPARE = 5, 4
_WORD = re.compile(r"\w+")


def variety(
    rows: Sequence[Example],
    answers: Sequence[str],
    metric: str,
    *,
    closed: bool,
    pieces: Callable[[Sequence[str]], float],
    embedder: Embedder | None = None,
    seed: int = 0,
) -> Variety:
    """Of ``rows`` and their ``answers``, compared by ``metric`` (one of texts). ``closed``: answers are of a known set;
    ``pieces`` is how finely a tokenizer cuts texts."""
    rng = random.Random(seeds.stream(seed, "variety"))
    kept = sorted(rng.sample(range(len(rows)), min(len(rows), MOST_ROWS)))
    texts, said = [rows[i].input_text for i in kept], [answers[i] for i in kept]
    cluster = near.clusters(texts).tolist()
    asked = sorted(rng.sample(range(len(texts)), min(len(texts), MOST_ASKED)))
    found = nearest([texts[i] for i in asked], texts, 1 + NEIGHBOURS + SPARE, embedder).tolist()
    apart = ([n for n in own if cluster[n] != cluster[i]] for i, own in zip(asked, found, strict=True))
    others = [own[:NEIGHBOURS] for own in apart]
    pairs = [(i, own[0]) for i, own in zip(asked, others, strict=True) if own]
    strangers = [(i, (i + rng.randrange(1, len(texts))) % len(texts)) for i, _ in pairs]
    words = [w.lower() for i in asked for w in _WORD.findall(texts[i])]
    return Variety(
        rows=len(asked),
        answers=len({near.normalise(said[i]) for i in asked}),
        repeated=sum(n for n in Counter(cluster).values() if n > 1) / max(len(texts), 1),
        agree=_score(metric, said, pairs),
        chance=_score(metric, said, strangers),
        torn=_torn(cluster, said),
        doubted=_doubted(asked, others, said) if closed else None,
        types=len(set(words)) / max(len(words), 1),
        pieces=pieces([texts[i] for i in asked[:100]]),
    )


def _score(metric: str, said: Sequence[str], pairs: Sequence[tuple[int, int]]) -> float:
    """What the other row's answer of each pair scores as an answer of the first."""
    if not pairs:
        return 0.0
    part = find_metric(metric)
    told = [Prediction(id=str(i), answer=said[other]) for i, other in pairs]
    return float(part.reduce(statistics(part, told, [said[i] for i, _ in pairs]).sum(axis=0)))


def _torn(cluster: Sequence[int], said: Sequence[str]) -> float | None:
    """Of rows that (nearly) repeat another: the share without the answer that most of their likes have."""
    members: dict[int, list[str]] = defaultdict(list)
    for name, answer in zip(cluster, said, strict=True):
        members[name].append(near.normalise(answer))
    groups = [answers for answers in members.values() if len(answers) > 1]
    rows = sum(map(len, groups))
    return sum(len(g) - max(Counter(g).values()) for g in groups) / rows if rows else None


def _doubted(asked: Sequence[int], others: Sequence[Sequence[int]], said: Sequence[str]) -> float:
    against = 0
    for i, own in zip(asked, others, strict=True):
        told = {near.normalise(said[n]) for n in own}
        against += len(own) == NEIGHBOURS and len(told) == 1 and near.normalise(said[i]) not in told
    return against / max(len(asked), 1)


def tokens_a_word(texts: Sequence[str], tokens: Callable[[str], int]) -> float:
    """How finely a tokenizer cuts texts; ``tokens`` counts those of one.

    >>> tokens_a_word(["two words"], tokens=len)
    4.5
    """
    words = sum(len(_WORD.findall(text)) for text in texts)
    return max(sum(tokens(text) for text in texts), 1) / max(words, 1)
