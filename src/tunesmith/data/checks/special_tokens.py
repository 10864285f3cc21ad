"""Chat-control strings inside the text of a row, such as ``<|im_end|>`` or ``[INST]``.

Notable: rendering never reads them as control tokens here, but they are usually the remains of another tool's
template, and then the model learns to write them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tunesmith.core.example import Example
from tunesmith.core.report import Finding
from tunesmith.data.checks._check import Check, Context, counted, everything, finding

_CONTROL = re.compile(
    r"<\|[A-Za-z0-9_ ]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:bos|eos|pad|unk)>"
    r"|<(?:start|end)_of_turn>|<\uff5c[^\uff5c<>]{1,40}\uff5c>|\[/?SYSTEM_PROMPT\]"
)


def run(examples: Sequence[Example], context: Context) -> tuple[Finding, ...]:
    hits = [(e, found) for e in examples if (found := _CONTROL.search(everything(e)))]
    kinds = list(dict.fromkeys(found.group() for _, found in hits))
    message = (
        f"{counted(len(hits))} with chat-control strings in the text ({', '.join(kinds[:5])}); they stay plain text."
    )
    samples = [_around(everything(e), found) for e, found in hits[:5]]
    return finding("special_tokens", "warning", [e for e, _ in hits], message, samples)


def _around(text: str, found: re.Match[str]) -> str:
    return text[max(0, found.start() - 40) : found.end() + 40]


PART = Check("special_tokens", "Chat-control strings in the text", run)
