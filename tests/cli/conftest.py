"""What the tests of the command line share: a runner in an empty folder, and a finished run in a workspace."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tunesmith.cli.main import app
from tunesmith.core.report import Report
from tunesmith.core.run import Run
from tunesmith.records.index import Index

Cli = Callable[..., Result]
SAMPLE = Path(__file__).parent.parent / "present" / "sample.py"


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)

    def call(*words: object, **keywords: Any) -> Result:
        return CliRunner().invoke(app, [str(w) for w in words], **keywords)

    return call


def a_report(decision: str = "SHIP") -> Report:
    spec = importlib.util.spec_from_file_location("present_sample", SAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    report: Report = module.build(decision)
    return report


def a_run(workspace: Path, name: str, verdict: str | None = "SHIP") -> Run:
    """A run in the index; with a verdict it has a report too."""
    folder = workspace / "runs" / name
    folder.mkdir(parents=True)
    run = Run(
        id=name,
        folder=str(folder),
        status="done" if verdict else "failed",
        task="generate",
        model="bundled",
        method="lora",
        created=f"2026-03-01T14:15:{len(list(folder.parent.iterdir())):02d}+00:00",
        recipe_hash="ab12cd",
        metric="exact_match",
        score=0.827,
        baseline=0.486,
        verdict=verdict,
        error=None if verdict else "the disk was full",
    )
    Index.open(workspace).put(run)
    if verdict:
        a_report(verdict).model_copy(update={"run_id": name}).save(folder / "report.json")
    return run
