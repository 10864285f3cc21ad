"""rsLoRA (Kalajdzievski, 2023): LoRA scaled by ``alpha / sqrt(rank)``, so that high ranks learn as fast as low ones."""

from tunesmith.models.adapters.lora import family

PART = family("rslora", root=True)
