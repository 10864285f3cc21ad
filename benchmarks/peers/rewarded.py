"""Experiments of ``rlhf.py`` in which a policy learns from rewards for its own answers; files are cut from the shared
sets, every model is a whole run of ``tunesmith``.

Notable: ``verifiable`` asks for the intent of a bank customer as JSON, which is right or wrong; ``imdb`` goes on
writing film reviews, rewarded by a classifier of one backbone and judged by one of another, trained on others.
What is told of a policy is measured anew, on held-out prompts with the weights that were kept (``policies.py``).
"""

import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peers.policies import SAMPLES, Values, arm, way, written
from peers.runs import Runs
from tunesmith.core.example import Message
from tunesmith.core.recipe import Recipe
from tunesmith.core.report import Report
from tunesmith.evaluate.rewards import Asked, rule
from tunesmith.flows.rewarding import scores
from tunesmith.models import artefact
from tunesmith.models.model import Model

Part = dict[str, Any]

INTENTS, TAUGHT = 6, 175  # of banking77, and questions whose answers are shown before rewards begin
OPENING, GOES_ON = 8, 40  # words of a review: shown, and to be written
REVIEWS = {"policy": 2_000, "reward": 8_000, "judge": 6_000, "held": 1_000}
ASK = "Go on with this film review: "
LORA: Mapping[str, Any] = {"name": "lora"}


def _read(path: Path) -> list[dict[str, Any]]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.decode("utf-8").split("\n") if line]


