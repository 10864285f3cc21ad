"""Learning from preferences and rewards beside TRL, interleaved in one call: speed and memory, on SmolLM2-135M's shape.

    python benchmarks/rlhf_vs_trl.py --json        every part; prints one object
    python benchmarks/rlhf_vs_trl.py --only dpo    one part; the results of the others stay
    python benchmarks/rlhf_vs_trl.py --quick       the same path on a tiny shape; the figures mean nothing

Notable: random weights, real pairs (UltraFeedback) and prompts (GSM8K) of real lengths; both sides start from the same
weights and adapter and take the same pairs or prompts in the same order, which a hash of ids and masks proves. Each
configuration is a process of its own. Needs the environment of ``requirements-peers.txt`` and the folder ``shared``
beside the repository.
"""

import argparse
import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peers import dpo, online, sampling
from peers.bench import Bench, tell
from peers.configurations import FULL_SIZES, QUICK_SIZES
from peers.processes import BENCHMARKS, Failed, command, machine
from sft_vs_trl import written

ROOT = BENCHMARKS.parent
RESULTS = BENCHMARKS / "results"
PARTS = {"dpo": dpo.measure, "sampler": sampling.measure, "online": online.measure}
UNITS = {"rows_per_s": "pairs", "tokens_per_s": "new tokens", "answers_per_s": "answers"}
GOALS = (  # ratio, what it is, at least (or at most, where lower is better; None: none is set), whether more is better
    ("dpo_pairs_per_s", "DPO, pairs a second: ours / TRL's fastest", 5.0, True),
    ("dpo_peak_memory", "DPO, peak memory: our leanest / TRL's leanest (lower is better)", 0.4, False),
    ("dpo_peak_memory_of_fastest", "the same: our fastest / TRL's fastest (lower is better)", 0.4, False),
    ("sampler_tokens_per_s", "sampling, new tokens a second: ours / transformers' generate", 3.0, True),
    ("sampler_continuous", "the same: ours / transformers' continuous batching", 1.5, True),
    ("online_rl_per_s", "GRPO, answers rolled out and trained on a second: ours / TRL's fastest", 3.0, True),
    ("online_rl_peak_memory", "GRPO, peak memory: ours / TRL's leanest (lower is better)", None, False),
)
LAST = {
    "tokens_an_answer": "tokens an answer",
    "first_loss": "first and last loss",
}  # the last column, by what is known
Part = dict[str, Any]


def ratios(parts: dict[str, Part]) -> dict[str, float | None]:
    """The figures that the project aims at; None where their part has not run."""
    pairs, written_, learned = (parts[name]["compared"] if name in parts else {} for name in PARTS)
    return {
        "dpo_pairs_per_s": pairs.get("speed"),
        "dpo_peak_memory": pairs.get("peak_memory"),
        "dpo_peak_memory_of_fastest": pairs.get("peak_memory_of_fastest"),
        "sampler_tokens_per_s": written_.get("generate"),
        "sampler_continuous": written_.get("continuous_batching"),
        "online_rl_per_s": learned.get("speed"),
        "online_rl_peak_memory": learned.get("peak_memory"),
    }


def page(document: Part) -> str:
    """Everything as Markdown: the goals, and the table of each part."""
    out = ["# Learning from preferences and rewards beside TRL", ""]
    if document["quick"]:
        out += ["**A quick run on a tiny shape. The figures mean nothing.**", ""]
    out += ["Written by `benchmarks/rlhf_vs_trl.py`; do not edit. Its docstring tells how it measures.", ""]
    out += ["| ratio | reached | goal | |", "|---|---|---|---|"]
    for name, about, goal, more in GOALS:
        value = document["ratios"][name]
        shown = "not measured" if value is None else f"{value:g}"
        wanted = "none set" if goal is None else f"{goal:g}"
        out.append(f"| {about} | {shown} | {wanted} | {_reached(value, goal, more)} |")
    for name, part in document["parts"].items():
        out += ["", f"## {name}", "", *_told(part)]
    return "\n".join(out) + "\n"


def _reached(value: float | None, goal: float | None, more: bool) -> str:
    if value is None or goal is None:
        return ""
    return "reached" if (value >= goal if more else value <= goal) else "missed"


def _told(part: Part) -> list[str]:
    versions = ", ".join(f"{key} {value}" for key, value in part["versions"].items())
    beside = next((name for name in LAST if any(name in t for t in part["summary"].values())), "")
    out = [
        f"{part['created'][:10]}, `{part['command']}`, {part['seconds'] / 60:.0f} minutes. Machine: {part['machine']}; "
        f"load before the start {part['load_before']:g}. Versions: {versions}.",
        "",
        f"| configuration | a second | each run | peak memory |{f' {LAST[beside]} |' if beside else ''}",
        "|---|---|---|---|" + "---|" * bool(beside),
    ]
    for name, told in part["summary"].items():
        runs, memory = ", ".join(f"{r:g}" for r in told["all"]), told["peak_bytes"] / 2**30
        rate = next(f"{told[key]:g} {unit}" for key, unit in UNITS.items() if key in told)
        last = [f"{told[key]:.4f}" if "loss" in key else str(told[key]) for key in (beside, "last_loss") if key in told]
        cells = [name, rate, runs, f"{memory:.2f} GiB", *([", ".join(last)] if beside else [])]
        out.append(f"| {' | '.join(cells)} |")
    facts = [f"{key.replace('_', ' ')} {value}" for key, value in (part["data"] | part["settings"]).items()]
    out += ["", f"- {'; '.join(facts)}."]
    if "best_peer" in part["compared"]:
        out.append(f"- {_beside(part['compared'])}")
    out += [f"- {told['name']} was stopped or not tried: {_why(told)}." for told in part["stopped"]]
    return out


def _beside(found: Part) -> str:
    """What the ratios of a part were taken to."""
    told = f"TRL's fastest is {found['best_peer']}, its leanest {found['leanest_peer']}."
    if "leanest_ours" in found:
        told += f" Our fastest is {found['best_ours']}, our leanest {found['leanest_ours']}."
    tokens = found.get("speed_in_new_tokens")
    return told if tokens is None else f"{told} In new tokens a second ours run at {tokens:g} times its fastest."


def _why(told: Part) -> str:
    if "because" in told:
        return str(told["because"])
    key = next(name for name in told if name.endswith("_per_s_below"))
    unit, memory = key.removesuffix("_per_s_below"), told["peak_bytes_at_least"] / 2**30
    return f"it ran below {told[key]:g} {unit}/s with {memory:.2f} GiB"


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
    asked = command("rlhf_vs_trl.py", sys.argv[1:], {"WORK": options.work, "../shared": options.shared})
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
            "command": asked,
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
    parser = argparse.ArgumentParser(description="Learning from preferences and rewards beside TRL.")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="a part; may be repeated")
    parser.add_argument("--repeats", type=int, default=2, help="runs of ours and of the peer's fastest (2)")
    parser.add_argument("--json", action="store_true", help="print the JSON object instead of the page")
    parser.add_argument("--quick", action="store_true", help="a tiny shape; results go to the work folder")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "sft_vs_trl", metavar="DIR", help="work folder")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", metavar="DIR", help="the real sets")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
