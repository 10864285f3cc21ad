"""LoKr (Yeh et al., 2024): an update that is a Kronecker product, one factor of low rank; by PEFT."""

from tunesmith.models.adapters._peft import method


def a_layer(outputs: int, inputs: int, rank: int) -> int:
    """A whole small factor, and a large one of low rank where that is smaller; sizes are divisors near the root.

    >>> a_layer(64, 32, 4)
    96
    """
    (small_o, large_o), (small_i, large_i) = _near_root(outputs), _near_root(inputs)
    whole = rank >= max(large_o, large_i) / 2
    return small_o * small_i + (large_o * large_i if whole else rank * (large_o + large_i))


def _near_root(size: int) -> tuple[int, int]:
    small = next(n for n in range(int(size**0.5), 0, -1) if size % n == 0)
    return small, size // small


PART = method(
    "lokr",
    lambda peft, recipe, names, seed: peft.LoKrConfig(
        r=recipe.rank, alpha=recipe.alpha or 2 * recipe.rank, target_modules=names
    ),
    a_layer,
    reads=("rank", "alpha", "target_modules"),
)
