"""TRL's side, in a process of its own: ``SFTTrainer`` as its users call it, on a path, a dataset and an ``SFTConfig``.

Notable: what differs from TRL's defaults is named in ``trl_common`` and in ``settings``, and no more. Where an adapter
is given, PEFT's A and B are set to it after the trainer made them, so that both sides start from the same weights. With
four bits TRL makes A and B bf16 and has no setting for it; ``cast`` makes them float32 again before training.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

from peers import trl_common
from peers.common import Clock, digest, write
from peers.watch import Watch


def settings(spec: dict[str, Any], chats: bool) -> SFTConfig:
    packing = spec["packing"]
    micro = 1 if packing else spec["micro_rows"]
    return SFTConfig(
        **trl_common.settings(spec),
        packing=packing,
        max_length=spec["pack_tokens"] if packing else spec["max_length"],
        assistant_only_loss=chats,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=1 if packing else spec["rows_per_step"] // micro,
    )


def main(spec: dict[str, Any]) -> None:
    rows = [json.loads(line) for line in Path(spec["rows"]).read_text(encoding="utf-8").splitlines()]
    rows = rows[: spec["steps"] * spec["rows_per_step"]]
    chats = "messages" in rows[0]
    if not chats:
        rows = [{"input_ids": r["ids"], "labels": masked(r)} for r in rows]
    lora, four_bits = spec["method"] != "full", spec["method"] == "qlora"
    clock = Clock(spec)
    trainer = SFTTrainer(
        model=spec["model"],
        args=settings(spec, chats),
        train_dataset=Dataset.from_list(rows),
        peft_config=trl_common.adapter(spec) if lora else None,
        quantization_config=nf4(spec["weights"]) if four_bits else None,
        callbacks=[Watch(clock)],
    )
    if lora:
        trl_common.start_equal(trainer, spec)
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
        detail=trl_common.described(trainer.model),
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
