"""Run the recipes of examples/ on the real sets and write what came out, with intervals, times and peak memory.

    python benchmarks/real_tasks.py                            every task, one after the other
    python benchmarks/real_tasks.py --only banking77_minilm    one of them; the other results stay as they are
    python benchmarks/real_tasks.py --smoke --only sst2_minilm the same path in a minute; its figures mean nothing

Notable: each task is a process of its own, started through the command line as a user would, so that peak memory
(``wait4``) and total time are those of one whole run and nothing is warm. What a reader has to know beside the scores
(rows left out, test questions that stand in train, findings, the machine's load) is counted in the run, not remembered.
The results are for an idle machine: the load before each start is written down. Needs the folder ``shared`` beside the
repository and the development extra (the MiniLM encoder).
"""

import argparse
import gzip
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunesmith.core import recipe_file
from tunesmith.core.errors import VERDICT_NO
from tunesmith.core.recipe import Recipe
from tunesmith.core.report import Estimate, Report
from tunesmith.present.words import count, difference, duration, interval, metric_name, plain, score

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
SHARED = ROOT.parent / "shared"
RESULTS = ROOT / "benchmarks" / "results"
SMOKE = ("evaluate.limit=20", "train.epochs=0.2")
COLUMNS = (
    "task, verdict, metric, tuned, best baseline, gain, test rows, train rows, training, total, tokens/s, peak memory"
)
Entry = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One recipe of examples/. ``columns`` are the file's names for the input and, where labels are chosen, the label;
    ``test`` is a test file that the recipe cannot name (see ``_known_labels``); ``least`` the accuracy it aims at."""

    name: str
    about: str
    minutes: float
    columns: tuple[str, ...] = ()
    test: str | None = None
    least: float | None = None
    smoke: int = 60  # training rows of a smoke run


TASKS = (
    Task("banking77_minilm", "77 intents of bank customers, an encoder", 6, ("text", "label"), least=0.915, smoke=160),
    Task(
        "icd10_minilm",
        "ICD-10 categories of diagnoses, an encoder; 10,000 of 67,823 rows to train on",
        5,
        ("text", "code"),
        test="data/icd10_coding/test.jsonl",
        smoke=1900,
    ),
    Task("cuad_minilm", "41 types of contract clauses, an encoder; test: clauses_test.jsonl", 5, ("clause", "label")),
    Task(
        "sst2_minilm",
        "sentiment of film reviews, an encoder; 10,000 of 67,349 rows to train on; test: the set's dev file, for the "
        "labels of its test file are not public",
        5,
        ("text", "label"),
    ),
    Task("medquad_base", "medical questions answered in words, the bundled base", 4, ("question",)),
    Task("banking77_base", "77 intents of bank customers, written out by the bundled base", 4, ("text",), smoke=160),
    Task("helpdesk_base", "JSON triage of the bundled help-desk tickets, the bundled base", 4),
)
BY_NAME = {task.name: task for task in TASKS}


# -- what is run -------------------------------------------------------------------------------------------------------


def run_task(task: Task, work: Path, *, smoke: bool) -> Entry:
    """Run one task in a process of its own and read its report. A run that broke gives an entry with ``error``."""
    path = EXAMPLES / f"{task.name}.yaml"
    recipe = recipe_file.load(path)
    settings, facts = _known_labels(task, recipe, work / "prepared")
    if smoke:
        settings += [*SMOKE, f"data.limit={task.smoke}"]
        settings += ["evaluate.max_new_tokens=16"] if recipe.task == "generate" else []
    facts += _overlap(task, recipe_file.load(path, settings))
    arguments = ["run", str(path), "--json", "--runs", str(work)]
    arguments += [part for setting in settings for part in ("-s", setting)]
    entry: Entry = {
        "task": task.name,
        "about": task.about,
        "command": shlex.join(["tunesmith", *(_short(a, work) for a in arguments)]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "load_before": round(os.getloadavg()[0], 2),
    }
    code, seconds, peak, out, log = _measured([sys.executable, "-m", "tunesmith", *arguments], work / task.name)
    if code not in (0, VERDICT_NO):
        return entry | {"error": f"exit code {code}: " + " ".join(log.read_text(encoding="utf-8").split()[-60:])}
    report = Report.load(Path(json.loads(out.read_text(encoding="utf-8"))["report"]))
    lock = json.loads((work / "runs" / report.run_id / "data" / "splits.json").read_text(encoding="utf-8"))
    entry |= {"total_seconds": round(seconds, 1), "peak_bytes": peak, "moved": lock["moved"], "facts": facts}
    return entry | _of_report(report) | {"goals": [] if smoke else _goals(task, report, seconds)}


def _measured(command: Sequence[str], stem: Path) -> tuple[int, float, int, Path, Path]:
    """Exit code, wall seconds and peak resident bytes of ``command``; its output goes to STEM.out and STEM.log."""
    out, log = stem.with_suffix(".out"), stem.with_suffix(".log")
    started = time.monotonic()
    with out.open("wb") as stdout, log.open("wb") as stderr:
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts in kilobytes
    return process.returncode, time.monotonic() - started, usage.ru_maxrss * unit, out, log


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    packed = path.suffix == ".gz"
    with gzip.open(path, "rt", encoding="utf-8") if packed else path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _known_labels(task: Task, recipe: Recipe, folder: Path) -> tuple[list[str], list[str]]:
    """Settings that name the task's own test file, and what was done to it.

    A label that no training row has can never be chosen, and a run on such a test file stops. Its rows are left out of
    a copy; how many is a fact that the results tell.
    """
    if task.test is None:
        return [], []
    source, column = SHARED / task.test, task.columns[1]
    labels = {row[column] for row in _rows(Path(recipe.data.train))}
    rows = list(_rows(source))
    kept = [row for row in rows if row[column] in labels]
    if len(kept) == len(rows):
        return [f"data.test={source}"], []
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / f"{task.name}_test.jsonl"
    copy.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept), encoding="utf-8")
    missing = ", ".join(sorted({row[column] for row in rows} - labels))
    fact = f"{len(rows) - len(kept)} of the {len(rows):,} test rows left out before the run, for no training row has "
    return [f"data.test={copy}"], [f"{fact}their label ({missing})"]


def _overlap(task: Task, recipe: Recipe) -> list[str]:
    """How many test inputs stand word for word in the training file."""
    if recipe.data.test is None or not task.columns:
        return []
    column = task.columns[0]
    known = {row[column] for row in _rows(Path(recipe.data.train))}
    tests = [row[column] for row in _rows(Path(recipe.data.test))]
    if not (repeated := sum(text in known for text in tests)):
        return []
    return [
        f"{repeated:,} of the {len(tests):,} test inputs stand word for word in the training file; the split takes "
        "those training rows, and all near repeats of a test row, out of train"
    ]


# -- what is kept of it ------------------------------------------------------------------------------------------------


def _of_report(report: Report) -> Entry:
    fit = report.fit
    findings = [f for f in report.data.findings if f.severity != "info"]
    return {
        "run_id": report.run_id,
        "model": f"{report.card.name}, {report.card.parameters / 1e6:.1f}M parameters ({report.card.fingerprint})",
        "method": report.recipe.method.name,
        "primary": report.primary,
        "verdict": report.verdict.model_dump(mode="json"),
        "systems": [system.model_dump(mode="json") for system in report.systems],
        "rows_read": report.data.rows,
        "quarantined": report.data.quarantined,
        "split_sizes": report.split_sizes,
        "split_how": report.split_how,
        "findings": [f"{f.check} ({f.severity}): {f.message}" for f in findings],
        "warnings": list(report.warnings),
        "overfit": report.fit.overfit,
        "fit": {
            "seconds": round(fit.seconds, 1),
            "steps": fit.steps,
            "best_step": fit.best_step,
            "stopped": fit.stopped,
            "tokens_per_second": round(fit.tokens_per_second),
            "trained_tokens": fit.trained_tokens,
            "trainable_parameters": fit.trainable_parameters,
        },
        "stages": report.seconds,
        "environment": report.environment,
    }


def _goals(task: Task, report: Report, seconds: float) -> list[Entry]:
    """What the task aims at, what it reached, and whether that is met."""
    goals = [
        {
            "goal": f"at most {task.minutes:g} minutes in all",
            "reached": duration(seconds),
            "met": seconds <= 60 * task.minutes,
        }
    ]
    if task.least is not None:
        value = next(s for s in report.systems if s.name == "tuned").metrics["accuracy"].value
        reached = score("accuracy", value)
        goals.append({"goal": f"accuracy of at least {task.least:.1%}", "reached": reached, "met": value >= task.least})
    return goals


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    threads = os.environ.get("OMP_NUM_THREADS")
    return f"{names[0] if names else platform.machine()}, {cores} cores, {memory:.0f} GiB memory" + (
        f", OMP_NUM_THREADS={threads}" if threads else ""
    )


def _short(argument: str, work: Path) -> str:
    """An argument without the paths of this machine: relative to the repository, the work folder as WORK."""
    for folder, name in ((work, "WORK"), (SHARED, "../shared"), (ROOT, "")):
        argument = argument.replace(f"{folder}/", f"{name}/" if name else "").replace(str(folder), name or ".")
    return argument


# -- what is written ---------------------------------------------------------------------------------------------------


def markdown(entries: Sequence[Entry], command: str, *, smoke: bool) -> str:
    """The page of results: a table of all tasks, then one section a task."""
    done = [entry for entry in entries if "error" not in entry]
    lines = ["# Real tasks", ""]
    if smoke:
        lines += ["**A smoke run: a few rows and steps prove the path. The figures mean nothing.**", ""]
    lines += [f"Written by `{command}`; do not edit. Every recipe lies in `examples/`.", ""]
    lines += _environments(done)
    lines += [
        "Intervals are 95% (0/1 metrics: Wilson; others: bootstrap over rows). The best baseline is the one that is "
        "best on the first metric. Training time holds the looks at dev; total time is the whole process, from the "
        "start of Python to the report; peak memory is the resident memory of that process, from the beginning of "
        "training on (results before 2026-11-27: from its start on). Tokens a second are real "
        "tokens, without padding. WORK is the folder given with `--runs`.",
        "",
        f"| {COLUMNS.replace(', ', ' | ')} |",
        f"|{'---|' * len(COLUMNS.split(', '))}",
        *(_summary(entry) for entry in done),
        "",
    ]
    for entry in entries:
        lines += _section(entry)
    return "\n".join(lines).rstrip() + "\n"


def _environments(entries: Sequence[Entry]) -> list[str]:
    """One line for each machine and set of versions, naming the tasks only where there are several."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        versions = ", ".join(f"{name} {value}" for name, value in entry["environment"].items())
        found.setdefault(f"Machine: {entry['machine']}. Versions: {versions}.", []).append(entry["task"])
    single = len(found) == 1
    return [line for text, tasks in found.items() for line in (text if single else f"{', '.join(tasks)}: {text}", "")]


