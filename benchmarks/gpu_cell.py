"""One measured cell of gpu.py: a side, a shape and a method, in a process of its own.

    python benchmarks/gpu_cell.py SPEC.json OUT.json     started by gpu.py; SPEC is what ``Spec`` holds

Notable: every side trains the same random network on the same rows of one length, all of whose tokens are trained, so
that there is no pad and no data to wait for on either side; only optimiser steps are timed, each between two waits for
the device. What does not fit, and what is not installed, is a result with its reason, not a crash. A peer is imported
in its own branch alone.
"""

import gc
import importlib.util
import json
import platform
import random
import resource
import sys
import time
from dataclasses import asdict, dataclass, replace
from importlib import metadata, resources
from itertools import pairwise
from pathlib import Path
from typing import Any

Result = dict[str, Any]
RANK, ALPHA, RATE = 16, 32, 1e-4
PACKAGES = (
    "torch",
    "transformers",
    "tunesmith",
    "trl",
    "peft",
    "accelerate",
    "liger-kernel",
    "unsloth",
    "bitsandbytes",
)
OUT_OF_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


@dataclass(frozen=True)
class Spec:
    """``shape`` is a config for transformers. ``rows`` of ``length`` tokens make an optimiser step, ``micro`` of them
    are on the device at once; ``warmup`` steps come before the ``steps`` that count. ``weights`` is the folder where
    sides that load from disk find the network."""

    side: str
    method: str
    shape: dict[str, Any]
    length: int
    rows: int
    micro: int
    steps: int
    warmup: int
    device: str
    weights: str


@dataclass(frozen=True)
class Peer:
    """How a peer is set up. ``float32`` weights under bf16 autocast keep float32 moments in full fine-tuning, as ours
    do; bf16 weights have bf16 moments, which take less memory and lose small updates."""

    checkpointing: bool = False
    liger: bool = False
    float32: bool = False
    unsloth: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        liger = ("liger_kernel",) if self.liger else ()
        return ("unsloth", "trl") if self.unsloth else ("trl", "peft", "accelerate", "datasets", *liger)


PEERS = {
    "trl": Peer(),
    "trl_checkpointing": Peer(checkpointing=True),  # as SFTTrainer comes
    "trl_float32": Peer(float32=True),
    "trl_liger": Peer(liger=True),
    "trl_liger_float32": Peer(liger=True, float32=True),
    "unsloth": Peer(unsloth=True),
}


# -- what all sides share ----------------------------------------------------------------------------------------------


def ids(spec: Spec) -> list[list[int]]:
    """The rows of all steps, drawn by a fixed seed, in the order in which TRL is given them."""
    rng = random.Random(0)
    vocabulary = spec.shape["vocab_size"]
    count = (spec.warmup + spec.steps) * spec.rows
    return [[rng.randrange(vocabulary) for _ in range(spec.length)] for _ in range(count)]


def network(spec: Spec, *, float32: bool = False) -> Any:
    """The random network, made on the device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**spec.shape)
    torch.manual_seed(0)
    with torch.device(spec.device):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32 if float32 else torch.bfloat16)


def tokenizer() -> Any:
    """Some tokenizer: trainers ask for one, and the rows are ids already."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(resources.files("tunesmith") / "assets" / "base"))


def on_disk(spec: Spec) -> str:
    """The folder of the network's weights, written when it is not there."""
    folder = Path(spec.weights)
    if not (folder / "done").is_file():
        made = network(spec)
        made.save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        (folder / "done").touch()
        del made
        gc.collect()
        _cuda("empty_cache")
    return str(folder)


def matrix_weights(model: Any) -> int:
    """Weights that meet each token in a matrix product: all linear layers, the output head with them."""
    from torch import nn

    return sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))


def _cuda(name: str) -> Any:
    import torch

    return getattr(torch.cuda, name)() if torch.cuda.is_available() else None


