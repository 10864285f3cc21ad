"""Experiments of ``rlhf.py`` in which a policy learns from rewards for its own answers; files are cut from the shared
sets, every model is a whole run of ``tunesmith``.

Notable: ``verifiable`` asks for the intent of a bank customer as JSON, which is right or wrong; ``imdb`` goes on
writing film reviews, rewarded by a classifier of one backbone and judged by one of another, trained on others.
What is told of a policy is measured anew: held-out prompts, answers sampled at temperature 1, four to each.
"""

import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np

from peers.runs import Runs
from tunesmith.core.example import Message
from tunesmith.core.recipe import Recipe
from tunesmith.core.report import Estimate, Report
from tunesmith.data.render import Renderer
from tunesmith.evaluate.bootstrap import interval, resample_counts
from tunesmith.evaluate.rewards import Asked, rule
from tunesmith.flows.rewarding import scores
from tunesmith.generate.sampler import Sampling, answers
from tunesmith.models import artefact
from tunesmith.models.model import Model

Part = dict[str, Any]


SAMPLES = 4  # answers to each held-out prompt
INTENTS, TAUGHT = 6, 120  # of banking77, and questions whose answers are shown before rewards begin
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


# -- what a policy is worth --------------------------------------------------------------------------------------------


def sampled(model: Model, prompts: Sequence[Asked], most: int) -> list[str]:
    """``SAMPLES`` answers to each prompt at temperature 1, one prompt after the other."""
    renderer = Renderer(model.tokenizer)
    ids = [renderer.prompt_ids(p.prompt) for p in prompts for _ in range(SAMPLES)]
    draw = Sampling(most, renderer.stop_ids(), temperature=1.0, seed=7)
    return [model.tokenizer.decode(a.ids, skip_special_tokens=True) for a in answers(model, ids, draw)]


def worth(values: Sequence[float]) -> Part:
    """The mean over prompts of the mean over their answers, with a bootstrap over prompts."""
    by_prompt = np.asarray(values, dtype=np.float64).reshape(-1, SAMPLES).mean(1)
    means = np.concatenate([c @ by_prompt / len(by_prompt) for c in resample_counts(len(by_prompt), 2_000, 0)])
    low, high = interval(means, float(by_prompt.mean()))
    found = Estimate(value=float(by_prompt.mean()), low=low, high=high, n=len(by_prompt))
    return found.model_dump() | {"spread": pstdev(values)}


def _way(report: Report) -> Part:
    """How it got there."""
    told = report.rewarded.points if report.rewarded is not None else ()
    curve = [{"step": p.step, "reward": p.reward, "kl": p.kl, "length": p.length} for p in told]
    return {"curve": curve, "steps": report.fit.steps}


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

    def measured(report: Report) -> Part:
        texts = sampled(_model(runs, report), prompts, 40)
        return worth(list(right([p for p in prompts for _ in range(SAMPLES)], texts)))

    arms: dict[str, Part] = {"sft": {"n": len(held), "each": [measured(start)]}}
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
    arms["grpo"] = {"n": len(held), "each": [measured(r) | _way(r) for r in reports]}
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


