"""From the runs of several methods to one table: their answers are scored anew on the same rows, together.

Notable: a mean over seeds and a difference between methods need the rows and not the runs' summaries, so the answers
are read back from the runs' folders.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tunesmith.core.comparison import Attempt, MethodResult
from tunesmith.core.errors import DataError
from tunesmith.core.report import Estimate
from tunesmith.evaluate.metrics._metric import Array
from tunesmith.evaluate.over_seeds import mean_interval, mean_over_seeds
from tunesmith.evaluate.score import find_metric, statistics
from tunesmith.flows import judging, keeping
from tunesmith.flows.prepare import Prepared
from tunesmith.records.folder import RUNS, RunFolder


def side_by_side(prepared: Prepared, workspace: Path, held: Sequence[MethodResult]) -> tuple[MethodResult, ...]:
    """Methods with their attempts, in; the same with estimates, the best first, out. ``prepared`` has the test rows.

    Raises DataError where a run answered other rows.
    """
    ruler = judging.ruler(prepared)
    metric = find_metric(ruler.metrics[0])
    ids = [row.id for row in prepared.test]

    def rows(attempt: Attempt, system: str) -> Array:
        folder = RunFolder(workspace / RUNS / attempt.run_id)
        found = keeping.read_predictions(folder, system)
        if [p.id for p in found] != ids:
            raise DataError(f"{folder.predictions}: {system} answered other test rows. Delete run {attempt.run_id}.")
        return statistics(metric, found, ruler.references)

    def mean(runs: Sequence[Array], against: Sequence[Array] = ()) -> Estimate:
        return mean_over_seeds(metric, runs, against, seed=ruler.seed, units=ruler.units)

    answers: dict[str, list[Array]] = {}
    found: list[MethodResult] = []
    for method in held:
        done = [(a, a.outcome) for a in method.attempts if a.outcome is not None]
        if not done:
            found.append(method)
            continue
        answers[method.name] = runs = [rows(a, "tuned") for a, _ in done]
        quality = done[0][1].score if len(done) == 1 else mean(runs)
        gain = mean(runs, [rows(a, outcome.baseline) for a, outcome in done])
        found.append(method.model_copy(update=_measures(method) | {"quality": quality, "gain": gain}))
    sign = 1 if metric.higher_is_better else -1
    found.sort(key=lambda m: -sign * m.quality.value if m.quality is not None else float("inf"))
    return tuple(
        m.model_copy(update={"behind": mean(answers[m.name], answers[found[0].name])})
        if m.name in answers and m is not found[0]
        else m
        for m in found
    )


def _measures(method: MethodResult) -> dict[str, Any]:
    done = method.outcomes
    lost = [o.forgetting.difference for o in done if o.forgetting is not None]
    return {
        "forgetting": mean_interval(lost) if lost else None,
        "trainable_parameters": done[0].trainable_parameters,
        "peak_bytes": max((o.peak_bytes for o in done if o.peak_bytes is not None), default=None),
        "seconds": fmean(o.seconds for o in done),
        "tokens_per_second": fmean(o.tokens_per_second for o in done),
    }
