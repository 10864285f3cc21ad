"""OFT (Qiu et al., 2023): each weight matrix is turned by a block-diagonal rotation; ``method.rank`` is the size of
the blocks; by PEFT.

Notable: BOFT (Liu et al., 2023), the same in butterfly form, is not offered: PEFT compiles a CUDA extension for it and
falls back to OFT where that fails, as on every processor.
"""

from tunesmith.models.adapters._peft import method

PART = method(
    "oft",
    lambda peft, recipe, names, seed: peft.OFTConfig(
        oft_block_size=recipe.rank, target_modules=names, module_dropout=recipe.dropout
    ),
    reads=("rank", "dropout", "target_modules"),
)
