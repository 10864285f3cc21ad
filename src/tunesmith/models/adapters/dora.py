"""DoRA (Liu et al., 2024): LoRA for the direction of each row of a weight matrix, and a trained length beside it."""

from tunesmith.models.adapters.lora import family

PART = family("dora", magnitude=True)
