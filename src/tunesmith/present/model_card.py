"""The model card: Markdown with YAML front matter in the Hugging Face format (model-index of Papers with Code).

Notable: the front matter is dumped by a YAML library from cleaned values, never pasted, and names in the body are
escaped, so a model or file called anything yields a valid card. The card holds no rows of the data: it can be
shared where the data cannot.
"""

import json
import math
import re
from typing import Any

import yaml

from tunesmith.core.report import Estimate, Report
from tunesmith.present import view
from tunesmith.present.words import count, duration, interval, metric_name, one_line, score

PIPELINES = {"generate": "text-generation", "classify": "text-classification", "prefer": "text-generation"}


def model_card(report: Report, *, library: str = "", loading: str = "") -> str:
    """The card of the tuned model of ``report``; of an export where its ``library`` and how to load it are given."""
    found = _front(report) | ({"library_name": library} if library else {})
    front = yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=1000)
    last = f"## How to load\n\n{loading}" if loading else _loading(report)
    sections = [_head(report), _data(report), _training(report), _evaluation(report), _limits(report), last]
    return f"---\n{front}---\n\n" + "\n\n".join(sections) + "\n"


def _front(report: Report) -> dict[str, Any]:
    recipe, card = report.recipe, report.card
    adapter = report.adapter.endswith("adapter")
    task = "text-classification" if view.objective(report) == "reward" else PIPELINES[recipe.task]
    front: dict[str, Any] = {
        "base_model": one_line(card.name, 200),
        "library_name": "peft" if adapter else "transformers",
    }
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", card.licence):
        front["license"] = card.licence.lower()
    else:
        front |= {"license": "other", "license_name": one_line(card.licence, 100) or "unknown"}
    front |= {
        "pipeline_tag": task,
        "tags": ["tunesmith", one_line(recipe.method.name, 40), view.objective(report)],
    }
    tuned = view.tuned(report)
    found = {n: e for n, e in tuned.metrics.items() if math.isfinite(e.value)} if tuned else {}
    if found:
        dataset = {
            "name": _file(report),
            "type": "private",
            "split": "test",
            "revision": one_line(report.test_hash, 64),
        }
        values = [_metric(name, estimate) for name, estimate in found.items()]
        result = {"task": {"type": task, "name": task.replace("-", " ")}, "dataset": dataset, "metrics": values}
        front["model-index"] = [{"name": one_line(report.run_id, 100), "results": [result]}]
    return front


def _metric(name: str, estimate: Estimate) -> dict[str, Any]:
    around = f"{interval(name, estimate)}, n = {estimate.n}"
    bounds = {key: round(v, 6) for key, v in (("low", estimate.low), ("high", estimate.high)) if math.isfinite(v)}
    return {
        "type": one_line(name, 60),
        "name": f"{metric_name(name)} (95% interval {around})",
        "value": round(estimate.value, 6),
        "args": {"n": estimate.n, **bounds},
    }


def _file(report: Report) -> str:
    return one_line(report.recipe.data.train.replace("\\", "/").rsplit("/", 1)[-1], 120) or "data"


def _md(text: str, limit: int = 300) -> str:
    """Text as Markdown that means only itself.

    >>> _md("[a](x) | <b> `c`")
    '\\\\[a\\\\](x) \\\\| &lt;b&gt; \\\\`c\\\\`'
    """
    escaped = one_line(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~!])", r"\\\1", escaped)


def _head(report: Report) -> str:
    verdict = report.verdict
    return (
        f"# {_md(report.card.name, 80)}, tuned by Tunesmith\n\n"
        f"**Verdict: {verdict.decision}.** {_md(verdict.sentence, 600)}\n\n"
        f"{metric_name(verdict.metric)} against {_md(verdict.baseline, 60)}: {view.gap(verdict)}. "
        f"Test: {_md(verdict.test, 80)}.\n\nRule: {_md(verdict.rule, 600)}\n\n{_md(verdict.cost_sentence, 600)}"
    )


def _data(report: Report) -> str:
    data = report.data
    sizes = ", ".join(f"{_md(name, 30)} {count(n)}" for name, n in report.split_sizes.items())
    lines = [
        f"- File: {_md(_file(report))}, {count(data.rows)} rows, read as {_md(data.format, 60)}",
        f"- Quarantined: {count(data.quarantined)} rows",
        f"- Split: {sizes}; {_md(report.split_how, 400)}",
        f"- Test set locked by hash {_md(report.test_hash, 64)}",
        *(f"- {_md(f.check, 40)} ({f.severity}): {_md(f.message)}" for f in data.findings),
    ]
    return "## Data\n\n" + "\n".join(lines)


