"""What ``plan_accuracy.py`` makes of the runs that it kept: shares, quantiles, and the page.

Notable: kept times are foreseen by the probe alone. What ``tunesmith plan`` prints on a processor is ``PROBED`` times
that (``plan/time.py``), and what it prints where there are earlier runs is corrected by them (``plan/calibrate.py``):
here by all the other configurations.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from tunesmith.plan.calibrate import Earlier, correction
from tunesmith.plan.time import PROBED

Part = dict[str, Any]
UNDER, WITHIN = 0.02, 0.25
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def lengthened(device: str) -> float:
    """Times what a probe of the device foresees, ``tunesmith plan`` prints."""
    return PROBED if device == "cpu" else 1.0


def summary(runs: Mapping[str, Part], device: str) -> Part:
    """The shares that the plan is held to, and the errors below which ``QUANTILES`` of them lie."""
    timed = {name: run for name, run in runs.items() if _timed(run)}
    alone = {name: run["step"]["foreseen"] / run["step"]["measured"] for name, run in timed.items()}
    printed = {name: lengthened(device) * ratio for name, ratio in alone.items()}
    corrected = []
    for name, run in timed.items():
        others = [Earlier(printed[n], 1.0, "it", other["setting"]["method"]) for n, other in timed.items() if n != name]
        by = correction(others, "it", run["setting"]["method"])
        corrected.append((by.factor if by else 1.0) * printed[name] - 1)
    plain, raw = ([ratio - 1 for ratio in ratios.values()] for ratios in (printed, alone))
    return {
        "n": len(runs),
        "memory": _memory(list(runs.values())),
        "memory_of_later_ones": _memory([r for r in runs.values() if r["setting"].get("later")]),
        "time": {
            "n": len(timed),
            "share_within_25pct": _share(corrected),
            "quantiles": _at(corrected),
            "share_within_25pct_without_earlier_runs": _share(plain),
            "quantiles_without_earlier_runs": _at(plain),
            "share_within_25pct_by_probe_alone": _share(raw),
            "quantiles_by_probe_alone": _at(raw),
        },
    }


def _timed(run: Part) -> bool:
    return bool(run["step"]["foreseen"] and run["step"]["measured"])


def _memory(runs: Sequence[Part]) -> Part | None:
    if not runs:
        return None
    ratios = [r["memory"]["foreseen"] / r["memory"]["measured"] - 1 for r in runs]
    return {
        "n": len(ratios),
        "share_under_by_2pct": sum(r < -UNDER for r in ratios) / len(ratios),
        "median_over": median(ratios),
        "worst": [min(ratios), max(ratios)],
        "quantiles": _at(ratios),
    }


def _at(errors: Sequence[float]) -> list[float]:
    ranked = sorted(errors)
    return [ranked[min(len(ranked) - 1, int(q * len(ranked)))] for q in QUANTILES] if ranked else []


def _share(errors: Sequence[float]) -> float | None:
    return sum(abs(e) <= WITHIN for e in errors) / len(errors) if errors else None


def page(document: Part) -> str:
    found = document["summary"]
    later = found["memory_of_later_ones"]
    out = [
        "# How far plans are off",
        "",
        "Written by `benchmarks/plan_accuracy.py`; do not edit. Its docstring tells how it measures.",
        "",
        f"- {found['n']} configurations. Memory: {_told(found['memory'])}.",
        *([f"- Of these, {later['n']} (marked *) that chose one constant at most: {_told(later)}."] if later else []),
        *_of_times(found, document["device"]),
        f"- {document['created'][:10]}, {document['machine']}.",
        "",
        *_quantiles(found),
        "",
        "Steps are foreseen as `tunesmith plan` prints them where there are no earlier runs.",
        "",
        "| configuration | memory foreseen, MiB | measured | error | step foreseen, s | measured | error |",
        "|---|---|---|---|---|---|---|",
    ]
    times = lengthened(document["device"])
    for name, run in document["runs"].items():
        memory, step = run["memory"], run["step"]
        cells = [f"{memory[key] / 2**20:,.0f}" for key in ("foreseen", "measured")]
        cells.append(f"{memory['foreseen'] / memory['measured'] - 1:+.1%}")
        foreseen, measured = step["foreseen"] and times * step["foreseen"], step["measured"]
        cells += [f"{value:.3g}" if value else "-" for value in (foreseen, measured)]
        cells.append(f"{foreseen / measured - 1:+.0%}" if _timed(run) else "-")
        mark = " *" if run["setting"].get("later") else ""
        out.append(f"| {name}{mark} | {' | '.join(cells)} |")
    return "\n".join([*out, ""])


def _told(found: Part) -> str:
    return (
        f"{found['share_under_by_2pct']:.0%} under-predicted by more than 2%; median {found['median_over']:+.1%}, from "
        f"{found['worst'][0]:+.1%} to {found['worst'][1]:+.1%}"
    )


def _of_times(found: Part, device: str) -> list[str]:
    timed, times = found["time"], lengthened(device)
    if not timed["n"]:
        return []
    rest = found["n"] - timed["n"]
    printed = f"the probe's, times {times:g}, a factor that these same runs gave" if times != 1 else "the probe's"
    return [
        f"- Time of a step: {timed['n']} of the {found['n']} configurations"
        + (f"; of the other {rest} memory alone was measured." if rest else "."),
        f"- Within 25%: {timed['share_within_25pct']:.0%} calibrated, that is, corrected by all other configurations "
        "of this benchmark, as a plan is by a user's earlier runs; "
        f"{timed['share_within_25pct_without_earlier_runs']:.0%} as `tunesmith plan` prints it where there are none "
        f"({printed}); {timed['share_within_25pct_by_probe_alone']:.0%} by the probe alone.",
    ]


def _quantiles(found: Part) -> list[str]:
    """A table of errors: so much of them lies below."""
    later, timed = found["memory_of_later_ones"], found["time"]
    rows = {"memory": found["memory"]["quantiles"], "memory, those marked *": later["quantiles"] if later else []}
    rows |= {
        "time, calibrated": timed["quantiles"],
        "time, without earlier runs": timed["quantiles_without_earlier_runs"],
        "time, by the probe alone": timed["quantiles_by_probe_alone"],
    }
    head = f"| share of the errors that lie below | {' | '.join(f'{q:.0%}' for q in QUANTILES)} |"
    shown = [f"| {what} | {' | '.join(f'{x:+.1%}' for x in errors)} |" for what, errors in rows.items() if errors]
    return [head, f"|---{'|---' * len(QUANTILES)}|", *shown]
