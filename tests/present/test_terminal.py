import io

import pytest
from rich.console import Console, RenderableType

import sample_report as sample
from tunesmith.core.run import Run
from tunesmith.present import terminal
from tunesmith.present.words import score


def shown(renderable: RenderableType, width: int = 100, **options: object) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, **options).print(renderable)  # type: ignore[arg-type]
    return stream.getvalue()


def test_summary_tells_systems_verdict_and_paths() -> None:
    report = sample.build("HOLD")
    text = shown(terminal.summary(report, {"report": "/runs/x/report.html"}))
    for system in report.systems:
        estimate = system.metrics["exact_match"]
        line = next(line for line in text.splitlines() if line.strip().startswith(system.name))
        assert score("exact_match", estimate.value) in line and "214" in line
        assert f"{score('exact_match', estimate.low)} to {score('exact_match', estimate.high)}" in line
    assert "HOLD" in text and "Rule: " in text and "Cost: " in text and "It forgot: general text" in text
    assert "Peak memory: 768 MiB, resident memory" in text and "Warning: The disk" in text
    assert "\n/runs/x/report.html" in text


def test_a_path_as_wide_as_the_terminal_is_whole_and_a_longer_one_is_complete() -> None:
    path = "/" + "d" * 79
    assert path in shown(terminal.summary(sample.build(), {"report": path}), 80).splitlines()
    longer = "/" + "".join(str(k % 10) for k in range(150))
    assert longer in shown(terminal.summary(sample.build(), {"report": longer}), 80).replace("\n", "")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    report = sample.build()
    for renderable in (
        terminal.summary(report),
        terminal.data_summary(report.data),
        terminal.plan_summary(report.plan),
    ):
        assert max(map(len, shown(renderable, width).splitlines())) <= width


def test_names_and_intervals_fit_in_80_columns() -> None:
    text = shown(terminal.summary(sample.build()), 80)
    assert "nearest_neighbour" in text and "77.7% to 87.2%" in text


def test_pipes_and_no_color_get_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    report = sample.build()
    assert "\x1b" not in shown(terminal.summary(report))
    assert "\x1b[" in shown(terminal.summary(report), force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    codes = shown(terminal.summary(report), force_terminal=True)
    assert "\x1b[32m" not in codes and "SHIP" in codes


def test_hostile_texts_reach_no_terminal() -> None:
    report = sample.build()
    text = shown(terminal.data_summary(report.data), 120) + shown(terminal.summary(report))
    assert "⟨U+202E⟩" in text and "⟨U+001B⟩" in text
    assert not {"\x1b", "\u202e", "\x00"} & set(text)
    marked = report.data.model_copy(update={"why": "[red]not markup[/red] [link=http://x]y[/link]"})
    assert "[red]not markup[/red] [link=http://x]y[/link]" in shown(terminal.data_summary(marked), 200)


def test_data_summary_orders_findings_by_severity() -> None:
    text = shown(terminal.data_summary(sample.data()))
    assert text.index("blocking") < text.index("warning ") < text.index("info ")
    assert "9 rows quarantined. 31.8% of the tokens are trained." in text
    clean = sample.data().model_copy(update={"findings": ()})
    assert "No check found anything." in shown(terminal.data_summary(clean))


def test_plan_summary_gives_each_value_and_reason() -> None:
    text = shown(terminal.plan_summary(sample.plan()), 160)
    for name in ("learning_rate", "max_length", "patience", "memory"):
        assert name in text
    for reason in sample.plan().reasons.values():
        assert reason in text
    assert "2.0e-04" in text and "4,096" in text


def test_runs_table() -> None:
    base = {
        "folder": "x",
        "task": "generate",
        "model": "/m/bundled",
        "method": "lora",
        "created": "z",
        "recipe_hash": "0",
    }
    done = Run.model_validate(
        base
        | {
            "id": "20260301-141502-ab12cd",
            "status": "done",
            "metric": "exact_match",
            "score": 0.827,
            "baseline": 0.486,
            "verdict": "SHIP",
        }
    )
    failed = Run.model_validate(
        base | {"id": "20260302-141502-ffffff", "status": "failed", "error": "[b]no\x1b[2J rows[/b]"}
    )
    text = shown(terminal.runs_table([done, failed]), 80)
    lines = text.splitlines()
    row = next(line for line in lines if line.strip().startswith(done.id))
    assert "82.7%" in row and "48.6%" in row and "SHIP" in row and "done" in row
    assert f"{failed.id}: [b]no⟨U+001B⟩[2J rows[/b]" in text
    assert "No runs yet" in shown(terminal.runs_table([]))
