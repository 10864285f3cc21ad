"""Pydantic's errors as sentences: place, what was found, what was expected, the way out.

Notable: what was expected is read off the field's annotation, so a union ("a number, or auto") gives one sentence and
not one for each of its members.
"""

import math
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from tunesmith.core.errors import did_you_mean

Path = tuple[str, ...]
_NUMBERS: dict[Any, str] = {int: "a whole number", float: "a number"}
_BOUNDS = (("ge", "at least {:g}"), ("gt", "above {:g}"), ("le", "at most {:g}"), ("lt", "below {:g}"))


def expected(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """What a field takes, in words.

    >>> from annotated_types import Ge, Gt, Le
    >>> expected(Annotated[float, Gt(0), Le(1)] | Literal["auto"])
    'a number above 0 and at most 1, or auto'
    >>> expected(tuple[str, ...]), expected(Annotated[int, Ge(1)] | None)
    ('a list of texts, such as [a, b]', 'a whole number of at least 1')
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return expected(arguments[0], (*metadata, *_flat(arguments[1:])))
    if origin in (Union, types.UnionType):
        return ", or ".join(expected(a) for a in arguments if a is not type(None))
    if origin is Literal:
        return (
            " or ".join([", ".join(map(str, arguments[:-1])), str(arguments[-1])])
            if arguments[1:]
            else str(arguments[0])
        )
    if origin is tuple:
        return "a list of texts, such as [a, b]"
    if origin is dict:
        value = expected(arguments[1])
        return "a mapping of text to " + ("text, such as {prompt: question}" if value == "a text" else value)
    if annotation in _NUMBERS:
        metadata = _flat(metadata)
        bounds = [text.format(getattr(m, name)) for name, text in _BOUNDS for m in metadata if hasattr(m, name)]
        joined = " and ".join(bounds)
        return f"{_NUMBERS[annotation]} {'of ' if joined.startswith('at') else ''}{joined}".strip()
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"keys such as {', '.join(list(annotation.model_fields)[:3])}"
    return "a text"


def _flat(metadata: tuple[Any, ...]) -> tuple[Any, ...]:
    """The constraints inside pydantic's ``Field(...)`` objects."""
    return tuple(inner for m in metadata for inner in getattr(m, "metadata", [m]))


def _tagged(annotation: Any) -> bool:
    """Whether pydantic puts a union member's name into an error's location."""
    origin = get_origin(annotation)
    return origin in (Union, types.UnionType) and sum(a is not type(None) for a in get_args(annotation)) > 1


class Sentences:
    """Sentences about values of ``root`` read from ``where``; ``places`` knows the line of a key."""

    def __init__(self, root: type[BaseModel], where: str, places: Mapping[Path, str]) -> None:
        self.root, self.where, self.places = root, where, places

    def at(self, *path: str, text: str) -> str:
        """``text`` after the nearest known place and the dotted name of ``path``."""
        known = tuple(".".join(path).split("."))
        while known and known not in self.places:
            known = known[:-1]
        return f"{self.places.get(known, self.where)}: {'.'.join(path)} {text}"

    def of(self, error: ValidationError) -> list[str]:
        """One sentence for each bad key of ``error``, in its order."""
        told: dict[Path, str] = {}
        for one in error.errors(include_url=False):
            path, field, holder = self._walk(one["loc"])
            if not any(path == seen[: len(path)] for seen in told):
                told[path] = self._sentence(one, path, field, holder)
        return list(told.values())

    def _walk(self, loc: tuple[int | str, ...]) -> tuple[Path, Any, type[BaseModel]]:
        """The real path of an error (union tags left out), its field and the model that holds that field."""
        path: list[str] = []
        holder, field = self.root, None
        rest = list(loc)
        while rest:
            name = str(rest.pop(0))
            path.append(name)
            field = holder.model_fields.get(name)
            annotation = None if field is None else field.annotation
            if rest and isinstance(annotation, type) and issubclass(annotation, BaseModel):
                holder = annotation
                continue
            path += [str(p) for p in (rest[1:] if _tagged(annotation) else rest)]
            break
        return tuple(path), field, holder

    def _sentence(self, error: Any, path: Path, field: Any, holder: type[BaseModel]) -> str:
        if error["type"] == "extra_forbidden":
            known = list(holder.model_fields)
            hint = did_you_mean(path[-1], known) or self._elsewhere(path[-1])
            return self.at(*path, text=f"is an unknown key.{hint} Known here: {', '.join(known)}.")
        if error["type"] == "missing":
            return self.at(*path, text="is missing. Add it; tunesmith init writes a commented recipe.")
        found = "empty" if error["input"] is None else repr(error["input"])[:80]
        if error["type"] == "value_error":
            return self.at(*path, text=f"is {found}; {error['ctx']['error']}.")
        deeper = path[len(path) - 1] not in holder.model_fields  # inside a list or a mapping
        member = get_args(field.annotation)[1] if deeper and get_origin(field.annotation) is dict else str
        want = expected(member) if deeper else expected(field.annotation, tuple(field.metadata))
        if want == "a text" and deeper:
            want += "; put it in quotes"
        if error["type"] == "string_type" and not deeper and isinstance(error["input"], bool | int | float):
            want += "; put it in quotes"
        about = f" ({field.description})" if field.description else ""
        return self.at(*path, text=f"is {found}; expected {want}{about}.")

    def _elsewhere(self, name: str) -> str:
        places = [".".join(path) for path, _ in leaves(self.root) if path[-1] == name]
        return f" Did you mean {' or '.join(places)}?" if places else ""

    def booleans(self, raw: Any, path: Path = ()) -> Iterator[str]:
        """A sentence for each true or false in ``raw``: pydantic would read them as 1 and 0."""
        if isinstance(raw, bool):
            word = str(raw).lower()
            yield self.at(*path, text=f"is {word}; no key takes true or false. Give a number, or put a text in quotes.")
        elif isinstance(raw, dict):
            for key, value in raw.items():
                yield from self.booleans(value, (*path, str(key)))

    def not_finite(self, value: BaseModel, path: Path = ()) -> Iterator[str]:
        """A sentence for each number of ``value`` that is infinite or not a number."""
        for name in type(value).model_fields:
            item = getattr(value, name)
            if isinstance(item, BaseModel):
                yield from self.not_finite(item, (*path, name))
            inside = item.items() if isinstance(item, dict) else [("", item)]
            for key, number in inside:
                if isinstance(number, float) and not math.isfinite(number):
                    text = f"is {number}; expected a finite number. Leave it out for the default."
                    yield self.at(*path, name, *filter(None, [key]), text=text)


def leaves(root: type[BaseModel], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Path and field of every setting below ``root``, in order."""
    for name, field in root.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from leaves(annotation, (*path, name))
        else:
            yield (*path, name), field
