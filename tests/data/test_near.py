"""Near duplicates against a brute-force oracle on real Jaccard similarity."""

import itertools
import random
import time

import numpy as np
import pytest

from tunesmith.data import near

WORDS = [
    a + b for a, b in itertools.product(("ka", "lo", "mi", "ten", "sur", "bel"), ("der", "fin", "gat", "hop", "rim"))
]


def jaccard(a: str, b: str) -> float:
    sets = []
    for text in (a, b):
        padded = f" {near.normalise(text)} ".ljust(near.SHINGLE)
        sets.append({padded[i : i + near.SHINGLE] for i in range(len(padded) - near.SHINGLE + 1)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def sentences(count: int, seed: int) -> list[str]:
    """Random sentences, a third of them with a twin that differs by a typo or a word."""
    rng = random.Random(seed)
    texts = []
    for _ in range(count):
        words = rng.choices(WORDS, k=rng.randint(3, 20))
        texts.append(" ".join(words))
        if rng.random() < 0.3:
            words[rng.randrange(len(words))] = rng.choice(WORDS)
            texts.append(" ".join(words).replace("k", "kk", 1))
    rng.shuffle(texts)
    return texts


@pytest.mark.parametrize("seed", range(3))
def test_clusters_are_the_components_of_true_similarity(seed):
    texts = sentences(150, seed)
    cluster = near.clusters(texts)
    union = near.Union(len(texts))
    for a, b in itertools.combinations(range(len(texts)), 2):
        if jaccard(texts[a], texts[b]) >= near.THRESHOLD:
            union.join(a, b)
    assert np.array_equal(cluster, union.roots())
    assert len(texts) - len(set(cluster.tolist())) > 10


@pytest.mark.parametrize("seed", range(3))
def test_touching_is_direct_similarity(seed):
    texts, others = sentences(100, seed), sentences(40, seed + 10)
    others += [t.upper() for t in texts[:5]] + [t.replace("k", "c", 1) for t in texts[5:20]]
    expected = [any(jaccard(t, o) >= near.THRESHOLD for o in others) for t in texts]
    assert near.touching(texts, others).tolist() == expected
    assert any(expected)
    assert not all(expected)


def test_exact_is_up_to_case_space_and_punctuation():
    texts = ["Where's my card?", "wheres  my CARD", "where is my card", "2 + 3", "2 - 3", "2.5", "25", "", "…"]
    assert near.exact(texts).tolist() == [0, 0, 2, 3, 4, 5, 6, 7, 8]


def test_full_width_and_zero_width_forms_are_the_same():
    assert near.normalise("\uff28ello\u200b wor\u00adld") == "hello world"


def test_few_and_empty_texts():
    assert near.clusters([]).tolist() == []
    assert near.clusters(["", "", "a"]).tolist() == [0, 0, 2]
    assert near.touching(["a", "b"], ["A!"]).tolist() == [True, False]
    assert near.touching([], ["a"]).tolist() == []


def test_long_texts_are_compared_by_their_sketches():
    rng = random.Random(0)
    text = " ".join("".join(rng.choices("abcdefghijklmnop", k=6)) for _ in range(2000))
    other = " ".join("".join(rng.choices("abcdefghijklmnop", k=6)) for _ in range(2000))
    assert near.clusters([text, other, text[:-200] + "the end"]).tolist() == [0, 1, 0]
    assert near.clusters(["ab " * 20_000, text, "ab " * 20_001]).tolist() == [0, 1, 0]


def test_a_large_cluster_is_one_cluster():
    rng = random.Random(1)
    template = "dear team please tell me where the parcel with my new shoes has been since monday morning number {}"
    texts = [template.format(rng.randrange(10)) + " " * i + "abcdefghij"[i % 10] for i in range(500)]
    assert len(set(near.clusters(texts).tolist())) == 1


def test_a_train_row_meets_the_test_row_of_a_family_larger_than_the_window():
    rng = random.Random(2)
    words = rng.choices(WORDS, k=30)
    family = []
    for _ in range(20 * near.WINDOW):
        at = rng.randrange(30)
        family.append(" ".join([*words[:at], rng.choice(WORDS), *words[at + 1 :]]))
    texts, others = family[:-3], family[-3:]
    expected = [any(jaccard(t, o) >= near.THRESHOLD for o in others) for t in texts]
    assert sum(expected) > 10 * near.WINDOW
    assert near.touching(texts, others).tolist() == expected


def test_a_family_just_below_the_threshold_does_not_hide_a_near_duplicate_and_stays_cheap(monkeypatch):
    rng = random.Random(3)
    words = ["".join(rng.choices("abcdefghijklmnop", k=6)) for _ in range(3036)]
    family = [" ".join(words[:36] + words[36 + 6 * i : 42 + 6 * i]) for i in range(500)]
    texts, others = family[:300], family[300:]
    others.append(texts[7].replace("a", "z", 1))
    compared = []
    similarity = near._Sketch.similarity

    def counted(self, a, b):
        compared.append(len(a))
        return similarity(self, a, b)

    monkeypatch.setattr(near._Sketch, "similarity", counted)
    assert np.flatnonzero(near.touching(texts, others)).tolist() == [7]
    assert 10 * len(texts) < sum(compared) < 80 * len(texts), "the signatures alone let about 175 a row through"


def test_twenty_thousand_short_texts_take_seconds():
    texts = sentences(16_000, 7)
    start = time.perf_counter()
    near.clusters(texts)
    assert time.perf_counter() - start < 15
