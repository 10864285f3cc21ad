"""What the benchmark of learning from preferences and rewards makes of runs: figures of policies, goals, the page."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import rlhf
import small
from peers import goals, policies, processes
from tunesmith.core.example import Example, Message, Place
from tunesmith.core.report import Report
from tunesmith.evaluate.rewards import Asked
from tunesmith.flows.prepare import ground
from tunesmith.models import load as loading

PROMPTS = [Asked((Message(role="user", content=text),), "") for text in ("a", "be", "see", "deed")]


def test_a_policy_is_no_way_from_itself_and_some_way_from_another(tmp_path: Path) -> None:
    start = loading.load(str(small.llama(tmp_path / "start", initializer_range=0.02)))
    other = loading.load(str(small.llama(tmp_path / "other", seed=1, initializer_range=0.2)))
    same = policies.written(start, start, PROMPTS, 6)
    assert same.kl == pytest.approx([0.0] * 16, abs=1e-3)
    found = policies.written(other, start, PROMPTS, 6)
    assert policies.mean([found.kl])["low"] > 0.5
    assert len(found.texts) == 16 and max(found.length) == 6


def test_kl_counts_the_token_that_ends_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies.Renderer, "stop_ids", lambda _: tuple(range(0, small.VOCABULARY, 2)))
    start = loading.load(str(small.llama(tmp_path / "start")))
    same = policies.written(start, start, PROMPTS, 6)
    assert same.length.count(1) > 1  # the end alone
    assert same.kl == pytest.approx([0.0] * 16, abs=1e-3)


def values(reward: list[float]) -> policies.Values:
    return {"reward": reward, "judge": reward, "kl": [2.0] * len(reward), "length": [9] * len(reward)}


def test_seeds_stand_alone_and_together_in_deviations_of_the_start() -> None:
    start = values([0.0, 2.0] * 8)  # mean 1, deviation 1
    found = policies.arm([values([2.0] * 16), values([3.0, 5.0] * 8)], [{"best_step": 1, "steps": 2}] * 2, start)
    assert found["n"] == 4
    assert [each["value"] for each in found["each"]] == [2.0, 4.0]
    assert [each["gain"]["value"] for each in found["each"]] == [1.0, 3.0]
    mean = found["over_seeds"]
    assert (mean["value"], mean["gain"]["value"], mean["kl_from_start"]["value"]) == (3.0, 2.0, 2.0)
    assert mean["n"] == 4  # prompts, not prompts of all seeds
    rising = policies.mean([[float(p) for p in range(8) for _ in range(policies.SAMPLES)]])
    assert rising["low"] < rising["value"] == 3.5 < rising["high"]


def parts() -> dict[str, Any]:
    start = values([0.0, 2.0] * 8)
    way = {"best_step": 81, "steps": 92}
    arms = {
        "sft": policies.arm([start], [{}], start),
        "ppo": policies.arm([values([1.5] * 16), values([1.7] * 16)], [way] * 2, start),
        "grpo": policies.arm([values([1.9] * 16), values([2.5] * 16)], [way] * 2, start),
    }
    accuracy = {"value": 0.86, "low": 0.84, "high": 0.88, "n": 1000}
    told = {"about": "reviews", "measure": "mean reward", "arms": arms, "classifiers": {"reward": accuracy}}
    ran: dict[str, Any] = {"runs_began": ["2026-11-26T09:12", "2026-11-27T09:12"]}
    ran |= {
        "created": "2026-11-27T16:20:54+00:00",
        "command": "python",
        "machine": "m",
        "seconds": 60,
        "environment": {"torch": "2"},
    }
    pairs = {
        "n": 9,
        "each": [0.8],
        "accuracy": accuracy,
        "length": "Longer ones.",
        "learning_rate": 1e-4,
        "by": "gained",
        "best_step": [3],
    }
    robust = pairs | {"gain": {"value": 0.1, "low": 0.02, "high": 0.2, "n": 9}}
    flipped = {"about": "flips", "against": "dpo_flipped", "baselines": {}}
    flipped["arms"] = {"dpo_flipped": pairs, "robust_flipped": robust}
    return {"imdb": told | ran, "flipped": flipped | ran}


def test_each_arm_is_told_by_its_mean_and_interval_and_parts_by_when_their_runs_began() -> None:
    document = rlhf.document_of(parts(), quick=False)
    assert document["experiments"]["flipped"]["robust_flipped"] == {"n": 1000, "mean": 0.86, "interval": [0.84, 0.88]}
    grpo = document["experiments"]["imdb"]["grpo"]
    assert (grpo["n"], grpo["mean"]) == (4, pytest.approx(2.2))
    assert grpo["interval"][0] <= grpo["mean"] <= grpo["interval"][1]
    assert "its runs began 2026-11-26T09:12 to 2026-11-27T09:12." in rlhf.page(document)


def test_goals_are_computed_and_stand_in_one_place() -> None:
    found = {told["about"]: told for told in goals.reached(parts())}
    ppo, grpo = (found[f"{name}: reward gained, in deviations of sft"] for name in ("PPO", "GRPO"))
    assert (ppo["verdict"], ppo["seeds_that_reach_it"]) == ("missed", 0)
    assert (grpo["verdict"], grpo["seeds_that_reach_it"], grpo["seeds"]) == ("reached", 1, 2)
    assert found["PPO: KL from sft, nats an answer"]["verdict"] == "reached"
    assert found["accuracy of the reward model, MiniLM"]["verdict"] == "reached; not by all of the interval"
    assert found["accuracy of robust DPO less that of DPO, labels flipped"]["verdict"] == "reached"
    assert found["pass@1 after GRPO"]["verdict"] == "not measured"
    by = "Prefers by what an answer gained in likelihood over the base."
    kept = "seeds kept the weights of their start and prefer neither answer."
    for steps, verdict, told in (
        (
            [0, 0],
            "missed: it kept the weights of its start",
            f"- robust_flipped: {by} Learning rate 0.0001. 2 of 2 {kept}\n",
        ),
        ([4, 0], "reached", f"- robust_flipped: {by} Learning rate 0.0001. 1 of 2 {kept} Longer ones.\n"),
    ):
        known = parts()
        known["flipped"]["arms"]["robust_flipped"]["best_step"] = steps
        assert goals.reached(known)[-1]["verdict"] == verdict
        assert told in rlhf.page({"quick": False, "goals": goals.reached(known), "parts": known})

    known = parts()
    known["flipped"] |= {"against": "dpo_flipped"}
    known["flipped"]["arms"]["dpo_flipped"] = {"best_step": [0, 0]}
    assert goals.reached(known)[-1]["verdict"] == "reached; dpo_flipped kept the weights of its start"

    text = rlhf.page({"quick": False, "goals": goals.reached(parts()), "parts": parts()})
    told = "| imdb | GRPO: reward gained, in deviations of sft | >= 1 | 1.20 (1.20 to 1.20) | 1 of 2 | reached |"
    assert told in text
    assert "| verifiable | pass@1 after GRPO | > 80% |  |  | not measured |" in text


def test_the_page_tells_of_each_seed_of_all_and_of_what_has_one() -> None:
    text = rlhf.page({"quick": False, "goals": goals.reached(parts()), "parts": parts()})
    assert "| policy | mean reward | judge | in SDs of sft | KL from sft, nats an answer | tokens an answer |" in text
    assert "| ppo, seed 0 | 1.50 (1.50 to 1.50) | 1.50 (1.50 to 1.50) | 0.50 (0.50 to 0.50) |" in text
    assert "| **ppo, mean of 2 seeds** | 1.60 (1.60 to 1.60) |" in text
    assert "| 2.0 (2.0 to 2.0) | 9.0 (9.0 to 9.0) | 81 of 92 | 4 |" in text
    assert "- The supervised start and the classifiers have one seed, which all policies share." in text
    assert "| robust_flipped | 86.0% (84.0% to 88.0%) | 80.0% | 10.0% (2.0% to 20.0%) | 9 |" in text


def test_results_that_are_there_can_be_written_again() -> None:
    stored = json.loads((rlhf.RESULTS / "rlhf.json").read_text(encoding="utf-8"))
    assert stored["goals"] == goals.reached(stored["parts"])
    assert rlhf.page(stored) == (rlhf.RESULTS / "rlhf.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not rlhf.SHARED.is_dir(), reason="the folder shared is not beside the repository")
@pytest.mark.parametrize("name", rlhf.EXPERIMENTS)
def test_the_files_of_each_experiment_pass_the_checks(name: str, tmp_path: Path) -> None:
    experiment = rlhf.EXPERIMENTS[name]
    if name == "short_flipped":
        rlhf.turn(tmp_path)
    seen = {arm.file: arm for arm in experiment.arms}
    for arm in seen.values():
        assert ground(rlhf.recipe_of(experiment, arm, 0, tmp_path, quick=False)).splits.test


@pytest.mark.skipif(not rlhf.SHARED.is_dir(), reason="the folder shared is not beside the repository")
def test_a_fifth_of_the_labels_to_train_on_is_turned_and_none_that_is_asked(tmp_path: Path) -> None:
    rlhf.turn(tmp_path)
    turned, same, asked = (
        [json.loads(line) for line in (tmp_path / name).read_text(encoding="utf-8").splitlines()]
        for name in (rlhf.TURNED, rlhf.TURNED_NOT, rlhf.ASKED)
    )
    short = [json.loads(line) for line in Path(rlhf.SHORT).read_text(encoding="utf-8").splitlines()]
    assert all(row in short for row in (*same, *asked)) and not any(row in same for row in asked)
    mixed = [(a, b) for a, b in zip(turned, same, strict=True) if a != b]
    assert len(mixed) == round(0.2 * len(same))
    assert all(a == b | {"chosen": b["rejected"], "rejected": b["chosen"]} for a, b in mixed)
    experiment = rlhf.EXPERIMENTS["short_flipped"]
    assert experiment.test == rlhf.ASKED
    assert {arm.file for arm in experiment.arms if "flipped" in arm.name} == {rlhf.TURNED}


def test_who_prefers_neither_is_half_right(tmp_path: Path) -> None:
    rows = [Example(place=Place(file="f", line=n)) for n in range(3)]
    (tmp_path / "predictions").mkdir()
    said = zip(rows, ("chosen", "neither", "rejected"), strict=True)
    told = [json.dumps({"id": row.id, "answer": answer}) for row, answer in said]
    (tmp_path / "predictions" / "tuned.jsonl").write_text("\n".join(told), encoding="utf-8")
    learned, kept = (cast(Report, SimpleNamespace(fit=SimpleNamespace(best_step=step))) for step in (4, 0))
    assert rlhf.right(learned, tmp_path, rows) == [1.0, 0.5, 0.0]
    assert rlhf.right(kept, tmp_path, rows) == [0.5, 0.5, 0.5]


def test_a_page_names_the_command_that_was_run(tmp_path: Path) -> None:
    asked = ["--only", "imdb", "--seeds", "1", "--jobs", "2", "--runs", str(tmp_path), f"--shared={tmp_path}/x"]
    found = processes.command("rlhf.py", asked, {"WORK": tmp_path, "../shared": tmp_path / "x"})
    told = "python benchmarks/rlhf.py --only imdb --seeds 1 --jobs 2 --runs WORK --shared=../shared"
    assert found == told
