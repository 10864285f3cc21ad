"""The documents do not lie: links and paths exist, recipes are valid, Python runs, verbs and make targets are real."""

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import tunesmith
from tunesmith.core import recipe_file
from tunesmith.core.recipe import Recipe
from tunesmith.core.run import Run
from tunesmith.flows import stages
from tunesmith.flows.check_recipe import check_parts

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    ROOT / name
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/reliability.md")
]


def _blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@cache
def _help(*verb: str) -> str:
    command = [sys.executable, "-m", "tunesmith", *verb, "--help"]
    environment = os.environ | {"COLUMNS": "160", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    environment.pop("FORCE_COLOR", None)
    return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=True).stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8"))
    local = [target for target in targets if not target.startswith("https://")]
    assert [target for target in local if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_paths_in_code_quotes_exist(document: Path) -> None:
    quoted = set(re.findall(r"`([\w./-]+/[\w./-]*)`", document.read_text(encoding="utf-8")))
    rooms = {path.name for path in (ROOT / "src" / "tunesmith").iterdir() if path.is_dir()} | {"tunesmith"}
    tops = {"src", "tests", "docs", "scripts", "benchmarks", "examples", ".ci"}
    below = {"src": ROOT / "src", "src/tunesmith": ROOT / "src" / "tunesmith"}
    wrong = []
    for path in quoted:
        top = path.split("/")[0]
        base = ROOT if top in tops else below["src"] if top == "tunesmith" else below["src/tunesmith"]
        if top in tops | rooms and not (base / path).exists():
            wrong.append(path)
    assert wrong == []


@pytest.mark.parametrize("document", ["README.md", "docs/recipe.md"])
def test_recipes_are_valid(tmp_path: Path, document: str) -> None:
    blocks = _blocks(ROOT / document, "yaml")
    assert blocks
    for block in blocks:
        path = tmp_path / "recipe.yaml"
        path.write_text(block, encoding="utf-8")
        for recipe in stages.recipes(path) or (recipe_file.load(path),):
            check_parts(recipe)


def test_every_key_that_a_recipe_may_have_is_in_the_list() -> None:
    page = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    listed = {key.split(".")[0] for key in re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE)}
    assert listed == {*Recipe.model_fields, recipe_file.STAGES}


def test_python_uses_names_that_exist() -> None:
    (block,) = _blocks(ROOT / "README.md", "python")
    used = {
        (node.value.id, node.attr)
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    assert ("tunesmith", "finetune") in used
    for owner, name in used:
        assert hasattr(tunesmith, name) if owner == "tunesmith" else name in Run.model_fields, f"{owner}.{name}"


def test_the_table_of_verbs_is_the_command_line() -> None:
    listed = re.findall(r"^\| `tunesmith (\w+)` \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    offered = re.findall(r"^│ (\w+) ", _help(), re.MULTILINE)
    assert sorted(listed) == sorted(offered)


@pytest.mark.parametrize("line", [line for block in _blocks(ROOT / "README.md", "sh") for line in block.splitlines()])
def test_commands_are_real(line: str) -> None:
    program, verb, *rest = line.split("#")[0].split()
    if program == "make":
        assert re.search(rf"^{verb}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return
    assert program == "tunesmith"
    text = _help(verb)
    assert [option for option in rest if option.startswith("-") and option not in text] == []
