"""The pure parts of the benchmark beside TRL: what is timed, refused and written. No peer is imported.

Notable: our side of ``online`` runs once on a tiny network, with a peer's answers made up.
"""

import json
import random
from pathlib import Path
from typing import Any

import pytest

import rlhf_vs_trl
import small
from peers import bench, common, dpo, figures, generating, online, ours_online, sampling
from peers.configurations import DPO_PEERS, QUICK_SIZES, Online, online_peers
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
    ours = {"name": "ours_sampler", "side": "ours", "first": first}
    other = {"side": "peer", "first": [*first[:2], [9, 9]]}
    assert sampling._same([ours, {"name": "generate_16", "side": "peer", "first": first}]) == 1.0
    assert sampling._same([ours, other | {"name": "generate_64_bf16"}]) == 1.0  # which rounds otherwise
    with pytest.raises(Failed, match="Only 67%"):
        sampling._same([ours, other | {"name": "generate_16"}])


@pytest.mark.parametrize("fast", [False, True])
def test_bf16_is_sampled_where_the_processor_is_made_for_it(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "has_fast_bfloat16", lambda: fast)

    class Fake(bench.Bench):
        def material(self, *_: Any, **__: Any) -> tuple[dict[str, str], dict[str, Any]]:
            return {}, {}

        def go(self, module: str, name: str, *_: Any) -> dict[str, Any]:
            seconds = 1.0 if name == "generate_64_bf16" else 2.0
            side = "ours" if module == "ours" else "peer"
            return {"name": name, "side": side, "tokens": [8], "step_seconds": [seconds], "first": [], "peak_bytes": 1}

    monkeypatch.setattr(sampling, "_same", lambda _: 1.0)
    found = sampling.measure(Fake(QUICK_SIZES, Path(), Path(), 1))
    assert ("generate_64_bf16" in found["summary"]) == fast
    assert found["compared"]["best_generate"] == ("generate_64_bf16" if fast else "generate_16")


