"""The results as a page to read: one table a part, with what a reader has to know beside it.

Notable: a pure function of the JSON object, so the page can never say more than the object holds.
"""

from collections.abc import Mapping
from typing import Any

GOALS = {  # the key, what it says, at least, goal
    "lora_tokens_per_s": ("LoRA, tokens a second: ours / TRL's fastest", 6.0, 10.0),
    "full_tokens_per_s": ("full fine-tuning, tokens a second: ours / TRL's fastest", 3.0, 5.0),
    "peak_memory": ("LoRA, peak memory: ours / TRL's leanest (lower is better)", 0.45, 0.25),
    "ceiling_share": ("LoRA, share of the matrix-product ceiling", 0.25, 0.45),
    "encoder_rows_per_s": ("encoder, rows a second: ours / Trainer's fastest", 3.0, 5.0),
    "qlora_tokens_per_s": ("QLoRA, tokens a second: ours / TRL's fastest", 2.0, 2.0),
    "qlora_tokens_per_s_cast": ("the same / TRL's with adapters cast to float32 by hand", 2.0, 2.0),
    "qlora_memory": ("QLoRA, memory in training, 135M: ours / our LoRA's in bf16 (lower is better)", 0.5, 0.5),
    "qlora_memory_larger": ("the same, 360M (lower is better)", 0.5, 0.5),
}
TITLES = {
    "lora": "LoRA, rank 16 on all linear layers",
    "full": "Full fine-tuning",
    "encoder": "Encoder classification",
    "qlora": "QLoRA: LoRA on four bits (NF4, double quantisation)",
    "memory": "What QLoRA needs beside LoRA",
}
LOWER_IS_BETTER = ("peak_memory", "qlora_memory", "qlora_memory_larger")
SAME_LOSS = 0.02  # learning curves that close are called equal
Object = Mapping[str, Any]


def met(key: str, value: float | None) -> str:
    """How a ratio stands to what is aimed at.

    >>> met("lora_tokens_per_s", 6.5), met("peak_memory", 0.2), met("peak_memory", 0.5), met("ceiling_share", None)
    ('at least', 'goal', 'missed', 'not run')
    """
    if value is None:
        return "not run"
    _, least, goal = GOALS[key]
    sign = -1 if key in LOWER_IS_BETTER else 1
    return "goal" if sign * value >= sign * goal else "at least" if sign * value >= sign * least else "missed"


def of(document: Object) -> str:
    """Markdown of the whole object of ``sft_vs_trl.json``."""
    lines = ["# Fine-tuning beside TRL and transformers", ""]
    if document["quick"]:
        lines += ["**A quick run on a tiny shape: it proves the path. The figures mean nothing.**", ""]
    lines += ["Written by `benchmarks/sft_vs_trl.py`; do not edit. Its docstring tells how it measures.", ""]
    lines += ["| ratio | reached | at least | goal | |", "|---|---|---|---|---|"]
    for key, (text, least, goal) in GOALS.items():
        value = document["ratios"].get(key)
        lines.append(f"| {text} | {'' if value is None else f'{value:g}'} | {least:g} | {goal:g} | {met(key, value)} |")
    lines.append("")
    for name, part in document["parts"].items():
        lines += _memory(part) if name == "memory" else _part(name, part)
    return "\n".join(lines).rstrip() + "\n"


