"""LoRA, QLoRA and full fine-tuning on a GPU beside TRL, TRL with Liger kernels, and Unsloth.

    python benchmarks/gpu.py --json                      both shapes, all three methods
    python benchmarks/gpu.py --only llama-3.1-8b/lora    one of them; the other results stay
    python benchmarks/gpu.py --smoke                     the same path on tiny shapes and the CPU; figures mean nothing

Notable: each measurement is a process of its own (``gpu_cell.py``), so that no side's memory or patches reach another.
A side starts with ``--micro`` rows at once and halves them until they fit; tokens an optimiser step are the same for
all. Sides run in turn, ``--repeats`` times. What cannot fit is computed and said, and so is a peer that is not
installed. Without a CUDA device the answer is a sentence and exit code 2.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from gpu_cell import PEERS, Result, Spec
from gpu_shapes import PEAK_SOURCE, SHAPES, TINY, does_not_fit, flops_per_token, peak
from peers.processes import command, commit

BENCHMARKS = Path(__file__).resolve().parent
RESULTS = BENCHMARKS / "results"
NO_DEVICE = 2
METHODS = ("lora", "qlora", "full")
SIDES = {
    "lora": ("tunesmith", "tunesmith_compiled", "trl", "trl_checkpointing", "trl_liger", "unsloth"),
    "qlora": ("tunesmith", "trl", "trl_checkpointing", "trl_liger", "unsloth"),
    "full": (
        *("tunesmith", "tunesmith_compiled", "tunesmith_least"),
        *("trl", "trl_liger", "trl_float32", "trl_liger_float32", "unsloth"),
    ),
}
OURS = ("tunesmith", "tunesmith_compiled", "tunesmith_least")
COLUMNS = "side, tokens/s, share of peak, share of bare products, peak memory, rows at once, first step, loss"
GOALS = {"share of peak": 0.45, "times TRL with Liger": 1.3}
AIMED_AT = "llama-3.1-8b/lora"  # by the goals, on an H200


# -- measuring ---------------------------------------------------------------------------------------------------------


class Bench:
    """How cells are run. ``work`` keeps specs, results and logs."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.smoke: bool = options.smoke
        self.work: Path = options.work.resolve() / ("smoke" if self.smoke else "full")
        self.work.mkdir(parents=True, exist_ok=True)

    def shape(self, name: str) -> dict[str, Any]:
        return SHAPES[name] | (TINY if self.smoke else {})

    def spec(self, name: str, method: str, side: str) -> Spec:
        sizes = {"length": 64, "rows": 4, "micro": 2, "steps": 2, "warmup": 1}
        if not self.smoke:
            o = self.options
            sizes = {"length": o.length, "rows": o.rows, "micro": o.micro, "steps": o.steps, "warmup": 2}
        device = "cpu" if self.smoke else "cuda"
        if side == "tunesmith_least":  # which takes a step in one piece
            sizes["rows"] = sizes["micro"]
        return Spec(side, method, self.shape(name), device=device, weights=str(self.work / name / "weights"), **sizes)

    def cell(self, spec: Spec, name: str) -> Result:
        """One process. A cell that breaks is a result with the end of its log."""
        stem = self.work / name
        stem.parent.mkdir(parents=True, exist_ok=True)
        paths = {end: stem.with_name(f"{stem.name}.{end}") for end in ("spec.json", "json", "log")}
        paths["spec.json"].write_text(json.dumps(asdict(spec)), encoding="utf-8")
        paths["json"].unlink(missing_ok=True)
        python = sys.executable if spec.side in (*OURS, "ceiling") else self.options.peer_python
        command = [python, str(BENCHMARKS / "gpu_cell.py"), str(paths["spec.json"]), str(paths["json"])]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
        with paths["log"].open("wb") as log:
            code = subprocess.run(command, stdout=log, stderr=log, env=environment, check=False).returncode
        if code or not paths["json"].exists():
            tail = " ".join(paths["log"].read_text(encoding="utf-8", errors="replace").split()[-40:])
            return {"error": f"exit code {code}: {tail}"}
        return dict(json.loads(paths["json"].read_text(encoding="utf-8")))

    def largest(self, spec: Spec, name: str) -> Result:
        """The cell with as many rows at once as fit: half as many after each time that they do not."""
        while True:
            found = self.cell(spec, f"{name}-{spec.micro}") | {"micro": spec.micro}
            if "out_of_memory" not in found or spec.micro == 1:
                return found
            half = spec.micro // 2
            spec = replace(spec, micro=half, rows=half if spec.side == "tunesmith_least" else spec.rows)

    def measure(self, name: str, method: str, device_bytes: int) -> Iterator[Result]:
        """All sides of one shape and method in turn, and again, each with the micro-batch that fitted."""
        fitted: dict[str, Spec] = {}
        for turn in range(self.options.repeats):
            for side in self.options.side or SIDES[method]:
                if turn and side not in fitted:
                    continue
                spec = self.spec(name, method, side)
                reason = does_not_fit(spec.shape, method, device_bytes) if side in OURS[:2] else None
                stem = f"{name}/{method}-{side}-{turn}"
                if reason:
                    found: Result = {"skipped": reason}
                else:
                    found = self.cell(fitted[side], stem) if turn else self.largest(spec, stem)
                if "step_seconds" in found:
                    fitted[side] = replace(spec, micro=found["spec"]["micro"], rows=found["spec"]["rows"])
                tell(f"{name} {method} {side}: {_line(found)}")
                yield found | {"side": side, "shape": name, "method": method}


