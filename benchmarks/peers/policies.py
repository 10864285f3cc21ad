"""What policies are worth on held-out prompts: answers sampled at temperature 1 from the weights that were kept, and
what their values come to, for each seed and over all.

Notable: KL is the mean over answers of the sum over their tokens, with the one that ended them, of log-probability
under the policy less that under the model that its training went on from. Intervals are bootstraps over prompts, drawn
alike for all seeds: they tell of other prompts, not of other seeds.
Legend: P prompts, S resamples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith.core.batch import TokenRow
from tunesmith.core.report import Estimate, Report
from tunesmith.data.render import Renderer
from tunesmith.evaluate.bootstrap import interval, resample_counts
from tunesmith.evaluate.metrics._metric import Array
from tunesmith.evaluate.rewards import Asked
from tunesmith.flows.preferring import likelihoods
from tunesmith.generate.sampler import Answer, Sampling, answers
from tunesmith.models.model import Model

Part = dict[str, Any]
Values = Mapping[str, Sequence[float]]  # by what is measured, of each answer: reward, kl, length and perhaps judge

SAMPLES = 4  # answers to each held-out prompt
TOKENS = 4096  # that the reference reads at once
GAINS = {"reward": "gain", "judge": "judge_gain"}


@dataclass(frozen=True)
class Written:
    """``SAMPLES`` answers to each prompt, one prompt after the other: text, KL in nats, and tokens."""

    texts: list[str]
    kl: list[float]
    length: list[int]


def written(model: Model, reference: Model, prompts: Sequence[Asked], most: int) -> Written:
    """Answers of ``model`` of up to ``most`` tokens, and how much likelier each is to it than to ``reference``."""
    renderer = Renderer(model.tokenizer)
    ids = [renderer.prompt_ids(p.prompt) for p in prompts for _ in range(SAMPLES)]
    model.train(False)
    found = answers(model, ids, Sampling(most, renderer.stop_ids(), temperature=1.0, seed=7))
    rows = [_row(prompt, answer) for prompt, answer in zip(ids, found, strict=True)]
    known = likelihoods(reference, rows, TOKENS, reference)
    own = [sum(a.logp) + (a.ended[1] if a.ended else 0.0) for a in found]
    return Written(
        [model.tokenizer.decode(a.ids, skip_special_tokens=True) for a in found],
        [logp - known[row.ids, row.weight] for logp, row in zip(own, rows, strict=True)],
        [round(sum(row.weight)) for row in rows],
    )


def _row(prompt: Sequence[int], answer: Answer) -> TokenRow:
    new = (*answer.ids, *(answer.ended[:1] if answer.ended else ()))
    return TokenRow((*prompt, *new), (0.0,) * len(prompt) + (1.0,) * len(new))


def arm(seeds: Sequence[Values], ways: Sequence[Part], start: Values) -> Part:
    """What the policies of one kind are worth: each with its ``way``, and all ``over_seeds``."""
    return {
        "n": len(seeds[0]["reward"]) // SAMPLES,
        "each": [_told([values], start) | way for values, way in zip(seeds, ways, strict=True)],
        "over_seeds": _told(seeds, start),
    }


def way(report: Report) -> Part:
    """How a policy got there; ``best_step`` is the one that its weights are of."""
    points = report.rewarded.points if report.rewarded is not None else ()
    curve = [{"step": p.step, "reward": p.reward, "kl": p.kl, "length": p.length} for p in points]
    return {"curve": curve, "steps": report.fit.steps, "best_step": report.fit.best_step}


def _told(seeds: Sequence[Values], start: Values) -> Part:
    found = {name: mean([values[name] for values in seeds]) for name in seeds[0]}
    more = {"kl_from_start" if name == "kl" else name: told for name, told in found.items() if name != "reward"}
    gains = {told: gain([v[name] for v in seeds], start[name]) for name, told in GAINS.items() if name in start}
    return found["reward"] | more | gains


def mean(seeds: Sequence[Sequence[float]]) -> Part:
    """The mean over seeds, prompts and their answers."""
    value_P = np.mean([_by_prompt(values) for values in seeds], axis=0)
    return _bootstrap(lambda share_SP: share_SP @ value_P, len(value_P))


def gain(seeds: Sequence[Sequence[float]], start: Sequence[float]) -> Part:
    """How many standard deviations of the start's answers the mean over seeds lies above that of the start.

    >>> gain([[3.0] * 8, [5.0] * 8], [0.0, 2.0] * 4)["value"]
    3.0
    """
    value_P = np.mean([_by_prompt(values) for values in seeds], axis=0)
    start_P, square_P = _by_prompt(start), _by_prompt(np.square(start))

    def of(share_SP: Array) -> Array:
        mean_S = share_SP @ start_P
        spread_S = np.sqrt(np.maximum(share_SP @ square_P - mean_S**2, 1e-18))
        return np.asarray((share_SP @ value_P - mean_S) / spread_S)

    return _bootstrap(of, len(value_P))


def _by_prompt(values: Sequence[float] | Array) -> Array:
    return np.asarray(values, dtype=np.float64).reshape(-1, SAMPLES).mean(1)


def _bootstrap(of: Callable[[Array], Array], prompts: int) -> Part:
    """``of`` gives a figure for each row of shares that prompts have in it."""
    value = float(of(np.full((1, prompts), 1 / prompts))[0])
    drawn_S = np.concatenate([of(counts_SP / prompts) for counts_SP in resample_counts(prompts, 2_000, 0)])
    low, high = interval(drawn_S, value)
    return Estimate(value=value, low=low, high=high, n=prompts).model_dump()


# -- the page ----------------------------------------------------------------------------------------------------------


def page(part: Mapping[str, Any]) -> list[str]:
    """A row for each run and one for the mean of its kind: what it is worth, and what stands beside it. A part that an
    older version measured lacks some figures, and their cells are empty."""
    judged = any("judge" in each for arm in part["arms"].values() for each in arm["each"])
    head = ["policy", part["measure"], *(["judge", "in SDs of sft"] if judged else [])]
    head += ["KL from sft, nats an answer", "tokens an answer", "weights of step", "n"]
    out = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    percent = part["measure"] == "pass@1"
    for name, arm in part["arms"].items():
        rows = [(name if name == "sft" else f"{name}, seed {seed}", each) for seed, each in enumerate(arm["each"])]
        if "over_seeds" in arm and len(rows) > 1:
            rows.append((f"**{name}, mean of {len(rows)} seeds**", arm["over_seeds"]))
        for label, told in rows:
            cells = [label, shown(told, percent=percent)]
            cells += [shown(told.get(key)) for key in (["judge", "gain"] if judged else [])]
            cells += [shown(told.get("kl_from_start"), 1), shown(told.get("length"), 1), _step(told), str(arm["n"])]
            out.append(f"| {' | '.join(cells)} |")
    out.append("")
    for name, found in part.get("classifiers", {}).items():
        out.append(f"- Accuracy of the {name} on held-out reviews: {shown(found, percent=True)}, n = {found['n']:,}.")
    shared = "The supervised start and the classifiers have" if judged else "The supervised start has"
    out.append(f"- {shared} one seed, which all policies share. Intervals are of the prompts, for these seeds.")
    return out


def shown(found: Mapping[str, float] | None, digits: int = 2, *, percent: bool = False) -> str:
    """
    >>> shown({"value": 0.5, "low": 0.4, "high": 0.625}), shown({"value": 0.5, "low": 0.4, "high": 0.625}, percent=True)
    ('0.50 (0.40 to 0.62)', '50.0% (40.0% to 62.5%)')
    >>> shown(None)
    ''
    """
    if found is None:
        return ""
    form = ".1%" if percent else f".{digits}f"
    value, low, high = (format(round(found[key], 6) + 0.0, form) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _step(told: Mapping[str, Any]) -> str:
    if "best_step" not in told:
        return str(told.get("steps", ""))
    return f"{told['best_step']} of {told['steps']}"
