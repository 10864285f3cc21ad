"""LoKr (Yeh et al., 2024): an update that is a Kronecker product, one factor of low rank; by PEFT."""

from tunesmith.models.adapters._peft import method

PART = method(
    "lokr",
    lambda peft, recipe, names, seed: peft.LoKrConfig(
        r=recipe.rank, alpha=recipe.alpha or 2 * recipe.rank, target_modules=names
    ),
    reads=("rank", "alpha", "target_modules"),
)
