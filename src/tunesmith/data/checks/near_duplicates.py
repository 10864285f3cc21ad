"""Inputs that differ in a few characters only (Jaccard similarity of 4-character shingles of at least 0.8).

Notable: a test row with such a twin in train measures memory, so the split keeps each cluster on one side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunesmith.core.example import Example
from tunesmith.core.report import Finding
from tunesmith.data import near
from tunesmith.data.checks._check import Check, Context, counted, finding


def run(examples: Sequence[Example], context: Context) -> tuple[Finding, ...]:
    texts = [e.input_text for e in examples]
    cluster, exact = near.clusters(texts), near.exact(texts)
    twins = [i for i in range(len(texts)) if cluster[i] != i and exact[i] == i]
    sizes = np.bincount(cluster, minlength=1)
    message = f"{counted(len(twins))} nearly repeat an earlier input (largest cluster: {int(sizes.max()):,} rows)."
    samples = [f"{texts[cluster[i]][:55]} ~ {texts[i][:55]}" for i in twins]
    return finding("near_duplicates", "warning", [examples[i] for i in twins], message, samples)


PART = Check("near_duplicates", "Inputs that differ in a few characters only", run)