class Clock:
    """The end of each optimiser step, after the device is done."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.marks: list[float] = []
        self.losses: list[float] = []

    def start(self) -> None:
        _cuda("synchronize")
        _cuda("reset_peak_memory_stats")
        self.began = time.perf_counter()

    def step(self, loss: float | None = None) -> None:
        _cuda("synchronize")
        self.marks.append(time.perf_counter())
        self.losses += [] if loss is None else [loss]

    def told(self, spec: Spec) -> Result:
        ends = [self.began, *self.marks]
        seconds = [b - a for a, b in pairwise(ends)]
        if len(seconds) != spec.warmup + spec.steps:
            raise RuntimeError(f"{len(seconds)} steps were taken; expected {spec.warmup + spec.steps}")
        return {"first_step_seconds": seconds[0], "step_seconds": seconds[spec.warmup :], "losses": self.losses}


def peak_memory() -> dict[str, int]:
    """Bytes: what tensors took of the device and what PyTorch held of it; without a device the process's own."""
    import torch

    if torch.cuda.is_available():
        return {"peak_allocated": torch.cuda.max_memory_allocated(), "peak_reserved": torch.cuda.max_memory_reserved()}
    unit = 1 if sys.platform == "darwin" else 1024
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"peak_allocated": held, "peak_reserved": held}


# -- Tunesmith ---------------------------------------------------------------------------------------------------------


def tunesmith(spec: Spec) -> Result:
    from tunesmith.core import parts
    from tunesmith.core.batch import TokenRow
    from tunesmith.core.card import ModelCard
    from tunesmith.core.plan import Plan
    from tunesmith.core.recipe import MethodRecipe
    from tunesmith.data.batches import Steps
    from tunesmith.flows.training import compile_layers
    from tunesmith.models import load as loading
    from tunesmith.models.model import Model
    from tunesmith.plan.here import has_bitsandbytes
    from tunesmith.train.loop import Hooks, fit
    from tunesmith.train.optimiser import adamw, adamw_8bit

    made, shape = network(replace(spec, device="meta")), spec.shape  # to be counted
    facts = {"parameters": sum(p.numel() for p in made.parameters()), "matrix_weights": matrix_weights(made)}
    card = ModelCard(
        name=shape["model_type"],
        path="",
        kind="decoder",
        architecture=type(made).__name__,
        parameters=facts["parameters"],
        layers=shape["num_hidden_layers"],
        width=shape["hidden_size"],
        vocabulary=shape["vocab_size"],
        context=shape["max_position_embeddings"],
        fingerprint="random",
        tokenizer_hash="",
        template_hash="",
    )
    if spec.method == "qlora":
        model = loading.load(on_disk(spec), precision="bfloat16", device=spec.device, four_bits=True)
    else:
        model = Model(network(spec), tokenizer(), card, precision="bfloat16")
    method = (
        MethodRecipe(name="full") if spec.method == "full" else MethodRecipe(name=spec.method, rank=RANK, alpha=ALPHA)
    )
    parts.find("models.adapters", spec.method).attach(model, method, 0)
    rows = [TokenRow(tuple(row), (1.0,) * spec.length, -1, f"row {i}") for i, row in enumerate(ids(spec))]
    source = Steps(rows, batch_tokens=spec.rows * spec.length, micro_tokens=spec.micro * spec.length, pad_id=0, seed=0)
    total, least = spec.warmup + spec.steps, spec.side == "tunesmith_least"
    plan = Plan(
        learning_rate=RATE,
        epochs=1.0,
        steps=total,
        warmup_steps=0,
        batch_tokens=spec.rows * spec.length,
        micro_tokens=spec.micro * spec.length,
        eval_every=total + 1,
        patience=1,
        weight_decay=0.0,
        clip_norm=1.0,
        precision="bfloat16",
        memory="least" if least else "fast",
        moments="int8" if least and has_bitsandbytes() else "float32",
        max_length=spec.length,
        seconds=None,
        seed=0,
        reasons={},
    )
    objective, clock = parts.find("objectives", "sft"), Clock()
    if least:
        model.recompute(1)
    if spec.side == "tunesmith_compiled" and (why := compile_layers(model, objective, next(source(0))[0])):
        raise RuntimeError(f"the layers could not be compiled: {why}")
    make = adamw_8bit if plan.moments == "int8" else adamw
    clock.start()
    fit(model, objective, source, plan, Hooks(on_step=lambda point, *_: clock.step(point.loss), make_optimisers=make))
    return facts | clock.told(spec) | {"packs": model.packs}


# -- peers -------------------------------------------------------------------------------------------------------------


