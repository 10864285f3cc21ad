"""The verdict: each branch of the rule, direction of the metric, cost, and how often luck ships."""

import numpy as np
import pytest

from tunesmith.core.errors import RecipeError
from tunesmith.core.report import Prediction, SystemResult, Verdict
from tunesmith.evaluate.score import find_metric
from tunesmith.evaluate.systems import Ruler
from tunesmith.evaluate.verdict import cost_sentence, judge


def system(name: str, prompt: float = 0, new: float = 0) -> SystemResult:
    kind = "tuned" if name == "tuned" else "baseline"
    return SystemResult(name=name, kind=kind, metrics={}, seconds=1, prompt_tokens=prompt, new_tokens=new)


def answers(right: int, rows: int, shift: int = 0) -> tuple[Prediction, ...]:
    return tuple(Prediction(id=str(n), answer="y" if (n + shift) % rows < right else "n") for n in range(rows))


def verdict(
    tuned: int,
    rows: int,
    *others: int,
    min_gain: float = 0.0,
    metric: str = "accuracy",
    shift: int = 0,
    learned: bool = True,
) -> Verdict:
    names = ["zero_shot", "few_shot", "majority"][: len(others)]
    predictions = {name: answers(right, rows, shift) for name, right in zip(names, others, strict=True)}
    return judge(
        system("tuned", 50, 10),
        [system(name, 100, 10) for name in names],
        {"tuned": answers(tuned, rows), **predictions},
        Ruler(("y",) * rows, (metric,), 0),
        min_gain=min_gain,
        learned=learned,
    )


def test_a_clear_gain_ships_against_the_best_baseline() -> None:
    result = verdict(180, 200, 100, 140)
    assert result.decision == "SHIP"
    assert result.baseline == "few_shot"
    assert result.difference.value == pytest.approx(0.2)
    assert "200 held-out rows" in result.sentence
    assert "0.900" in result.sentence and "0.700" in result.sentence
    assert "p < 0.05 (exact McNemar test)" in result.rule
    assert "best of the 2 baselines is picked on the same test rows" in result.rule


def test_a_gain_below_min_gain_does_not_ship() -> None:
    assert verdict(180, 200, 140, min_gain=0.15).decision == "NOT ENOUGH EVIDENCE"
    assert verdict(180, 200, 140, min_gain=0.3).decision == "HOLD"


def test_a_loss_holds() -> None:
    result = verdict(100, 200, 160)
    assert result.decision == "HOLD"
    assert "at or below 0" in result.sentence


def test_weights_that_never_beat_their_start_are_held_whatever_the_test_says() -> None:
    shipped = verdict(180, 200, 100)
    held = verdict(180, 200, 100, learned=False)
    assert (shipped.decision, held.decision) == ("SHIP", "HOLD")
    assert held.difference == shipped.difference
    assert "the weights that training began with" in held.sentence


def test_few_rows_never_decide() -> None:
    assert verdict(29, 29, 0).decision == "NOT ENOUGH EVIDENCE"
    assert verdict(30, 30, 0).decision == "SHIP"
    assert "At least 30 test rows" in verdict(29, 29, 0).sentence


def test_a_tie_holds_only_with_rows_enough_to_rule_a_gain_out() -> None:
    assert verdict(30, 60, 30).decision == "NOT ENOUGH EVIDENCE"
    assert verdict(500, 1000, 500).decision == "HOLD"
    assert "no room" in verdict(500, 1000, 500).sentence


def test_an_interval_above_zero_with_too_large_a_p_does_not_ship() -> None:
    """Four wins and no loss: the bootstrap interval may touch 0 from above, McNemar says p = 0.125."""
    result = verdict(54, 100, 50)
    assert result.p_value == pytest.approx(0.125)
    assert result.decision == "NOT ENOUGH EVIDENCE"


def perplexities(tuned: float, base: float) -> Verdict:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.3, 100)

    def rows(level: float) -> tuple[Prediction, ...]:
        nll = 10 * (np.log(level) + noise)
        return tuple(Prediction(id=str(n), answer="", nll=float(v), nll_tokens=10) for n, v in enumerate(nll))

    predictions = {"tuned": rows(tuned), "zero_shot": rows(base), "majority": answers(1, 100)}
    systems = [system("zero_shot", 100, 0), system("majority")]
    return judge(system("tuned", 50), systems, predictions, Ruler(("y",) * 100, ("perplexity",), 0), min_gain=0.0)


def test_lower_is_better_turns_the_gain_round() -> None:
    better, worse = perplexities(4.0, 8.0), perplexities(8.0, 4.0)
    assert better.decision == "SHIP"
    assert better.baseline == "zero_shot"  # majority has no likelihoods and is no candidate
    assert better.difference.value < 0
    assert "reaches 50% of the tuned quality" in better.cost_sentence
    assert "at 200% of its cost" in better.cost_sentence
    assert worse.decision == "HOLD"
    assert "reaches 200% of the tuned quality" in worse.cost_sentence


