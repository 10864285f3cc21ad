"""One training as a plan foresees it: a run of ``tunesmith`` on a network with random weights, in a process of its own.

Notable: the network has the bundled base's tokenizer and whatever vocabulary its config says; rows are words of the
bundled general text, so long as was asked. What is measured is what the run itself tells: the peak while training, and
the time of a usual step, without looks at dev.
"""

import gzip
import json
import math
import random
import shutil
import sys
from importlib import resources
from pathlib import Path
from typing import Any

WORDS_A_TOKEN = 0.6  # of the bundled text


def make_folder(folder: Path, config: dict[str, Any]) -> None:
    """All of a model but its weights, which a plan does not read."""
    folder.mkdir(parents=True, exist_ok=True)
    told = config | {"pad_token_id": 0, "eos_token_id": 3}
    (folder / "config.json").write_text(json.dumps(told), encoding="utf-8")
    bundled = resources.files("tunesmith") / "assets" / "base"
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(str(bundled / name), folder / name)


def make_weights(folder: Path) -> None:
    """On a GPU in bf16, as models of its sizes are published; 8B of them take minutes on a processor."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if not any(folder.glob("model*.safetensors")):
        device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
        torch.manual_seed(0)
        with torch.device(device):
            made = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=dtype)
        made.save_pretrained(folder)
        del made
        torch.cuda.empty_cache()


def words(shared: Path) -> list[str]:
    with gzip.open(shared / "data" / "classic_books" / "books_train.jsonl.gz", "rt", encoding="utf-8") as stream:
        return str(json.loads(next(stream))["text"])[:600_000].split()


def length_of(kind: str, n: int, rng: random.Random) -> float:
    """Of row ``n``, beside the usual one. Skewed ones are half as long in the median, and one in a hundred three times
    as long."""
    if kind == "skewed":
        return min(4.0, rng.lognormvariate(math.log(0.5), 0.8))
    if kind == "outlier" and n % 97 == 50:
        return 8.0
    return 0.7 + 0.3 * (n % 7) / 6


def make_rows(path: Path, words: list[str], *, count: int, tokens: int, pairs: bool, kind: str) -> None:
    """Rows of about ``tokens`` tokens, a third of them prompt, of a ``kind`` of lengths: alike between 70% and 100%,
    skewed, or alike but for a long one in a hundred (outlier)."""
    at, rows, rng = 0, [], random.Random(0)
    for n in range(count):
        size = max(8, int(tokens * WORDS_A_TOKEN * length_of(kind, n, rng)))
        shown = max(3, size // 3)
        at = (at + size) % (len(words) - 2 * size)
        row = {"prompt": " ".join(words[at : at + shown]), "completion": " ".join(words[at + shown : at + size])}
        if pairs:
            other = " ".join(words[at + size : at + 2 * size - shown])
            row = {"prompt": row["prompt"], "chosen": row["completion"], "rejected": other}
        rows.append(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make(spec: dict[str, Any]) -> dict[str, Any]:
    """The model without its weights, and the rows; the recipe that names them."""
    work = Path(spec["work"])
    work.mkdir(parents=True, exist_ok=True)
    model = work / "models" / spec["shape"]
    if spec["config"]:
        make_folder(model, spec["config"])
    shown = {"train": spec["count"], "test": 4}
    for role, count in shown.items():
        path, text = work / f"{spec['name']}-{role}.jsonl", words(Path(spec["shared"]))
        make_rows(path, text, count=count, tokens=spec["length"], pairs=spec["pairs"], kind=spec["kind"])
    files = {role: str(work / f"{spec['name']}-{role}.jsonl") for role in shown}
    own = {"model": str(model) if spec["config"] else spec["shape"], "data": files | {"split": {"dev": spec["dev"]}}}
    return {"recipe": spec["recipe"] | own}


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    from tunesmith.core.recipe import Recipe
    from tunesmith.core.report import Report
    from tunesmith.flows.finetune import finetune

    work = Path(spec["work"])
    recipe = Recipe.parse(spec["recipe"], spec["name"])
    if spec["config"]:
        make_weights(Path(recipe.model))
    run = finetune(recipe, workspace=work)
    folder = Path(run.folder)
    report = Report.load(folder / "report.json")
    return {
        "peak": report.fit.peak_bytes,
        "what": report.fit.peak_of,
        "step_seconds": report.fit.step_seconds,
        "steps": report.fit.steps,
        "plan": report.plan.model_dump(mode="json", exclude={"reasons"}),
        "tokens": report.fit.curve[-1].tokens,
    }


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    found = make(wanted) if wanted["do"] == "make" else measure(wanted)
    Path(wanted["out"]).write_text(json.dumps(found), encoding="utf-8")