def absent(peer: Peer, method: str) -> str | None:
    """Why a peer cannot run here, or None."""
    wanted = (*peer.needs, *(("bitsandbytes",) if method == "qlora" else ()))
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def peer_network(spec: Spec, peer: Peer) -> tuple[Any, Any, Any]:
    """(model, tokenizer, PEFT's configuration or None) as the peer's documentation has them set up."""
    if peer.unsloth:
        return _unsloth(spec)
    import torch
    from peft import LoraConfig

    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    if spec.method == "qlora":
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

        bits = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
        made = AutoModelForCausalLM.from_pretrained(
            on_disk(spec), quantization_config=bits, dtype=torch.bfloat16, device_map={"": spec.device}
        )
        return made, tokenizer(), lora
    return network(spec, float32=peer.float32), tokenizer(), None if spec.method == "full" else lora


def _unsloth(spec: Spec) -> tuple[Any, Any, None]:
    from unsloth import FastLanguageModel

    made, words = FastLanguageModel.from_pretrained(
        on_disk(spec),
        max_seq_length=spec.length,
        load_in_4bit=spec.method == "qlora",
        full_finetuning=spec.method == "full",
    )
    if spec.method != "full":
        names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        made = FastLanguageModel.get_peft_model(
            made, r=RANK, lora_alpha=ALPHA, lora_dropout=0, target_modules=names, use_gradient_checkpointing=False
        )
    return made, words, None


def trained_by_trl(spec: Spec, peer: Peer) -> Result:
    """TRL's SFTTrainer, and Unsloth's, which replaces it when it is imported."""
    made, words, lora = peer_network(spec, peer)  # Unsloth comes before trl and transformers
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    clock = Clock()

    class Timer(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.start()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step()

    config = SFTConfig(
        output_dir=str(Path(spec.weights).parent / "trl"),
        max_length=spec.length,
        per_device_train_batch_size=spec.micro,
        gradient_accumulation_steps=spec.rows // spec.micro,
        max_steps=spec.warmup + spec.steps,
        learning_rate=RATE,
        lr_scheduler_type="cosine",
        max_grad_norm=1.0,
        weight_decay=0.0,
        bf16=True,
        gradient_checkpointing=peer.checkpointing,
        use_liger_kernel=peer.liger,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
        use_cpu=spec.device == "cpu",
    )
    rows = Dataset.from_dict({"input_ids": ids(spec)})
    trainer = SFTTrainer(
        model=made, args=config, train_dataset=rows, processing_class=words, peft_config=lora, callbacks=[Timer()]
    )
    trainer.train()
    clock.losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return clock.told(spec)


# -- the process -------------------------------------------------------------------------------------------------------


def ceiling(spec: Spec) -> Result:
    """Matrix products alone: what bf16 reaches here on squares, in FLOP/s, the best of five."""
    import torch

    size = 8192 if spec.device == "cuda" else 512
    a = torch.randn(size, size, device=spec.device, dtype=torch.bfloat16)
    best = 0.0
    for _ in range(6):  # the first chooses a kernel
        _cuda("synchronize")
        began = time.perf_counter()
        for _ in range(10):
            a @ a
        _cuda("synchronize")
        best = max(best, 10 * 2 * size**3 / (time.perf_counter() - began))
    return {"flops_per_second": best}


def run(spec: Spec) -> Result:
    if spec.side == "ceiling":
        return ceiling(spec)
    if spec.side.startswith("tunesmith"):
        return tunesmith(spec)
    peer = PEERS[spec.side]
    reason = absent(peer, spec.method)
    return {"skipped": reason} if reason else trained_by_trl(spec, peer)


def machine() -> dict[str, Any]:
    import torch

    on = torch.cuda.is_available()
    total = torch.cuda.get_device_properties(0).total_memory if on else 0
    return {"device": torch.cuda.get_device_name(0) if on else platform.processor() or "CPU", "device_bytes": total}


def versions() -> dict[str, str]:
    found = {d.metadata["Name"].lower(): d.version for d in metadata.distributions() if d.metadata["Name"]}
    return {"python": platform.python_version()} | {name: found[name] for name in PACKAGES if name in found}


def main() -> int:
    source, out = map(Path, sys.argv[1:3])
    spec = Spec(**json.loads(source.read_text(encoding="utf-8")))
    try:
        found = run(spec)
        found |= peak_memory() if "step_seconds" in found else {}
    except (RuntimeError, MemoryError) as error:  # PyTorch's OutOfMemoryError is a RuntimeError
        if not any(sign in str(error) for sign in OUT_OF_MEMORY):
            raise
        found = {"out_of_memory": " ".join(str(error).split())[:300]}
    out.write_text(json.dumps({"spec": asdict(spec), "versions": versions(), **machine(), **found}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