def _line(found: Result) -> str:
    for key in ("skipped", "out_of_memory", "error"):
        if key in found:
            return f"{key.replace('_', ' ')}: {found[key]}"
    speed = found["spec"]["rows"] * found["spec"]["length"] / median(found["step_seconds"])
    return f"{speed:,.0f} tokens/s, {found['peak_reserved'] / 2**30:.1f} GiB, {found['spec']['micro']} rows at once"


# -- what is told ------------------------------------------------------------------------------------------------------


def summary(runs: Sequence[Result], rate: float | None, measured: float) -> list[Result]:
    """One entry a side: the median over the steps of all its runs, or why there is none."""
    entries: list[Result] = []
    for side in dict.fromkeys(run["side"] for run in runs):
        mine = [run for run in runs if run["side"] == side]
        done = [run for run in mine if "step_seconds" in run]
        if not done:
            why = next(
                f"{k.replace('_', ' ')}: {mine[0][k]}" for k in ("skipped", "out_of_memory", "error") if k in mine[0]
            )
            entries.append({"side": side, "why": why.removeprefix("skipped: ")})
            continue
        spec = Spec(**done[0]["spec"])
        speed = spec.rows * spec.length / median(s for run in done for s in run["step_seconds"])
        flops = speed * flops_per_token(spec.shape, spec.method, spec.length)
        entries.append(
            {
                "side": side,
                "tokens_per_second": speed,
                "flops_per_second": flops,
                "share_of_peak": flops / rate if rate else None,
                "share_of_measured_products": flops / measured,
                "peak_allocated": max(run["peak_allocated"] for run in done),
                "peak_reserved": max(run["peak_reserved"] for run in done),
                "micro_rows": spec.micro,
                "first_step_seconds": median(run["first_step_seconds"] for run in done),
                "first_loss": done[0]["losses"][0],
                "last_loss": done[0]["losses"][-1],
                "runs": len(done),
            }
        )
    return entries


def ratios(entries: Sequence[Result]) -> dict[str, float]:
    """Tokens a second and peak memory of our fastest side against each peer's."""
    mine = [e for e in entries if e["side"] in OURS and "tokens_per_second" in e]
    ours = max(mine, key=lambda e: e["tokens_per_second"], default=None)
    theirs = {e["side"]: e for e in entries if e["side"] not in OURS and "tokens_per_second" in e}
    found: dict[str, float] = {}
    for side, entry in theirs.items() if ours else ():
        assert ours is not None  # the loop is empty without it
        found[f"speed against {side}"] = ours["tokens_per_second"] / entry["tokens_per_second"]
        found[f"peak memory against {side}"] = ours["peak_reserved"] / entry["peak_reserved"]
    return found


