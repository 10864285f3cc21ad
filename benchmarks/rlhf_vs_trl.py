"""Learning from preferences beside TRL, interleaved in one call: pairs a second and memory, on SmolLM2-135M's shape.

    python benchmarks/rlhf_vs_trl.py --json        every part; prints one object
    python benchmarks/rlhf_vs_trl.py --only dpo    one part; the results of the others stay
    python benchmarks/rlhf_vs_trl.py --quick       the same path on a tiny shape; the figures mean nothing

Notable: random weights, real pairs (UltraFeedback) and real lengths; both sides start from the same weights and adapter
and take the same pairs in the same order, which a hash of ids and masks proves. Each configuration is a process of its
own. Needs the environment of ``requirements-peers.txt`` and the folder ``shared`` beside the repository.
"""

import argparse
import json
import os
import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peers import dpo, sampling
from peers.bench import Bench, tell
from peers.configurations import FULL_SIZES, QUICK_SIZES
from peers.processes import BENCHMARKS, Failed, machine
from sft_vs_trl import written

ROOT = BENCHMARKS.parent
RESULTS = BENCHMARKS / "results"
PARTS = {"dpo": dpo.measure, "sampler": sampling.measure}
GOALS = (  # ratio, what it is, at least (or at most, where lower is better)
    ("dpo_pairs_per_s", "DPO, pairs a second: ours / TRL's fastest", 5.0, True),
    ("dpo_peak_memory", "DPO, peak memory: ours / TRL's leanest (lower is better)", 0.4, False),
    ("sampler_tokens_per_s", "sampling, new tokens a second: ours / transformers' generate", 3.0, True),
    ("sampler_continuous", "the same: ours / transformers' continuous batching", 1.5, True),
)
Part = dict[str, Any]


def ratios(parts: dict[str, Part]) -> dict[str, float | None]:
    """The figures that the project aims at; None where their part has not run."""
    pairs, written_ = (parts[name]["compared"] if name in parts else {} for name in ("dpo", "sampler"))
    return {
        "dpo_pairs_per_s": pairs.get("speed"),
        "dpo_peak_memory": pairs.get("peak_memory"),
        "sampler_tokens_per_s": written_.get("generate"),
        "sampler_continuous": written_.get("continuous_batching"),
    }


def page(document: Part) -> str:
    """Everything as Markdown: the goals, and the table of each part."""
    out = ["# Learning from preferences beside TRL", ""]
    if document["quick"]:
        out += ["**A quick run on a tiny shape. The figures mean nothing.**", ""]
    out += ["Written by `benchmarks/rlhf_vs_trl.py`; do not edit. Its docstring tells how it measures.", ""]
    out += ["| ratio | reached | goal | |", "|---|---|---|---|"]
    for name, about, goal, more in GOALS:
        value = document["ratios"][name]
        reached = value is not None and (value >= goal if more else value <= goal)
        shown = "not measured" if value is None else f"{value:g}"
        out.append(f"| {about} | {shown} | {goal:g} | {'reached' if reached else 'missed' if value else ''} |")
    for name, part in document["parts"].items():
        out += ["", f"## {name}", "", *_told(part)]
    return "\n".join(out) + "\n"


def _told(part: Part) -> list[str]:
    versions = ", ".join(f"{key} {value}" for key, value in part["versions"].items())
    out = [
        f"{part['created'][:10]}, `{part['command']}`, {part['seconds'] / 60:.0f} minutes. Machine: {part['machine']}; "
        f"load before the start {part['load_before']:g}. Versions: {versions}.",
        "",
        "| configuration | a second | each run | peak memory | first and last loss |",
        "|---|---|---|---|---|",
    ]
    for name, told in part["summary"].items():
        runs, memory = ", ".join(f"{r:g}" for r in told["all"]), told["peak_bytes"] / 2**30
        rate = f"{told['rows_per_s']:g} pairs" if "rows_per_s" in told else f"{told['tokens_per_s']:g} new tokens"
        losses = f"{told['first_loss']:.4f}, {told['last_loss']:.4f}" if "first_loss" in told else ""
        out.append(f"| {name} | {rate} | {runs} | {memory:.2f} GiB | {losses} |")
    facts = [f"{key.replace('_', ' ')} {value}" for key, value in (part["data"] | part["settings"]).items()]
    out += ["", f"- {'; '.join(facts)}."]
    for told in part["stopped"]:
        why = told.get("because") or (
            f"it ran below {told['pairs_per_s_below']:g} pairs/s with {told['peak_bytes_at_least'] / 2**30:.2f} GiB"
        )
        out.append(f"- {told['name']} was stopped or not tried: {why}.")
    return out


def main() -> int:
    options = _options()
    sizes = QUICK_SIZES if options.quick else FULL_SIZES
    work = options.work.resolve() / ("quick" if options.quick else "full")
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(sizes, work, options.shared.resolve(), options.repeats)
    target = work if options.quick else RESULTS
    stored = target / "rlhf_vs_trl.json"
    old = json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else {"parts": {}}
    parts: dict[str, Part] = old["parts"]
    for name in options.only or PARTS:
        tell(f"{name}:")
        began, load = time.monotonic(), os.getloadavg()[0]
        try:
            found = PARTS[name](bench)
        except Failed as error:
            tell(str(error))
            return 1
        parts[name] = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join(["python", "benchmarks/rlhf_vs_trl.py", "--only", name]),
            "machine": machine(),
            "versions": found["runs"][0]["versions"],
            "load_before": round(load, 2),
            "seconds": round(time.monotonic() - began),
        } | found
        document = {"ratios": ratios(parts), "quick": options.quick, "parts": parts}
        stored.write_text(written(document), encoding="utf-8")
        (target / "rlhf_vs_trl.md").write_text(page(document), encoding="utf-8")
    print(written(document) if options.json else page(document))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Learning from preferences beside TRL.")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="a part; may be repeated")
    parser.add_argument("--repeats", type=int, default=2, help="runs of ours and of the peer's fastest (2)")
    parser.add_argument("--json", action="store_true", help="print the JSON object instead of the page")
    parser.add_argument("--quick", action="store_true", help="a tiny shape; results go to the work folder")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "sft_vs_trl", metavar="DIR", help="work folder")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", metavar="DIR", help="the real sets")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
