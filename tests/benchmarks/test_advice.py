"""How the benchmark of advice counts: what is right, what is costly, and what the page says."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import advice as bench
import sample_advice
import sample_report
from tunesmith.core.origin import Origin
from tunesmith.core.report import Estimate, Report
from tunesmith.flows.keeping import write_origin
from tunesmith.records.folder import RunFolder

LOST = {"truth": "loses", "worth_having": False, "ways": ["prompt"]}


def report(value: float, low: float, high: float, tuned: float = 0.66, few_shot: float = 0.5) -> Report:
    """Of a run where nearest_neighbour has 0.486."""
    made = sample_report.build()
    gain = Estimate(value=value, low=low, high=high, n=180)
    verdict = made.verdict.model_copy(update={"difference": gain})
    score = Estimate(value=tuned, low=tuned - 0.05, high=tuned + 0.05, n=180)
    scores = {"tuned": score, "few_shot": sample_report.estimate(few_shot)}
    systems = tuple(
        s.model_copy(update={"metrics": s.metrics | {made.primary: scores[s.name]}}) if s.name in scores else s
        for s in made.systems
    )
    return made.model_copy(update={"verdict": verdict, "systems": systems})


@pytest.mark.parametrize(
    ("gain", "truth"),
    [
        ((0.05, 0.01, 0.09), "wins"),
        ((0.019, 0.01, 0.03), "open"),  # sure, and not worth having
        ((0.05, -0.01, 0.1), "open"),
        ((0.0, -0.02, 0.02), "loses"),
        ((-0.05, -0.1, 0.01), "loses"),
    ],
)
def test_the_truth_is_the_run_s(gain: tuple[float, float, float], truth: str) -> None:
    assert bench.truth_of(report(*gain)) == truth


@pytest.mark.parametrize(
    ("gain", "truth"),
    [((-0.1, -0.15, -0.05), "open"), ((-0.3, -0.4, -0.2), "wins"), ((0.1, -0.1, 0.3), "loses")],
)
def test_a_gain_in_perplexity_is_a_share_as_in_the_forecast(gain: tuple[float, float, float], truth: str) -> None:
    """Of 9.4, few_shot's: 0.1 are 1%, and 2% are worth having."""
    made = report(*gain)
    verdict = made.verdict.model_copy(update={"baseline": "few_shot"})
    assert bench.truth_of(made.model_copy(update={"primary": "perplexity", "verdict": verdict})) == truth


def test_the_smallest_gain_is_the_recipe_s() -> None:
    made = report(0.05, 0.01, 0.09)
    evaluate = made.recipe.evaluate.model_copy(update={"min_gain": 0.1})
    recipe = made.recipe.model_copy(update={"evaluate": evaluate})
    assert bench.truth_of(made.model_copy(update={"recipe": recipe})) == "open"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (LOST, {"prompt", "collect more data"}),
        (LOST | {"ways": ["prompt", "retrieve"]}, {"prompt", "retrieve", "collect more data"}),
        (LOST | {"truth": "open"}, {"prompt", "collect more data", "not enough evidence"}),
        (LOST | {"truth": "open", "worth_having": True}, {"collect more data", "not enough evidence"}),
        (LOST | {"truth": "wins", "worth_having": True}, {"tune"}),
    ],
)
def test_what_is_right_is_what_the_run_can_tell(shown: dict[str, Any], expected: set[str]) -> None:
    decisions = ("tune", "prompt", "retrieve", "collect more data", "not enough evidence")
    assert {decision for decision in decisions if bench.right(decision, shown)} == expected


@pytest.mark.parametrize(
    ("few_shot", "ways"), [(0.5, ["prompt"]), (0.4, ["retrieve"]), (0.486, ["prompt", "retrieve"])]
)
def test_the_better_way_is_the_run_s(few_shot: float, ways: list[str]) -> None:
    assert bench.ways_of(report(0.0, -0.1, 0.1, few_shot=few_shot)) == ways


