"""FourierFT (Gao et al., 2024): some Fourier coefficients of each update, ``method.rank`` times 64; by PEFT."""

from tunesmith.models.adapters._peft import method

PART = method(
    "fourierft",
    lambda peft, recipe, names, seed: peft.FourierFTConfig(
        n_frequency=64 * recipe.rank, target_modules=names, random_loc_seed=seed % 2**31, init_weights=True
    ),
    reads=("rank", "target_modules"),
)
