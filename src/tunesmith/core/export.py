"""What an export is asked, and what its answers prove. Every number carries its n."""

from typing import Any

from tunesmith.core.example import Message
from tunesmith.core.noun import Noun


class Question(Noun):
    """A held-out prompt that a run keeps so that its exports can be proven: turns, or a text."""

    messages: tuple[Message, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    text: str | None = None


class Proof(Noun):
    """The trained model and its export, asked the same.

    ``difference`` is the largest between their logits (log-probabilities of the classes where there is a head), in
    parts of the largest logit; ``kl`` is the mean of KL(trained, exported) over ``positions``, in nats.
    ``same_answers`` counts greedy texts (or classes) that are equal, ``ties`` those that part where the trained model's
    two best tokens lie within twice the difference at that place. ``others`` are KLs of the ways to merge an adapter
    that was trained on four bits. ``unproven`` says why the export was not asked; the numbers are then 0.
    """

    format: str
    weights: str
    questions: int = 0
    positions: int = 0
    same_ids: int = 0
    difference: float = 0.0
    largest_difference: float = 0.0
    kl: float = 0.0
    largest_kl: float = 0.0
    same_answers: int = 0
    ties: int = 0
    others: dict[str, float] = {}
    unproven: str = ""

    @property
    def faults(self) -> tuple[str, ...]:
        """Why it must not be used; empty where the proof holds, or where there is none."""
        parted = self.questions - self.same_answers - self.ties
        checks = (
            (self.same_ids < self.questions, f"{self.questions - self.same_ids} of {self.questions} prompts get other "
             "token ids"),
            (not self.difference <= self.largest_difference, f"logits differ by {self.difference:.2g} of the largest, "
             f"above {self.largest_difference:.2g}"),
            (not self.kl <= self.largest_kl, f"KL is {self.kl:.2g} nats a token over {self.positions} positions, above "
             f"{self.largest_kl:.2g}"),
            (parted > 0, f"{parted} of {self.questions} greedy answers differ by more than a tie within rounding"),
        )  # fmt: skip
        return tuple(words for broken, words in checks if broken)

    @property
    def sentence(self) -> str:
        """The proof in words, with its rule."""
        if self.unproven:
            return f"not verified: {self.unproven}"
        tied = f" and {self.ties} part at a tie within rounding" if self.ties else ""
        return (
            f"{self.questions} held-out prompts: ids equal in {self.same_ids}, greedy answers in {self.same_answers}"
            f"{tied}; over {self.positions} positions logits differ by at most {self.difference:.1e} of the largest "
            f"(allowed {self.largest_difference:.0e}), KL {self.kl:.1e} nats (allowed {self.largest_kl:.0e})"
        )
