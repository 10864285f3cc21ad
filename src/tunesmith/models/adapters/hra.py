"""HRA (Yuan et al., 2024): each weight matrix is reflected ``method.rank`` times (Householder); by PEFT."""

from tunesmith.models.adapters._peft import method

PART = method(
    "hra",
    lambda peft, recipe, names, seed: peft.HRAConfig(r=recipe.rank, target_modules=names),
    lambda outputs, inputs, rank: rank * inputs,
    reads=("rank", "target_modules"),
    rank_is="rank",
)