def test_cost_sentence_counts_written_tokens_four_times() -> None:
    sentence = verdict(180, 200, 90, 135).cost_sentence
    assert "(few_shot) reaches 75% of the tuned quality" in sentence
    assert "at 156% of its cost (140 against 90 tokens" in sentence  # 100 + 4 x 10 against 50 + 4 x 10


@pytest.mark.parametrize(
    ("name", "who"), [("start", "The run that it went on from"), ("few_shot", "Prompting (few_shot)")]
)
def test_what_has_no_zero_is_no_share_of_something(name: str, who: str) -> None:
    tuned, best = (
        SystemResult(name=n, kind=k, metrics={}, seconds=1.0, prompt_tokens=10, new_tokens=5)
        for n, k in (("tuned", "tuned"), (name, "baseline"))
    )
    told = cost_sentence(tuned, [best], {"tuned": 0.9, name: 1.2}, find_metric("reward"))
    assert told.startswith(f"{who} scores 1.200 where the tuned model scores 0.900 at 100% of its cost")


def test_cost_sentence_without_prompted_baselines_or_quality() -> None:
    predictions = {"tuned": answers(0, 40), "majority": answers(10, 40)}
    result = judge(
        system("tuned", 5, 5), [system("majority")], predictions, Ruler(("y",) * 40, ("accuracy",), 0), min_gain=0
    )
    assert (
        "No prompted baseline was run; majority scores 0.250 where the tuned model scores 0.000" in result.cost_sentence
    )
    assert "best of the" not in result.rule


def test_no_baseline_with_the_metric_is_a_recipe_error() -> None:
    with pytest.raises(RecipeError, match="none of \\['majority'\\] has perplexity"):
        judge(
            system("tuned"),
            [system("majority")],
            {"tuned": answers(1, 40), "majority": answers(1, 40)},
            Ruler(("y",) * 40, ("perplexity",), 0),
            min_gain=0,
        )


@pytest.mark.parametrize("metric", ["accuracy", "token_f1", "chrf"])
def test_equal_systems_ship_in_at_most_3_percent_of_runs(metric: str) -> None:
    rng = np.random.default_rng(5)
    shipped = 0
    for n in range(300):
        predictions = {
            name: tuple(
                Prediction(id=str(i), answer=" ".join(["y"] * k)) for i, k in enumerate(rng.choice([0, 1, 2], 50))
            )
            for name in ("tuned", "zero_shot")
        }
        result = judge(
            system("tuned"), [system("zero_shot")], predictions, Ruler(("y",) * 50, (metric,), n), min_gain=0.0
        )
        shipped += result.decision == "SHIP"
    assert shipped / 300 <= 0.03


@pytest.mark.parametrize("metric", ["accuracy", "token_f1", "chrf"])
def test_equal_systems_on_grouped_rows_ship_no_more_often(metric: str) -> None:
    """30 customers with 10 tickets each, and each system does well or badly on a whole customer. Rows taken one by one
    would ship 13 to 20% of the time here; groups taken whole do not."""
    rng = np.random.default_rng(6)
    units = tuple(int(u) for u in np.repeat(np.arange(30), 10))
    shipped = alone = 0
    for n in range(200):
        predictions = {}
        for name in ("tuned", "zero_shot"):
            right = rng.normal(0, 1, 300) + 2 * np.repeat(rng.normal(0, 1, 30), 10) > 0
            predictions[name] = tuple(Prediction(id=str(i), answer="y" if r else "n") for i, r in enumerate(right))
        systems = system("tuned"), [system("zero_shot")], predictions
        grouped = judge(*systems, Ruler(("y",) * 300, (metric,), n, units=units), min_gain=0.0)
        shipped += grouped.decision == "SHIP"
        alone += judge(*systems, Ruler(("y",) * 300, (metric,), n), min_gain=0.0).decision == "SHIP"
    assert "30 groups of 300 test rows" in grouped.rule
    assert shipped / 200 <= 0.05
    assert alone / 200 >= 0.1


def test_thirty_groups_are_needed_where_rows_belong_together() -> None:
    predictions = {"tuned": answers(60, 60), "zero_shot": answers(0, 60)}
    for groups, decision in ((29, "NOT ENOUGH EVIDENCE"), (30, "SHIP")):
        ruler = Ruler(("y",) * 60, ("accuracy",), 0, units=tuple(i % groups for i in range(60)))
        assert judge(system("tuned"), [system("zero_shot")], predictions, ruler, min_gain=0).decision == decision
