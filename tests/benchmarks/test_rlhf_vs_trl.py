"""The pure parts of the benchmark of preference learning: what is timed, refused and written. No peer is imported."""

from typing import Any

import pytest

import rlhf_vs_trl
from peers import dpo, figures, sampling
from peers.processes import Failed


def run(name: str, side: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "side": side,
        "rows": [4] * 6,
        "step_seconds": [2.0] * 6,
        "losses": [0.69, 0.68, 0.66, 0.6, 0.5, 0.4],
        "peak_bytes": 2**30,
        "ready_seconds": 1.0,
        "digest": "same",
        "versions": {"torch": "2"},
        "reference_seconds": 3.0,
        **more,
    }


def test_what_the_reference_took_before_the_first_step_is_spread_over_the_steps() -> None:
    whole = dpo._whole(run("ours_dpo", "ours"))
    assert whole["step_seconds"] == [2.5] * 6
    assert figures.rate(whole, "rows") == pytest.approx(4 / 2.5)


@pytest.mark.parametrize(("apart", "fails"), [(0.001, False), (0.01, True), (float("nan"), True)])
def test_sides_whose_first_losses_part_are_no_comparison(apart: float, fails: bool) -> None:
    theirs = run("trl_float32", "peer", losses=[0.69, 0.68 + apart, 0.66, 0.6, 0.5, 0.4])
    runs = [run("ours_dpo", "ours"), theirs, run("trl_bf16", "peer", losses=[9.0] * 6)]
    if fails:
        with pytest.raises(Failed, match="trl_float32: a loss of the first 3 steps"):
            dpo.check_same_losses(runs)
    else:
        assert dpo.check_same_losses(runs) == pytest.approx(apart)


def test_sides_that_train_other_pairs_are_no_comparison() -> None:
    with pytest.raises(Failed, match="did not train the same rows"):
        dpo.check_same_pairs([run("ours_dpo", "ours"), run("trl", "peer", digest="other")])


def test_answers_that_begin_otherwise_are_no_comparison() -> None:
    first = [[1, 2], [3, 4], [5, 6]]
    ours = {"side": "ours", "first": first}
    assert sampling._same([ours, {"side": "peer", "first": first}]) == 1.0
    with pytest.raises(Failed, match="Only 67%"):
        sampling._same([ours, {"side": "peer", "first": [*first[:2], [9, 9]]}])


def test_a_generation_is_timed_whole() -> None:
    assert figures.rate({"tokens": [120], "step_seconds": [2.0]}) == 60.0


def test_the_page_tells_goals_reached_and_missed() -> None:
    runs = [run("ours_dpo", "ours"), run("trl_float32", "peer", step_seconds=[4.0] * 6)]
    table = figures.summary(runs, "rows")
    part = {
        "created": "2026-11-26T10:00:00",
        "command": "python benchmarks/rlhf_vs_trl.py",
        "machine": "two cores",
        "versions": {"torch": "2"},
        "load_before": 0.1,
        "seconds": 60,
        "data": {"pairs_per_step": 4},
        "settings": {"model": "tiny"},
        "summary": table,
        "compared": figures.compared(table, "rows"),
        "stopped": [{"name": "trl_bf16", "because": "it was slow"}],
        "runs": runs,
    }
    found = rlhf_vs_trl.ratios({"dpo": part})
    assert (found["dpo_pairs_per_s"], found["sampler_tokens_per_s"]) == (2.0, None)
    text = rlhf_vs_trl.page({"ratios": found, "quick": True, "parts": {"dpo": part}})
    assert "| DPO, pairs a second: ours / TRL's fastest | 2 | 5 | missed |" in text
    assert "| sampling, new tokens a second: ours / transformers' generate | not measured | 3 |  |" in text
    assert "The figures mean nothing" in text and "trl_bf16 was stopped or not tried: it was slow." in text