def imdb(shared: Path, runs: Runs, seeds: int, minilm: str) -> Part:
    """Supervised fine-tuning on reviews, then PPO and GRPO towards kind ones; the judge saw other reviews."""
    few = 20 if runs.quick else 1
    train, test = (_read(shared / "imdb" / f"{name}.jsonl.gz") for name in ("train", "test"))
    for held in (train, test):
        random.Random(0).shuffle(held)
    cuts, parts, at = REVIEWS, {}, 0
    for name in ("policy", "reward", "judge"):
        parts[name] = train[at : at + cuts[name] // few]
        at += cuts[name] // few
    parts["held"] = test[: cuts["held"] // few]

    def labelled(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
        return [{"text": " ".join(_words(r["text"])[:120]), "label": "kind" if r["label"] else "unkind"} for r in rows]

    def reviews(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
        made = [_words(r["text"])[: OPENING + GOES_ON] for r in rows]
        return [
            {"prompt": ASK + " ".join(w[:OPENING]), "completion": " ".join(w[OPENING:])}
            for w in made
            if len(w) == OPENING + GOES_ON
        ]

    locked = _file(runs.work, "imdb_held", labelled(parts["held"]))
    asked = reviews(parts["held"])[: 200 // few]
    policy = _file(runs.work, "imdb_policy", reviews(parts["policy"]))
    test_file = _file(runs.work, "imdb_asked", asked)

    def classifier(name: str, model: str) -> Recipe:
        file = _file(runs.work, f"imdb_{name}", labelled(parts[name]))
        groups: Part = {"model": model, "task": "classify", "method": {"name": "full"}}
        groups |= {"data": {"train": file, "test": locked, "split": {"dev": 0.05}}, "train": {"epochs": 1}}
        return _recipe(name, **groups, evaluate={"baselines": ["majority"]})

    most, limits = 48, {"max_new_tokens": 48, "limit": 40}
    data = {"train": policy, "test": test_file, "split": {"dev": 0.06}}
    shown = _recipe("sft", data=data, train={"epochs": 1}, evaluate={"baselines": ["zero_shot"], **limits})
    reward, judge, start = runs(classifier("reward", minilm), classifier("judge", "bundled"), shown)
    prompts = [Asked(_asked(r["prompt"]), "") for r in asked]
    sides = {"reward": _model(runs, reward), "judge": _model(runs, judge)}

    def measured(report: Report) -> Part:
        texts = sampled(_model(runs, report), prompts, most)
        every = [p for p in prompts for _ in range(SAMPLES)]
        told = {n: worth(scores(m, every, texts, m.labels.index("kind"))) for n, m in sides.items()}
        points = report.rewarded.points[-3:] if report.rewarded is not None else ()
        kl = fmean(p.kl for p in points if p.kl is not None) if points else 0.0
        return told["reward"] | {"judge": told["judge"], "kl": kl, "examples": texts[:: 4 * SAMPLES][:4]}

    arms: dict[str, Part] = {"sft": {"n": len(asked), "each": [measured(start)]}}
    learn: Part = {
        "start": str(runs.folder(start)),
        "reward": {"model": str(runs.folder(reward)), "label": "kind"},
        "data": data,
        "evaluate": {"baselines": ["zero_shot", "start"], **limits},
    }
    learn["reward"] |= {"judge": str(runs.folder(judge)), "judge_label": "kind"}
    drawn = {"prompts": 16, "answers": 4, "steps": 2}
    # As many optimiser steps each. With three times as many PPO finds that MiniLM is sure of answers of five tokens,
    # and leaves the reference by 16 nats; with a rate of 3e-4 rewards move by half a deviation.
    steps = {"learning_rate": 1e-3, "epochs": 0.1 if runs.quick else 0.2}
    ways: dict[str, Part] = {
        "ppo": {"objective": {"name": "ppo", "beta": 0.08}, "rollout": drawn | {"passes": 2}, "train": steps},
        "grpo": {
            "objective": {"name": "grpo", "beta": 0.08},
            "rollout": drawn,
            "train": steps | {"epochs": 2 * steps["epochs"]},
        },
    }
    reports = runs(
        *(
            _recipe(name, **way | {"train": way["train"] | {"seed": seed}}, **learn)
            for name, way in ways.items()
            for seed in range(seeds)
        )
    )
    for name in ways:
        mine, reports = reports[:seeds], reports[seeds:]
        arms[name] = {"n": len(asked), "each": [measured(r) | _way(r) for r in mine]}
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


# -- the page ----------------------------------------------------------------------------------------------------------


def page(part: Mapping[str, Any]) -> list[str]:
    """A row for each run: what it is worth, and what stands beside it."""
    percent = part["measure"] == "pass@1"

    def shown(found: Mapping[str, float]) -> str:
        values = (found["value"], found["low"], found["high"])
        value, low, high = (f"{v:.1%}" if percent else f"{v:.2f}" for v in values)
        return f"{value} ({low} to {high})"

    judged = any("judge" in each for arm in part["arms"].values() for each in arm["each"])
    head = [
        "policy",
        part["measure"],
        *(["judge", "KL, nats an answer", "in SDs of sft"] if judged else []),
        "steps",
        "n",
    ]
    out = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    base = part["arms"]["sft"]["each"][0]
    for name, arm in part["arms"].items():
        for seed, each in enumerate(arm["each"]):
            cells = [name if name == "sft" else f"{name}, seed {seed}", shown(each)]
            if judged:
                gain = (each["value"] - base["value"]) / max(base["spread"], 1e-9)
                cells += [shown(each["judge"]), f"{each['kl']:.1f}", f"{gain:+.2f}"]
            out.append(f"| {' | '.join([*cells, str(each.get('steps', '')), str(each['n'])])} |")
    for name, found in part.get("classifiers", {}).items():
        out.append(f"- Accuracy of the {name} on held-out reviews: {found['value']:.1%} ({found['low']:.1%} to "
                   f"{found['high']:.1%}), n = {found['n']:,}.")  # fmt: skip
    return [*out, ""]