def _summary(entry: Entry) -> str:
    verdict, metric = entry["verdict"], entry["primary"]
    values = {s["name"]: s["metrics"][metric] for s in entry["systems"]}
    tuned, best = values["tuned"], values[verdict["baseline"]]
    cells = [
        entry["task"],
        verdict["decision"],
        metric_name(metric),
        score(metric, tuned["value"]),
        f"{score(metric, best['value'])} ({verdict['baseline']})",
        difference(metric, verdict["difference"]["value"]),
        count(tuned["n"]),
        count(entry["split_sizes"]["train"]),
        duration(entry["fit"]["seconds"]),
        duration(entry["total_seconds"]),
        count(entry["fit"]["tokens_per_second"]),
        f"{entry['peak_bytes'] / 2**30:.2f} GiB",
    ]
    return f"| {' | '.join(cells)} |"


def _section(entry: Entry) -> list[str]:
    lines = [f"## {entry['task']}", "", f"{entry['about'][:1].upper()}{entry['about'][1:]}. {entry['created'][:10]}."]
    lines += ["", f"`{entry['command']}`", ""]
    if "error" in entry:
        return [*lines, f"**No result.** {entry['error']}", ""]
    metrics = list(entry["systems"][-1]["metrics"])
    lines += [
        f"| system | {' | '.join(metric_name(m) for m in metrics)} | n | time | tokens read | tokens written |",
        f"|---|{'---|' * (len(metrics) + 4)}",
        *(_system(system, metrics) for system in entry["systems"]),
        "",
        f"**{entry['verdict']['decision']}.** {entry['verdict']['sentence']} {entry['verdict']['cost_sentence']}",
        "",
    ]
    fit, sizes = entry["fit"], entry["split_sizes"]
    facts = [f"Goal: {g['goal']}. Reached: {g['reached']}, {'met' if g['met'] else 'missed'}" for g in entry["goals"]]
    facts += [
        f"Model: {entry['model']}, method {entry['method']}, {count(fit['trainable_parameters'])} weights trained; "
        f"the best of {fit['steps']} steps was {fit['best_step']} ({fit['stopped']})",
        f"Rows: {entry['rows_read']:,} of the training file read, {entry['quarantined']:,} set aside as unreadable; "
        f"{', '.join(f'{name} {n:,}' for name, n in sizes.items())}; {entry['split_how']}",
        f"Rows that gave way because they (nearly) repeat held-out rows: {entry['moved']:,}",
        *entry["facts"],
        *(f"Data check {text}" for text in entry["findings"]),
        *entry["warnings"],
        entry["overfit"],
        f"Times: {', '.join(f'{name.lower()} {duration(s)}' for name, s in entry['stages'].items())}",
        f"Load of the machine before the start: {entry['load_before']:g}",
    ]
    return [*lines, *(f"- {fact}" if fact.endswith((".", ".)")) else f"- {fact}." for fact in facts), ""]


