"""How far is a plan off? Memory and time that ``tunesmith plan`` foresees, beside what runs then need.

    python benchmarks/plan_accuracy.py --json          all configurations; prints one object
    python benchmarks/plan_accuracy.py --only 30M-lora  those whose name begins so; the others' results stay
    python benchmarks/plan_accuracy.py --memory-only   no times: for a machine that is busy; where all is stored,
                                                       nothing is measured and the page is made again
    python benchmarks/plan_accuracy.py --plan-anew      what is stored, by the plan of today
    python benchmarks/plan_accuracy.py --quick          three small ones; the figures mean nothing

Notable: the plan is made first, from the recipe and the model's config.json, in a process that never imports torch;
then the same recipe runs as a whole in a process of its own, and tells its peak while training and the time of its
steps. The machine is probed once before. Times are kept as foreseen by the probe alone (without ``PROBED`` of
``plan/time.py``, which these same runs gave); the page (``peers/plan_page.py``) scores them so, as ``tunesmith plan``
prints them, and corrected as it corrects them by earlier runs: here by all the other configurations. Rows of a
configuration are of nearly one length, but where its name tells of another kind. Needs the folder ``shared`` beside the
repository; times need a machine with nothing else to do.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peers import processes
from peers.plan_page import lengthened, page, summary
from peers.processes import machine
from tunesmith.core.recipe import Recipe
from tunesmith.flows.plan import plan
from tunesmith.plan.rates import kept

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
RESULTS = ROOT / "benchmarks" / "results"
STEPS = 5
Part = dict[str, Any]

LLAMA = {"model_type": "llama", "tie_word_embeddings": True, "max_position_embeddings": 2048}


def sizes(width: int, inner: int, layers: int, heads: int, groups: int, vocabulary: int) -> Part:
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": vocabulary,
    }


SHAPES: dict[str, Part] = {
    "bundled": {},  # the bundled base: answers of random weights are all as bad, and a policy learns nothing from them
    "10M": LLAMA | sizes(256, 704, 6, 4, 2, 16_384),
    "30M": LLAMA | sizes(384, 1024, 8, 6, 2, 32_768),
    "60M-qwen2": LLAMA | {"model_type": "qwen2", "tie_word_embeddings": False} | sizes(512, 1408, 10, 8, 2, 32_768),
    "70M-neox": {"model_type": "gpt_neox", "max_position_embeddings": 2048, "tie_word_embeddings": False}
    | sizes(512, 2048, 12, 8, 8, 32_768),
    "20M-mistral": LLAMA | {"model_type": "mistral", "tie_word_embeddings": False} | sizes(320, 1152, 8, 10, 5, 16_384),
    "40M-gemma": LLAMA | {"model_type": "gemma", "head_dim": 64} | sizes(448, 1792, 9, 7, 1, 32_768),
    "135M": LLAMA | sizes(576, 1536, 30, 9, 3, 49_152),
    "360M": LLAMA | sizes(960, 2560, 32, 15, 5, 49_152),
    "1B": LLAMA | sizes(2048, 8192, 16, 32, 8, 128_256),  # on a GPU alone
    "8B": LLAMA | {"tie_word_embeddings": False} | sizes(4096, 14_336, 32, 32, 8, 128_256),
}


@dataclass(frozen=True)
class Setting:
    """A configuration: rows of about ``length`` tokens, ``batch`` of them an optimiser step."""

    shape: str
    method: str
    length: int = 128
    batch: int = 2048
    level: str = "fast"
    objective: str = "sft"
    dev: float = 0.1
    kind: str = "alike"  # of rows, as ``peers/planned.py`` makes them
    later: bool = False  # measured after the constants of plan/, but ``LONG_ROWS``, were chosen by the others

    @property
    def name(self) -> str:
        more = ("" if self.dev else "-nodev") + ("" if self.kind == "alike" else f"-{self.kind}")
        return f"{self.shape}-{self.method}-{self.objective}-{self.length}-{self.batch}-{self.level}{more}"

    @property
    def rows(self) -> int:
        """Enough for ``STEPS`` steps."""
        a_row = self.length * (1.6 if self.objective in ("dpo", "reward") else 1.0)
        return max(24, int(1.3 * STEPS * self.batch / a_row))


def settings() -> list[Setting]:
    s = Setting
    return [
        s("10M", "full"),
        s("10M", "full", 512),
        s("10M", "full", 256, level="checkpoint"),
        s("10M", "full", 128, dev=0.0),
        s("10M", "full", 128, objective="dpo"),
        s("10M", "lora"),
        s("10M", "lora", 1024, 4096),
        s("10M", "lora", 128, objective="reward"),
        s("bundled", "lora", 64, objective="grpo"),
        s("bundled", "lora", 128, objective="grpo"),
        s("10M", "lora", 64, objective="ppo"),
        s("30M", "full"),
        s("30M", "full", 512),
        s("30M", "full", 256, level="selective"),
        s("30M", "full", 256, level="checkpoint"),
        s("30M", "full", 256, level="least"),
        s("30M", "full", 128, 1024, dev=0.0),
        s("30M", "lora"),
        s("30M", "lora", 512),
        s("30M", "lora", 1024),
        s("30M", "lora", 256, 4096, level="checkpoint"),
        s("30M", "lora", 256, objective="dpo"),
        s("30M", "lora", 64, objective="ppo"),
        s("30M", "dora", 256),
        s("30M", "ia3", 256),
        s("30M", "qlora", 256),
        s("60M-qwen2", "full", 128),
        s("60M-qwen2", "lora", 256),
        s("60M-qwen2", "lora", 512, level="selective"),
        s("70M-neox", "full", 128, 1024),
        s("70M-neox", "lora", 256),
        s("135M", "full", 128, 1024),
        s("135M", "full", 256, 1024, level="checkpoint"),
        s("135M", "lora", 128, 1024),
        s("135M", "lora", 512, 1024),
        s("135M", "lora", 512, 1024, level="selective"),
        s("135M", "lora", 1024, 1024, level="checkpoint"),
        s("135M", "lora", 256, 1024, objective="dpo"),
        s("135M", "qlora", 256, 1024),
        s("360M", "lora", 128, 512),
        s("360M", "lora", 256, 512, level="checkpoint"),
        s("360M", "qlora", 128, 512),
        s("360M", "full", 128, 512, level="checkpoint"),
        *(replace(one, later=True) for one in others()),
    ]


def others() -> list[Setting]:
    """Other lengths, batches, methods and shapes than those that the constants were chosen by."""
    s = Setting
    return [
        s("20M-mistral", "lora", 192),
        s("20M-mistral", "full", 320),
        s("40M-gemma", "lora", 160, 1024),
        s("40M-gemma", "full", 96, level="checkpoint"),
        s("30M", "lora", 384, 3072),
        s("30M", "vera", 128),
        s("30M", "rslora", 96, objective="reward"),
        s("10M", "lora", 256, objective="dpo"),
        s("60M-qwen2", "full", 256, 1024, level="checkpoint"),
        s("135M", "lora", 256, 2048),
        s("30M", "lora", 128, kind="skewed"),
        s("30M", "full", 64, kind="outlier"),
        s("10M", "lora", 128, objective="dpo", kind="skewed"),
        s("135M", "lora", 128, 1024, kind="outlier"),
    ]


def on_gpu() -> list[Setting]:
    """For ``--gpu``: larger shapes."""
    s = Setting
    return [
        *(s(shape, method, n, 16_384) for shape in ("135M", "360M", "1B") for method in ("full", "lora")
          for n in (512, 2048)),
        s("1B", "full", 1024, 16_384, level="checkpoint"),
        s("1B", "lora", 1024, 8192, objective="dpo"),
        s("1B", "qlora", 1024, 16_384),
        s("8B", "lora", 1024, 8192, level="checkpoint"),
        s("8B", "qlora", 1024, 8192),
    ]  # fmt: skip


def recipe_of(setting: Setting) -> Part:
    recipe: Part = {
        "objective": {"name": setting.objective},
        "method": {"name": setting.method},
        "train": {"epochs": 1, "max_length": 1200, "batch_tokens": setting.batch, "memory": setting.level},
        "evaluate": {"limit": 2, "baselines": ["zero_shot"], "max_new_tokens": 16},
    }
    if setting.objective in ("dpo", "reward"):
        recipe |= {"task": "prefer", "evaluate": {"limit": 2}}
    if setting.objective in ("grpo", "ppo"):
        del recipe["train"]["batch_tokens"]
        recipe |= {"reward": {"rules": {"rouge_l": 1}}, "rollout": {"prompts": 8, "answers": 4}}
    return recipe


def measure(setting: Setting, work: Path, known: Part | None, *, timed: bool) -> Part:
    """What is foreseen, and what comes: of a ``known`` one, what came when it was measured."""
    spec = {
        "name": setting.name,
        "shape": setting.shape,
        "config": SHAPES[setting.shape],
        "recipe": recipe_of(setting),
        "count": setting.rows,
        "length": setting.length,
        "pairs": setting.objective in ("dpo", "reward"),
        "kind": setting.kind,
        "dev": setting.dev,
        "work": str(work),
        "shared": str(SHARED),
    }
    made = processes.run("planned", spec | {"do": "make"}, work, f"{setting.name}-make")
    began = time.monotonic()
    foreseen = plan(Recipe.parse(made["recipe"], setting.name))
    seconds, rates = time.monotonic() - began, kept()
    times = 1.0 if rates is None else lengthened(rates.kind)  # which the forecast has in it
    alone = foreseen.step_seconds and foreseen.step_seconds / times
    if known is None:
        load = round(os.getloadavg()[0], 2)
        found = processes.run("planned", spec | {"do": "run", "recipe": made["recipe"]}, work, setting.name)
        took = found["step_seconds"] if timed else None
        known = {"memory": {"measured": found["peak"]}, "step": {"measured": took}, "steps": found["steps"]}
        known |= {"load_before": load}
    step = known["step"] | {"foreseen": alone if timed else known["step"].get("foreseen")}
    return known | {
        "setting": asdict(setting),
        "memory": known["memory"] | {"foreseen": foreseen.peak_bytes, "parts": foreseen.memory},
        "step": step,
        "plan_seconds": round(seconds, 3),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    work = (options.work / ("quick" if options.quick else "full")).resolve()
    work.mkdir(parents=True, exist_ok=True)
    target = work if options.quick else RESULTS
    stored = target / ("plan_accuracy_gpu.json" if options.gpu else "plan_accuracy.json")
    earlier: Part = json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else {"runs": {}}
    anew = options.anew and not options.only
    if not anew and earlier.get("machine", machine()) != machine():
        print(
            f"What is stored was measured on {earlier['machine']}; this is {machine()}. Measure --anew.",
            file=sys.stderr,
        )
        return 1
    if kept() is None and not options.memory_only:
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        subprocess.run([sys.executable, "-m", "tunesmith.models.probe"], check=True, env=environment, timeout=300)
    rates = None if options.memory_only else kept()
    device = earlier.get("device", "cpu") if rates is None else rates.kind  # that the times are of
    document, shown = None, target if options.quick else ROOT / "docs"
    wanted = on_gpu() if options.gpu else settings()
    runs = {s.name: earlier["runs"][s.name] for s in wanted if s.name in earlier["runs"]}
    chosen = [s for s in wanted if not options.only or any(s.name.startswith(name) for name in options.only)]
    if not chosen:
        print(f"No configuration begins with {' or '.join(options.only)}.", file=sys.stderr)
        return 1
    for setting in chosen[:3] if options.quick else chosen:
        known = None if options.anew else runs.get(setting.name)
        if known and not options.plan_anew:
            continue
        print(f"{datetime.now(UTC):%H:%M:%S} {setting.name}", file=sys.stderr, flush=True)
        runs[setting.name] = measure(setting, work, known, timed=not options.memory_only)
        document = written(stored, shown, runs, device, datetime.now(UTC).isoformat(timespec="seconds"))
    if document is None:
        document = written(stored, shown, runs, device, earlier["created"])
    print(json.dumps(document["summary"], indent=1) if options.json else page(document))
    return 0


def written(stored: Path, shown: Path, runs: Part, device: str, created: str) -> Part:
    """The document of these runs, kept with its page."""
    document = {
        "summary": summary(runs, device),
        "created": created,
        "machine": machine(),
        "device": device,
        "runs": runs,
    }
    stored.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (shown / f"{stored.stem}.md").write_text(page(document), encoding="utf-8")
    return document


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How far is a plan off?")
    parser.add_argument("--only", action="append", help="names that begin so; may be repeated")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "plan_accuracy", metavar="DIR", help="work folder")
    parser.add_argument("--gpu", action="store_true", help="larger shapes, for a machine with a GPU")
    parser.add_argument("--anew", action="store_true", help="measure again what is stored")
    parser.add_argument("--memory-only", action="store_true", help="no times: the machine may be busy")
    parser.add_argument("--plan-anew", action="store_true", help="plan again what is stored; measure what is not")
    parser.add_argument("--json", action="store_true", help="print the JSON object instead of the page")
    parser.add_argument("--quick", action="store_true", help="three small ones; results go to the work folder")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
