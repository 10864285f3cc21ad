"""REINFORCE with the mean of the other answers as the baseline (Ahmadian et al., 2024, arXiv 2402.14740); see
``grpo``."""

from tunesmith.objectives.grpo import family

PART = family("rloo", others=True)
