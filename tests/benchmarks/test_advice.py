"""How the benchmark of advice counts: what is right, what is costly, and what the page says."""

import pytest

import advice as bench
import sample_advice
import sample_report
from tunesmith.core.report import Estimate, Report


def report(value: float, low: float, high: float, tuned: float = 0.66) -> Report:
    made = sample_report.build()
    gain = Estimate(value=value, low=low, high=high, n=180)
    verdict = made.verdict.model_copy(update={"difference": gain})
    score = Estimate(value=tuned, low=tuned - 0.05, high=tuned + 0.05, n=180)
    systems = tuple(
        s.model_copy(update={"metrics": s.metrics | {made.primary: score}}) if s.name == "tuned" else s
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
        {"task": "sst2", "rows": 9, "seconds": {"advice": 60.0, "run": 30.0}, **bench.compared(told, report(*gain))}
        for gain in ((0.1, 0.05, 0.2), (-0.1, -0.2, -0.05))
    ]
    cases[1]["within_80"] = None
    found = bench.summary(cases)
    shares = {"right": 0.5, "right_if_never_tune": 0.5, "costly_wrong": 0.5, "forecast_within_80": 1.0}
    assert found == {"n": 2, "n_forecast": 1, **shares}
    document = {"quick": True, "summary": found, "cases": cases, "created": "2026-03-01", "machine": "a machine"}
    text = bench.page(document | {"environment": {"torch": "2"}, "load": 0.1})
    assert (
        "right: 50% of 2 cases" in text
        and "always says prompt is right in 50%" in text
        and "COSTLY" in text
        and "The figures mean nothing" in text
    )


def test_there_are_enough_tasks_of_several_sizes() -> None:
    assert len(bench.TASKS) >= 8
    assert sum(len(task.sizes) > 1 for task in bench.TASKS.values()) >= 5
