"""GRPO in which every token counts alike, the ratio is clipped higher than lower, and no reference holds it back (Yu et
al., 2025, arXiv 2503.14476); see ``grpo``.

Notable: of the paper's dynamic sampling this has the half that costs nothing: prompts whose answers are all worth the
same take part with no advantage, and a step of such prompts alone is left out; no others are drawn in their place.
"""

from dataclasses import replace
from functools import partial

from tunesmith.objectives import _policy
from tunesmith.objectives.grpo import family

_ALIKE = family("dapo", spread=True, a_token=lambda _: 1.0, weight=_policy.tokens)
PART = replace(_ALIKE, loss=partial(_ALIKE.loss, clip_high=0.28, beta=0.0))
