"""A proof says no for each thing that can be wrong, and for numbers that are none."""

import math
from typing import Any

import pytest

from tunesmith.core.export import Proof

GOOD: dict[str, Any] = {
    "format": "merged",
    "weights": "float32",
    "questions": 8,
    "positions": 80,
    "same_ids": 8,
    "difference": 1e-6,
    "largest_difference": 1e-3,
    "kl": 1e-9,
    "largest_kl": 1e-2,
    "same_answers": 7,
    "ties": 1,
}


def test_a_good_proof_has_no_faults_and_tells_its_numbers() -> None:
    proof = Proof(**GOOD)
    assert proof.faults == ()
    assert "8 held-out prompts: ids equal in 8, greedy answers in 7 and 1 part at a tie" in proof.sentence
    assert "over 80 positions" in proof.sentence


@pytest.mark.parametrize(("change", "words"), [
    ({"same_ids": 7}, "1 of 8 prompts get other token ids"),
    ({"difference": 2e-3}, "logits differ by 0.002 of the largest, above 0.001"),
    ({"difference": math.nan}, "logits differ by nan"),
    ({"kl": 0.5}, "KL is 0.5 nats a token over 80 positions, above 0.01"),
    ({"kl": math.nan}, "KL is nan"),
    ({"same_answers": 6}, "1 of 8 greedy answers differ by more than a tie"),
])  # fmt: skip
def test_each_fault_is_told(change: dict[str, Any], words: str) -> None:
    (fault,) = Proof(**{**GOOD, **change}).faults
    assert words in fault


def test_what_was_not_asked_is_not_verified() -> None:
    assert Proof(format="gguf", weights="f16", unproven="no reader").sentence == "not verified: no reader"
