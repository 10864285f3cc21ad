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
from peers import bench, common, dpo, figures, online, ours_online, sampling
from peers.configurations import ONLINE_PEERS, Online
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


def test_every_way_of_the_peer_is_named_once_and_stops_with_one_before_it() -> None:
    names = [peer.name for peer in ONLINE_PEERS]
    assert len(set(names)) == len(names)
    assert all(peer.leaner in names[:i] for i, peer in enumerate(ONLINE_PEERS) if peer.leaner)
    assert ONLINE_PEERS[0].weights == "float32" and not ONLINE_PEERS[0].autocast  # whose answers ours are checked by


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
