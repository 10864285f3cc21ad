"""Whole runs of ``tunesmith`` in a work folder: one that is there already is taken, several share the cores.

Notable: a run among ``jobs`` others is a process of its own with its share of the cores, and trains the same weights
as alone with as many threads.
"""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

from tunesmith.core.recipe import Recipe
from tunesmith.core.report import Report
from tunesmith.flows.finetune import finetune
from tunesmith.records.index import Index


@dataclass(frozen=True)
class Runs:
    """Of the folder ``work``, ``jobs`` at a time; ``quick`` is what the benchmark was asked for. ``began`` is when the
    runs did that were asked for so far, in UTC: a run that was there may be of older code."""

    work: Path
    quick: bool = False
    jobs: int = 1
    began: list[str] = field(default_factory=list)

    def __call__(self, *recipes: Recipe) -> list[Report]:
        """The report of each."""
        if self.jobs == 1 or len(recipes) == 1:
            found = [_report_of(recipe, self.work) for recipe in recipes]
        else:
            with _threads(max(1, (os.cpu_count() or 1) // self.jobs)):
                pool = ProcessPoolExecutor(self.jobs, get_context("spawn"), max_tasks_per_child=1)
                with pool:
                    found = list(pool.map(_report_of, recipes, [self.work] * len(recipes)))
        self.began.extend(began(report.run_id) for report in found)
        return found

    def folder(self, report: Report) -> Path:
        return self.work / "runs" / report.run_id


def began(run_id: str) -> str:
    """
    >>> began("20261127-184101-c721e1")
    '2026-11-27T18:41'
    """
    return f"{datetime.strptime(run_id[:15], '%Y%m%d-%H%M%S'):%Y-%m-%dT%H:%M}"


def _report_of(recipe: Recipe, work: Path) -> Report:
    wanted = recipe.content_hash()
    for known in Index.open(work).all():
        if known.recipe_hash == wanted and known.status == "done":
            return Report.load(Path(known.folder) / "report.json")
    told = f"{datetime.now(UTC):%H:%M:%S} {recipe.objective.name}, seed {recipe.train.seed}"
    print(told, file=sys.stderr, flush=True)
    return Report.load(Path(finetune(recipe, workspace=work).folder) / "report.json")


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """For processes that are started within."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
