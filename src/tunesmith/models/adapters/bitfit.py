"""BitFit (Ben Zaken et al., 2022): biases and norms alone; the result is a plain transformers folder.

Notable: norms are trained beside biases, for many decoders have no bias at all.
"""

from tunesmith.models.adapters import full
from tunesmith.plan.targets import vectors

PART = full.method("bitfit", vectors)
