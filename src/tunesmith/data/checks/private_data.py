"""E-mail addresses, phone numbers, card numbers (Luhn) and bank accounts (IBAN, ISO 7064 mod 97) in the rows.

Notable: what is trained can be recited, so these are named before training; samples are masked, for reports travel.
Patterns are bounded in length, so a hostile row costs no more than an honest one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tunesmith.core.example import Example
from tunesmith.core.report import Finding
from tunesmith.data.checks._check import Check, Context, counted, everything, finding

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4}(?![\w-])")
_CARD = re.compile(r"(?<![\d.+-])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5})(?![\d-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_PHONE = re.compile(
    r"(?<![\w.,/$€£#-])(?:\+\d{1,3}[ .-]?)?(?:\(\d{1,5}\)[ .-]?)?\d{2,4}(?:[ .-]\d{2,4}){1,4}(?![\w-]|[.,/]\d)"
)
_PLAIN_PHONE = re.compile(r"(?<!\w)\+\d{9,15}(?!\d)")
_NO_PHONE = re.compile(  # a date, with an hour behind it or not, or an IPv4 address
    r"\d{4}[-. ]\d{2}[-. ]\d{2}(?: \d{2})?|\d{2}[-. ]\d{2}[-. ]\d{4}(?: \d{2})?|\d{1,3}(?:\.\d{1,3}){3}"
)


def luhn(digits: str) -> bool:
    """The check digit of card numbers (ISO/IEC 7812).

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    odd, even = digits[::-1][::2], digits[::-1][1::2]
    return (sum(map(int, odd)) + sum(sum(divmod(2 * int(d), 10)) for d in even)) % 10 == 0


def _emails(text: str) -> list[str]:
    return _EMAIL.findall(text) if "@" in text else []


def _cards(text: str) -> list[str]:
    found = [(m, re.sub(r"\D", "", m)) for m in (hit.group() for hit in _CARD.finditer(text))]
    return [m for m, digits in found if digits[0] in "23456" and luhn(digits)]


def _ibans(text: str) -> list[str]:
    return [m for m in _IBAN.findall(text) if _mod97(m.replace(" ", "")) == 1]


def _mod97(iban: str) -> int:
    return int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97 if 15 <= len(iban) <= 34 else 0


def _phones(text: str) -> list[str]:
    """Digits in groups, 9 to 15 of them (or 7 after an area code in brackets), that are no date, card or account."""
    found = _PLAIN_PHONE.findall(text)
    text = _IBAN.sub("", text)
    for match in _PHONE.findall(text):
        digits = re.sub(r"\D", "", match)
        enough = 7 if match.startswith(("+", "(")) else 9
        if enough <= len(digits) <= 15 and not _NO_PHONE.fullmatch(match) and not _cards(match):
            found.append(match)
    return found


_KINDS: dict[str, Callable[[str], list[str]]] = {
    "an e-mail address": _emails,
    "a phone number": _phones,
    "a card number": _cards,
    "a bank account (IBAN)": _ibans,
}


def masked(text: str) -> str:
    """All but the outer characters hidden.

    >>> masked("jane.doe@example.org"), masked("+44 20 7946 0958")
    ('j*******@e**********', '+4* ** **** ***8')
    """
    if "@" in text:
        return "@".join(part[0] + "*" * (len(part) - 1) for part in text.split("@", 1))
    return text[:2] + re.sub(r"\w", "*", text[2:-1]) + text[-1]


def without_private_data(text: str) -> str:
    """``text`` with every address, phone, card and account number in it masked, for reports that travel.

    >>> without_private_data("Write to jane@example.org, or not.")
    'Write to j***@e**********, or not.'
    """
    for search in _KINDS.values():
        for found in search(text):
            text = text.replace(found, masked(found))
    return text


def run(examples: Sequence[Example], context: Context) -> tuple[Finding, ...]:
    texts = [everything(e) for e in examples]
    findings: tuple[Finding, ...] = ()
    for kind, search in _KINDS.items():
        hits = [(e, found[0]) for e, text in zip(examples, texts, strict=True) if (found := search(text))]
        message = f"{counted(len(hits))} with what looks like {kind}. A model can recite what it was trained on."
        findings += finding("private_data", "warning", [e for e, _ in hits], message, [masked(t) for _, t in hits])
    return findings


PART = Check("private_data", "E-mail addresses, phone, card and account numbers", run)