def _training(report: Report) -> str:
    fit, plan, recipe = report.fit, report.plan, report.recipe
    size = f"{count(fit.trainable_parameters)} trained parameters"
    dials = [f"{name} {getattr(recipe.method, name)}" for name in sorted(recipe.method.changed() - {"name"})]
    method = ", ".join([_md(recipe.method.name, 40), *(_md(dial, 200) for dial in dials)])
    steps = f"{count(fit.steps)} of {count(plan.steps)} planned, best step {count(fit.best_step)}"
    lines = [
        f"- Base model: {_md(report.card.name, 200)} ({_md(report.card.architecture, 80)}, "
        f"{count(report.card.parameters)} parameters, fingerprint {_md(report.card.fingerprint, 64)})",
        f"- Method: {method}; objective {_md(view.objective(report))}; {size}",
        f"- Steps: {steps}; stopped: {_md(fit.stopped)}",
        f"- Learning rate {plan.learning_rate:.2g}, {count(plan.batch_tokens)} tokens a step, seed {plan.seed}",
        f"- {count(fit.trained_tokens)} trained tokens in {duration(fit.seconds)}",
        f"- Peak memory: {_md(view.peak_memory(report))}",
        f"- {': '.join(view.at_best(report))}. {_md(fit.overfit, 400)}",
        *([f"- {_md(report.forgetting.sentence, 400)}"] if report.forgetting else []),
    ]
    return "## Training\n\n" + "\n".join(lines)


def _evaluation(report: Report) -> str:
    names = view.metrics(report)
    rows = [
        "| system | " + " | ".join(metric_name(n) for n in names) + " | time an answer |",
        "|---|" + "---:|" * (len(names) + 1),
    ]
    for system in view.systems(report):
        cells = [_estimate(n, system.metrics.get(n)) for n in names]
        rows.append(f"| {_md(system.name, 60)} | {' | '.join(cells)} | {view.time_an_answer(system)} |")
    intro = (
        "Values on the locked test set with 95% intervals; every system answered the same rows and was scored alike."
    )
    return f"## Evaluation\n\n{intro}\n\n" + "\n".join(rows)


def _estimate(metric: str, estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    return f"{score(metric, estimate.value)} ({interval(metric, estimate)}, n = {count(estimate.n)})"


def _limits(report: Report) -> str:
    longest = count(report.plan.max_length)
    lines = [
        "- The figures hold for inputs like those of the test set; other inputs were not measured.",
        f"- Trained on rows of at most {longest} tokens.",
        f"- The licence of the base model ({_md(report.card.licence, 100)}) applies.",
        *(f"- {_md(warning, 400)}" for warning in report.warnings),
    ]
    if report.verdict.decision != "SHIP":
        lines.insert(
            0, f"- The verdict is {report.verdict.decision}: the data do not show that this model should be used."
        )
    return "## Limits\n\n" + "\n".join(lines)


def _loading(report: Report) -> str:
    base, kind = json.dumps(one_line(report.card.name, 200)), "AutoModelForCausalLM"
    if report.card.kind == "encoder":
        kind = "AutoModel"
    if not report.adapter.endswith("adapter"):
        code = f'from transformers import {kind}\n\nmodel = {kind}.from_pretrained("path/to/this/folder")'
    else:
        code = (
            f"from peft import PeftModel\nfrom transformers import {kind}\n\n"
            f"base = {kind}.from_pretrained({base})  # a folder or hub id that holds this base\n"
            'model = PeftModel.from_pretrained(base, "path/to/this/folder")'
        )
    head = ""
    if report.recipe.task == "classify" or view.objective(report) == "reward":
        head = (
            "\n\nA classification head, where there is one, lies beside it: `head.safetensors` scores the pooled last "
            "hidden state (`tunesmith.json` names the pooling and the labels)."
        )
    chat = f"tunesmith chat {_shell_word(report.run_id)}"
    return f"## How to load\n\n```python\n{code}\n```{head}\n\nWith Tunesmith:\n\n```\n{chat}\n```"


def _shell_word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)
