"""A recipe from YAML, JSON or TOML, with overrides, and back to YAML.

Notable: every error names the file, the line where it is known, and the key. Paths in a file are relative to the file's
folder, also those given with ``-s``, and leave here absolute. The traps of YAML are closed in ``core/strict_yaml.py``.
"""

import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tunesmith.core import strict_yaml
from tunesmith.core.errors import RecipeError, did_you_mean
from tunesmith.core.recipe import Recipe

LARGEST = 1_000_000
SUFFIXES = (".yaml", ".yml", ".json", ".toml")
STAGES = "stages"
Places = dict[tuple[str, ...], str]


@dataclass(frozen=True)
class Stage:
    """One stage as it was written: the keys of all stages, and those of its own."""

    name: str
    shared: dict[str, Any]
    own: dict[str, Any]
    where: str


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in ``path`` with ``overrides`` such as ``train.epochs=5`` laid over it. Raises RecipeError."""
    raw, places = _laid(path, overrides)
    if isinstance(raw, dict) and STAGES in raw:
        way = "Start it with tunesmith run, or with tunesmith.run_stages in Python."
        raise RecipeError(f"{path} has {STAGES}: it is one recipe for several runs. {way}")
    return absolute(Recipe.parse(raw, str(path), places), Path(path).absolute().parent, str(path))


def stages(path: Path, overrides: Sequence[str] = ()) -> tuple[Stage, ...]:
    """The stages of the recipe in ``path``, each with the keys of its own laid over those of all; none where it has no
    ``stages``. Raises RecipeError."""
    raw, _ = _laid(path, overrides)
    if not isinstance(raw, dict) or STAGES not in raw:
        return ()
    listed = raw.pop(STAGES)
    if not isinstance(listed, list) or not listed:
        raise RecipeError(f"{path}: {STAGES} is {listed!r}; expected a list such as [sft, reward, ppo].")
    return tuple(_stage(raw, own, f"{path}: {STAGES}, number {n}") for n, own in enumerate(listed, 1))


def _stage(shared: dict[str, Any], own: Any, where: str) -> Stage:
    own = {"objective": own} if isinstance(own, str) else own
    if not isinstance(own, dict) or not own.get("objective"):
        raise RecipeError(f"{where} is {own!r}; expected the name of an objective, or keys with objective among them.")
    objective = own["objective"]
    name = objective.get("name") if isinstance(objective, dict) else objective
    if not isinstance(name, str):
        raise RecipeError(f"{where}: objective is {objective!r}; expected the name of an objective, such as sft.")
    return Stage(name, shared, own, where)


def _laid(path: Path, overrides: Sequence[str]) -> tuple[Any, Places]:
    raw, places = _parse(_read(path), path.suffix.lower(), str(path))
    if raw is None:
        raise RecipeError(f"{path} is empty; expected keys such as model and data. tunesmith init writes a recipe.")
    _lay(overrides, raw, places)
    return raw, places


def parse_text(text: str, suffix: str, where: str) -> Any:
    """The plain value of a recipe's text; None when it is empty. Raises RecipeError with file and line.

    >>> parse_text("train: {learning_rate: 2e-4}", ".yaml", "x.yaml")
    {'train': {'learning_rate': 0.0002}}
    """
    return _parse(text, suffix, where)[0]


def override(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """``recipe`` with ``overrides`` laid over it. Raises RecipeError."""
    if not overrides:
        return recipe
    raw, places = recipe.model_dump(mode="json"), Places()
    _lay(overrides, raw, places)
    return Recipe.parse(raw, "recipe", places)


def dump(recipe: Recipe) -> str:
    """YAML text with every key; ``Recipe.parse(parse_text(dump(r), ".yaml", ""))`` equals ``r``."""
    return strict_yaml.dump(recipe.model_dump(mode="json"))


def commented(recipe: Recipe) -> str:
    """YAML text with every key and what it means; keys without a value are commented out."""
    return "\n".join(["# A Tunesmith recipe. Paths are relative to this file.", *_lines(recipe), ""])


def _read(path: Path) -> str:
    try:
        if path.suffix.lower() not in SUFFIXES:
            raise RecipeError(f"{path} is no recipe by its name; expected a file ending in {', '.join(SUFFIXES)}.")
        if not path.exists():
            siblings = (
                [p.name for p in path.parent.glob("*") if p.suffix.lower() in SUFFIXES] if path.parent.is_dir() else []
            )
            raise RecipeError(
                f"{path} does not exist.{did_you_mean(path.name, siblings)} tunesmith init writes a recipe."
            )
        if not path.is_file():
            raise RecipeError(
                f"{path} is {'a folder' if path.is_dir() else 'no regular file'}; expected a recipe file."
            )
        if (size := path.stat().st_size) > LARGEST:
            raise RecipeError(f"{path} has {size:,} bytes; a recipe has at most {LARGEST:,}. Is it a data file?")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, RecipeError):
            raise
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise RecipeError(f"Cannot read {str(path)[:200]!r}: {reason}. Give the path of a recipe file.") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else f"the byte 0x{data[error.start]:02x}"
        line = data.count(b"\n", 0, error.start) + 1
        raise RecipeError(f"{path} line {line}: found {found}; expected UTF-8. Save the file as UTF-8.") from None


def _parse(text: str, suffix: str, where: str) -> tuple[Any, Places]:
    if suffix in (".yaml", ".yml"):
        raw, lines = strict_yaml.load(text, where)
        return raw, {path: f"{where} line {line}" for path, line in lines.items()}
    if not text.strip():
        return None, {}
    try:
        if suffix == ".json":
            return json.loads(text, object_pairs_hook=_once(where), parse_constant=_constant(where)), {}
        if suffix == ".toml":
            return tomllib.loads(text), {}
    except json.JSONDecodeError as error:
        place = f"{where} line {error.lineno}, column {error.colno}"
        raise RecipeError(f"{place}: not JSON: {error.msg}. Check commas, quotes and brackets near it.") from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{where}: not TOML: {error}. Check quotes, brackets and repeated keys near it.") from None
    except RecursionError:
        raise RecipeError(f"{where}: nested too deeply to be a recipe. A recipe is at most three keys deep.") from None
    except ValueError as error:
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(f"{where}: a number that cannot be read ({error}). Write it shorter.") from None
    raise RecipeError(f"{where}: unknown kind of file {suffix!r}; expected {', '.join(SUFFIXES)}.")


def _once(where: str) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in items:
            if key in result:
                raise RecipeError(f"{where}: the key {key} stands twice in one object. Leave one of them.")
            result[key] = value
        return result

    return pairs


def _constant(where: str) -> Any:
    def refuse(name: str) -> float:
        raise RecipeError(f"{where}: found {name}; expected a finite number.")

    return refuse


def _lay(overrides: Sequence[str], raw: Any, places: Places) -> None:
    """Lay each ``dotted.key=value`` over ``raw`` in place and remember where it came from."""
    for text in overrides:
        key, equals, value = text.partition("=")
        path = tuple(key.strip().split("."))
        where = f"-s {text[:80]}"
        if not equals or not all(path):
            raise RecipeError(f"{where}: expected key=value, such as train.epochs=5.")
        if not isinstance(raw, dict):
            raise RecipeError(f"{where}: the recipe itself is no mapping of keys to values.")
        group = raw
        for depth, name in enumerate(path[:-1], 1):
            if group.get(name) is None:
                group[name] = {}
                places[path[:depth]] = where
            if path[:depth] == ("objective",) and isinstance(group[name], str):  # its name alone
                group[name] = {"name": group[name]}
            if not isinstance(group[name], dict):
                dotted = ".".join(path[:depth])
                raise RecipeError(f"{where}: {dotted} holds {group[name]!r}, so there is no {'.'.join(path)}.")
            group = group[name]
        group[path[-1]] = _value(value.strip(), where)
        places[path] = where


def _value(text: str, where: str) -> Any:
    """An override's value: a list, mapping or quoted text as in YAML; anything else is one word, whatever it holds."""
    return strict_yaml.load(text, where)[0] if text[:1] in ("[", "{", '"', "'") else strict_yaml.scalar(text)


