"""combine: adapters of runs become one folder, or a sentence says why not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import small
from sample_run import a_run
from tunesmith.models import artefact

Cli = Callable[..., Result]
ONE, TWO = "20260301-141501-aaaaaa", "20260301-141502-bbbbbb"


@pytest.fixture
def runs(tmp_path: Path) -> None:
    base = small.llama(tmp_path / "base")
    for seed, name in enumerate((ONE, TWO)):
        run = a_run(tmp_path, name)
        model = small.stir(small.decoder(base, "lora", seed=seed), seed=seed)
        artefact.publish(model, "lora", Path(run.folder) / "adapter", {})


@pytest.mark.usefixtures("runs")
def test_two_runs_become_one_adapter(cli: Cli, tmp_path: Path) -> None:
    dry = cli("combine", ONE, TWO, "--out", "both", "--dry-run")
    assert dry.exit_code == 0 and "nothing was written" in dry.stdout and not (tmp_path / "both").exists()
    done = cli("combine", ONE, TWO, "--by", "svd", "--rank", "4", "--weights", "0.7,0.3", "--out", "both", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["weights"] == [0.7, 0.3]
    assert json.loads((tmp_path / "both" / "adapter_config.json").read_text())["r"] == 4
    again = cli("combine", ONE, TWO, "--out", "both")
    assert again.exit_code == 2 and "both exists already" in again.stderr


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((ONE,), "1 adapters and 1 weights"),
        ((ONE, TWO, "--weights", "half"), '--weights is "half"'),
        ((ONE, TWO, "--by", "mean"), "Expected one of: linear, svd, ties, dare"),
    ],
)
def test_what_cannot_be_is_a_sentence(cli: Cli, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    done = cli("combine", *options, "--out", "both")
    assert done.exit_code == 2 and words in done.stderr and not (tmp_path / "both").exists()
