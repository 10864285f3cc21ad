"""All checks over a dataset, and the stop on what is blocking.

Notable: checks are found by their files, so a new one runs without being listed anywhere. ``data.allow`` turns a
blocking finding into a warning that says so: it stays in the report.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core import parts
from tunesmith.core.errors import DataError
from tunesmith.core.example import Dataset
from tunesmith.core.report import DataReport, Finding
from tunesmith.data.checks._check import Check, Context, closed_set

_ORDER = {"blocking": 0, "warning": 1, "info": 2}


def inspect(
    dataset: Dataset,
    *,
    task: str,
    token_lengths: Sequence[int] = (),
    answer_lengths: Sequence[int] = (),
    max_length: int | None = None,
    allow: Sequence[str] = (),
) -> DataReport:
    """Run every check over ``dataset``; the gravest findings come first.

    ``token_lengths`` and ``answer_lengths`` count tokens, one number a row; without them lengths are not checked.
    Raises PartError when ``allow`` names no check.
    """
    for name in allow:
        parts.find("data.checks", name)
    context = Context(task, tuple(token_lengths), tuple(answer_lengths), max_length)
    findings: list[Finding] = []
    for name in parts.names("data.checks"):
        check: Check = parts.find("data.checks", name)
        findings += [_allowed(f) if name in allow else f for f in check.run(dataset.examples, context)]
    return DataReport(
        rows=len(dataset.examples),
        format=dataset.format,
        why=dataset.why,
        quarantined=len(dataset.bad_rows),
        findings=tuple(sorted(findings, key=lambda f: _ORDER[f.severity])),
        token_lengths=context.token_lengths,
        label_counts=closed_set(dataset.examples),
    )


def _allowed(finding: Finding) -> Finding:
    if finding.severity != "blocking":
        return finding
    message = f"{finding.message} (Accepted by data.allow.)"
    return finding.model_copy(update={"severity": "warning", "message": message})


def stop_on_blocking(report: DataReport) -> None:
    """Raise DataError with a sentence for each blocking finding, its first rows, and the way out."""
    if not report.blocking:
        return
    lines = [
        f"{f.check}: {f.message} Rows: {', '.join(f.rows[:5])}{', ...' if f.count > 5 else ''}" for f in report.blocking
    ]
    names = ", ".join(dict.fromkeys(f.check for f in report.blocking))
    lines.append(
        f"The data cannot be trained on as they are. Fix these rows, or accept them with data.allow: [{names}]."
    )
    raise DataError("\n".join(lines))