def _file(work: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    path = work / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def _model(runs: Runs, report: Report) -> Model:
    return artefact.load(runs.folder(report) / report.adapter)


def _recipe(name: str, **groups: Any) -> Recipe:
    return Recipe.parse({"model": "bundled", "method": dict(LORA)} | groups, name)


# -- an answer that is right or wrong ----------------------------------------------------------------------------------


def verifiable(shared: Path, runs: Runs, seeds: int) -> Part:
    """Pass@1 of the base after a little supervised fine-tuning, and of GRPO from there."""
    train, test = (_read(shared / "banking77" / f"{name}.jsonl") for name in ("train", "test"))
    chosen = {label for label, _ in Counter(r["label"] for r in train).most_common(INTENTS)}

    def rows(held: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
        kept = [r for r in held if r["label"] in chosen]
        random.Random(0).shuffle(kept)
        return [{"prompt": r["text"], "completion": json.dumps({"intent": r["label"]})} for r in kept]

    learned, held = rows(train), rows(test)[: 24 if runs.quick else None]
    files = {
        "sft": _file(runs.work, "verifiable_sft", learned[:TAUGHT]),
        "rl": _file(runs.work, "verifiable_rl", learned[TAUGHT:][: 48 if runs.quick else None]),
        "test": _file(runs.work, "verifiable_test", held),
    }
    evaluate = {"baselines": ["zero_shot"], "metrics": ["exact_match"], "max_new_tokens": 40}
    data = {"test": files["test"], "split": {"dev": 0.1}}
    taught = {"data": {"train": files["sft"]} | data, "evaluate": evaluate}
    (start,) = runs(_recipe("sft", train={"epochs": 6}, **taught))
    prompts = [Asked(_asked(r["prompt"]), r["completion"]) for r in held]
    right = rule("exact_match")

    base, every = _model(runs, start), [p for p in prompts for _ in range(SAMPLES)]

    def measured(report: Report) -> Values:
        found = written(_model(runs, report), base, prompts, 40)
        return {"reward": list(right(every, found.texts)), "kl": found.kl, "length": found.length}

    learn: Part = {
        "objective": {"name": "grpo", "entropy": 0.1},  # else some intents are never tried again
        "start": str(runs.folder(start)),
        "reward": {"rules": {"exact_match": 1}},
        "rollout": {"answers": 16, "steps": 2},
        "data": {"train": files["rl"]} | data,
        "evaluate": {"baselines": ["zero_shot", "start"], "max_new_tokens": 40, "limit": 60},
    }
    rates = {"epochs": 1 if runs.quick else 3, "learning_rate": 1e-3}
    reports = runs(*(_recipe("grpo", train={"seed": seed} | rates, **learn) for seed in range(seeds)))
    sft = measured(start)
    arms = {"sft": arm([sft], [{}], sft), "grpo": arm([measured(r) for r in reports], [way(r) for r in reports], sft)}
    return {
        "about": f"the intent of a bank customer's question as JSON, {INTENTS} intents; GRPO after {TAUGHT} examples, "
        "rewarded where the answer is exactly right; pass@1 of answers sampled at temperature 1",
        "measure": "pass@1",
        "arms": arms,
    }


def _asked(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


# -- film reviews ------------------------------------------------------------------------------------------------------


def _words(text: str) -> list[str]:
    return re.sub(r"<br\s*/?>", " ", text).split()


def _labelled(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    return [{"text": " ".join(_words(r["text"])[:120]), "label": "kind" if r["label"] else "unkind"} for r in rows]


def _reviews(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    made = [_words(r["text"])[: OPENING + GOES_ON] for r in rows]
    return [
        {"prompt": ASK + " ".join(w[:OPENING]), "completion": " ".join(w[OPENING:])}
        for w in made
        if len(w) == OPENING + GOES_ON
    ]


def _parts(shared: Path, few: int) -> dict[str, list[dict[str, Any]]]:
    """Reviews for each model and those held out, a share of 1 / ``few`` of them."""
    train, test = (_read(shared / "imdb" / f"{name}.jsonl.gz") for name in ("train", "test"))
    for held in (train, test):
        random.Random(0).shuffle(held)
    parts, at = {"held": test[: REVIEWS["held"] // few]}, 0
    for name in ("policy", "reward", "judge"):
        parts[name] = train[at : at + REVIEWS[name] // few]
        at += REVIEWS[name] // few
    return parts


def _ways(seeds: int, learn: Part, epochs: float) -> dict[str, list[Recipe]]:
    """Recipes of each kind of policy by seed, with as many optimiser steps each."""
    drawn = {"prompts": 16, "answers": 4, "steps": 2}
    # Chosen by the rewards and the KL of training. Of rate and steps with PPO's lam at 0.95: with three times as many
    # steps it finds that MiniLM is sure of answers of five tokens, and leaves the reference by 16 nats; with a rate of
    # 3e-4 rewards move by half a deviation. Of PPO's beta with lam at 1: at 0.08 it leaves by 9.6 and 12.4 nats.
    steps = {"learning_rate": 1e-3, "epochs": epochs}
    ways: dict[str, Part] = {
        "ppo": {"objective": {"name": "ppo", "beta": 0.12}, "rollout": drawn | {"passes": 2}, "train": steps},
        "grpo": {
            "objective": {"name": "grpo", "beta": 0.08},
            "rollout": drawn,
            "train": steps | {"epochs": 2 * epochs},
        },
    }
    return {
        name: [_recipe(name, **how | {"train": how["train"] | {"seed": seed}}, **learn) for seed in range(seeds)]
        for name, how in ways.items()
    }


def imdb(shared: Path, runs: Runs, seeds: int, minilm: str) -> Part:
    """Supervised fine-tuning on reviews, then PPO and GRPO towards kind ones; the judge saw other reviews."""
    few = 20 if runs.quick else 1
    parts = _parts(shared, few)
    locked = _file(runs.work, "imdb_held", _labelled(parts["held"]))
    asked = _reviews(parts["held"])[: 200 // few]
    policy = _file(runs.work, "imdb_policy", _reviews(parts["policy"]))
    test_file = _file(runs.work, "imdb_asked", asked)

    def classifier(name: str, model: str) -> Recipe:
        file = _file(runs.work, f"imdb_{name}", _labelled(parts[name]))
        groups: Part = {"model": model, "task": "classify", "method": {"name": "full"}}
        groups |= {"data": {"train": file, "test": locked, "split": {"dev": 0.05}}, "train": {"epochs": 1}}
        return _recipe(name, **groups, evaluate={"baselines": ["majority"]})

    most, limits = 48, {"max_new_tokens": 48, "limit": 40}
    data = {"train": policy, "test": test_file, "split": {"dev": 0.06}}
    taught = _recipe("sft", data=data, train={"epochs": 1}, evaluate={"baselines": ["zero_shot"], **limits})
    reward, judge, start = runs(classifier("reward", minilm), classifier("judge", "bundled"), taught)
    prompts = [Asked(_asked(r["prompt"]), "") for r in asked]
    base, every = _model(runs, start), [p for p in prompts for _ in range(SAMPLES)]
    sides = {"reward": _model(runs, reward), "judge": _model(runs, judge)}

    def measured(report: Report) -> tuple[Values, Part]:
        found = written(_model(runs, report), base, prompts, most)
        told = {n: list(scores(m, every, found.texts, m.labels.index("kind"))) for n, m in sides.items()}
        examples = {"examples": found.texts[:: 4 * SAMPLES][:4]}
        return told | {"kl": found.kl, "length": found.length}, examples

    learn: Part = {
        "start": str(runs.folder(start)),
        "reward": {"model": str(runs.folder(reward)), "label": "kind"},
        "data": data,
        "evaluate": {"baselines": ["zero_shot", "start"], **limits},
    }
    learn["reward"] |= {"judge": str(runs.folder(judge)), "judge_label": "kind"}
    recipes = _ways(seeds, learn, 0.1 if runs.quick else 0.2)
    reports = iter(runs(*(recipe for own in recipes.values() for recipe in own)))
    sft, examples = measured(start)
    arms = {"sft": arm([sft], [examples], sft)}
    for name, own in recipes.items():
        mine = [next(reports) for _ in own]
        found = [measured(r) for r in mine]
        arms[name] = arm([v for v, _ in found], [e | way(r) for (_, e), r in zip(found, mine, strict=True)], sft)
    accuracy = {n: _tuned(r, "accuracy") for n, r in (("reward", reward), ("judge", judge))}
    return {
        "about": f"film reviews that go on from {OPENING} words; the reward is MiniLM's log-odds of a kind review, the "
        "judge the bundled base's, trained on other reviews",
        "measure": "mean reward",
        "classifiers": accuracy,
        "arms": arms,
    }


def _tuned(report: Report, metric: str) -> Part:
    return next(s.metrics[metric] for s in report.systems if s.kind == "tuned").model_dump()
