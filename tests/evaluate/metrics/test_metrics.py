"""Every metric against its golden file, against the library it should equal, and against what any metric must do."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from tunesmith.core import parts
from tunesmith.core.errors import DataError
from tunesmith.core.report import Prediction
from tunesmith.evaluate.metrics._metric import Metric
from tunesmith.evaluate.score import has_inputs, score, statistics

ASKED = ("reward", "judged")  # of what a prediction carries, not of its answer
NAMES = [name for name in parts.names("evaluate.metrics") if name not in ASKED]
GOLDEN = Path(__file__).parents[1] / "golden"
WORDS = [
    "the",
    "bank",
    "card",
    "was",
    "lost",
    "or",
    "stolen",
    "yesterday,",
    "please",
    "call",
    "(soon)!",
    "a",
    "Refund",
    "of",
    "3.50",
    "über",
    "née",
    "東京",
]


def find(name: str) -> Metric:
    return parts.find("evaluate.metrics", name)  # type: ignore[no-any-return]


def sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randrange(0, 12)))


def random_pairs(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)
    return [sentence(rng) for _ in range(count)], [sentence(rng) for _ in range(count)]


def predict(metric: Metric, references: list[str], right: bool = True) -> list[Prediction]:
    """Perfect answers, or empty ones that no model would be proud of."""
    return [
        Prediction(id=str(n), answer=r if right else "", nll=0.0 if right else 50.0, nll_tokens=len(r.split()))
        for n, r in enumerate(references)
    ]


@pytest.fixture(autouse=True)
def _may_run_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_RUN_CODE", "1")  # unit_tests refuses without it


@pytest.fixture
def references() -> list[str]:
    """JSON, so that every metric has a perfect answer."""
    return [json.dumps({"intent": "abc"[n % 3], "text": f"number {n % 5}"}) for n in range(40)]


@pytest.mark.parametrize("name", ASKED)
def test_what_a_prediction_carries_is_its_mean_and_none_where_one_is_missing(name: str) -> None:
    whole = [Prediction(id=str(n), answer="", reward=float(n), judged=-float(n)) for n in range(40)]
    found = score(whole, [""] * 40, [name], seed=0)[name]
    assert found.value == pytest.approx(19.5 if name == "reward" else -19.5)
    assert found.low < found.value < found.high
    part = [*whole[:-1], whole[-1].model_copy(update={name: None})]
    assert score(part, [""] * 40, [name], seed=0) == {}
    assert not has_inputs(find(name), [whole[0].model_copy(update={name: float("nan")})])
    with pytest.raises(DataError, match=f"{name}: row 39 has no {name}"):
        statistics(find(name), part, [""] * 40)


@pytest.mark.parametrize("name", NAMES)
def test_golden(name: str) -> None:
    golden = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    metric, cases = find(name), golden["cases"]
    columns = ("nll", "tokens") if metric.needs == "likelihood" else ("answer", "reference")
    stats = metric.rows(*([case[column] for case in cases] for column in columns))
    np.testing.assert_allclose(metric.reduce(stats), [case["score"] for case in cases], atol=1e-12)
    assert float(metric.reduce(stats.sum(axis=0))) == pytest.approx(golden["value"], abs=1e-12), golden["how"]


@pytest.mark.parametrize("name", NAMES)
def test_part_says_who_it_is(name: str) -> None:
    metric = find(name)
    assert metric.name == name
    assert metric.description.endswith(".")
    assert metric.kind in {"zero_one", "row_mean", "corpus"}


@pytest.mark.parametrize("name", NAMES)
def test_perfect_answers_give_the_best_value(name: str, references: list[str]) -> None:
    metric = find(name)
    perfect = score(predict(metric, references), references, [name], seed=0)[name]
    empty = score(predict(metric, references, right=False), references, [name], seed=0)[name]
    assert perfect.value == pytest.approx(1.0)
    assert (perfect.value > empty.value) == metric.higher_is_better
    assert perfect.n == 40


@pytest.mark.parametrize("name", NAMES)
def test_order_of_rows_does_not_matter(name: str, references: list[str]) -> None:
    metric = find(name)
    predictions = [
        p.model_copy(update={"answer": p.answer if n % 3 else "no", "nll": n / 2})
        for n, p in enumerate(predict(metric, references))
    ]
    order = random.Random(1).sample(range(40), 40)
    shuffled = statistics(metric, [predictions[n] for n in order], [references[n] for n in order])
    straight = statistics(metric, predictions, references)
    assert float(metric.reduce(shuffled.sum(axis=0))) == pytest.approx(float(metric.reduce(straight.sum(axis=0))))


@pytest.mark.parametrize("name", NAMES)
def test_finite_on_empty_answers_and_references(name: str) -> None:
    metric = find(name)
    for references in (["", "", ""], ["{}", "x", "{"]):
        predictions = [Prediction(id=str(n), answer="", nll=0.0, nll_tokens=0) for n in range(3)]
        stats = statistics(metric, predictions, references)
        assert np.isfinite(stats).all()
        assert np.isfinite(metric.reduce(stats)).all()
        assert np.isfinite(metric.reduce(stats.sum(axis=0)))


@pytest.mark.parametrize("name", NAMES)
def test_statistics_are_one_row_each_and_reduce_any_leading_shape(name: str, references: list[str]) -> None:
    metric = find(name)
    stats = statistics(metric, predict(metric, references), references)
    assert stats.shape[0] == 40
    assert metric.reduce(np.stack([stats, stats])).shape == (2, 40)


@pytest.mark.parametrize("name", NAMES)
def test_interval_holds_the_value_and_has_width(name: str, references: list[str]) -> None:
    metric = find(name)
    predictions = [
        p.model_copy(update={"answer": p.answer if n % 4 else "wrong", "nll": 1.0 + n % 4})
        for n, p in enumerate(predict(metric, references))
    ]
    estimate = score(predictions, references, [name], seed=0)[name]
    assert estimate.low < estimate.value < estimate.high


def test_perplexity_is_left_out_without_likelihoods() -> None:
    bare = [Prediction(id="a", answer="x")]
    assert not has_inputs(find("perplexity"), bare)
    assert set(score(bare, ["x"], ["token_f1", "perplexity"], seed=0)) == {"token_f1"}
    with pytest.raises(DataError, match="row a has no likelihood"):
        statistics(find("perplexity"), bare, ["x"])


def test_accuracy_equals_exact_match_on_labels() -> None:
    answers, references = ["a", "b", "a "], ["a", "a", "a"]
    np.testing.assert_array_equal(
        find("accuracy").rows(answers, references), find("exact_match").rows(answers, references)
    )


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_equals_sklearn(seed: int) -> None:
    from sklearn.metrics import f1_score

    rng = random.Random(seed)
    expected = rng.choices("abcde", weights=[8, 4, 2, 1, 1], k=60)
    found = [e if rng.random() < 0.6 else rng.choice("abcdexyz") for e in expected]
    metric = find("macro_f1")
    value = float(metric.reduce(metric.rows(found, expected).sum(axis=0)))
    assert value == pytest.approx(
        f1_score(expected, found, labels=sorted(set(expected)), average="macro", zero_division=0)
    )


def test_macro_f1_in_a_resample_leaves_out_classes_without_rows() -> None:
    from sklearn.metrics import f1_score

    expected, found = list("aabbc"), list("acbab")
    metric, drawn = find("macro_f1"), [0, 1, 1, 3, 3]
    value = float(metric.reduce(metric.rows(found, expected)[drawn].sum(axis=0)))
    e, f = [expected[n] for n in drawn], [found[n] for n in drawn]
    assert value == pytest.approx(f1_score(e, f, labels=sorted(set(e)), average="macro", zero_division=0))


def test_macro_f1_refuses_open_text() -> None:
    with pytest.raises(DataError, match="macro_f1 found 4,001 different answers"):
        find("macro_f1").rows([""] * 4001, [str(n) for n in range(4001)])


@pytest.mark.parametrize("seed", range(3))
def test_chrf_equals_sacrebleu(seed: int) -> None:
    from sacrebleu.metrics.chrf import CHRF

    answers, references = random_pairs(50, seed)
    metric = find("chrf")
    stats = metric.rows(answers, references)
    theirs = CHRF().corpus_score(answers, [references]).score
    assert 100 * float(metric.reduce(stats.sum(axis=0))) == pytest.approx(theirs, abs=1e-9)
    rows = [CHRF().sentence_score(a, [r]).score for a, r in zip(answers, references, strict=True)]
    np.testing.assert_allclose(100 * metric.reduce(stats), rows, atol=1e-9)


def test_rouge_l_equals_rouge_score() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    answers, references = random_pairs(200)
    scorer, metric = RougeScorer(["rougeL"], use_stemmer=False), find("rouge_l")
    theirs = [scorer.score(r, a)["rougeL"].fmeasure for a, r in zip(answers, references, strict=True)]
    np.testing.assert_allclose(metric.reduce(metric.rows(answers, references)), theirs, atol=1e-12)
