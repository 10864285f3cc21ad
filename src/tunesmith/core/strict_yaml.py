"""YAML without its traps: the YAML 1.2 core schema on PyYAML's safe loader.

Notable: ``2e-4`` is a number and ``no`` is a text (YAML 1.1 says the opposite of both); duplicate keys, anchors,
aliases, tags, tabs and several documents are refused with their line. Source: yaml.org/spec/1.2.2, chapter 10.3.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

from tunesmith.core.errors import RecipeError

Path = tuple[str, ...]

_SCHEMA: tuple[tuple[str, str, str], ...] = (
    ("tag:yaml.org,2002:null", r"null|Null|NULL|~|", "nN~"),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


class _Loader(yaml.SafeLoader):
    """A safe loader of one document that knows the place of each key."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def __init__(self, text: str, where: str) -> None:
        super().__init__(text)
        self.where = where
        self.lines: dict[Path, int] = {}

    def refuse(self, node: Any, sentence: str) -> RecipeError:
        return RecipeError(f"{self.where} line {node.start_mark.line + 1}: {sentence}")

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            raise self.refuse(
                event, f"found {sign}{event.anchor}; anchors and aliases are refused. Write the value out."
            )
        if getattr(event, "tag", None) is not None:
            raise self.refuse(event, f"found the tag {event.tag}; a recipe holds plain values. Leave the tag out.")
        return super().compose_node(parent, index)

    def plain(self, node: Any, path: Path) -> Any:
        """The plain value of ``node``; remembers the line of every key below it."""
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(child, (*path, str(i))) for i, child in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return _scalar(node, self)
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.plain(key_node, path)
            if not isinstance(key, str):
                raise self.refuse(key_node, f"the key {key!r} is no text; expected a name such as model.")
            place = (*path, key)
            if key in result:
                dotted = ".".join(place)
                raise self.refuse(
                    key_node, f"{dotted} stands twice (first on line {self.lines[place]}). Leave one of them."
                )
            self.lines[place] = key_node.start_mark.line + 1
            result[key] = self.plain(value_node, place)
        return result


for _tag, _pattern, _first in _SCHEMA:
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), [*_first, *([""] if "null" in _tag else [])])


def _scalar(node: Any, loader: _Loader) -> Hashable:
    kind, text = node.tag.rsplit(":", 1)[-1], node.value
    if kind == "null":
        return None
    if kind == "bool":
        return bool(text.lower() == "true")
    try:
        if kind == "int":
            return int(text, 0 if text[:2] in ("0o", "0x") else 10)
        if kind == "float":
            return float(re.sub(r"^([-+]?)\.(inf|nan)", r"\1\2", text.lower()))
    except ValueError:  # Python reads integers of at most 4,300 digits
        raise loader.refuse(node, f"a number of {len(text):,} digits; expected one that a computer can hold.") from None
    return str(text)


def load(text: str, where: str) -> tuple[Any, dict[Path, int]]:
    """The value of the one document in ``text``, and the line of each key. Raises RecipeError.

    >>> load("lr: 2e-4\\nname: no", "x.yaml")
    ({'lr': 0.0002, 'name': 'no'}, {('lr',): 1, ('name',): 2})
    """
    try:
        loader = _Loader(text, where)
        node = loader.get_single_node()
        return (None if node is None else loader.plain(node, ())), loader.lines
    except yaml.YAMLError as error:
        raise RecipeError(_sentence(error, where, text)) from None
    except RecursionError:
        raise RecipeError(f"{where}: nested too deeply to be a recipe. A recipe is at most three keys deep.") from None


def scalar(text: str) -> Any:
    """The value of one unquoted word: a number, true, false, null or the text itself.

    >>> scalar("1e5"), scalar("no"), scalar("a: b")
    (100000.0, 'no', 'a: b')
    """
    loader = _Loader("", "value")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return _scalar(yaml.ScalarNode(tag, text, loader.get_mark(), loader.get_mark()), loader)


def _sentence(error: yaml.YAMLError, where: str, text: str) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:  # a character that no YAML file may hold
        position = getattr(error, "position", 0)
        line = text.count("\n", 0, position) + 1
        return f"{where} line {line}: character {text[position]!r} is not allowed in YAML. Remove it."
    problem = str(getattr(error, "problem", "") or "not YAML")
    start = f"{where} line {mark.line + 1}, column {mark.column + 1}"
    if "'\\t'" in problem:
        return f"{start}: a tab; YAML is indented with spaces. Replace the tab."
    if "another document" in problem:
        return f"{start}: a second document starts here (---); a recipe file holds one. Move it to a file of its own."
    problem = f"{problem} {getattr(error, 'context', None) or ''}".rstrip()
    return f"{start}: not YAML: {problem}. Check the indentation, colons, quotes and brackets near it."


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if "\n" in value else None)


_Dumper.add_representer(str, _text)
for _tag, _pattern, _first in _SCHEMA:
    _Dumper.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), list(_first))


def dump(value: Any, *, flow: bool = False) -> str:
    """YAML text of plain values, keys in their order; ``flow`` writes one line, as ``[a, b]``.

    >>> dump({"a": "2e-4", "b": 2e-4})
    "a: '2e-4'\\nb: 0.0002\\n"
    """
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=10**6)
    return text.removesuffix("...\n") if flow else text
