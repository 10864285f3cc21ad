"""Characters that nobody sees: zero-width spaces, soft hyphens, and marks that turn the writing direction.

Notable: they change the tokens and not the picture, so two rows look the same and are not; joiners that emoji and
several scripts need are left alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from tunesmith.core.example import Example
from tunesmith.core.report import Finding
from tunesmith.data.checks._check import Check, Context, counted, everything, finding

_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\U000e0000-\U000e007f]")


def run(examples: Sequence[Example], context: Context) -> tuple[Finding, ...]:
    hits = [(e, found) for e in examples if (found := _INVISIBLE.findall(everything(e)))]
    kinds = sorted({c for _, found in hits for c in found})
    names = ", ".join(f"U+{ord(c):04X} {unicodedata.name(c, 'unnamed').lower()}" for c in kinds[:4])
    message = f"{counted(len(hits))} with invisible characters ({names})."
    return finding("invisible", "info", [e for e, _ in hits], message)


PART = Check("invisible", "Zero-width and direction-changing characters", run)
