"""Named streams: one seed a run, a stream for each consumer."""

import random

import torch

from tunesmith.core import seeds

FIXED = [3769940940748469125, 3515789219046195282, 929583480629082613]


def test_streams_are_fixed_over_releases() -> None:
    """A changed stream would change every run that is repeated from its recipe."""
    assert [seeds.stream(0, "split"), seeds.stream(0, "adapter"), seeds.stream(7, "order/3")] == FIXED


def test_names_and_seeds_give_different_streams() -> None:
    names = ("split", "adapter", "dropout", "order/0", "order/1", "row/11")
    assert len({seeds.stream(seed, name) for seed in range(20) for name in names}) == 120
    assert seeds.stream(1, "1/x") != seeds.stream(11, "/x")


def test_a_stream_seeds_every_generator_in_use() -> None:
    for seed in (0, 1, 2**31, 2**62):
        value = seeds.stream(seed, "x")
        assert 0 <= value < 2**63
        torch.Generator().manual_seed(value)
        random.Random(value)
