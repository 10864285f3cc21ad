"""The report as one HTML file: no script, no request, nothing executed that came from data or a model.

Notable: a content security policy admits exactly one style sheet, by its hash, and nothing else; every text that
the template emits goes through ``words.clean`` (a Jinja ``finalize`` hook, so none can be forgotten) and is then
escaped. The page is a pure function of the report: the same report gives the same bytes.
"""

import base64
import hashlib
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tunesmith.core.report import Estimate, Forgetting, Preferences, Report
from tunesmith.present import charts, rewards, view
from tunesmith.present.words import (
    LOWER_IS_BETTER,
    clean,
    count,
    duration,
    interval,
    metric_name,
    one_line,
    score,
)

HERE = Path(__file__).parent
TONES = {"SHIP": "ship", "HOLD": "hold", "NOT ENOUGH EVIDENCE": "unsure"}
SEVERITIES = ("blocking", "warning", "info")


def render_html(report: Report) -> str:
    """``report`` as a page of its own, readable offline, in light and dark, and on paper."""
    return rendered("report.html.j2", _page(report))


def rendered(template: str, values: dict[str, Any]) -> str:
    """A page of ``values`` with the one style sheet and the policy that admits it."""
    css = (HERE / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    styled = {"css": Markup(css), "css_hash": f"sha256-{digest}"}
    return _environment().get_template(template).render(**styled, **values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters.update(cut=clean, line=one_line, count=count, row_score=_row_score, scored=_scored)
    return environment


def _finalize(value: Any) -> Any:
    return clean(value, 40_000) if isinstance(value, str) and not isinstance(value, Markup) else value


def _scored(value: float, metric: str) -> str:
    return score(metric, value)


def _row_score(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "not defined"


def _page(report: Report) -> dict[str, Any]:
    verdict = report.verdict
    return (
        {
            "r": report,
            "tone": TONES[verdict.decision],
            "metric": metric_name(verdict.metric) + (" (lower is better)" if verdict.metric in LOWER_IS_BETTER else ""),
            "gap": view.gap(verdict),
            "systems": view.systems(report),
            "findings": sorted(report.data.findings, key=lambda f: SEVERITIES.index(f.severity)),
            "table": _table(report),
            "costs": _costs(report),
            "fit": _fit(report),
            "preferences": _preferences(report.preferences),
            **_rewards(report),
            "plan": view.plan_rows(report.plan),
            "hashes": _hashes(report),
            "steps": [(name, duration(seconds)) for name, seconds in report.seconds.items()],
            "recipe": yaml.safe_dump(report.recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        }
        | {name: markup(svg) for name, svg in _charts(report).items()}
        | {
            "heat_maps": [markup(charts.heat_map(c)) for c in report.confusions],
        }
    )


def markup(svg: str) -> Markup:
    """Our own SVG; its texts were escaped where they were drawn."""
    return Markup(svg)


def _charts(report: Report) -> dict[str, str]:
    fit, plan, primary = report.fit, report.plan, report.primary
    rows = [(s.name, s.metrics[primary], s.kind == "tuned") for s in view.systems(report) if primary in s.metrics]
    bar = view.best_baseline(report)
    train = tuple((p.step, p.loss) for p in fit.curve if p.loss is not None)
    dev = tuple((p.step, p.dev_loss) for p in fit.curve if p.dev_loss is not None)
    rate = tuple((p.step, p.learning_rate) for p in fit.curve if p.learning_rate is not None)
    unit = {"generate": "nats per trained token", "classify": "nats per row", "prefer": "per pair"}[report.recipe.task]
    steps, best = "optimiser step", (fit.best_step, f"best step {fit.best_step:,}")
    longest = (plan.max_length, f"max_length {plan.max_length:,}")
    lost = [charts.Series(*settled(train), "series-b"), charts.Series("dev", dev, "series-a", dots=True)]
    shown = charts.lines("Loss on train and dev", steps, f"loss ({unit})", lost, best)
    if report.rewarded is not None:
        worth = charts.Series("dev", tuple((step, -loss) for step, loss in dev), "series-a", dots=True)
        shown = charts.lines("Mean reward on dev prompts", steps, "mean reward", [worth], best)
    return {
        "whiskers": charts.whiskers(primary, rows, bar.value if bar else None),
        "loss": shown,
        "rate": charts.lines(
            "Learning rate", steps, "learning rate", [charts.Series("learning rate", rate, "series-c")]
        ),
        "lengths": charts.histogram("Lengths of the rows", report.data.token_lengths, "tokens a row", longest),
        "balance": charts.bars("Class balance", report.data.label_counts, "rows"),
    }


def _table(report: Report) -> list[dict[str, Any]]:
    rows = []
    for name in view.metrics(report):
        cells = [_cell(name, s.metrics.get(name), s.kind == "tuned") for s in view.systems(report)]
        primary, lower = name == report.primary, name in LOWER_IS_BETTER
        rows.append({"name": metric_name(name), "primary": primary, "lower": lower, "cells": cells})
    return rows


def _cell(metric: str, estimate: Estimate | None, ours: bool) -> dict[str, Any]:
    if estimate is None:
        return {"value": "", "ours": ours}
    known = math.isfinite(estimate.low) and math.isfinite(estimate.high)
    shown = interval(metric, estimate) if known else "no interval"
    return {"value": score(metric, estimate.value), "interval": shown, "n": count(estimate.n), "ours": ours}


def _costs(report: Report) -> list[tuple[str, list[str]]]:
    ordered = view.systems(report)
    return [
        ("Wall time, all rows", [duration(s.seconds) for s in ordered]),
        ("Time an answer", [view.time_an_answer(s) for s in ordered]),
        ("Prompt tokens an answer", [count(s.prompt_tokens) for s in ordered]),
        ("New tokens an answer", [count(s.new_tokens) for s in ordered]),
        ("Invalid answers", [count(s.invalid) for s in ordered]),
    ]


def settled(train: Sequence[tuple[float, float]]) -> tuple[str, tuple[tuple[float, float], ...]]:
    """Name and points of the train curve without the first steps that tower above the rest (at most 5% of them): they
    would press all that follows flat.

    >>> settled([(1.0, 9.0), *((float(x), 1.0) for x in range(2, 42))])[0]
    'train, from step 2'
    """
    most = len(train) // 20
    rest = max((loss for _, loss in train[most:]), default=0.0)
    start = next((i for i, (_, loss) in enumerate(train[:most]) if loss <= 1.5 * rest), most)
    return f"train, from step {train[start][0]:g}" if start else "train", tuple(train[start:])


def _fit(report: Report) -> list[tuple[str, str]]:
    fit = report.fit
    rows = [
        (
            "Stopped",
            f"{fit.stopped} (step {fit.steps:,} of {report.plan.steps:,} planned; best step {fit.best_step:,})",
        ),
        view.at_best(report),
    ]
    for name, estimate in (("train", fit.train_score), ("dev", fit.dev_score)):
        if estimate is not None:
            around = f"({interval(report.primary, estimate)}, n = {count(estimate.n)})"
            text = f"{score(report.primary, estimate.value)} {around}"
            rows.append((f"{metric_name(report.primary)} on {name}", text))
    began = next((p.seconds + fit.compile_seconds for p in fit.curve if p.step == 1), None)
    first = "" if began is None else f", {duration(began)} until the first step"
    if fit.compile_seconds:
        first += f", {duration(fit.compile_seconds)} of it compiling"
    share = 100 * fit.trainable_parameters / max(report.card.parameters, 1)
    saves = f"{fit.saves} in {duration(fit.save_seconds)}, {count(round(fit.save_bytes / 2**20))} MiB each"
    return [
        *rows,
        ("Trained parameters", f"{count(fit.trainable_parameters)} ({share:.3g}% of {count(report.card.parameters)})"),
        ("Trained tokens", f"{count(fit.trained_tokens)}, one loss each"),
        ("Speed", f"{count(round(fit.tokens_per_second))} tokens/s, prompts and looks at dev included"),
        ("Training time", duration(fit.seconds + fit.compile_seconds) + first),
        *([("A step", step)] if (step := view.step_time(report)) else []),
        ("Peak memory", view.peak_memory(report)),
        *_forgetting(report.forgetting),
        *([("Checkpoints", saves)] if fit.saves else []),
        *([("Told on the way", " ".join(fit.notes))] if fit.notes else []),
    ]


def _preferences(found: Preferences | None) -> list[tuple[str, str]]:
    if found is None:
        return []
    lengths = (("where the better answer is longer", found.when_longer), ("where it is shorter", found.when_shorter))
    rows = [(f"Accuracy {name}", _with_interval(e)) for name, e in lengths if e is not None]
    rows += [(f"Accuracy where {b.confidence:.0%} sure", _with_interval(b.accuracy)) for b in found.bins]
    return rows + ([] if found.error is None else [("Mean distance of confidence from accuracy", f"{found.error:.1%}")])


def _rewards(report: Report) -> dict[str, Any]:
    found = report.rewarded
    if found is None:
        return {}
    drawn = [markup(svg) for svg in rewards.curves(found).values() if svg]
    return {"curves": drawn, "wins": rewards.wins(found), "answers": rewards.answers(found, report.fit.curve)}


def _with_interval(found: Estimate) -> str:
    return f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%}), n = {found.n:,}"


def _forgetting(found: Forgetting | None) -> list[tuple[str, str]]:
    if found is None:
        return []
    before, after = (f"{e.value:.3f} ({e.low:.3f} to {e.high:.3f})" for e in (found.before, found.after))
    return [("Bits per byte of general text", f"{before} before training, {after} after it, n = {found.before.n}")]


def _hashes(report: Report) -> list[tuple[str, str]]:
    card = report.card
    return [
        (
            "Model",
            f"{card.name}: {card.architecture}, {card.kind}, {count(card.parameters)} parameters, {card.licence}",
        ),
        ("Layers, width, vocabulary", f"{card.layers}, {count(card.width)}, {count(card.vocabulary)}"),
        ("Context", f"{count(card.context)} tokens"),
        ("Model fingerprint", card.fingerprint),
        ("Tokenizer hash", card.tokenizer_hash),
        ("Chat template hash", card.template_hash),
        ("Recipe hash", report.recipe.content_hash()),
        ("Test set hash", report.test_hash),
        ("Adapter", report.adapter or "none saved"),
    ]