@pytest.mark.parametrize("same", [True, False])
def test_a_run_of_other_versions_is_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: bool) -> None:
    old, new = report(0.1, 0.05, 0.2), report(-0.1, -0.2, -0.05)
    for name, made in (("old", old), ("new", new)):
        (tmp_path / name).mkdir()
        made.save(tmp_path / name / "report.json")
    run = SimpleNamespace(recipe_hash=old.recipe.content_hash(), status="done", folder=tmp_path / "old")
    monkeypatch.setattr(bench.Index, "open", lambda _: SimpleNamespace(all=lambda: [run]))
    monkeypatch.setattr(bench, "finetune", lambda recipe, workspace: SimpleNamespace(folder=tmp_path / "new"))
    made_by = bench.versions() | ({} if same else {"tunesmith": "0.0.1"})
    origin = Origin(recipe=old.recipe, plan=old.plan, files={}, model={}, rows="", test="", versions=made_by)
    write_origin(RunFolder(tmp_path / "old"), origin)
    assert bench.report_of(old.recipe, tmp_path) == ((old, True) if same else (new, False))


def test_costly_is_tune_where_tuning_loses() -> None:
    told = sample_advice.build()
    assert told.decision == "tune"
    lost, won = bench.compared(told, report(-0.1, -0.2, -0.05)), bench.compared(told, report(0.1, 0.05, 0.2))
    assert (lost["costly"], lost["right"]) == (True, False)
    assert (won["costly"], won["right"], won["within_80"]) == (False, True, True)
    assert bench.compared(told, report(0.1, 0.05, 0.2, tuned=0.9))["within_80"] is False
    other = bench.compared(sample_advice.build(curve=sample_advice.curve(-0.1, within=0.0)), report(-0.1, -0.2, -0.05))
    assert (other["decision"], other["right"], other["costly"]) == ("prompt", True, False)


def test_shares_are_counted_and_told() -> None:
    told = sample_advice.build()
    cases = [
        {"task": "sst2", "rows": 9, "taken_over": False, "commit": "abc", "seconds": {"advice": 60.0, "run": 30.0}}
        | bench.compared(told, report(*gain))
        for gain in ((0.1, 0.05, 0.2), (-0.1, -0.2, -0.05))
    ]
    cases[1]["within_80"] = None
    found = bench.summary(cases)
    shares = {"right": 0.5, "right_if_never_tune": 0.5, "costly_wrong": 0.5, "forecast_within_80": 1.0}
    half, one = [0.0945, 0.9055], [0.2065, 1.0]  # Wilson's, of 1 of 2 and of 1 of 1
    around = {"right_95": half, "right_if_never_tune_95": half, "costly_wrong_95": half, "forecast_within_80_95": one}
    assert found == {"n": 2, "n_forecast": 1, **shares, **around}
    document = {"quick": True, "summary": found, "cases": cases, "created": "2026-03-01", "machine": "a machine"}
    text = bench.page(document | {"environment": {"torch": "2"}, "load": 0.1})
    assert (
        "right: 50% (95%: 9% to 91%) of 2 cases" in text
        and "never tunes and takes the better of prompt and retrieve is right in 50% (95%: 9% to 91%)" in text
        and "goal: at most 5%. 2 cases cannot show that: the interval of 0 of 2 ends at 66%." in text
        and "0 of 2 runs were there already" in text
        and "COSTLY" in text
        and "The figures mean nothing" in text
    )


def test_beside_the_advice_to_collect_more_stands_what_the_larger_size_shows() -> None:
    case = {"task": "sst2", "rows": 200, "train_rows": 150, "decision": "collect more data", "truth": "open"}
    larger = [case | {"rows": n, "train_rows": n, "truth": truth} for n, truth in ((4000, "open"), (2000, "wins"))]
    assert bench.later(case, [case, *larger]) == "wins at 2,000"
    assert bench.later(case, [case, larger[0] | {"task": "imdb"}]) == "-"
    assert bench.later(case | {"decision": "prompt"}, [case, *larger]) == "-"


def test_there_are_enough_tasks_of_several_sizes() -> None:
    assert len(bench.TASKS) >= 8
    assert sum(len(task.sizes) > 1 for task in bench.TASKS.values()) >= 5
