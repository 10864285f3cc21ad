"""What the benchmark of plans makes of the runs that it kept: shares, errors and the page."""

import json
from typing import Any

import pytest

import plan_accuracy
from peers.plan_page import QUANTILES, lengthened, page, summary
from tunesmith.plan.time import PROBED


def run(memory: float, step: float | None, measured: float | None = 1.0, **setting: Any) -> dict[str, Any]:
    """Foreseen to need ``memory`` times what it did, and to take ``step`` seconds, by the probe alone."""
    return {
        "setting": {"method": "lora", "later": False} | setting,
        "memory": {"foreseen": memory * 2**20, "measured": 2.0**20},
        "step": {"foreseen": step, "measured": measured},
    }


def runs() -> dict[str, dict[str, Any]]:
    """Four that were timed and took 1.26 times, 1.26 times, twice and twice what the probe foresaw, and one that was
    not."""
    found = {"a": run(1.0, 1 / PROBED), "b": run(1.1, 1 / PROBED), "c": run(0.9, 0.5), "d": run(1.2, 0.5)}
    return found | {"e": run(1.3, 0.5, None, later=True)}


def test_shares_and_errors_of_a_tiny_document() -> None:
    found = summary(runs(), "cpu")
    assert found["n"] == 5 and found["memory"]["n"] == 5
    assert found["memory"]["share_under_by_2pct"] == pytest.approx(1 / 5)
    assert found["memory"]["median_over"] == pytest.approx(0.1)
    assert found["memory"]["worst"] == pytest.approx([-0.1, 0.3])
    assert found["memory_of_later_ones"]["quantiles"] == pytest.approx([0.3] * len(QUANTILES))
    time = found["time"]
    assert time["n"] == 4  # the fifth has no time that was measured
    printed, alone = 0.5 * PROBED - 1, 1 / PROBED - 1  # of the slow ones, of the others
    assert time["quantiles_by_probe_alone"] == pytest.approx([-0.5, -0.5, alone, alone, alone])
    assert time["share_within_25pct_by_probe_alone"] == 0.5
    assert time["quantiles_without_earlier_runs"] == pytest.approx([printed, printed, 0, 0, 0], abs=1e-9)
    assert time["share_within_25pct_without_earlier_runs"] == 0.5


def test_times_are_corrected_as_a_plan_does_it_by_all_the_others() -> None:
    """Three others each, whose median counts for 3 of 5: of a run that was right, and of one that was slow."""
    slow = 2 / PROBED  # measured over printed
    found = summary(runs(), "cpu")["time"]
    right, late = slow ** (3 / 5) - 1, 1 / slow - 1  # the others' median is a slow one; one that was right
    assert found["quantiles"] == pytest.approx([late, late, right, right, right])
    assert found["share_within_25pct"] == 0.0


def test_on_a_gpu_a_plan_prints_what_the_probe_foresees() -> None:
    assert (lengthened("cpu"), lengthened("cuda")) == (PROBED, 1.0)
    found = summary(runs(), "cuda")["time"]
    assert found["quantiles_without_earlier_runs"] == found["quantiles_by_probe_alone"]


def document(of: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {"summary": summary(of, "cpu"), "created": "2026-11-27T19", "machine": "m", "device": "cpu", "runs": of}


def test_the_page_says_of_how_many_times_are_and_shows_what_a_user_gets() -> None:
    text = page(document(runs()))
    assert "Time of a step: 4 of the 5 configurations; of the other 1 memory alone was measured." in text
    assert "calibrated, that is, corrected by all other configurations of this benchmark" in text
    assert f"50% as `tunesmith plan` prints it where there are none (the probe's, times {PROBED:g}" in text
    assert f"| c | 1 | 1 | -10.0% | {0.5 * PROBED:.3g} | 1 | {0.5 * PROBED - 1:+.0%} |" in text
    assert f"| e * | 1 | 1 | +30.0% | {0.5 * PROBED:.3g} | - | - |" in text
    for what in ("time, calibrated", "time, without earlier runs", "time, by the probe alone", "memory"):
        assert f"\n| {what} | " in text


def test_a_page_without_times_has_no_word_of_them() -> None:
    text = page(document({"e": runs()["e"]}))
    assert "Time of a step" not in text and "| time" not in text


def test_results_that_are_there_can_be_written_again() -> None:
    stored = json.loads((plan_accuracy.RESULTS / "plan_accuracy.json").read_text(encoding="utf-8"))
    assert stored["summary"] == summary(stored["runs"], stored["device"])
    assert page(stored) == (plan_accuracy.ROOT / "docs" / "plan_accuracy.md").read_text(encoding="utf-8")
    assert list(stored["runs"]) == [setting.name for setting in plan_accuracy.settings()]


def test_what_is_said_elsewhere_is_what_is_stored() -> None:
    stored = json.loads((plan_accuracy.RESULTS / "plan_accuracy.json").read_text(encoding="utf-8"))["summary"]
    time, memory, later = stored["time"], stored["memory"], stored["memory_of_later_ones"]
    readme = " ".join((plan_accuracy.ROOT / "README.md").read_text(encoding="utf-8").split())
    for told in (
        f"Plans: of {stored['n']} trainings",
        f"{round(memory['share_under_by_2pct'] * memory['n'])} needed over 2% more memory",
        f"the median forecast is {memory['median_over']:.1%} too high",
        f"the median {later['median_over']:.1%} too high",
        f"25% in {time['share_within_25pct_by_probe_alone']:.0%} of the {time['n']} that were timed",
        f"Corrected by all the other runs of the benchmark it is {time['share_within_25pct']:.0%}",
    ):
        assert told in readme, told
    assert time["share_within_25pct_without_earlier_runs"] == 1.0  # "all of these"
    scripts = (plan_accuracy.ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert f"of {stored['n']} configurations of 10M to 360M parameters, and time of a step of {time['n']} " in scripts


def test_where_all_is_stored_nothing_is_measured_and_the_page_is_made_again(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = json.loads((plan_accuracy.RESULTS / "plan_accuracy.json").read_text(encoding="utf-8"))
    (tmp_path / "docs").mkdir()
    (tmp_path / "plan_accuracy.json").write_text(json.dumps(stored | {"summary": {}}), encoding="utf-8")
    monkeypatch.setattr(plan_accuracy, "ROOT", tmp_path)
    monkeypatch.setattr(plan_accuracy, "RESULTS", tmp_path)
    monkeypatch.setattr(plan_accuracy, "machine", lambda: stored["machine"])
    assert plan_accuracy.main(["--memory-only", "--work", str(tmp_path / "work")]) == 0
    assert json.loads((tmp_path / "plan_accuracy.json").read_text(encoding="utf-8")) == stored
    assert (tmp_path / "docs" / "plan_accuracy.md").read_text(encoding="utf-8") == page(stored)
    assert plan_accuracy.main(["--memory-only", "--only", "9T", "--work", str(tmp_path / "work")]) == 1
    assert "No configuration begins with 9T." in capsys.readouterr().err
