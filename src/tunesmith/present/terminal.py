"""Reports, data findings, plans and run lists for the terminal, as rich renderables.

Notable: texts are ``rich.text.Text``, never markup, and are cleaned first, so data cannot colour, move the cursor
or open a link. Nothing relies on colour (``NO_COLOR``, pipes), and each path starts a line of its own.
"""

import math
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tunesmith.core.plan import Plan
from tunesmith.core.report import DataReport, Report
from tunesmith.core.run import Run
from tunesmith.present import view
from tunesmith.present.words import clean, count, interval, metric_name, one_line, score

VERDICT_STYLES = {"SHIP": "green", "HOLD": "yellow", "NOT ENOUGH EVIDENCE": "white"}
SEVERITY_STYLES = {"blocking": "bold red", "warning": "yellow", "info": ""}
MORE_METRICS = 1


def summary(report: Report, paths: Mapping[str, str] | None = None) -> RenderableType:
    """Systems with intervals, the verdict, and one line for each of ``paths`` (name to path)."""
    verdict = report.verdict
    lines = Text()
    lines.append(verdict.decision, style=f"bold {VERDICT_STYLES[verdict.decision]}")
    lines.append(f"\n{clean(verdict.sentence, 600)}\n\n")
    lines.append(f"{metric_name(verdict.metric)} against {one_line(verdict.baseline, 40)}: {view.gap(verdict)}\n")
    lines.append(f"Rule: {clean(verdict.rule, 600)}\n", style="dim")
    lines.append(f"Cost: {clean(verdict.cost_sentence, 600)}\n")
    lines.append(f"Fit: {clean(report.fit.overfit, 600)}\n")
    if report.preferences is not None:
        lines.append(f"Preferences: {clean(report.preferences.sentence, 400)}\n")
    if report.rewarded is not None:
        told = " ".join((report.rewarded.sentence, *report.rewarded.signs))
        lines.append(f"Rewards: {clean(told, 800)}\n")
    if report.forgetting is not None:
        lines.append(f"Forgetting: {clean(report.forgetting.sentence, 400)}\n")
    lines.append(f"Peak memory: {view.peak_memory(report)}")
    panel = Panel(lines, title="Verdict", box=box.ROUNDED, border_style=VERDICT_STYLES[verdict.decision])
    return Group(_systems(report), panel, warnings(report.warnings), *_paths(paths or {}))


def warnings(sentences: Sequence[str]) -> RenderableType:
    return Group(*(Text(f"Warning: {clean(sentence, 400)}", style="yellow") for sentence in sentences))


def _systems(report: Report) -> Table:
    others = view.metrics(report)[1 : 1 + MORE_METRICS]
    table = plain_table("Systems on the locked test")
    table.add_column("system", no_wrap=True)
    table.add_column(metric_name(report.primary), justify="right")
    table.add_column("95% interval", justify="right", no_wrap=True)
    for name in ("n", *map(metric_name, others), "time an answer", "tokens an answer"):
        table.add_column(name, justify="right")
    for system in view.systems(report):
        primary = system.metrics.get(report.primary)
        known = primary is not None and math.isfinite(primary.low) and math.isfinite(primary.high)
        cells = [
            one_line(system.name, 30),
            score(report.primary, primary.value) if primary else "-",
            interval(report.primary, primary) if primary and known else "-",
            count(primary.n) if primary else "-",
            *(score(name, system.metrics[name].value) if name in system.metrics else "-" for name in others),
            view.time_an_answer(system),
            count(system.prompt_tokens + system.new_tokens),
        ]
        table.add_row(*map(Text, cells), style="bold" if system.kind == "tuned" else "")
    return table


def _paths(paths: Mapping[str, str]) -> list[Text]:
    """Name and path on lines of their own, so that a path as wide as the terminal stays in one piece."""
    return [Text(f"{one_line(name, 30)}:\n{clean(path, 4000)}", overflow="fold") for name, path in paths.items()]


def data_summary(data: DataReport) -> RenderableType:
    """What was read and why, and the findings, the blocking ones first."""
    why = clean(data.why, 600)
    head = Text(f"{count(data.rows)} rows, read as {one_line(data.format, 60)}: {why}\n")
    head.append(f"{count(data.quarantined)} rows quarantined.", style="yellow" if data.quarantined else "")
    if data.trained_share is not None:
        head.append(f" {100 * data.trained_share:.1f}% of the tokens are trained.")
    if data.token_lengths:
        ordered = sorted(data.token_lengths)
        middle, tail = ordered[len(ordered) // 2], ordered[int(0.95 * (len(ordered) - 1))]
        head.append(
            f"\nTokens a row: median {count(middle)}, 95th percentile {count(tail)}, longest {count(ordered[-1])}."
        )
    if not data.findings:
        return Group(head, Text("No check found anything."))
    table = plain_table("Findings")
    table.add_column("severity", no_wrap=True)
    table.add_column("check", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("finding", ratio=1)
    order = list(SEVERITY_STYLES)
    for finding in sorted(data.findings, key=lambda f: order.index(f.severity)):
        text = Text(clean(finding.message, 400))
        if finding.rows:
            text.append(f"\n{', '.join(one_line(r, 60) for r in finding.rows[:3])}", style="dim")
        for sample in finding.samples[:2]:
            text.append(f"\n> {one_line(sample, 120)}", style="dim")
        severity = Text(finding.severity, style=SEVERITY_STYLES[finding.severity])
        table.add_row(severity, Text(one_line(finding.check, 24)), Text(count(finding.count)), text)
    return Group(head, table)


def plan_summary(plan: Plan) -> RenderableType:
    """Every resolved value with its reason."""
    table = plain_table("Plan")
    table.add_column("value", no_wrap=True)
    table.add_column("resolved", justify="right", no_wrap=True)
    table.add_column("reason", ratio=1)
    for name, value, reason in view.plan_rows(plan):
        table.add_row(Text(one_line(name, 30)), Text(one_line(value, 30)), Text(clean(reason, 400)))
    return table


def runs_table(runs: Sequence[Run]) -> RenderableType:
    """One line a run, in the order given; failed runs are followed by their error."""
    if not runs:
        return Text("No runs yet. Start one with: tunesmith run RECIPE")
    table = plain_table(None)
    table.add_column("run", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("model, method, metric")
    for name in ("tuned", "baseline"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", min_width=10)
    for run in runs:
        metric = run.metric or ""
        words = [run.model.rsplit("/", 1)[-1], run.method, *([metric_name(metric)] if metric else [])]
        scores = [score(metric, value) if value is not None else "-" for value in (run.score, run.baseline)]
        cells = [
            one_line(run.id, 40),
            run.status,
            one_line(", ".join(words), 60),
            *scores,
            one_line(run.verdict or "-", 30),
        ]
        table.add_row(*map(Text, cells))
    errors = [Text(f"{one_line(r.id, 40)}: {one_line(r.error, 300)}", style="red") for r in runs if r.error]
    return Group(table, *errors)


def plain_table(title: str | None) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
