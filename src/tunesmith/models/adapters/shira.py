"""SHiRA (Bhardwaj et al., 2024): a random few of each matrix's weights, as many as LoRA of ``method.rank`` has; by
PEFT."""

from tunesmith.models.adapters._peft import method

PART = method(
    "shira",
    lambda peft, recipe, names, seed: peft.ShiraConfig(r=recipe.rank, target_modules=names, random_seed=seed % 2**31),
    reads=("rank", "target_modules"),
)
