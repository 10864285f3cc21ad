"""Preferences as token rows: the two answers of a pair, or a judged answer beside a mismatched one, as one unit.

Notable: the last turn alone has weight, whatever earlier turns have, for that is what the preference is about. What
both rows begin with alike is counted, so that a decoder computes it once; an encoder, which reads both ways, shares
nothing.
"""

from collections.abc import Sequence
from dataclasses import replace

from tunesmith.core.batch import TokenRow
from tunesmith.core.example import Example

PAIR, JUDGED = ("chosen", "rejected"), ("wanted", "unwanted")  # what a system can say of a row


NEITHER = "neither"


def said(lead: float, words: tuple[str, str] = PAIR) -> str:
    """The word for an answer that leads by so much.

    >>> said(0.5), said(-1.0), said(0.0)
    ('chosen', 'rejected', 'neither')
    """
    return words[0] if lead > 0 else words[1] if lead < 0 else NEITHER


def longer_by(example: Example) -> int:
    """By how many characters the better answer of a pair is the longer one; below 0 where it is the shorter one."""
    return len(example.answer) - len(example.rejected.content if example.rejected else "")


def expected(example: Example) -> str:
    """What a system should say of the row: that the better answer is chosen, or how it was judged.

    >>> from tunesmith.core.example import Place
    >>> expected(Example(place=Place(file="a", line=1), wanted=False))
    'unwanted'
    """
    return PAIR[0] if example.rejected is not None else JUDGED[0 if example.wanted else 1]


def variants(example: Example) -> tuple[Example, ...]:
    """The example once for each answer, the better one first; only the last turn is trained."""
    *before, last = example.messages
    silent = tuple(m.model_copy(update={"weight": 0.0}) for m in before)
    answers = (last,) if example.rejected is None else (last, example.rejected)
    turns = (m.model_copy(update={"weight": 1.0}) for m in answers)
    return tuple(example.model_copy(update={"messages": (*silent, turn), "rejected": None}) for turn in turns)


def together(example: Example, rows: Sequence[TokenRow], *, shares: bool) -> TokenRow:
    """The rows of all ``variants`` of ``example`` as one unit; ``shares`` says whether the model reads one way."""
    sure, label = 0.5 if example.tie else 1.0, int(example.wanted is not False)
    first, *others = (replace(row, margin=example.margin, sure=sure, label=label) for row in rows)
    return replace(first, others=tuple(replace(o, prefix=_alike(first, o) if shares else 0) for o in others))


def judged(units: Sequence[TokenRow]) -> list[TokenRow]:
    """Units of one judged row each (a pair is two: the worse answer is not wanted), with the same prompt and the answer
    of the next row that was asked something else beside it."""
    rows = [
        row
        for unit in units
        for row in ((unit,) if not unit.others else (replace(unit, others=()), _unwanted(unit.others[0])))
    ]
    longest = max((len(row.ids) for row in rows), default=0)
    found = []
    starts = [_answer(row) for row in rows]
    for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
        following = ((i + step) % len(rows) for step in range(1, len(rows) + 1))
        j = next((k for k in following if rows[k].ids[: starts[k]] != row.ids[:start]), i)
        other, theirs = rows[j], starts[j]
        ids, weight = row.ids[:start] + other.ids[theirs:], row.weight[:start] + other.weight[theirs:]
        mixed = replace(row, ids=ids[:longest], weight=weight[:longest])
        found.append(replace(row, others=(replace(mixed, prefix=_alike(row, mixed)),)))
    return found


def wanted(units: Sequence[TokenRow]) -> list[TokenRow]:
    """The better or wanted answers alone, for whoever learns to write them."""
    return [replace(unit, others=()) for unit in units if unit.label]


def _unwanted(row: TokenRow) -> TokenRow:
    return replace(row, label=0, prefix=0)


def _answer(row: TokenRow) -> int:
    """Where the weighted tokens begin."""
    return next(i for i, weight in enumerate(row.weight) if weight > 0)


def _alike(first: TokenRow, second: TokenRow) -> int:
    """Tokens that both rows begin with, each keeping at least one of its own.

    >>> _alike(TokenRow((1, 2, 3, 4), ()), TokenRow((1, 2, 5), ())), _alike(TokenRow((1, 2), ()), TokenRow((1, 2), ()))
    (2, 1)
    """
    most = min(len(first.ids), len(second.ids)) - 1
    return next((i for i in range(most) if first.ids[i] != second.ids[i]), most)
