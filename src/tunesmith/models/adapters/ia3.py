"""IA3 (Liu et al., 2022): one trained factor for each output of the adapted layers; by PEFT."""

from tunesmith.models.adapters._peft import method

PART = method(
    "ia3",
    lambda peft, recipe, names, seed: peft.IA3Config(target_modules=names, feedforward_modules=[]),
)
