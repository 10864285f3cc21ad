"""From a report to rows of ready texts: what the HTML page, the terminal and the model card agree on.

Notable: the order of systems, the words for a verdict and the resolved plan are decided here once.
"""

from tunesmith.core.noun import Noun
from tunesmith.core.plan import Plan
from tunesmith.core.recipe import OBJECTIVE
from tunesmith.core.report import Estimate, Report, SystemResult, Verdict
from tunesmith.present.words import bytes_of, count, difference, duration, one_line, p_value, plain, ranked


def systems(report: Report) -> list[SystemResult]:
    """The tuned system first, then the baselines, the best on the primary metric first."""

    def key(system: SystemResult) -> tuple[bool, float, str]:
        primary = system.metrics.get(report.primary)
        return system.kind != "tuned", ranked(report.primary, primary.value if primary else float("nan")), system.name

    return sorted(report.systems, key=key)


def metrics(report: Report) -> list[str]:
    """All metrics that any system has, the primary first, the others in the order in which they appear."""
    found = dict.fromkeys(name for system in report.systems for name in system.metrics)
    return [report.primary, *(name for name in found if name != report.primary)]


def tuned(report: Report) -> SystemResult | None:
    return next((s for s in report.systems if s.kind == "tuned"), None)


def best_baseline(report: Report) -> Estimate | None:
    """The primary metric of the baseline that the verdict names."""
    named = (s for s in report.systems if s.name == report.verdict.baseline and s.kind == "baseline")
    return next((s.metrics[report.primary] for s in named if report.primary in s.metrics), None)


def at_best(report: Report) -> tuple[str, str]:
    """What was lost, or for a policy won, with the weights that were kept."""
    fit = report.fit
    if report.rewarded is not None:  # the loss of a policy is about 0 whatever it learns
        return "Mean reward on dev at the best step", plain(-fit.dev_loss)
    return "Loss at the best step", f"train {plain(fit.train_loss)}, dev {plain(fit.dev_loss)}"


def objective(report: Report) -> str:
    """The objective's name, with ``auto`` resolved as the recipe's reference says."""
    name = report.recipe.objective.name
    return one_line(name if name != "auto" else OBJECTIVE[report.recipe.task], 40)


def rows_behind(system: SystemResult) -> int:
    """The number of test rows a system answered: the largest n of its metrics."""
    return max((e.n for e in system.metrics.values()), default=0)


def time_an_answer(system: SystemResult) -> str:
    n = rows_behind(system)
    return duration(system.seconds / n) if n else "not known"


def peak_memory(report: Report) -> str:
    """The most memory while training, what kind it is, and what the plan foresaw."""
    fit, foreseen = report.fit, report.plan.peak_bytes
    told = "not known" if fit.peak_bytes is None else f"{bytes_of(fit.peak_bytes)}, {one_line(fit.peak_of, 80)}"
    return told if foreseen is None else f"{told}; foreseen: {bytes_of(foreseen)}"


def step_time(report: Report) -> str:
    """A usual step, and what the plan foresaw; empty where neither is known."""
    told = [(name, s) for name, s in (("", report.fit.step_seconds), ("foreseen: ", report.plan.step_seconds)) if s]
    return "; ".join(f"{name}{s:.3g} s" for name, s in told)


def gap(verdict: Verdict) -> str:
    """The measured difference with its interval, n and p, without the baseline's name."""
    value, low, high = (difference(verdict.metric, v) for v in _bounds(verdict.difference))
    return f"{value} (95% interval {low} to {high}, n = {count(verdict.difference.n)}, {p_value(verdict.p_value)})"


def _bounds(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def plan_rows(plan: Plan) -> list[tuple[str, str, str]]:
    """(name, value, reason) of each resolved value, in the order of the plan."""
    dump: dict[str, object] = dict(_fields(plan))
    reasons = dump.pop("reasons")
    assert isinstance(reasons, dict)
    rows = [(name, plan_value(name, value), str(reasons.get(name, ""))) for name, value in dump.items()]
    return rows + [(name, "", str(reason)) for name, reason in reasons.items() if name not in dump]


def _fields(noun: Noun) -> list[tuple[str, object]]:
    return [(name, getattr(noun, name)) for name in type(noun).model_fields]


def plan_value(name: str, value: object) -> str:
    """A resolved value with its unit; a value that is not known is said to be so.

    >>> plan_value("learning_rate", 2e-4), plan_value("seconds", 90.0), plan_value("steps", 1200)
    ('2.0e-04', '1 min 30 s', '1,200')
    """
    if value is None:
        return "not known"
    if name == "learning_rate" and isinstance(value, float):
        return f"{value:.1e}"
    if name == "seconds" and isinstance(value, float):
        return duration(value)
    if isinstance(value, float):
        return f"{value:g}"
    return count(value) if isinstance(value, int) and name != "seed" else str(value)
