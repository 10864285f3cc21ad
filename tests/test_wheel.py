"""The wheel is whole: built, unpacked into an empty folder and run from another one, it has its assets and answers."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    _python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(repo_root), cwd=out)
    (built,) = out.glob("tunesmith-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    _python("-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel), cwd=target)
    return target


def _python(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_source_and_asset_is_inside_and_nothing_else(wheel: Path, repo_root: Path) -> None:
    source = repo_root / "src"
    expected = {
        path.relative_to(source).as_posix()
        for path in (source / "tunesmith").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert inside == expected
    assert {f"tunesmith/assets/helpdesk/{name}" for name in ("recipe.yaml", "tickets.jsonl")} <= inside


def test_the_licence_travels_along(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (licence,) = (name for name in archive.namelist() if name.endswith("licenses/LICENSE"))
    assert b"Apache License" in archive.read(licence)


def test_the_command_line_answers_from_another_folder(installed: Path, tmp_path: Path) -> None:
    where = _python("-c", "import tunesmith; print(tunesmith.__file__)", cwd=tmp_path, path=installed)
    assert Path(where.strip()).is_relative_to(installed)
    assert "demo" in _python("-m", "tunesmith", "--help", cwd=tmp_path, path=installed)


def test_the_bundled_recipe_loads_from_the_installed_copy(installed: Path, tmp_path: Path) -> None:
    recipe = installed / "tunesmith" / "assets" / "helpdesk" / "recipe.yaml"
    code = (
        "import sys; from pathlib import Path; from tunesmith.core import recipe_file; "
        "print(recipe_file.load(Path(sys.argv[1])).data.train)"
    )
    data = _python("-c", code, str(recipe), cwd=tmp_path, path=installed)
    assert Path(data.strip()) == recipe.with_name("tickets.jsonl")
