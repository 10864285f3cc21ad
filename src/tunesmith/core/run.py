"""A run as the index and the command line see it."""

from typing import Literal

from tunesmith.core.noun import Noun

Status = Literal["running", "done", "failed", "diverged", "interrupted", "crashed"]


class Run(Noun):
    """One run folder. ``score`` and ``baseline`` are the primary metric of the tuned system and of the best one.
    "crashed" is never written: it is what "running" means once the process is gone."""

    id: str
    folder: str
    status: Status
    task: str
    model: str
    method: str
    created: str
    recipe_hash: str
    data_hash: str = ""
    metric: str | None = None
    score: float | None = None
    baseline: float | None = None
    verdict: str | None = None
    error: str | None = None
    seconds: float | None = None
    pid: int | None = None
