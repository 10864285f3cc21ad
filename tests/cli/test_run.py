"""run and demo: what is printed, what is written, and which exit code the verdict gives."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import Result

from sample_run import a_run
from tunesmith.cli import demo
from tunesmith.cli.run import finish
from tunesmith.core import recipe_file
from tunesmith.core.errors import DataError

Cli = Callable[..., Result]
OBJECT = {"run", "verdict", "metric", "tuned", "baseline", "report", "html", "adapter"}


@pytest.mark.parametrize(("verdict", "code"), [("SHIP", 0), ("HOLD", 7), ("NOT ENOUGH EVIDENCE", 7)])
def test_the_verdict_gives_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verdict: str, code: int
) -> None:
    run = a_run(tmp_path, "20260301-141501-aaaaaa", verdict)
    left = 0
    try:
        finish(run, as_json=True)
    except typer.Exit as leave:
        left = leave.exit_code
    told = json.loads(capsys.readouterr().out)
    assert (left, told["verdict"], set(told)) == (code, verdict, OBJECT)
    assert Path(told["report"]).is_file()


@pytest.mark.parametrize(("words", "said"), [
    (("gone.yaml",), "gone.yaml does not exist."),
    (("r.yaml", "-s", "train.epoch=5"), '-s train.epoch=5: train.epoch is an unknown key. Did you mean "epochs"?'),
    (("r.yaml", "-s", "method.name=lorra"), 'Did you mean "lora"?'),
    (("r.yaml", "-s", "method.rank=0"), "method.rank is 0; expected a whole number of at least 1"),
    (("r.yaml",), "gone.jsonl"),
    (("r.yaml", "--dry-run"), "gone.jsonl"),
])  # fmt: skip
def test_bad_input_is_a_sentence_and_leaves_nothing(
    cli: Cli, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "r.yaml").write_text("data: {train: gone.jsonl}")
    done = cli("run", *words)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.yaml"]


def test_the_demo_unpacks_its_data_and_a_recipe_that_loads_and_keeps_what_is_there(tmp_path: Path) -> None:
    recipe = demo.unpack(tmp_path / "d")
    assert Path(recipe_file.load(recipe).data.train).is_file()
    recipe.write_text(recipe.read_text() + "\n# mine\n")
    assert demo.unpack(tmp_path / "d").read_text().endswith("# mine\n")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"is a file; expected a folder"):
        demo.unpack(tmp_path / "file")


def test_dry_run_prints_the_plan_and_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    demo.unpack(tmp_path / "d")
    before = sorted(p.name for p in tmp_path.rglob("*"))
    done = cli("run", "d/recipe.yaml", "--dry-run", "--json", "-s", "train.epochs=2")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["plan"]["epochs"], told["data"]["rows"] > 1400) == (2, True)
    assert cli("run", "d/recipe.yaml", "--dry-run").exit_code == 0
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_dry_run_says_what_a_run_would_warn_of(cli: Cli, tmp_path: Path) -> None:
    demo.unpack(tmp_path / "d")
    rows = (tmp_path / "d" / "tickets.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "d" / "again.jsonl").write_text("".join(rows[:50]), encoding="utf-8")
    path = tmp_path / "d" / "recipe.yaml"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "test: 0.12" not in line), encoding="utf-8")
    asked = ("run", "d/recipe.yaml", "--dry-run", "-s", "data.test=again.jsonl")
    told = json.loads(cli(*asked, "--json").stdout)
    (repeats,) = [w for w in told["warnings"] if "repeat rows of the test file, or share their group" in w]
    assert f"Warning: {repeats}"[:60] in cli(*asked).stdout
