"""Finding the JSON object in an answer, and comparing values rather than spelling.

Notable: models wrap JSON in prose and code fences, so the first object of the text counts; a cut-off object never
passes for its inner part, because the search goes on behind the place where parsing failed. Size and nesting are
bounded, so no answer can stall the scorer.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from tunesmith.core.noun import canonical_json

MAX_CHARACTERS = 100_000
MAX_DEPTH = 64
MAX_STARTS = 100


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def first_object(text: str) -> dict[str, Any] | None:
    """The first JSON object in ``text``, or None when there is none (or it lies beyond the bounds).

    >>> first_object('Sure:\\n```json\\n{"intent": "refund"}\\n```')
    {'intent': 'refund'}
    >>> first_object('{"outer": {"inner": 1}, "cut') is None
    True
    """
    text = text[:MAX_CHARACTERS]
    start = text.find("{")
    for _ in range(MAX_STARTS):
        if start < 0:
            return None
        try:
            value, _ = _DECODER.raw_decode(text, start)
        except json.JSONDecodeError as error:
            if error.msg.startswith("Unterminated string"):
                return None
            start = text.find("{", max(error.pos, start + 1))
        except (ValueError, RecursionError):
            return None
        else:
            return value if _shallow(value) else None
    return None


def whole_object(text: str) -> dict[str, Any] | None:
    """The object that ``text`` is, as a whole; None for anything else. References are read this way."""
    stripped = text.strip()
    if not (stripped.startswith("{") and stripped.endswith("}")) or len(stripped) > MAX_CHARACTERS:
        return None
    try:
        value, end = _DECODER.raw_decode(stripped)
    except (ValueError, RecursionError):
        return None
    return value if end == len(stripped) and _shallow(value) else None


def _shallow(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for item in level if isinstance(item, dict | list) for child in _children(item)]
        if not level:
            return True
    return False


def _children(item: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return item.values() if isinstance(item, dict) else item


def squash(text: str) -> str:
    """``text`` with runs of white space made one space and none at the ends.

    >>> squash("  card \\n lost ")
    'card lost'
    """
    return " ".join(text.split())


def canonical(value: Any) -> str:
    """One spelling for equal JSON values: sorted keys, 1.0 as 1 (true stays true), white space in strings squashed.

    >>> canonical({"b": 1.0, "a": " x  y"}) == canonical({"a": "x y", "b": 1})
    True
    """
    return canonical_json(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return squash(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {squash(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def same_answer(answer: str, reference: str) -> bool:
    """Equal up to white space; where the reference is a JSON object, equal as values.

    >>> same_answer('{"b": 2, "a": 1}', '{"a":1,"b":2}'), same_answer("lost  card", "lost card")
    (True, True)
    >>> same_answer("Lost", "lost")
    False
    """
    expected = whole_object(reference)
    if expected is None:
        return squash(answer) == squash(reference)
    found = first_object(answer)
    return found is not None and canonical(found) == canonical(expected)


def invalid(answers: Sequence[str]) -> int:
    """How many answers hold no JSON object: extraction failures, counted apart from wrong values.

    >>> invalid(['{"a": 1}', "no idea", '{"a": '])
    2
    """
    return sum(first_object(answer) is None for answer in answers)
