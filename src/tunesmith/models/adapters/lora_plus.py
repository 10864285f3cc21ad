"""LoRA+ (Hayou et al., 2024): B learns ``method.b_rate`` times as fast as A.

Notable: the training's learning rate is the geometric mean of the two, so that one rate suits LoRA and LoRA+.
"""

from tunesmith.models.adapters.lora import family

PART = family("lora_plus", two_rates=True)
