"""VeRA (Kopiczko et al., 2024): shared random projections of ``method.rank``, trained scales; by PEFT."""

from tunesmith.models.adapters._peft import method

PART = method(
    "vera",
    lambda peft, recipe, names, seed: peft.VeraConfig(
        r=recipe.rank, target_modules=names, vera_dropout=recipe.dropout, projection_prng_key=seed % 2**31
    ),
    reads=("rank", "dropout", "target_modules"),
)
