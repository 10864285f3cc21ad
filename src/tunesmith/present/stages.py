"""A run in stages as one HTML page and as a table for the terminal."""

from rich.console import Group, RenderableType
from rich.text import Text

from tunesmith.core.stages import Staged, StageResult, Win
from tunesmith.present import charts, rewards
from tunesmith.present.html import markup, rendered
from tunesmith.present.terminal import plain_table
from tunesmith.present.words import clean, duration, interval, metric_name, one_line, score


def measured(stage: StageResult) -> tuple[str, str]:
    """The stage's score and its best baseline's, each with its interval."""
    name = stage.metric
    tuned, bar = ((score(name, e.value), interval(name, e), e.n) for e in (stage.score, stage.baseline_score))
    return (
        f"{metric_name(name)} {tuned[0]} ({tuned[1]}, n = {tuned[2]:,})",
        f"{one_line(stage.baseline, 30)} {bar[0]} ({bar[1]})",
    )


def beats(win: Win) -> tuple[str, str]:
    """Who wins against whom, and how often."""
    return f"{win.system} against {win.against}, by {rewards.OF[win.by]}", rewards.share(win.share)


def render_stages(found: Staged) -> str:
    """``found`` as a page of its own, readable offline."""
    told = found.rewarded
    shown = [
        (f"{w.system} against {w.against}", w.share, w.system == found.stages[-1].name)
        for w in found.wins
        if w.by == "reward"
    ]
    return rendered(
        "stages.html.j2",
        {
            "s": found,
            "rows": [(stage, *measured(stage), duration(stage.seconds)) for stage in found.stages],
            "wins": [beats(win) for win in found.wins],
            "chart": markup(charts.whiskers("win_rate", shown, 0.5, "as often won as lost")) if shown else "",
            "curves": [] if told is None else [markup(svg) for svg in rewards.curves(told).values() if svg],
            "answers": [] if told is None else rewards.answers(told, ()),
        },
    )


def stages_summary(found: Staged, page: str) -> RenderableType:
    """The table of stages, who wins, signs of a fooled reward, and where the page lies."""
    table = plain_table(f"{len(found.stages)} of {found.total} stages")
    for name in ("stage", "verdict", "tuned", "best baseline"):
        table.add_column(name)
    for stage in found.stages:
        tuned, bar = measured(stage)
        table.add_row(*(Text(clean(t, 200)) for t in (f"{stage.name}\n{stage.run_id}", stage.decision, tuned, bar)))
    wins = [Text(f"{one_line(what, 120)}: {share}") for what, share in map(beats, found.wins)]
    told = [] if found.rewarded is None else [found.rewarded.sentence, *found.rewarded.signs]
    more = [Text(clean(line, 500)) for line in told]
    warned = [Text(f"Warning: {clean(note, 500)}", style="yellow") for note in found.notes]
    return Group(table, *wins, *more, *warned, Text("Report:"), Text(page, overflow="fold"))
