"""export: what a dry run tells, and that bad input is a sentence before weights are read."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from sample_run import a_run
from tunesmith.cli import export
from tunesmith.core.export import Proof, Question
from tunesmith.core.report import Report
from tunesmith.flows import export as flow

Cli = Callable[..., Result]
RUN = "20260301-141501-aaaaaa"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = Path(a_run(tmp_path, RUN).folder)
    (folder / "data").mkdir()
    (folder / "data" / "proof.jsonl").write_text(Question(text="hi").model_dump_json() + "\n")
    adapter = folder / Report.load(folder / "report.json").adapter
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    return folder


def test_a_dry_run_names_the_folder_and_writes_nothing(cli: Cli, run: Path) -> None:
    before = sorted(run.rglob("*"))
    done = cli("export", RUN, "--to", "peft", "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    folder = f"runs/{RUN}/export/peft"
    assert told == {"run": RUN, "format": "peft", "type": "float32", "folder": folder, "proof": None}
    assert "Nothing was written." in cli("export", RUN, "--to", "merged", "--dry-run").stdout
    assert sorted(run.rglob("*")) == before


def test_the_proof_is_printed_with_the_other_ways(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proof = Proof(format="merged", weights="float32", unproven="no reader", others={"merged elsewhere": 0.25})
    export._tell(flow.order(run, "merged"), proof.model_dump(mode="json"), proof.sentence, False)
    out = capsys.readouterr().out
    assert "Not verified: no reader.\nmerged elsewhere: KL 2.5e-01 nats a token" in out


@pytest.mark.parametrize(("words", "said"), [
    (("--to", "merjed"), 'Did you mean "merged"?'),
    (("--to", "merged", "--type", "f16"), "--type is f16"),
    (("--to", "merged", "--out", "."), "exists already"),
])  # fmt: skip
def test_bad_input_is_a_sentence(cli: Cli, run: Path, words: tuple[str, ...], said: str) -> None:
    done = cli("export", RUN, *words)
    assert done.exit_code == 2, done.output
    assert said in done.stderr


def test_without_prompts_nothing_can_be_proven(cli: Cli, run: Path) -> None:
    (run / "data" / "proof.jsonl").write_text("")
    assert "no test row can prove an export" in cli("export", RUN, "--to", "merged").stderr
    (run / "data" / "proof.jsonl").unlink()
    assert "the prompts that prove an export cannot be read" in cli("export", RUN, "--to", "merged").stderr
