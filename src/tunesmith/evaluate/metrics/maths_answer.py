"""Maths answers: whether the final number of an answer equals that of the reference, as in GSM8K (Cobbe et al., 2021).

Notable: numbers are compared as exact fractions, so 0.5 is 1/2 and 18.0 is 18, and 0.33 is not 1/3. The final number
is the one behind the last marker (``#### 18``, ``\\boxed{18}``, "the answer is 18"), and without a marker the last one
of the text. Signs of currency, percent signs and units are left aside: 50% is 50, $18 is 18 dollars. A text without a
number is wrong, also where the reference has none. Only the end of a long text is read, and a number of hundreds of
digits or with a huge exponent equals nothing, so no text can stall the scorer.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from tunesmith.evaluate.metrics._metric import Array, Metric, per_row

LAST_CHARACTERS = 20_000
MAX_DIGITS = 100
MAX_EXPONENT = 100
MAX_MARKERS = 50  # of each kind, counted from the end

_PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
# A sign counts where it cannot be a minus between two numbers; digits inside a word (H2O) or a version (1.2.3) do not.
_NUMBER = re.compile(
    r"(?:(?<![\w)\]}%])(?P<sign>[-+])[$€£¥₹]?)?"
    r"(?:(?<![A-Za-z0-9_])(?<!\d\.)"
    rf"(?:(?P<whole>\d{{1,9}}) (?=\d{{1,9}}/\d))?(?P<top>{_PLAIN})|(?<![\w.])(?P<point>\.\d+))"
    rf"(?:[eE](?P<exponent>[-+]?\d+)(?!\w)|/(?P<below>{_PLAIN}))?",
    re.ASCII,
)
_HEADING = re.compile(r"####[ \t]*\d+[.)][ \t]+[A-Za-z]")  # "#### 2. Add the parts" is a heading, no answer
_HASHES = re.compile(r"####[ \t*_]*(?=[-+$€£¥₹\d.])")
_SAYS = re.compile(r"\banswer[\s*]{0,9}(?:is|are|:|=)[\s:*]{0,9}", re.IGNORECASE)
_BOX = re.compile(r"\\boxed[ \t]{0,9}\{")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
_FRACTION = re.compile(r"\\[dtc]?frac[ \t]{0,9}(?:\{([^{}]{1,60})\}[ \t]{0,9}\{([^{}]{1,60})\}|(\d)(\d))")
_CURRENCY = re.compile(r"\b(?:USD|EUR|GBP|CAD|AUD|INR|Rs\.?)(?=\d)")
_SPELLINGS = str.maketrans({"\u2212": "-", "\u00a0": " ", "\u2009": " ", "\u202f": " "})


def _plain_text(text: str) -> str:
    """The end of ``text`` with LaTeX's spellings of numbers written plainly."""
    text = text[-LAST_CHARACTERS:].translate(_SPELLINGS)
    for spelled, plain in (("{,}", ","), ("\\!", ""), ("\\,", ""), ("\\$", "$"), ("\\%", "%")):
        text = text.replace(spelled, plain)
    text = re.sub(r"(?<=\d)(?=\\[dtc]?frac)", " ", text)  # 1\frac{1}{2} is 1 1/2
    text = _FRACTION.sub(lambda m: f"{m[1] or m[3]}/{m[2] or m[4]}", text)
    return _CURRENCY.sub("$", text)


def _exact(found: re.Match[str]) -> Fraction | None:
    """The value of a match of ``_NUMBER``; None where it is beyond the bounds or divides by zero."""
    top, below = (found["top"] or found["point"]).replace(",", ""), (found["below"] or "1").replace(",", "")
    exponent = found["exponent"] or "0"
    if max(len(top), len(below)) > MAX_DIGITS or len(exponent) > 9 or abs(int(exponent)) > MAX_EXPONENT:
        return None
    divisor = Fraction(below)
    if not divisor:
        return None
    value = Fraction(found["whole"] or 0) + Fraction(top) * Fraction(10) ** int(exponent) / divisor
    return -value if found["sign"] == "-" else value


def _inside_box(text: str, start: int) -> str:
    """What stands between the brace that opens before ``start`` and the one that closes it."""
    depth = 1
    for place in range(start, min(len(text), start + 300)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return text[start:place]
    return text[start : start + 300]


def _line(text: str, start: int) -> str:
    """The sentence from ``start`` on, at most to the end of the line."""
    line = text[start : start + 300].split("\n", 1)[0]
    end = _SENTENCE_END.search(line)
    return line[: end.start()] if end else line


def _told(part: str) -> re.Match[str] | None:
    """The number that a marked part tells: behind the last "=" where one is, else the first."""
    return _NUMBER.search(part.rpartition("=")[2]) or _NUMBER.search(part)


def final_number(text: str) -> Fraction | None:
    """The number that ``text`` ends up with, or None when there is none.

    >>> print(final_number("5 + 13 = 18 apples.\\n#### 18"), final_number("So the answer is $1,234.50."))
    18 2469/2
    >>> print(final_number("Thus \\\\boxed{\\\\frac{3}{4}} of it"), final_number("10-3 is 7 km"), final_number("none"))
    3/4 7 None
    """
    text = _plain_text(text)
    headings = {m.start() for m in _HEADING.finditer(text)}
    hashes = [(m.start(), _line(text, m.end())) for m in _HASHES.finditer(text) if m.start() not in headings]
    boxes = [(m.start(), _inside_box(text, m.end())) for m in list(_BOX.finditer(text))[-MAX_MARKERS:]]
    said = [(m.start(), _line(text, m.end())) for m in list(_SAYS.finditer(text))[-MAX_MARKERS:]]
    for _, part in sorted(hashes[-MAX_MARKERS:] + boxes + said, reverse=True):
        told = _told(part)
        if told:
            return _exact(told)
    numbers = list(_NUMBER.finditer(text))
    return _exact(numbers[-1]) if numbers else None


def _right(answer: str, reference: str) -> bool:
    expected = final_number(reference)
    return expected is not None and final_number(answer) == expected


def rows(answers: Sequence[str], references: Sequence[str]) -> Array:
    """Statistics [N, 2].

    >>> rows(["The answer is 18.", "0.5", "about 17"], ["... #### 18", "1/2", "18"])[:, 0].tolist()
    [1.0, 1.0, 0.0]
    """
    return per_row(_right(a, r) for a, r in zip(answers, references, strict=True))


PART = Metric(
    "maths_answer", "Share of answers whose final number equals the reference's, compared exactly.", "zero_one", rows
)