def absolute(recipe: Recipe, folder: Path, where: str = "recipe") -> Recipe:
    """``recipe`` with the paths that are relative to ``folder`` made absolute. Raises RecipeError."""
    files = {
        name: _path(value, folder, f"{where}: data.{name}")
        for name in ("train", "dev", "test")
        if (value := getattr(recipe.data, name)) is not None
    }
    model = recipe.model
    if model != "bundled":
        near = _path(model, folder, f"{where}: model") if "://" not in model else model
        if model.startswith(("./", "../", "~", "/")) or _is_folder(near):
            model = near
    runs = {
        name: _path(value, folder, f"{where}: reward.{name}")
        for name in ("model", "judge")
        if (value := getattr(recipe.reward, name)) is not None
    }
    changed = {"data": recipe.data.model_copy(update=files), "reward": recipe.reward.model_copy(update=runs)}
    start = None if recipe.start is None else _path(recipe.start, folder, f"{where}: start")
    return recipe.model_copy(update={"model": model, "start": start} | changed)


def _path(text: str, folder: Path, where: str) -> str:
    if not text.strip() or "\0" in text:
        raise RecipeError(f"{where} is {text!r}; expected the path of a file.")
    if "://" in text:
        raise RecipeError(f"{where} is {text}, an address; expected a local file. Download it and give its path.")
    try:
        return str(folder / Path(text).expanduser())
    except RuntimeError as error:  # no home folder of that name
        raise RecipeError(f"{where} is {text}: {error}. Write the path out.") from error


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except OSError:  # for instance a name that is too long for this disk
        return False


def _lines(value: BaseModel, indent: str = "") -> Iterator[str]:
    for name, field in type(value).model_fields.items():
        item = getattr(value, name)
        if isinstance(item, BaseModel):
            below = list(_lines(item, indent + "  "))
            active = any(not line.lstrip().startswith("#") for line in below)
            head = f"{indent}{'' if active else '# '}{name}:"
            yield from [head] if indent else ["", head]
            yield from below
            continue
        plain = value.model_dump(mode="json", include={name})[name]
        if isinstance(plain, float) and plain.is_integer():
            plain = int(plain)
        empty = plain is None or plain in ([], {})
        text = f"{name}:" if plain is None else f"{name}: {strict_yaml.dump(plain, flow=True).strip()}"
        yield f"{indent}{'# ' if empty else ''}{text:<{34 - len(indent) - 2 * empty}}  # {field.description}"