def test_continuous_batching_has_a_cache_of_its_rows_and_is_warm_before_the_clock_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Any] = []
    begin, step, answered = common.Clock.begin, common.Clock.step, generating._answered
    monkeypatch.setattr(common.Clock, "begin", lambda self: (events.append("begin"), begin(self)))
    monkeypatch.setattr(common.Clock, "step", lambda self: (events.append("step"), step(self)))

    def seen(manager: Any, rows: Any) -> Any:
        found = answered(manager, rows)
        events.append((len(rows), manager.batch_processor.cache.num_blocks))
        return found

    monkeypatch.setattr(generating, "_answered", seen)
    rows = [{"ids": list(range(5, 9 + n)), "new": 3 + n} for n in range(5)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    model = str(small.llama(tmp_path / "llama"))
    spec = {"rows": str(tmp_path / "rows.jsonl"), "model": model, "weights": "float32"}
    found = {}
    for size in (0, 4):
        generating.main(spec | {"batch": size, "out": str(tmp_path / "out.json")})
        found[size] = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert events == [(2, 10), "begin", (5, 10), "step", "begin", "step"]
    assert found[0]["tokens"] == found[4]["tokens"] == [25]
    assert found[0]["first"] == found[4]["first"]


def test_the_page_is_that_of_the_results() -> None:
    stored = json.loads((rlhf_vs_trl.RESULTS / "rlhf_vs_trl.json").read_text(encoding="utf-8"))
    assert stored["ratios"] == rlhf_vs_trl.ratios(stored["parts"])
    assert rlhf_vs_trl.page(stored) == (rlhf_vs_trl.RESULTS / "rlhf_vs_trl.md").read_text(encoding="utf-8")


def test_a_generation_is_timed_whole() -> None:
    assert figures.rate({"tokens": [120], "step_seconds": [2.0]}) == 60.0


def learned(name: str, side: str, **more: Any) -> dict[str, Any]:
    """A run of three steps of four answers, the first of which is slow."""
    return {
        "name": name,
        "side": side,
        "rows": [4, 4, 4],
        "tokens": [40, 44, 36],
        "trained_tokens": [40, 44, 36],
        "lengths": [8, 12, 9, 11, 10, 12, 10, 12, 8, 10, 9, 9],
        "step_seconds": [9.0, 2.0, 2.0],
        "peak_bytes": 2**30,
        "digest": "same",
        **more,
    }


def test_a_rollout_and_its_step_are_timed_together_without_the_first() -> None:
    slow = learned("trl_float32", "peer", step_seconds=[9.0, 8.0, 8.0], peak_bytes=2**31)
    lean = learned("trl_lean", "peer", step_seconds=[9.0, 16.0, 16.0])
    table = online.summary([learned("ours_online", "ours"), slow, lean])
    assert (table["ours_online"]["answers_per_s"], table["ours_online"]["new_tokens_per_s"]) == (2.0, 20.0)
    assert table["ours_online"]["tokens_an_answer"] == 10.0
    assert online.compared(table, []) == {
        "speed": 4.0,
        "speed_in_new_tokens": 4.0,
        "best_peer": "trl_float32",
        "peak_memory": 1.0,
        "leanest_peer": "trl_lean",
    }
    stopped = [{"name": "trl_bf16", "answers_per_s_below": 0.1, "peak_bytes_at_least": 2**29}]
    assert online.compared(table, stopped)["peak_memory"] == 2.0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, None),
        ({"digest": "other"}, "same prompts"),
        ({"rows": [4, 4, 3]}, "trl trained"),
        ({"rows": [4, 4], "step_seconds": [1.0, 1.0]}, "trl trained"),
        ({"trained_tokens": [40, 44, 35]}, "trl wrote"),
        ({"tokens": [60, 60, 60], "trained_tokens": [60, 60, 60], "lengths": [14, 16] * 6}, "not the same policy"),
    ],
)
def test_sides_that_do_other_work_are_no_comparison(more: dict[str, Any], told: str | None) -> None:
    runs = [learned("ours_online", "ours"), learned("trl", "peer", **more)]
    if told is None:
        online.check_same_work(runs, 4, 3)
    else:
        with pytest.raises(Failed, match=told):
            online.check_same_work(runs, 4, 3)


@pytest.mark.parametrize("name", ["rewards", "advantages", "norm"])
def test_sides_that_learn_other_things_of_the_same_answers_are_no_comparison(name: str) -> None:
    same = {"rewards": [1.0, 4.0], "advantages": [-0.7, 0.7], "norm": 2.0}
    found = online.check_same_learning(same, same | {"norm": 2.01})
    assert found["gradient_norm_of_the_same_answers_differ_by"] == "5.0e-03"
    other = {"rewards": [1.0, 4.1], "advantages": [-0.7, 0.71], "norm": 2.03}[name]
    with pytest.raises(Failed, match="Of the same answers"):
        online.check_same_learning(same, same | {name: other})


def test_what_is_not_much_faster_than_one_that_was_stopped_is_not_tried() -> None:
    peers = (Online("fast"), Online("slow"), Online("like_slow", leaner="slow"), Online("other", leaner="fast"))

    def go(peer: Online, enough: Any) -> dict[str, Any]:
        if peer.name == "slow":
            assert enough(1000.0, 0)
            return {"name": "slow", "stopped_after": 1000.0, "steps_done": 0, "peak_bytes": 7}
        return learned(peer.name, "peer")

    runs = [learned("ours_online", "ours")]
    stopped = bench.tried(go, peers, runs, 4, "answers")
    assert [one["name"] for one in runs] == ["ours_online", "fast", "other"]
    assert stopped[0] == {"name": "slow", "answers_per_s_below": 0.004, "peak_bytes_at_least": 7}
    assert stopped[1] == {"name": "like_slow", "because": "slow was stopped"}


