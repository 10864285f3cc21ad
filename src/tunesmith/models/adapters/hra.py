"""HRA (Yuan et al., 2024): each weight matrix is reflected ``method.rank`` times (Householder); by PEFT."""

from tunesmith.models.adapters._peft import method

PART = method(
    "hra",
    lambda peft, recipe, names, seed: peft.HRAConfig(r=recipe.rank, target_modules=names),
    reads=("rank", "target_modules"),
)
