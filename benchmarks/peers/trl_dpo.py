"""TRL's side of preference learning, in a process of its own: ``DPOTrainer`` as its users call it.

Notable: with a PEFT adapter TRL's reference is the same model with the adapter off, run in each step, or before the
first (``precompute``); that time counts, spread over the steps. What differs from TRL's defaults is named in
``trl_common`` and ``settings`` and no more.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from peers import trl_common
from peers.common import Clock, digest, write
from peers.watch import Watch


def settings(spec: dict[str, Any]) -> DPOConfig:
    micro = spec["micro_rows"]
    return DPOConfig(
        **trl_common.settings(spec),
        precompute_ref_log_probs=spec["precompute"],
        precompute_ref_batch_size=micro if spec["precompute"] else None,
        max_length=spec["max_length"],
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=spec["rows_per_step"] // micro,
    )


class Timed(DPOTrainer):  # type: ignore[misc]
    """Tells how long its constructor takes for the reference, which is part of the work."""

    reference_seconds = 0.0

    def _precompute_ref_logps(self, *args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        found = super()._precompute_ref_logps(*args, **options)
        self.reference_seconds += time.perf_counter() - began
        return found


def main(spec: dict[str, Any]) -> None:
    rows = [json.loads(line) for line in Path(spec["rows"]).read_text(encoding="utf-8").splitlines()]
    clock = Clock(spec)
    trainer: Any = Timed(
        model=spec["model"],
        args=settings(spec),
        train_dataset=Dataset.from_list(rows),
        peft_config=trl_common.adapter(spec),
        callbacks=[Watch(clock)],
    )
    trl_common.start_equal(trainer, spec)
    trainer.train()
    held = trainer.train_dataset[:]
    prompts = held["prompt_ids"]
    ids = [p + held[name][i] for i, p in enumerate(prompts) for name in ("chosen_ids", "rejected_ids")]
    trained = [
        [False] * len(p) + [True] * len(held[name][i])
        for i, p in enumerate(prompts)
        for name in ("chosen_ids", "rejected_ids")
    ]
    write(
        spec,
        clock,
        rows=[spec["rows_per_step"]] * spec["steps"],
        reference_seconds=trainer.reference_seconds,
        digest=digest(ids, trained),
        detail=trl_common.described(trainer.model),
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
