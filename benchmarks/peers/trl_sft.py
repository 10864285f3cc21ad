"""TRL's side, in a process of its own: ``SFTTrainer`` as its users call it, on a path, a dataset and an ``SFTConfig``.

Notable: what differs from TRL's defaults is named in ``settings`` and no more: the order of rows (both sides take the
same), the shared learning rate, a log each step (for the losses), nothing saved, nothing reported. Where an adapter is
given, PEFT's A and B are set to it after the trainer made them, so that both sides start from the same weights. With
four bits TRL makes A and B bf16 and has no setting for it; ``cast`` makes them float32 again before training.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

from peers.common import Clock, digest, write
from peers.watch import Watch


def settings(spec: dict[str, Any], chats: bool) -> SFTConfig:
    packing = spec["packing"]
    micro = 1 if packing else spec["micro_rows"]
    return SFTConfig(
        output_dir=spec["out"] + ".trainer",
        model_init_kwargs={"dtype": spec["weights"]},
        bf16=spec["autocast"],
        gradient_checkpointing=spec["checkpointing"],
        packing=packing,
        max_length=spec["pack_tokens"] if packing else spec["max_length"],
        assistant_only_loss=chats,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=1 if packing else spec["rows_per_step"] // micro,
        max_steps=spec["steps"],
        train_sampling_strategy="sequential",
        learning_rate=spec["learning_rate"],
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )


def main(spec: dict[str, Any]) -> None:
    rows = [json.loads(line) for line in Path(spec["rows"]).read_text(encoding="utf-8").splitlines()]
    rows = rows[: spec["steps"] * spec["rows_per_step"]]
    chats = "messages" in rows[0]
    if not chats:
        rows = [{"input_ids": r["ids"], "labels": masked(r)} for r in rows]
    lora, four_bits = spec["method"] != "full", spec["method"] == "qlora"
    wanted = LoraConfig(
        r=spec["rank"],
        lora_alpha=2 * spec["rank"],
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    clock = Clock(spec)
    trainer = SFTTrainer(
        model=spec["model"],
        args=settings(spec, chats),
        train_dataset=Dataset.from_list(rows),
        peft_config=wanted if lora else None,
        quantization_config=nf4(spec["weights"]) if four_bits else None,
        callbacks=[Watch(clock)],
    )
    if lora:
        tensors = load_file(Path(spec["adapter"]) / "adapter_model.safetensors")
        told: Any = set_peft_model_state_dict(trainer.model, tensors)
        assert not told.unexpected_keys, told.unexpected_keys
    if four_bits and spec["cast"]:
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    trainer.train()
    held = trainer.train_dataset[:]
    ids, trained = held["input_ids"], [[x != -100 for x in row] for row in held["labels"]]
    step = 1 if spec["packing"] else spec["rows_per_step"]
    if len(ids) < spec["steps"] * step:  # the trainer would begin again with the first
        raise ValueError(f"There are {len(ids)} rows or packs, too few for {spec['steps']} steps of {step}.")
    groups = [slice(i, i + step) for i in range(0, spec["steps"] * step, step)]
    write(
        spec,
        clock,
        tokens=[sum(map(len, ids[g])) for g in groups],
        trained=[sum(map(sum, trained[g])) for g in groups],
        rows=[sum(map(len, held["seq_lengths"][g])) if spec["packing"] else len(ids[g]) for g in groups],
        digest=None if spec["packing"] else digest(ids, trained),
        detail={
            "trained_weights": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
            "types": sorted({str(p.dtype) for p in trainer.model.parameters()}),
            "attention": trainer.model.config._attn_implementation,
            "threads": torch.get_num_threads(),
        },
    )


def nf4(compute: str) -> BitsAndBytesConfig:
    """Four bits with double quantisation, made dense in the type ``compute``."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, compute),
    )


def masked(row: dict[str, Any]) -> list[int]:
    return [i if w else -100 for i, w in zip(row["ids"], row["weight"], strict=True)]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
