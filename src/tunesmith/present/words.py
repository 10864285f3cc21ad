"""Texts and numbers as a reader sees them.

Notable: texts come from data and from models and are hostile until proven otherwise. ``clean`` cuts them and makes
every character that a terminal or a browser would obey instead of show (controls, bidirectional overrides,
zero-width marks, lone surrogates) visible as its code point; the renderers then escape for their own syntax. A
score is a percentage unless its metric is known as a plain number.
"""

import math
import re
import unicodedata

from tunesmith.core.report import Estimate

LOWER_IS_BETTER = frozenset({"perplexity", "bits_per_byte", "loss", "nll"})
PLAIN = LOWER_IS_BETTER | {"reward", "judged"}
LONGEST = 2000

_NAMES = {"f1": "F1", "rouge": "ROUGE", "chrf": "chrF", "json": "JSON", "l": "L", "bleu": "BLEU", "mcc": "MCC"}
_JOINERS = "\u200c\u200d"  # part of ordinary writing in several scripts and of emoji
_SUSPECT = re.compile(r"[^\n\t\x20-\x7e]")


def clean(text: str, limit: int = LONGEST) -> str:
    """``text`` cut to ``limit`` characters, with line ends as newlines and hidden characters shown.

    >>> clean("a\\r\\nb\\x1b[31m \\u202egnp")
    'a\\nb⟨U+001B⟩[31m ⟨U+202E⟩gnp'
    >>> clean("abcdef", 4)
    'abcd… (2 more characters)'
    """
    rest = len(text) - limit
    kept = text[:limit].replace("\r\n", "\n").replace("\r", "\n")
    shown = _SUSPECT.sub(lambda match: _visible(match.group()), kept)
    return f"{shown}… ({rest:,} more characters)" if rest > 0 else shown


def _visible(character: str) -> str:
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp") and character not in _JOINERS
    return f"⟨U+{ord(character):04X}⟩" if hidden else character


def one_line(text: str, limit: int = 80) -> str:
    """``clean`` text on one line, for table cells and labels; a cut is shown by an ellipsis alone.

    >>> one_line("two\\nlines and more", 12)
    'two lines a…'
    """
    flat = " ".join(clean(text[: 4 * limit], 4 * limit).split())
    return flat if len(flat) <= limit and len(text) <= 4 * limit else flat[: limit - 1] + "…"


def metric_name(metric: str) -> str:
    """A metric's name in words.

    >>> metric_name("macro_f1"), metric_name("exact_match"), metric_name("rouge_l"), metric_name("json_valid")
    ('Macro F1', 'Exact match', 'ROUGE L', 'JSON valid')
    """
    words = [_NAMES.get(word, word) for word in one_line(metric, 40).split("_")]
    return (words[0][:1].upper() + words[0][1:] if words[0] not in _NAMES.values() else words[0]) + "".join(
        f" {word}" for word in words[1:]
    )


def plain(value: float) -> str:
    """A number in about three significant digits.

    >>> plain(1234.5), plain(123.456), plain(12.3456), plain(0.00012), plain(0), plain(float("nan"))
    ('1,234', '123.5', '12.35', '0.00012', '0', 'not defined')
    """
    if not math.isfinite(value):
        return "not defined"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 1 else f"{value:.3g}"


def score(metric: str, value: float) -> str:
    """A value of ``metric``: percent for proportions, plain for perplexity and its kind.

    >>> score("accuracy", 0.8754), score("perplexity", 12.5), score("accuracy", float("nan"))
    ('87.5%', '12.50', 'not defined')
    """
    return plain(value) if metric in PLAIN or not math.isfinite(value) else f"{100 * value:.1f}%"


def interval(metric: str, estimate: Estimate) -> str:
    """The 95% interval of an estimate.

    >>> interval("accuracy", Estimate(value=0.8, low=0.75, high=0.85, n=200))
    '75.0% to 85.0%'
    """
    return f"{score(metric, estimate.low)} to {score(metric, estimate.high)}"


def difference(metric: str, value: float) -> str:
    """A signed difference of two scores; percentages differ by points.

    >>> difference("accuracy", 0.062), difference("perplexity", -3.2)
    ('+6.2 points', '-3.20')
    """
    if not math.isfinite(value):
        return "not defined"
    if metric in PLAIN:
        return f"{'+' if value >= 0 else '-'}{plain(abs(value))}"
    return f"{100 * value:+.1f} points"


def p_value(value: float) -> str:
    """
    >>> p_value(0.00003), p_value(0.0312)
    ('p < 0.001', 'p = 0.031')
    """
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def duration(seconds: float) -> str:
    """
    >>> duration(0.0123), duration(12.34), duration(245), duration(7500), duration(100000)
    ('12 ms', '12.3 s', '4 min 05 s', '2 h 05 min', '1 d 03 h')
    """
    if not math.isfinite(seconds):
        return "not defined"
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, small, small_size in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // small_size:02d} {small}"
    return f"{seconds:.1f} s"


def count(number: float) -> str:
    """A count with thousands marked; means keep one decimal.

    >>> count(12345), count(12.25), count(12.0)
    ('12,345', '12.2', '12')
    """
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.1f}"


def bytes_of(number: float) -> str:
    """
    >>> bytes_of(3 * 2**29), bytes_of(700 * 2**20)
    ('1.50 GiB', '700 MiB')
    """
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 else f"{number / 2**20:,.0f} MiB"


def ranked(metric: str, value: float) -> float:
    """A sort key: the better the score, the smaller; undefined scores last."""
    if not math.isfinite(value):
        return math.inf
    return value if metric in LOWER_IS_BETTER else -value
