"""Methods side by side on three real tasks: quality, forgetting, memory and time; and what rate and rank do.

    python benchmarks/methods.py                       every part, about 45 minutes on two cores
    python benchmarks/methods.py --part rates          one of them; the other results stay as they are
    python benchmarks/methods.py --quick               the same path in minutes; its figures mean nothing

Notable: each part is ``tunesmith compare`` on a recipe of examples/ with fewer rows, and every run it makes is kept in
the work folder, so a benchmark that was stopped goes on where it was. What the figures show is written by hand into
``methods_findings.md`` once they are there, and becomes part of the page. Needs the folder ``shared`` beside the
repository and the development extra.
"""

import argparse
import gzip
import json
import os
import random
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peers.growth import stacked
from peers.processes import machine
from tunesmith.core.comparison import Comparison, MethodResult
from tunesmith.flows.compare import compare, planned
from tunesmith.flows.finetune import environment
from tunesmith.flows.prepare import prepare
from tunesmith.present.charts import Series, lines
from tunesmith.present.comparison import cells, charts, columns, failures
from tunesmith.present.words import metric_name, score

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
FINDINGS = ROOT / "benchmarks" / "methods_findings.md"
METHODS = ("full", "bitfit", "lora", "rslora", "dora", "lora_plus", "pissa", "ia3")
TIMES = (1.0, 3.0, 10.0, 30.0)  # the learning rate, in times that of full fine-tuning
RANKS = (1, 4, 16, 64)
OVER = {"times": "learning rate, in times that of full fine-tuning", "rank": "rank"}
SCATTER, LINES = 430, 350  # heights of the charts
Part = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A recipe of examples/ with settings that make a run short. ``rows``: at most this many rows of each data file
    are copied into the work folder, drawn once, where reading them all would take longer than training."""

    recipe: str
    about: str
    settings: tuple[str, ...]
    quick: tuple[str, ...]
    rows: int | None = None


TASKS = {
    "helpdesk": Task(
        "helpdesk_base",
        "triage of help-desk tickets as JSON, the bundled base; 200 tickets to train on, 80 to test",
        ("data.limit=200", "train.epochs=1", "evaluate.limit=80", "evaluate.max_new_tokens=64"),
        ("data.limit=40", "evaluate.limit=10"),
    ),
    "banking77": Task(
        "banking77_minilm",
        "77 intents of bank customers, MiniLM with a head; 800 questions to train on, 600 to test",
        (
            "data.limit=800",
            "train.epochs=2",
            "train.batch_tokens=512",
            "evaluate.limit=600",
            "train.learning_rate=auto",
        ),
        ("data.limit=160", "evaluate.limit=40", "train.epochs=0.5"),
    ),
    "medquad": Task(
        "medquad_base",
        "medical answers by the bundled base, judged by the perplexity of the reference; 180 to train on, 60 to test",
        (
            "data.limit=180",
            "train.max_length=128",
            "train.batch_tokens=512",  # some 45 steps; a model of this size learns nothing from six
            "evaluate.limit=60",
            "evaluate.metrics=[perplexity,token_f1]",
            "evaluate.max_new_tokens=32",
        ),
        ("data.limit=40", "evaluate.limit=10", "evaluate.max_new_tokens=8"),
        rows=1200,
    ),
}
BASELINES = {"helpdesk": "nearest_neighbour", "banking77": "nearest_neighbour", "medquad": "zero_shot"}
PARTS = (*TASKS, "rates", "ranks")


@dataclass(frozen=True)
class Bench:
    """What is run, and where it is kept."""

    work: Path
    methods: tuple[str, ...]
    seeds: int
    quick: bool

    def asked(self, name: str) -> tuple[Path, list[str]]:
        """The recipe of a task and its settings."""
        task = TASKS[name]
        settings = [*task.settings, f"evaluate.baselines=[{BASELINES[name]}]", *(task.quick if self.quick else ())]
        shots = [] if name != "helpdesk" else ["evaluate.shots=4"]  # the default: without few_shot it has no effect
        path = ROOT / "examples" / f"{task.recipe}.yaml"
        return path, settings + shots + (self._fewer(name, task.rows) if task.rows else [])

    def _fewer(self, name: str, most: int) -> list[str]:
        """Settings that name copies of the data files with ``most`` rows at most."""
        path = ROOT / "examples" / f"{TASKS[name].recipe}.yaml"
        data = planned(path, ["full"], 1, [], self.work).recipe.data
        settings = []
        for role, source in (("train", data.train), ("test", data.test)):
            if source is not None:
                held = list(_lines(Path(source)))
                chosen = random.Random(0).sample(held, min(most, len(held)))
                target = self.work / f"{name}_{role}.jsonl"
                target.write_text("".join(chosen), encoding="utf-8")
                settings.append(f"data.{role}={target}")
        return settings

    def compared(self, name: str, methods: Sequence[str], seeds: int, more: Sequence[str] = ()) -> Comparison:
        path, settings = self.asked(name)
        return compare(path, methods, seeds=seeds, overrides=[*settings, *more], workspace=self.work, watch=Tells())


class Tells:
    """Progress on stderr: the runs, and not their steps."""

    def stage(self, name: str, detail: str = "") -> None:
        print(f"{datetime.now(UTC):%H:%M:%S} {name}: {detail}", file=sys.stderr, flush=True)

    def step(self, *_: object) -> None:
        return

    def note(self, text: str) -> None:
        if text.startswith(("error", "Taken")):
            print(f"         {text}", file=sys.stderr, flush=True)


def _lines(path: Path) -> Iterator[str]:
    packed = path.suffix == ".gz"
    with gzip.open(path, "rt", encoding="utf-8") if packed else path.open(encoding="utf-8") as rows:
        yield from rows


# -- what is measured --------------------------------------------------------------------------------------------------


def task_part(bench: Bench, name: str) -> Part:
    found = bench.compared(name, bench.methods, bench.seeds)
    return {"about": TASKS[name].about, "comparison": found.model_dump(mode="json", exclude={"recipe"})} | {
        "svg": stacked([chart for chart in charts(found).values() if chart], SCATTER)
    }


def rates_part(bench: Bench) -> Part:
    """Full fine-tuning and LoRA at several learning rates."""
    path, settings = bench.asked("helpdesk")
    base = prepare(planned(path, ["full"], 1, settings, bench.work).variants[0].recipe).plan.learning_rate
    points = []
    for times in TIMES[:2] if bench.quick else TIMES:
        found = bench.compared("helpdesk", ["full", "lora"], 1, [f"train.learning_rate={times * base:.6g}"])
        points += [point(found, method, {"times": times, "rate": times * base}) for method in found.methods]
    return grid("full fine-tuning and LoRA by learning rate, in times that of full fine-tuning", points, "times")


def ranks_part(bench: Bench) -> Part:
    """LoRA at several ranks, each with the learning rate that auto gives."""
    points = []
    for rank in RANKS[:2] if bench.quick else RANKS:
        found = bench.compared("helpdesk", ["lora"], 1, [f"method={{name: lora, rank: {rank}}}"])
        points += [point(found, method, {"rank": rank}) for method in found.methods]
    return grid("LoRA by rank, the learning rate the same", points, "rank")


def point(found: Comparison, method: MethodResult, at: Mapping[str, float]) -> Part:
    if not method.outcomes:
        return {"method": method.name, **at, "error": "; ".join(failures(found))}
    (outcome,) = method.outcomes
    lost = outcome.forgetting
    return {
        "method": method.name,
        **at,
        "learning_rate": outcome.learning_rate,
        "metric": found.metric,
        "score": outcome.score.model_dump(),
        "dev_loss": outcome.dev_loss,
        "forgetting": lost.difference.model_dump() if lost else None,
        "trainable_parameters": outcome.trainable_parameters,
    }


def grid(about: str, points: Sequence[Part], over: str) -> Part:
    """``points`` with charts of dev loss and forgetting over the place of each in the grid (they grow by factors)."""
    done = [p for p in points if "error" not in p]
    places = {value: i for i, value in enumerate(sorted({p[over] for p in points}))}

    def chart(title: str, y_name: str, value: Callable[[Part], float]) -> str:
        named = [(m, "series-a" if m == "full" else "series-b") for m in sorted({p["method"] for p in done})]
        series = [
            Series(m, tuple((places[p[over]], value(p)) for p in done if p["method"] == m), style, dots=True)
            for m, style in named
        ]
        return lines(title, OVER[over], y_name, series, names={k: f"{v:g}" for v, k in places.items()})

    drawn = [
        chart("Dev loss", "nats per trained token", lambda p: float(p["dev_loss"])),
        chart("Forgetting", "bits per byte more on general text", lambda p: float(p["forgetting"]["value"])),
    ]
    return {"about": about, "over": over, "points": list(points), "svg": stacked([c for c in drawn if c], LINES)}


# -- what is written ---------------------------------------------------------------------------------------------------


def page(document: Part) -> str:
    """Everything as Markdown: the table of each task, the grids, and what they show."""
    out = ["# Methods side by side", ""]
    if document["quick"]:
        out += ["**A quick run: a few rows and steps prove the path. The figures mean nothing.**", ""]
    out += ["Written by `benchmarks/methods.py`; do not edit. What they show: `benchmarks/methods_findings.md`.", ""]
    if document["findings"]:
        out += ["## What it shows", "", document["findings"].strip(), ""]
    for name, part in document["parts"].items():
        out += [f"## {name}", "", f"{part['about'][:1].upper()}{part['about'][1:]}.", ""]
        out += _table(part) if "comparison" in part else _grid(part)
        versions = ", ".join(f"{key} {value}" for key, value in part["environment"].items())
        minutes, load = part["seconds"] / 60, part["load_before"]
        out += [f"![{name}](methods_{name}.svg)", ""]
        out += [
            f"{part['created'][:10]}, `{part['command']}`, {minutes:.0f} minutes (runs that were there already took"
        ]
        out += [f"none). Machine: {part['machine']}; load before the start {load:g}. Versions: {versions}.", ""]
    return "\n".join(out).rstrip() + "\n"


def _table(part: Part) -> list[str]:
    # any recipe will do: the page shows none
    found = Comparison.model_validate(part["comparison"] | {"recipe": {"data": {"train": "-"}}})
    head = ["method", *columns(found)]
    out = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for method in found.methods:
        row = ["<br>".join(t for t in (value, *below.split("; ")) if t) for value, below in cells(found, method)]
        out.append(f"| {method.name} | {' | '.join(row)} |")
    seeds = ", ".join(map(str, found.seeds))
    told = [
        f"- {found.test_rows} test rows, seeds {seeds}.",
        *(f"- {text}" for text in [*failures(found), *found.notes]),
    ]
    return [*out, "", *told, ""]


def _grid(part: Part) -> list[str]:
    out = [
        f"| method | {OVER[part['over']]} | learning rate | quality | dev loss | forgetting, bits per byte |",
        f"|{'---|' * 6}",
    ]
    for p in part["points"]:
        if "error" in p:
            out.append(f"| {p['method']} | {p[part['over']]:g} | no result: {p['error']} | | | |")
            continue
        lost, quality = p["forgetting"], p["score"]
        metric, around = p["metric"], "{:+.3f} ({:+.3f} to {:+.3f})"
        low, high = score(metric, quality["low"]), score(metric, quality["high"])
        cells_ = [p["method"], f"{p[part['over']]:g}", f"{p['learning_rate']:.1e}"]
        cells_ += [f"{metric_name(metric)} {score(metric, quality['value'])} ({low} to {high})", f"{p['dev_loss']:.3f}"]
        cells_.append(around.format(lost["value"], lost["low"], lost["high"]) if lost else "-")
        out.append(f"| {' | '.join(cells_)} |")
    return [*out, ""]


def write(document: Part, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name, part in document["parts"].items():
        (target / f"methods_{name}.svg").write_text(part["svg"], encoding="utf-8")
    kept = {name: {k: v for k, v in part.items() if k != "svg"} for name, part in document["parts"].items()}
    text = json.dumps(document | {"parts": kept}, indent=1, ensure_ascii=False)
    (target / "methods.json").write_text(text + "\n", encoding="utf-8")
    (target / "methods.md").write_text(page(document), encoding="utf-8")


def main() -> int:
    options = _options()
    work = options.runs.resolve()
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        work, ("full", "lora") if options.quick else METHODS, 1 if options.quick else options.seeds, options.quick
    )
    target = work if options.quick else RESULTS
    stored, parts = target / "methods.json", {}
    if stored.exists():
        for name, part in json.loads(stored.read_text(encoding="utf-8"))["parts"].items():
            svg = target / f"methods_{name}.svg"
            parts[name] = part | {"svg": svg.read_text(encoding="utf-8")}
    for name in options.part or PARTS:
        load, began = round(os.getloadavg()[0], 2), time.monotonic()
        found = {"rates": rates_part, "ranks": ranks_part}[name](bench) if name not in TASKS else task_part(bench, name)
        parts[name] = _clean(found, work) | {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join(["python", "benchmarks/methods.py", "--part", name]),
            "machine": machine(),
            "environment": environment(),
            "load_before": load,
            "seconds": round(time.monotonic() - began, 1),
        }
        findings = FINDINGS.read_text(encoding="utf-8") if FINDINGS.exists() and not options.quick else ""
        ordered = {known: parts[known] for known in PARTS if known in parts}
        write({"quick": options.quick, "findings": findings, "parts": ordered}, target)
    print((target / "methods.md").read_text(encoding="utf-8"))
    return 0


def _clean(part: Part, work: Path) -> Part:
    """Without the paths of this machine."""
    text = json.dumps(part, ensure_ascii=False)
    for folder, name in ((work, "WORK"), (ROOT.parent / "shared", "../shared"), (ROOT, ".")):
        text = text.replace(str(folder), name)
    cleaned: Part = json.loads(text)
    return cleaned


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Methods side by side on real tasks.")
    parser.add_argument("--part", action="append", choices=PARTS, help="one part; may be repeated")
    parser.add_argument("--seeds", type=int, default=3, help="seeds a method")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "methods", metavar="DIR", help="work folder")
    parser.add_argument("--quick", action="store_true", help="few rows, two methods; results go to the work folder")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
