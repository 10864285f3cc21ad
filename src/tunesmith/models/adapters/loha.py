"""LoHa (Hyeon-Woo et al., 2022): an update that is the elementwise product of two of low rank; by PEFT."""

from tunesmith.models.adapters._peft import method

PART = method(
    "loha",
    lambda peft, recipe, names, seed: peft.LoHaConfig(
        r=recipe.rank, alpha=recipe.alpha or 2 * recipe.rank, target_modules=names
    ),
    reads=("rank", "alpha", "target_modules"),
)
