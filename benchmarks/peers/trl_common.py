"""What TRL's side is given in every comparison: trainer settings, the adapter, and the weights that it starts from."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, set_peft_model_state_dict
from safetensors.torch import load_file


def settings(spec: dict[str, Any]) -> dict[str, Any]:
    """What both of TRL's trainers are given: the order of rows, the shared learning rate, a log each step (for the
    losses), nothing saved, nothing reported."""
    return {
        "output_dir": spec["out"] + ".trainer",
        "model_init_kwargs": {"dtype": spec["weights"]},
        "bf16": spec["autocast"],
        "gradient_checkpointing": spec["checkpointing"],
        "max_steps": spec["steps"],
        "train_sampling_strategy": "sequential",
        "learning_rate": spec["learning_rate"],
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
    }


def adapter(spec: dict[str, Any]) -> LoraConfig:
    """The adapter on all linear layers, as ours has it."""
    return LoraConfig(
        r=spec["rank"],
        lora_alpha=2 * spec["rank"],
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def start_equal(trainer: Any, spec: dict[str, Any]) -> None:
    """Set A and B to what ours start from."""
    tensors = load_file(Path(spec["adapter"]) / "adapter_model.safetensors")
    told: Any = set_peft_model_state_dict(trainer.model, tensors)
    assert not told.unexpected_keys, told.unexpected_keys


def described(model: Any) -> dict[str, Any]:
    """What a trainer made of its model, for the results."""
    return {
        "trained_weights": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "types": sorted({str(p.dtype) for p in model.parameters()}),
        "attention": model.config._attn_implementation,
        "threads": torch.get_num_threads(),
    }