@pytest.mark.parametrize("fast", [False, True])
def test_every_way_of_the_peer_is_named_once_and_the_leanest_comes_last(fast: bool) -> None:
    peers = online_peers(fast_bfloat16=fast)
    names = [peer.name for peer in peers]
    assert len(set(names)) == len(names)
    assert peers[0].weights == "float32" and not peers[0].autocast  # whose answers ours are checked by
    last = peers[-1]
    assert (last.weights, last.checkpointing, last.leaner) == ("bfloat16", True, None)  # tried whatever else was slow
    assert (last.prompts, last.rows) == (1, min(peer.rows for peer in peers))
    slow_here = [peer.name for peer in peers[:-1] if peer.autocast or peer.weights == "bfloat16"]
    assert bool(slow_here) == fast


def test_our_leanest_arm_is_run_once_and_compared_with_the_leanest(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []
    peaks = {"ours_dpo": 4, "ours_dpo_checkpoint": 2, "trl_float32": 5, "trl_float32_no_checkpointing": 8}

    class Fake(bench.Bench):
        def material(self, *_: Any, **__: Any) -> tuple[dict[str, str], dict[str, Any]]:
            return {}, {}

        def go(self, module: str, name: str, spec: Any, *_: Any) -> dict[str, Any]:
            asked.append((name, spec.get("memory")))
            seconds = {"ours_dpo": 1.0, "ours_dpo_checkpoint": 2.0, "trl_float32_no_checkpointing": 4.0}.get(name, 5.0)
            peak = peaks.get(name, 9) * 2**30
            return run(name, "ours" if module == "ours" else "peer", step_seconds=[seconds] * 6, peak_bytes=peak)

    found = dpo.measure(Fake(QUICK_SIZES, Path(), Path(), 2))
    assert asked[:2] == [("ours_dpo", None), ("ours_dpo_checkpoint", "checkpoint")]
    assert [name for name, _ in asked].count("ours_dpo_checkpoint") == 1
    assert {peer.name for peer in DPO_PEERS} <= {name for name, _ in asked}
    compared = found["compared"]
    assert (compared["best_ours"], compared["best_peer"]) == ("ours_dpo", "trl_float32_no_checkpointing")
    assert (compared["peak_memory"], compared["peak_memory_of_fastest"]) == (0.4, 0.5)
    assert (compared["leanest_ours"], compared["leanest_peer"]) == ("ours_dpo_checkpoint", "trl_float32")
    goals = rlhf_vs_trl.ratios({"dpo": found})
    assert (goals["dpo_peak_memory"], goals["dpo_peak_memory_of_fastest"]) == (0.4, 0.5)
    apart = run("ours_dpo_checkpoint", "ours", losses=[0.69, 0.7, 0.66, 0.6, 0.5, 0.4])
    with pytest.raises(Failed, match="ours_dpo_checkpoint: a loss of the first 3 steps"):
        dpo.check_same_losses([run("ours_dpo", "ours"), apart])


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    """What our side of ``online`` is told, on a tiny network: three steps of two prompts, four answers to each."""
    model = small.llama(tmp_path / "llama")
    rng = random.Random(0)
    rows = [{"ids": [rng.randrange(3, 60) for _ in range(6 + n)]} for n in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sizes = {"prompts_per_step": 2, "answers": 4, "steps": 3, "longest_new": 8, "ends": 8, "rank": 4}
    paths = {"model": str(model), "rows": str(tmp_path / "rows.jsonl"), "out": str(tmp_path / "out.json")}
    return paths | sizes | {"method": "lora", "learning_rate": 1e-5, "beta": 0.04}


def test_our_side_asks_in_the_order_of_the_file_and_trains_what_it_wrote(spec: dict[str, Any]) -> None:
    ours_online.train(spec)
    found = json.loads(Path(spec["out"]).read_text(encoding="utf-8"))
    rows = [json.loads(line)["ids"] for line in Path(spec["rows"]).read_text(encoding="utf-8").splitlines()]
    asked = [ids for ids in rows for _ in range(4)]
    assert found["digest"] == common.digest(asked, [[]] * len(asked))
    assert found["rows"] == [8, 8, 8]
    assert found["tokens"] == found["trained_tokens"]
    assert sum(found["tokens"]) == sum(found["lengths"])
    assert len(set(found["lengths"])) > 1  # some end before the limit
    assert sum(found["spent"].values()) == pytest.approx(sum(found["step_seconds"]), abs=0.05)
    assert min(found["spent"].values()) >= 0


def test_answers_of_a_peer_go_through_our_rollouts(spec: dict[str, Any], tmp_path: Path) -> None:
    rng = random.Random(1)
    letters = (68, 69, 70, 71, 72, 72, 72, 73)  # a to f; none of them ends an answer
    answers = [rng.choices(letters, k=rng.randrange(3, 8)) for _ in range(8)]
    (tmp_path / "theirs.json").write_text(json.dumps({"first": {"answers": answers}}), encoding="utf-8")
    ours_online.check(spec | {"theirs": str(tmp_path / "theirs.json")})
    found = json.loads(Path(spec["out"]).read_text(encoding="utf-8"))
    own = ours_online.Learning(spec)
    assert found["rewards"] == [common.reward(own.model.tokenizer.decode(ids)) for ids in answers]
    assert len(set(found["rewards"])) > 2
    assert sum(found["advantages"]) == pytest.approx(0, abs=1e-4)
    assert found["norm"] > 0
    (tmp_path / "theirs.json").write_text(
        json.dumps({"first": {"answers": [[*ids, 2] for ids in answers]}}), encoding="utf-8"
    )
    ours_online.check(spec | {"theirs": str(tmp_path / "theirs.json")})
    ended = json.loads(Path(spec["out"]).read_text(encoding="utf-8"))
    assert ended["rewards"] == found["rewards"]  # the end is no part of the text
    assert ended["norm"] != found["norm"]  # but trained


MEASURED = {
    "created": "2026-11-26T10:00:00",
    "command": "python benchmarks/rlhf_vs_trl.py",
    "machine": "two cores",
    "versions": {"torch": "2"},
    "load_before": 0.1,
    "seconds": 60,
    "settings": {"model": "tiny"},
}


def test_the_page_tells_goals_reached_and_missed() -> None:
    runs = [run("ours_dpo", "ours"), run("trl_float32", "peer", step_seconds=[4.0] * 6)]
    table = figures.summary(runs, "rows")
    part = MEASURED | {
        "data": {"pairs_per_step": 4},
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
    assert "| GRPO, peak memory: ours / TRL's leanest (lower is better) | not measured | none set |  |" in text
    assert "| ours_dpo | 2 pairs | 2 | 1.00 GiB | 0.6900, 0.5680 |" in text
    assert "| the same: our fastest / TRL's fastest (lower is better) | 1 | 0.4 | missed |" in text
    assert "Our fastest is ours_dpo, our leanest ours_dpo." in text
    assert "The figures mean nothing" in text and "trl_bf16 was stopped or not tried: it was slow." in text


def test_the_page_tells_of_answers() -> None:
    runs = [learned("ours_online", "ours"), learned("trl", "peer", step_seconds=[9.0, 4.0, 4.0])]
    table = online.summary(runs)
    stopped = [{"name": "trl_bf16", "answers_per_s_below": 0.25, "peak_bytes_at_least": 2**31}]
    part = MEASURED | {
        "data": {"prompts_per_step": 2},
        "summary": table,
        "compared": online.compared(table, stopped),
        "stopped": stopped,
    }
    found = rlhf_vs_trl.ratios({"online": part})
    assert (found["online_rl_per_s"], found["online_rl_peak_memory"], found["dpo_pairs_per_s"]) == (2.0, 1.0, None)
    text = rlhf_vs_trl.page({"ratios": found, "quick": False, "parts": {"online": part}})
    assert "| configuration | a second | each run | peak memory | tokens an answer |" in text
    assert "| ours_online | 2 answers | 2 | 1.00 GiB | 10.0 |" in text
    assert "TRL's fastest is trl, its leanest trl. In new tokens a second ours run at 2 times its fastest." in text
    assert "trl_bf16 was stopped or not tried: it ran below 0.25 answers/s with 2.00 GiB." in text
