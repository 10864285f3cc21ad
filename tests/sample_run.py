"""A finished run in a workspace, for tests of what reads runs."""

from pathlib import Path

import sample_report
from tunesmith.core.run import Run
from tunesmith.records.index import Index


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
        sample_report.build(verdict).model_copy(update={"run_id": name}).save(folder / "report.json")
    return run