def _part(name: str, part: Object) -> list[str]:
    unit = "rows" if name == "encoder" else "tokens"
    accuracy = any("accuracy" in s for s in part["summary"].values())
    heads = ["configuration", f"{unit}/s", "each run", "peak memory", "ready", "first step", "warm-up extra"]
    heads += ["first loss", "last loss"] + (["test accuracy"] if accuracy else [])
    lines = [f"## {TITLES[name]}", "", *_head(part), ""]
    lines += [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for configuration, told in part["summary"].items():
        cells = [
            configuration,
            f"{told[f'{unit}_per_s']:,.1f}",
            ", ".join(f"{value:,.1f}" for value in told["all"]),
            f"{told['peak_bytes'] / 2**30:.2f} GiB",
            f"{told['ready_seconds']:.1f} s",
            f"{told['first_step_seconds']:.1f} s",
            f"{told['warmup_extra_seconds']:.1f} s",
            f"{told['first_loss']:.3f}",
            f"{told['last_loss']:.3f}",
        ]
        cells += [f"{told['accuracy']:.1%}"] if accuracy else []
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", *_facts(part), ""]


def _memory(part: Object) -> list[str]:
    """What each method owns, in MiB, and the ratios."""
    columns = ("imports", "weights", "loading", "training", "resident_loading", "resident_training")
    lines = [f"## {TITLES['memory']}", "", *_head(part), ""]
    lines += [f"| model | method | type | {' | '.join(name.replace('_', ' ') for name in columns)} |"]
    lines += [f"|{'---|' * (3 + len(columns))}"]
    for point in part["points"]:
        cells = [point["shape"], point["method"], point["precision"]]
        cells += [f"{point[name] / 2**20:,.0f}" for name in columns]
        lines.append(f"| {' | '.join(cells)} |")
    facts = [
        f"MiB. Settings: {_listed(part['settings'])}. Loading and training are the most that the process owned "
        "(anonymous pages) beyond its imports; the resident peaks hold the imports and pages of files too. Weights of "
        "float32 that are not quantised stay in the pages of their file, and are not owned."
    ]
    facts += [
        f"{key.replace('_', ' QLoRA in ')} / LoRA in bfloat16: {_listed(told)}."
        for key, told in part["compared"].items()
    ]
    return [*lines, "", *(f"- {fact}" for fact in facts), ""]


def _head(part: Object) -> list[str]:
    versions = ", ".join(f"{name} {value}" for name, value in part["versions"].items())
    load, seconds = part["load_before"], part["seconds"]
    return [
        f"{part['created'][:10]}, `{part['command']}`, {seconds / 60:.0f} minutes. Machine: {part['machine']}; load "
        f"before the start {load:g}. Versions: {versions}."
    ]


def _facts(part: Object) -> list[str]:
    found, facts = part["compared"], []
    facts.append(f"Data: {_listed(part['data'])}. Settings: {_listed(part['settings'])}.")
    facts.append(
        f"Ours against the fastest of the peer ({found['best_peer']}): {found['speed']:g} x; peak memory against its "
        f"leanest ({found['leanest_peer']}): {found['peak_memory']:g} x; loss at the end: {found['loss_ratio']:g} x "
        f"({'within' if abs(found['loss_ratio'] - 1) <= SAME_LOSS else 'not within'} {SAME_LOSS:.0%})."
    )
    if "compared_cast" in part:
        cast = part["compared_cast"]
        facts.append(
            f"With TRL's adapters cast to float32 by hand, against the fastest ({cast['best_peer']}): "
            f"{cast['speed']:g} x."
        )
    facts.append(_range(part["summary"], found["best_peer"]))
    ours = next(run for run in part["runs"] if run["side"] == "ours")
    facts.append("Ours ran with " + _listed(ours["detail"]) + ".")
    if "ceiling" in part:
        told = part["ceiling"]
        facts.append(
            f"Ceiling: {told['gflops']:,.0f} GFLOP/s in matrix products, the most of "
            + ", ".join(f"{name} {c['gflops']:,.0f}" for found in told["measured"] for name, c in found.items())
            + f"; {told['flops_a_token'] / 1e6:,.0f} MFLOP a token, so ours reach {told['share']:.1%} of it."
        )
    for told in part.get("stopped", ()):
        if "because" in told:
            facts.append(f"{told['name']} was not tried, for {told['because']}.")
        else:
            facts.append(
                f"{told['name']} was stopped: below {told['tokens_per_s_below']:,.1f} tokens/s, at least "
                f"{told['peak_bytes_at_least'] / 2**30:.2f} GiB. Where it is named the leanest, its memory is that."
            )
    if "probes" in part:
        facts.append(f"Candidates of the peer: {_listed(part['probes'])}.")
    return [f"- {fact}" for fact in facts]


def _range(table: Object, peer: str) -> str:
    """From our slowest run beside the peer's fastest to the other way round."""
    ours = next(told["all"] for told in table.values() if told["side"] == "ours")
    theirs = table[peer]["all"]
    low, high = min(ours) / max(theirs), max(ours) / min(theirs)
    return f"Single runs beside one another: {low:.2f} to {high:.2f} x, {len(ours)} of ours, {len(theirs)} of theirs."


def _listed(values: Object) -> str:
    """
    >>> _listed({"rows_per_step": 4, "model": "135M"})
    'rows per step 4, model 135M'
    """
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in values.items())


def growth(found: Object) -> str:
    """Markdown of ``sft_growth.json``."""
    settings = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in found["settings"].items())
    lines = [
        "# How cost grows",
        "",
        *_head(found),
        "",
        f"{settings}. TRL: {found['peer']}. ![plot](sft_growth.svg)",
        "",
    ]
    lines += ["| model | weights | tokens a row | side | tokens/s | peak memory |", "|---|---|---|---|---|---|"]
    for point in found["points"]:
        lines.append(
            f"| {point['shape']} | {point['weights'] / 1e6:.1f}M | {point['length']} | {point['side']} | "
            f"{point['tokens_per_s']:,.1f} | {point['peak_bytes'] / 2**30:.2f} GiB |"
        )
    lines += [f"\n{name} failed: {why}" for name, why in found.get("failed", {}).items()]
    return "\n".join(lines) + "\n"
