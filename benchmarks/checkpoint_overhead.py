"""What checkpoints cost: the same training with and without them, in turn, at the default interval.

    python benchmarks/checkpoint_overhead.py --json            the bundled base, fully tuned, about ten minutes
    python benchmarks/checkpoint_overhead.py --seconds 20      a shorter one; saves come as often as in a long one

Notable: both sides take the same steps from the same weights in one process after another, so nothing is warm on one
side alone. With checkpoints come the guards of a run: its log, the sign of life in its lock, the watch over hangs and
the handlers of signals; whether loss and gradient are finite is asked on both sides, for the clipping needs the norm.
The interval is the plan's (120 s), scaled down with ``--seconds`` where a run is shorter than two of them, so that each
run holds at least two saves besides the one at its end; the more often, the dearer, so the scaled figure bounds the
true one from above.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results" / "checkpoint_overhead.json"
INTERVALS = 2.5  # of them in a run


def main() -> int:
    parser = argparse.ArgumentParser(description="The cost of checkpoints as a share of the training.")
    parser.add_argument("--seconds", type=float, default=100.0, help="of training on each side, about")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--method", choices=["full", "lora"], default="full")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=["with", "without"], help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        print(json.dumps(one_side(asked)))
        return 0
    steps = round(asked.seconds / started(asked, "without", 12)["step"])
    runs = [started(asked, side, steps) for _ in range(asked.rounds) for side in ("with", "without")]
    found = {side: statistics.median(r["seconds"] for r in runs if r["side"] == side) for side in ("with", "without")}
    kept = [r for r in runs if r["side"] == "with"]
    told = {
        "overhead": round(found["with"] / found["without"] - 1, 4),
        "method": asked.method,
        "steps": steps,
        "interval_seconds": kept[0]["every"],
        "saves_a_run": kept[0]["saves"],
        "bytes_a_save": kept[0]["bytes"],
        "seconds_a_save": kept[0]["save_seconds"],
        "load_before": round(os.getloadavg()[0], 2),
        "runs": runs,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    share = f"{100 * told['overhead']:.1f}% of the time, {told['saves_a_run']} saves a run"
    print(json.dumps(told, indent=1) if asked.json else f"{share}, every {told['interval_seconds']:.0f} s")
    return 0


def started(asked: argparse.Namespace, side: str, steps: int) -> dict[str, Any]:
    options = ["--side", side, "--steps", str(steps), "--seconds", str(asked.seconds), "--method", asked.method]
    done = subprocess.run([sys.executable, __file__, *options], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def one_side(asked: argparse.Namespace) -> dict[str, Any]:
    """Train in this process; the seconds that ``fit`` takes."""
    import torch

    from tunesmith.core import recipe_file
    from tunesmith.core.recipe import Recipe
    from tunesmith.core.report import CurvePoint
    from tunesmith.data.batches import Steps
    from tunesmith.flows import training
    from tunesmith.flows.checkpointing import Checkpointing
    from tunesmith.flows.prepare import prepare
    from tunesmith.flows.watch import Silent
    from tunesmith.models import load as loading
    from tunesmith.objectives.sft import PART as SFT
    from tunesmith.records.folder import RunFolder
    from tunesmith.train.loop import Hooks, fit

    recipe: Recipe = recipe_file.load(
        Path(__file__).resolve().parent.parent / "examples" / "helpdesk_base.yaml",
        [f"method.name={asked.method}", "train.epochs=50"],
    )
    prepared = prepare(recipe)
    plan = prepared.plan.model_copy(update={"steps": asked.steps, "patience": 10**6})
    model = loading.load(recipe.model, precision=plan.precision)
    training.attach(model, prepared)
    pad = model.tokenizer.pad_token_id or 0
    steps = Steps(
        prepared.train_rows, batch_tokens=plan.batch_tokens, micro_tokens=plan.micro_tokens, pad_id=pad, seed=0
    )
    every = min(plan.save_seconds, asked.seconds / INTERVALS)
    with tempfile.TemporaryDirectory(prefix="tunesmith-overhead-") as work:
        folder = RunFolder.create(Path(work), recipe)
        kept = Checkpointing(folder, Silent(), "benchmark", every=every, as_asked=True)

        def log(point: CurvePoint, _total: int, _speed: float) -> None:
            folder.append_metric(point.model_dump(mode="json"))
            folder.beat()

        hooks = Hooks(after_step=kept.after_step, on_step=log) if asked.side == "with" else Hooks()
        torch.manual_seed(0)
        began = time.monotonic()
        with folder.lock(), kept.guarded() if asked.side == "with" else contextlib.nullcontext():
            fit(model, SFT, steps, plan, hooks)
        seconds = time.monotonic() - began
    saves = kept.saver.saves
    return {
        "side": asked.side,
        "seconds": round(seconds, 3),
        "step": seconds / asked.steps,
        "every": every,
        "saves": len(saves),
        "save_seconds": round(statistics.mean(saves), 3) if saves else 0.0,
        "bytes": kept.last.bytes if kept.last else 0,
    }


if __name__ == "__main__":
    sys.exit(main())
