"""transformers' side of the encoder, in a process of its own: ``Trainer`` on a sequence classifier at its best.

Notable: rows of like length stand together and are padded to the longest of their batch; the rows are tokenised before
the clock starts, as ours are. Rows a step, learning rate, schedule and weight decay are those of our side. With
gradient accumulation this trainer sums the mean losses of a classifier's micro-batches instead of averaging them, for
the model takes loss arguments and ignores them; Adam takes the scale out of the steps, and the losses told are divided.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from peers.common import Clock, write
from peers.watch import Watch


def settings(spec: dict[str, Any]) -> TrainingArguments:
    return TrainingArguments(
        output_dir=spec["out"] + ".trainer",
        per_device_train_batch_size=spec["micro_rows"],
        per_device_eval_batch_size=64,
        gradient_accumulation_steps=spec["rows_per_step"] // spec["micro_rows"],
        num_train_epochs=1,
        max_steps=spec["steps"] or -1,
        train_sampling_strategy="group_by_length",
        learning_rate=spec["learning_rate"],
        lr_scheduler_type="cosine",
        warmup_steps=spec["warmup"],
        weight_decay=0.01,
        bf16=spec["autocast"],
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )


def labelled(path: Path, tokenizer: Any, labels: list[str]) -> Dataset:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    encoded = tokenizer([row["text"] for row in rows], truncation=True)
    return Dataset.from_dict({**encoded, "labels": [labels.index(row["label"]) for row in rows]})


def main(spec: dict[str, Any]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    train = labelled(Path(spec["rows"]), tokenizer, spec["labels"])
    clock = Clock(spec)
    trainer = Trainer(
        model=AutoModelForSequenceClassification.from_pretrained(spec["model"], num_labels=len(spec["labels"])),
        args=settings(spec),
        train_dataset=train,
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        callbacks=[Watch(clock)],
    )
    trainer.train()
    accumulated = spec["rows_per_step"] // spec["micro_rows"]
    clock.losses = [loss / accumulated for loss in clock.losses]  # see above
    size, steps = spec["rows_per_step"], len(clock.marks) - 1
    accuracy = None
    if spec["test"]:
        found: Any = trainer.predict(labelled(Path(spec["test"]), tokenizer, spec["labels"]))
        accuracy = float((found.predictions.argmax(-1) == found.label_ids).mean())
    write(
        spec,
        clock,
        rows=[min(size, len(train) - i * size) for i in range(steps)],
        accuracy=accuracy,
        detail={"micro_rows": spec["micro_rows"], "threads": torch.get_num_threads()},
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
