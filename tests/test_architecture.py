"""The house, checked import by import: floors, cycles, what each room may use, sizes, and forbidden ways.

Notable: every rule is a function of parsed source, so that ``test_each_rule_fires`` can prove on a small bad sample
that it would speak. Imports inside functions and under TYPE_CHECKING count, as do parts looked up by a literal room.
"""

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "tunesmith"

FLOORS = (
    {"core"},
    {"objectives", "plan", "decide", "records", "present", "modalities"},
    {"data", "models"},
    {"generate"},
    {"train", "evaluate", "serve"},
    {"improve", "continual", "personalize", "monitor"},
    {"flows"},
    {"cli", "studio"},
    {""},  # tunesmith/__init__.py and __main__.py: the doors
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
NEVER_TORCH = {"core", "plan", "decide", "records", "present"}
NOT_AT_IMPORT = {"cli", "studio", ""}
TORCH = {"torch", "transformers", "safetensors", "peft"}
CORE_MAY_USE = {"pydantic"}
PICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
DISTRIBUTION = {"pyyaml": "yaml", "scikit-learn": "sklearn", "rouge-score": "rouge_score"}

LONGEST_FILE, LONGEST_FUNCTION, MOST_PARAMETERS = 400, 60, 7

# The one list of exemptions: the problem's first words, as printed, and why it may stand.
EXEMPT = {
    "cli/advise.py: advise has": "each parameter is an option of the verb, which is how typer declares them",
    "cli/chat.py: chat has": "each parameter is an option of the verb, which is how typer declares them",
    "cli/check.py: check has": "each parameter is an option of the verb, which is how typer declares them",
    "cli/combine.py: combine has": "each parameter is an option of the verb, which is how typer declares them",
    "cli/plan.py: plan has": "each parameter is an option of the verb, which is how typer declares them",
    "cli/init.py: init has": "each parameter is an option of the verb, which is how typer declares them",
    "core/strict_yaml.py: core uses yaml": "reading a recipe must not need a room",
}


@dataclass(frozen=True)
class Import:
    """One import: a dotted name, where it stands, and whether it runs when the module is imported."""

    target: str
    line: int
    typing_only: bool
    at_import: bool


@dataclass(frozen=True)
class Module:
    """A parsed file, by its path below src/tunesmith."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def name(self) -> str:
        parts = ["tunesmith", *self.path.removesuffix(".py").split("/")]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def room(self) -> str:
        return self.path.split("/")[0] if "/" in self.path else ""

    @property
    def package(self) -> str:
        return self.name if self.path.endswith("__init__.py") else self.name.rpartition(".")[0]

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        return tuple(_walk(self, self.tree, typing_only=False, at_import=True))


def _walk(module: Module, node: ast.AST, *, typing_only: bool, at_import: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        below = at_import and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        guarded = typing_only
        if isinstance(node, ast.If) and child in node.body and "TYPE_CHECKING" in ast.unparse(node.test):
            guarded, below = True, False
        for target in _targets(module, child):
            yield Import(target, getattr(child, "lineno", 0), guarded, below)
        yield from _walk(module, child, typing_only=guarded, at_import=below)


def _targets(module: Module, node: ast.AST) -> Iterable[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = module.package.split(".")
        base = ".".join(above[: len(above) - node.level + 1]) if node.level else ""
        origin = ".".join(part for part in (base, node.module) if part)
        return [f"{origin}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("parts.find", "parts.names") and node.args:
        room = node.args[0]
        if isinstance(room, ast.Constant) and isinstance(room.value, str):
            return [f"tunesmith.{room.value}"]
    return []


def _room_of(target: str) -> str | None:
    """The room that an import reaches; None outside the package. ``__version__`` is a fact of the package, no room."""
    head, _, rest = target.partition(".")
    if head != "tunesmith" or rest == "__version__":
        return None
    room = rest.split(".")[0]
    return room if room in FLOOR or (SOURCE / room).is_dir() else ""


def _library(target: str) -> str:
    return target.split(".")[0]


def _calls(module: Module) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


# The rules. Each takes all modules and yields problems.


def floors(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        if module.room not in FLOOR:
            yield f"{module.path}: room {module.room} has no floor"
            continue
        for found in module.imports:
            room = _room_of(found.target)
            if room is None or room == module.room:
                continue
            if room not in FLOOR or FLOOR[room] >= FLOOR[module.room]:
                yield f"{module.path}:{found.line} imports {found.target}, which is not on a lower floor"


def cycles(modules: list[Module]) -> Iterator[str]:
    known = {module.name for module in modules}
    edges: dict[str, set[str]] = defaultdict(set)
    for module in modules:
        for found in module.imports:
            target = found.target if found.target in known else found.target.rpartition(".")[0]
            if target in known and target not in ("tunesmith", module.name):
                edges[module.name].add(target)
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> Iterator[str]:
        if name in trail:
            yield "cycle: " + " -> ".join([*trail[trail.index(name) :], name])
        elif name not in done:
            for target in sorted(edges[name]):
                yield from visit(target, (*trail, name))
            done.add(name)

    for name in sorted(known):
        yield from visit(name, ())


def no_torch(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        for found in module.imports:
            if _library(found.target) in TORCH:
                allowed_hint = module.room == "core" and found.typing_only
                if module.room in NEVER_TORCH and not allowed_hint:
                    yield f"{module.path}:{found.line} imports {found.target}; {module.room} never does"


def no_torch_at_import(modules: list[Module]) -> Iterator[str]:
    """What a face imports when it is imported, and all that this imports in turn, is free of torch."""
    by_name = {module.name: module for module in modules}
    todo = [(module, module.path) for module in modules if module.room in NOT_AT_IMPORT]
    seen: set[str] = set()
    while todo:
        module, trail = todo.pop()
        if module.name in seen:
            continue
        seen.add(module.name)
        for found in (found for found in module.imports if found.at_import):
            if _library(found.target) in TORCH:
                yield f"{trail}:{found.line} imports {found.target} at import time"
            steps = found.target.split(".")
            for name in (
                ".".join(steps[:length]) for length in range(1, len(steps) + 1)
            ):  # a package runs before its parts
                if name in by_name:
                    todo.append((by_name[name], f"{trail} > {by_name[name].path}"))


def core_uses(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        if module.room == "core":
            used = {_library(found.target) for found in module.imports if not found.typing_only}
            for library in sorted(used - sys.stdlib_module_names - CORE_MAY_USE - {"tunesmith"}):
                yield f"{module.path}: core uses {library}; it is standard library and pydantic only"


def optional_in_one_file(modules: list[Module]) -> Iterator[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [match[0].lower() for text in project["dependencies"] if (match := re.match(r"[\w-]+", text))]
    required = {DISTRIBUTION.get(name, name) for name in names}
    users: dict[str, set[str]] = defaultdict(set)
    for module in modules:
        for found in module.imports:
            if _library(found.target) not in sys.stdlib_module_names | required | {"tunesmith"}:
                users[_library(found.target)].add(module.path)
    for library, paths in sorted(users.items()):
        if len(paths) > 1:
            yield f"{library}: no dependency of ours, imported in {len(paths)} files: {', '.join(sorted(paths))}"


def sizes(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        lines = len(module.text.splitlines())
        if lines > LONGEST_FILE:
            yield f"{module.path}: {lines} lines; at most {LONGEST_FILE}"
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                yield f"{module.path}: {node.name} has {length} lines; at most {LONGEST_FUNCTION}"
            every = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            every += [extra for extra in (node.args.vararg, node.args.kwarg) if extra]
            named = [argument for argument in every if argument.arg not in ("self", "cls")]
            if len(named) > MOST_PARAMETERS:
                yield f"{module.path}: {node.name} has {len(named)} parameters; at most {MOST_PARAMETERS}"


def docstrings(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        if module.text.strip() and not ast.get_docstring(module.tree):
            yield f"{module.path}: no docstring that says what is notable about it"


def no_pickle(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        for found in module.imports:
            if _library(found.target) in PICKLERS or found.target in ("torch.load", "torch.save", "yaml.load"):
                yield f"{module.path}:{found.line} imports {found.target}, which can run code from a file"
        for call, name in _calls(module):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            loader = given.get("Loader", ast.unparse(call.args[1]) if len(call.args) > 1 else "")
            unsafe_yaml = name in ("yaml.load", "yaml.load_all") and "Safe" not in loader
            if name in ("torch.load", "torch.save", "yaml.unsafe_load", "yaml.full_load") or unsafe_yaml:
                yield f"{module.path}:{call.lineno} calls {name}, which can run code from a file"
            if given.get("allow_pickle", "False") != "False":
                yield f"{module.path}:{call.lineno} passes allow_pickle"


def no_remote_code(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code" and ast.unparse(node.value) != "False":
                yield f"{module.path}:{node.value.lineno} passes trust_remote_code"
            if isinstance(node, ast.Constant) and node.value == "trust_remote_code":
                yield f"{module.path}:{node.lineno} names trust_remote_code"


def no_swallowing(modules: list[Module]) -> Iterator[str]:
    """``except BaseException`` may clean up if its last statement is ``raise``; ``except Exception`` never stands."""
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ExceptHandler):
                caught = {"everything"} if node.type is None else set(re.findall(r"\w+", ast.unparse(node.type)))
                reraised = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
                broad = caught & {"everything", "Exception"} or ("BaseException" in caught and not reraised)
                if broad:
                    yield f"{module.path}:{node.lineno} catches {', '.join(sorted(caught))}"
                if all(isinstance(step, ast.Pass) or ast.unparse(step) == "..." for step in node.body):
                    yield f"{module.path}:{node.lineno} swallows {', '.join(sorted(caught))}"
        for call, name in _calls(module):
            if name.endswith("suppress") and {ast.unparse(a) for a in call.args} & {"Exception", "BaseException"}:
                yield f"{module.path}:{call.lineno} suppresses every exception"


Rule = Callable[[list[Module]], Iterator[str]]
RULES: list[Rule] = [
    floors,
    cycles,
    no_torch,
    no_torch_at_import,
    core_uses,
    optional_in_one_file,
    sizes,
    docstrings,
    no_pickle,
    no_remote_code,
    no_swallowing,
]


def _house() -> list[Module]:
    paths = sorted(SOURCE.rglob("*.py"))
    return [Module(path.relative_to(SOURCE).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def _name(rule: Rule) -> str:
    return rule.__name__


@pytest.fixture(scope="module")
def house() -> list[Module]:
    return _house()


@pytest.mark.parametrize("rule", RULES, ids=_name)
def test_the_house_keeps(rule: Rule, house: list[Module]) -> None:
    problems = [problem for problem in rule(house) if not problem.startswith(tuple(EXEMPT))]
    assert not problems, "\n" + "\n".join(problems)


def test_every_exemption_is_still_needed(house: list[Module]) -> None:
    problems = [problem for rule in RULES for problem in rule(house)]
    assert [start for start in EXEMPT if not any(problem.startswith(start) for problem in problems)] == []


SAMPLES: list[tuple[Rule, dict[str, str], int]] = [
    (floors, {"core/a.py": "from tunesmith.data import b"}, 1),
    (floors, {"data/a.py": "def f():\n    import tunesmith.models.load"}, 1),
    (floors, {"plan/a.py": "if TYPE_CHECKING:\n    from tunesmith.train.loop import Fit"}, 1),
    (floors, {"models/a.py": "from ..train import loop"}, 1),
    (floors, {"objectives/a.py": "parts.find('evaluate.metrics', name)"}, 1),
    (floors, {"cellar/a.py": "x = 1"}, 1),
    (floors, {"cli/a.py": "from tunesmith import finetune"}, 1),
    (floors, {"flows/a.py": "from tunesmith.train import loop\nfrom tunesmith import __version__"}, 0),
    (
        cycles,
        {"data/a.py": "from tunesmith.data import b", "data/b.py": "def f():\n from tunesmith.data.a import x"},
        1,
    ),
    (cycles, {"data/a.py": "from tunesmith.data import b", "data/b.py": "import json"}, 0),
    (no_torch, {"plan/a.py": "def f():\n    import torch"}, 1),
    (no_torch, {"core/a.py": "if TYPE_CHECKING:\n    from torch import Tensor"}, 0),
    (no_torch, {"objectives/a.py": "from torch import Tensor"}, 0),
    (no_torch_at_import, {"cli/a.py": "import torch.nn"}, 1),
    (no_torch_at_import, {"cli/a.py": "from tunesmith.flows import f", "flows/f.py": "import transformers"}, 1),
    (no_torch_at_import, {"cli/a.py": "from tunesmith.flows.f import g", "flows/__init__.py": "import torch"}, 1),
    (no_torch_at_import, {"cli/a.py": "def f():\n    import torch"}, 0),
    (core_uses, {"core/a.py": "import numpy"}, 1),
    (optional_in_one_file, {"train/a.py": "import optuna", "data/b.py": "from optuna import x"}, 1),
    (sizes, {"data/a.py": "x = 1\n" * 401}, 1),
    (sizes, {"data/a.py": "def f():\n" + "    x = 1\n" * 60}, 1),
    (sizes, {"data/a.py": "def f(self, a, b, c, d, e, f, *g, h): ..."}, 1),
    (docstrings, {"data/a.py": "x = 1", "data/__init__.py": ""}, 1),
    (no_pickle, {"data/a.py": "import joblib"}, 1),
    (no_pickle, {"data/a.py": "torch.load(path, weights_only=True)"}, 1),
    (no_pickle, {"data/a.py": "np.load(path, allow_pickle=True)"}, 1),
    (no_pickle, {"data/a.py": "yaml.load(text, Loader=yaml.Loader)"}, 1),
    (no_pickle, {"data/a.py": "yaml.load(text, Loader=yaml.SafeLoader)"}, 0),
    (no_remote_code, {"models/a.py": "f(trust_remote_code=True)"}, 1),
    (no_remote_code, {"models/a.py": "f(**{'trust_remote_code': True})"}, 1),
    (no_swallowing, {"data/a.py": "try:\n    f()\nexcept Exception as e:\n    print(e)"}, 1),
    (no_swallowing, {"data/a.py": "try:\n    f()\nexcept:\n    g()"}, 1),
    (no_swallowing, {"data/a.py": "try:\n    f()\nexcept KeyError:\n    pass"}, 1),
    (no_swallowing, {"data/a.py": "try:\n    f()\nexcept BaseException:\n    g()\n    raise"}, 0),
    (no_swallowing, {"data/a.py": "with suppress(Exception):\n    f()"}, 1),
]


@pytest.mark.parametrize(("rule", "files", "expected"), SAMPLES)
def test_each_rule_fires(rule: Rule, files: dict[str, str], expected: int) -> None:
    problems = list(rule([Module(path, text) for path, text in files.items()]))
    assert len(problems) == expected, problems


def test_every_rule_has_a_sample_that_breaks_it() -> None:
    assert {rule for rule, _, expected in SAMPLES if expected} == set(RULES)
