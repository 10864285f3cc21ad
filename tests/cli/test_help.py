"""The help: every verb has real examples, and the reference pages say what the code does."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from tunesmith.cli.main import PANELS, app
from tunesmith.plan.devices import known_devices

GROUP: Any = typer.main.get_command(app)
VERBS = [verb.__name__ for verbs in PANELS.values() for verb in verbs]


def examples_of(command: Any) -> list[str]:
    head, *lines = command.epilog.splitlines()
    assert head == "Examples:"
    return list(lines)


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_examples_that_parse(verb: str) -> None:
    lines = examples_of(GROUP.commands[verb])
    assert len(lines) >= 2
    for line in lines:
        program, name, *words = shlex.split(line)
        assert (program, name) == ("tunesmith", verb)
        with GROUP.commands[verb].make_context(verb, words) as context:
            assert not context.args


def test_the_recipe_in_stages_that_the_help_names_is_there(repo_root: Path) -> None:
    words = shlex.split(" ".join(examples_of(GROUP.commands["run"])))
    (staged,) = (word for word in words if word.endswith("stages.yaml"))
    assert (repo_root / staged).is_file()


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_json_and_a_sentence_for_each_option(verb: str) -> None:
    command = GROUP.commands[verb]
    assert any("--json" in parameter.opts for parameter in command.params)
    assert [p.name for p in command.params if not p.help or not p.help.endswith(".")] == []
    assert command.help.split("\n")[0].endswith(".")


def make_docs(root: Path) -> Any:
    spec = importlib.util.spec_from_file_location("make_docs", root / "scripts" / "make_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["cli.md", "recipe.md", "objectives.md", "errors.md", "plan.md"])
def test_the_reference_pages_are_up_to_date(repo_root: Path, name: str) -> None:
    page = make_docs(repo_root).PAGES[name]()
    assert (repo_root / "docs" / name).read_text(encoding="utf-8") == page, "run python scripts/make_docs.py"


def test_both_sides_of_a_flag_are_in_the_reference(repo_root: Path) -> None:
    page = make_docs(repo_root).PAGES["cli.md"]()
    others = [name for verb in VERBS for p in GROUP.commands[verb].params for name in p.secondary_opts]
    assert "--no-prototype" in others
    assert [name for name in others if f", {name}" not in page] == []


def test_check_names_a_stale_page(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = make_docs(repo_root)
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["make_docs.py"])
    assert script.main() == 0
    (tmp_path / "docs" / "cli.md").write_text("old")
    monkeypatch.setattr(sys, "argv", ["make_docs.py", "--check"])
    assert script.main() == 1
    assert capsys.readouterr().err == "Out of date: cli.md. Run python scripts/make_docs.py.\n"


def test_the_plan_page_says_nothing_twice_and_names_the_type_of_each_rate(repo_root: Path) -> None:
    page = make_docs(repo_root).PAGES["plan.md"]()
    prose = " ".join(line for line in page.splitlines() if not line.startswith("|"))
    sentences = [s.strip() for s in re.split(r"[.;:] ", prose) if len(s) > 20]
    assert len(sentences) == len(set(sentences))
    for device in known_devices().values():
        (line,) = (line for line in page.splitlines() if line.startswith(f"| {device.name} | {device.memory_gib:g} |"))
        kind = "bf16" if "bfloat16" in device.tflops else "float32"
        assert f" {device.tflops.get('bfloat16', device.tflops['float32']):g} {kind} |" in line
