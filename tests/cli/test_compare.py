"""What ``tunesmith compare`` plans and refuses; what it finds is tested in tests/flows/test_compare.py."""

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Cli
from tests.flows.conftest import asked, write_jsonl


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "asked.jsonl", asked(60))
    (tmp_path / "r.yaml").write_text("data: {train: asked.jsonl}\nmethod: {name: lora, rank: 4, alpha: 8}\n")
    return tmp_path / "r.yaml"


def test_a_dry_run_tells_each_method_and_writes_nothing(cli: Cli, recipe: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    done = cli("compare", recipe, "--methods", "full, lora,ia3", "--seeds", "2", "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["methods"]
    assert [row["method"] for row in rows] == ["full", "lora", "ia3"]
    assert [row["left_out"] for row in rows] == [["method.alpha", "method.rank"], [], ["method.alpha", "method.rank"]]
    assert rows[1]["learning_rate"] > rows[0]["learning_rate"] > 0
    assert all(row["seeds"] == [0, 1] and row["steps"] > 0 for row in rows)
    assert sorted(tmp_path.iterdir()) == before
    shown = cli("compare", recipe, "--methods", "full", "--dry-run").stdout
    assert "full: 1 run(s)" in shown and "does not read method.alpha, method.rank" in shown


@pytest.mark.parametrize(
    ("methods", "told"),
    [("lora,lorra", 'Did you mean "lora"'), ("lora,lora", "named twice"), (" , ", "No method is named")],
)
def test_what_cannot_be_compared_is_a_sentence(cli: Cli, recipe: Path, methods: str, told: str) -> None:
    done = cli("compare", recipe, "--methods", methods)
    assert (done.exit_code, told in done.stderr) == (2, True), done.output
