"""QLoRA (Dettmers et al., 2023): LoRA on a base that is held in four bits (NF4, scales quantised too), by
bitsandbytes."""

from tunesmith.models.adapters.lora import family

PART = family("qlora")