def page(document: dict[str, Any]) -> str:
    """The results for reading."""
    lines = ["# Fine-tuning on a GPU", ""]
    if document["smoke"]:
        lines += ["**A smoke run: tiny shapes on a CPU prove the path. The figures mean nothing.**", ""]
    for name, part in document["parts"].items():
        where = part["machine"]
        peak_rate = (
            f"{where['peak'] / 1e12:,.0f} TFLOP/s ({PEAK_SOURCE})" if where["peak"] else "unknown to the table of peaks"
        )
        lines += [
            f"## {name}",
            "",
            f"{where['device']}, {where['device_bytes'] / 2**30:.0f} GiB; peak: {peak_rate}; bf16 products alone reach "
            f"{where['measured'] / 1e12:,.1f} TFLOP/s. {part['rows']} rows of {part['length']} tokens an optimiser "
            f"step. {part['created'][:10]}, commit {part['commit']}, `{part['command']}`.",
            "",
            f"| {COLUMNS.replace(', ', ' | ')} |",
            f"|{'---|' * len(COLUMNS.split(', '))}",
            *map(_row, part["sides"]),
            "",
            *(f"- {text}: {value:.2f}" for text, value in part["ratios"].items()),
            *(goals(part) if name == AIMED_AT else ()),
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def goals(part: dict[str, Any]) -> Iterator[str]:
    """How the figures stand to what is aimed at."""
    shares = [e["share_of_peak"] for e in part["sides"] if e["side"] in OURS and e.get("share_of_peak")]
    reached = {"share of peak": max(shares, default=None)}
    reached["times TRL with Liger"] = part["ratios"].get("speed against trl_liger")
    for name, goal in GOALS.items():
        value = reached[name]
        told = "not run" if value is None else f"{value:.2f}, {'met' if value >= goal else 'missed'}"
        yield f"- Goal: {name} at least {goal}. Reached: {told}."


def _row(entry: Result) -> str:
    if "why" in entry:
        return f"| {entry['side']} | {entry['why']} |" + " |" * 6
    share = "unknown" if entry["share_of_peak"] is None else f"{entry['share_of_peak']:.1%}"
    cells = [
        entry["side"],
        f"{entry['tokens_per_second']:,.0f}",
        share,
        f"{entry['share_of_measured_products']:.1%}",
        f"{entry['peak_reserved'] / 2**30:.1f} GiB",
        str(entry["micro_rows"]),
        f"{entry['first_step_seconds']:.1f} s",
        f"{entry['first_loss']:.3f} to {entry['last_loss']:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# -- the command line --------------------------------------------------------------------------------------------------


def main() -> int:
    options, of = _options(), commit()
    if not options.smoke and not _has_cuda():
        tell("gpu.py needs a CUDA device, and PyTorch finds none here. --smoke runs the same path on tiny shapes.")
        return NO_DEVICE
    bench = Bench(options)
    stored = (bench.work if options.smoke else RESULTS) / "gpu.json"
    old = json.loads(stored.read_text(encoding="utf-8")) if stored.exists() and not options.smoke else {"parts": {}}
    products = bench.cell(bench.spec("qwen3-1.7b", "lora", "ceiling"), "ceiling")
    if "error" in products:
        tell(products["error"])
        return 1
    measured, rate = products["flops_per_second"], peak(products["device"])
    where = {key: products[key] for key in ("device", "device_bytes")} | {"peak": rate, "measured": measured}
    broken = False
    document = {"smoke": options.smoke, "peak_source": PEAK_SOURCE, "goals": GOALS, "parts": old["parts"]}
    for name in options.only or [f"{shape}/{method}" for shape in SHAPES for method in METHODS]:
        shape, _, method = name.partition("/")
        began = time.monotonic()
        runs = list(bench.measure(shape, method, where["device_bytes"]))
        broken |= any("error" in run for run in runs if run["side"] in OURS)
        sides, spec = summary(runs, rate, measured), bench.spec(shape, method, "tunesmith")
        document["parts"][name] = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": of,
            "command": command("gpu.py", sys.argv[1:], {"WORK": options.work}),
            "seconds": round(time.monotonic() - began),
            "machine": where,
            "versions": {k: v for run in runs for k, v in run.get("versions", {}).items()},
            "rows": spec.rows,
            "length": spec.length,
            "flops_per_token": flops_per_token(spec.shape, method, spec.length),
            "sides": sides,
            "ratios": ratios(sides),
            "runs": [{k: v for k, v in run.items() if k != "spec"} for run in runs],
        }
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        stored.with_suffix(".md").write_text(page(document), encoding="utf-8")
    print(json.dumps(document, indent=1) if options.json else page(document))
    return 1 if broken else 0


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _options() -> argparse.Namespace:
    names = [f"{shape}/{method}" for shape in SHAPES for method in METHODS]
    parser = argparse.ArgumentParser(description="LoRA, QLoRA and full fine-tuning on a GPU beside TRL and Unsloth.")
    parser.add_argument("--only", action="append", choices=names, metavar="SHAPE/METHOD", help=", ".join(names))
    parser.add_argument("--side", action="append", choices=[*OURS, *PEERS], help="a side; may be repeated")
    parser.add_argument("--length", type=int, default=2048, help="tokens a row (2048)")
    parser.add_argument("--rows", type=int, default=16, help="rows an optimiser step (16)")
    parser.add_argument("--micro", type=int, default=8, help="rows at once to begin with, a power of two (8)")
    parser.add_argument("--steps", type=int, default=6, help="optimiser steps that count, after two of warm-up (6)")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each side (2)")
    parser.add_argument("--json", action="store_true", help="print the JSON object instead of the page")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes on the CPU; results go to the work folder")
    parser.add_argument("--peer-python", default=sys.executable, metavar="PATH", help="Python that has the peers")
    parser.add_argument(
        "--work", type=Path, default=BENCHMARKS.parent / "runs" / "gpu", metavar="DIR", help="work folder"
    )
    options = parser.parse_args()
    asked = {name.partition("/")[2] for name in options.only or names}
    if odd := set(options.side or ()) - {side for method in asked for side in SIDES[method]}:
        parser.error(f"--side {', '.join(sorted(odd))}: not one of {' or '.join(sorted(asked))}.")
    if options.rows % options.micro or options.micro & (options.micro - 1):
        parser.error(f"--micro is {options.micro}; expected a power of two that divides --rows, {options.rows}.")
    return options


if __name__ == "__main__":
    sys.exit(main())
