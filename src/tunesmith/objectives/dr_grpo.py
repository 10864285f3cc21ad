"""GRPO without its two divisions, by the group's spread and by an answer's length (Liu et al., 2025, arXiv 2503.20783);
see ``grpo``."""

from tunesmith.objectives.grpo import LENGTH, family

PART = family("dr_grpo", a_token=lambda _: 1 / LENGTH)