def _system(system: Entry, metrics: Sequence[str]) -> str:
    cells = [system["name"]]
    for metric in metrics:
        found = system["metrics"].get(metric)
        cells.append(f"{score(metric, found['value'])} ({interval(metric, Estimate(**found))})" if found else "none")
    rows = max((m["n"] for m in system["metrics"].values()), default=0)
    cells += [count(rows), duration(system["seconds"]), plain(system["prompt_tokens"]), plain(system["new_tokens"])]
    return f"| {' | '.join(cells)} |"


# -- the command line --------------------------------------------------------------------------------------------------


def main() -> int:
    options = _options()
    work = options.runs.resolve()
    work.mkdir(parents=True, exist_ok=True)
    target = work if options.smoke else RESULTS
    stored = target / "real_tasks.json"
    command = shlex.join(["python", "benchmarks/real_tasks.py", *(_short(a, work) for a in sys.argv[1:])])
    entries: dict[str, Entry] = {}
    if stored.exists() and not options.smoke:
        entries = {entry["task"]: entry for entry in json.loads(stored.read_text(encoding="utf-8"))["tasks"]}
    broken = []
    for name in options.only or BY_NAME:
        _tell(f"{name}: running; what it says goes to {work / name}.log")
        entries[name] = entry = run_task(BY_NAME[name], work, smoke=options.smoke)
        broken += [name] if "error" in entry else []
        _tell(f"{name}: {entry.get('error') or _summary(entry)}")
        ordered = [entries[known] for known in BY_NAME if known in entries]
        page = markdown(ordered, command, smoke=options.smoke)
        target.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"command": command, "smoke": options.smoke, "tasks": ordered}, indent=1, ensure_ascii=False)
        stored.write_text(text + "\n", encoding="utf-8")
        stored.with_suffix(".md").write_text(page, encoding="utf-8")
    print(text if options.json else page)
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the recipes of examples/ on the real sets.")
    parser.add_argument(
        "--only", action="append", choices=list(BY_NAME), metavar="NAME", help="a task; may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of Markdown")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "real_tasks", metavar="DIR", help="work folder")
    parser.add_argument("--smoke", action="store_true", help="few rows and steps; results go to the work folder")
    options = parser.parse_args()
    if not SHARED.is_dir() and set(options.only or BY_NAME) != {"helpdesk_base"}:
        parser.error(f"the real sets are expected in {SHARED}, which does not exist. Only helpdesk_base runs without.")
    return options


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
