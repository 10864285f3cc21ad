"""Fine-tuning speed and memory beside TRL's SFTTrainer and transformers' Trainer, interleaved in one call.

    python benchmarks/sft_vs_trl.py --json          LoRA, full fine-tuning, an encoder, QLoRA and its memory
    python benchmarks/sft_vs_trl.py --only lora     one part; the results of the others stay
    python benchmarks/sft_vs_trl.py --part growth   cost over sequence length and model size, with a plot
    python benchmarks/sft_vs_trl.py --quick         the same paths on a tiny shape; the figures mean nothing

Notable: the model has SmolLM2-135M's shape and random weights, the rows are GSM8K chats, the loss is on the assistant's
tokens alone (``peers/material.py``). Both sides start from the same weights and adapter and take the same rows in the
same order, which a hash of ids and masks proves; only packing orders them anew. Each configuration is a process of its
own. The first round runs ours and every configuration of the peer in turn, the later rounds ours and the peer's
fastest; medians are compared. Only optimiser steps are timed, and only after two of warm-up. Needs the environment of
``requirements-peers.txt`` and the folder ``shared`` beside the repository.
"""

import argparse
import json
import os
import re
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peers import encoder, growth, memory, page, qlora, sft
from peers.bench import Bench, tell
from peers.configurations import FULL_SIZES, LORA_PEERS, QUICK_SIZES
from peers.processes import BENCHMARKS, Failed, command, machine

ROOT = BENCHMARKS.parent
RESULTS = BENCHMARKS / "results"
PARTS = ("lora", "full", "encoder", "qlora", "memory")
OF_THEIR_OWN = {"encoder": encoder.measure, "qlora": qlora.measure, "memory": memory.measure}
Part = dict[str, Any]


def ratios(parts: dict[str, Part]) -> dict[str, float | None]:
    """The figures that the project aims at; None where their part has not run."""

    def of(part: str, key: str) -> float | None:
        return parts[part]["compared"][key] if part in parts else None

    def lean(shape: str) -> float | None:
        return parts["memory"]["compared"].get(f"{shape}_bfloat16", {}).get("training") if "memory" in parts else None

    return {
        "lora_tokens_per_s": of("lora", "speed"),
        "full_tokens_per_s": of("full", "speed"),
        "peak_memory": of("lora", "peak_memory"),
        "ceiling_share": parts["lora"]["ceiling"]["share"] if "lora" in parts else None,
        "encoder_rows_per_s": of("encoder", "speed"),
        "qlora_tokens_per_s": of("qlora", "speed"),
        "qlora_tokens_per_s_cast": parts["qlora"]["compared_cast"]["speed"] if "qlora" in parts else None,
        "qlora_memory": lean(FULL_SIZES.memory_shapes[0]),
        "qlora_memory_larger": lean(FULL_SIZES.memory_shapes[-1]),
    }


def measured(bench: Bench, name: str, asked: str, peer: str) -> Part:
    """One part with the machine, the versions and the command beside its figures."""
    began, load = time.monotonic(), os.getloadavg()[0]
    if name == "growth":
        found = growth.measure(bench, peer)
    else:
        found = OF_THEIR_OWN[name](bench) if name in OF_THEIR_OWN else sft.measure(bench, name)
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": asked,
        "machine": machine(),
        "versions": found["runs"][0]["versions"],
        "load_before": round(load, 2),
        "seconds": round(time.monotonic() - began),
    } | found


def written(value: Any) -> str:
    """JSON with each list of plain values on one line and floats of six digits."""
    text = json.dumps(_short(value), indent=1, ensure_ascii=False)
    return re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: "[" + re.sub(r"\s*\n\s*", " ", m[1]) + "]", text) + "\n"


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _short(held) for key, held in value.items()}
    return [_short(held) for held in value] if isinstance(value, list | tuple) else value


def keep(part: str, found: Part, target: Path, *, quick: bool) -> tuple[str, str]:
    """Write the part into ``target``, beside what was there of the others; returns the JSON and the page."""
    target.mkdir(parents=True, exist_ok=True)
    if part == "growth":
        stem, document, text = "sft_growth", found, page.growth(found)
        (target / "sft_growth.svg").write_text(growth.drawn(found), encoding="utf-8")
    else:
        stem, stored = "sft_vs_trl", target / "sft_vs_trl.json"
        old = json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else {}
        parts = (old["parts"] if old.get("quick") == quick else {}) | {part: found}
        ordered = {name: parts[name] for name in PARTS if name in parts}
        document = {"ratios": ratios(ordered), "quick": quick, "parts": ordered}
        text = page.of(document)
    (target / f"{stem}.json").write_text(written(document), encoding="utf-8")
    (target / f"{stem}.md").write_text(text, encoding="utf-8")
    return written(document), text


def main() -> int:
    options = _options()
    sizes = QUICK_SIZES if options.quick else FULL_SIZES
    given = {"rows": options.rows, "steps": options.steps, "micro_rows": options.micro_rows, "compile": options.compile}
    sizes = replace(sizes, **{key: value for key, value in given.items() if value is not None})
    work = options.work.resolve() / ("quick" if options.quick else "full")
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(sizes, work, options.shared.resolve(), options.repeats)
    asked = command("sft_vs_trl.py", sys.argv[1:], {"WORK": options.work, "../shared": options.shared})
    text = ""
    for name in options.only or PARTS:
        tell(f"{name}:")
        try:
            found = measured(bench, name, asked, options.peer)
        except Failed as error:
            tell(str(error))
            return 1
        told, readable = keep(name, found, work if options.quick else RESULTS, quick=options.quick)
        text = told if options.json else readable
    print(text)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fine-tuning speed and memory beside TRL and transformers.")
    parser.add_argument(
        "--only", "--part", action="append", choices=[*PARTS, "growth"], help="a part; may be repeated (all but growth)"
    )
    parser.add_argument("--repeats", type=int, default=2, help="runs of ours and of the peer's fastest (2)")
    parser.add_argument("--rows", type=int, help=f"rows an optimiser step ({FULL_SIZES.rows})")
    parser.add_argument("--micro-rows", type=int, help=f"rows that TRL holds at once ({FULL_SIZES.micro_rows})")
    parser.add_argument("--steps", type=int, help=f"optimiser steps, two of them warm-up ({FULL_SIZES.steps})")
    parser.add_argument("--compile", choices=["auto", "always", "never"], help="train.compile of our side (auto)")
    parser.add_argument(
        "--peer", default="trl_float32_no_checkpointing", choices=[p.name for p in LORA_PEERS], help="TRL's, for growth"
    )
    parser.add_argument("--json", action="store_true", help="print the JSON object instead of the page")
    parser.add_argument("--quick", action="store_true", help="a tiny shape; results go to the work folder")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "sft_vs_trl", metavar="DIR", help="work folder")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", metavar="DIR", help="the real sets")
    options = parser.parse_args()
    rows, micro = options.rows or FULL_SIZES.rows, options.micro_rows or FULL_SIZES.micro_rows
    if rows % micro:
        parser.error(f"--rows {rows} is no multiple of --micro-rows {micro}, so TRL's steps would hold other rows.")
    if not (options.shared / "data").is_dir():
        parser.error(f"the real sets are expected in {options.shared}, which has no folder data. Name it by --shared.")
    return options


if __name__ == "__main__":
    sys.exit(main())
