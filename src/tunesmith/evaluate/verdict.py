"""SHIP, HOLD or NOT ENOUGH EVIDENCE: the rule that turns predictions on the locked test into a decision.

Notable: two locks must open before SHIP, the paired interval and the p-value; few rows never ship; the best baseline
is chosen on the very test rows, which can only raise the bar, so the rule errs to the side of not shipping.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tunesmith.core.errors import RecipeError
from tunesmith.core.report import Decision, Estimate, Prediction, SystemResult, Verdict
from tunesmith.evaluate.metrics._metric import Metric
from tunesmith.evaluate.score import find_metric, has_inputs, statistics
from tunesmith.evaluate.significance import Comparison, compare
from tunesmith.evaluate.systems import Ruler

ALPHA = 0.05
MIN_ROWS = 30
NEAR = 0.02
WRITTEN_TOKEN_WEIGHT = 4


@dataclass(frozen=True, slots=True)
class _Gain:
    """The difference turned so that more is better, whatever the metric's direction."""

    value: float
    low: float
    high: float
    least: float
    near: float
    learned: bool = True
    doubt: str = ""

    def decide(self, rows: int, p_value: float) -> Decision:
        if not self.learned:
            return "HOLD"
        if rows < MIN_ROWS:
            return "NOT ENOUGH EVIDENCE"
        if self.low > self.least and p_value < ALPHA:
            return "NOT ENOUGH EVIDENCE" if self.doubt else "SHIP"
        if self.high <= self.least or (self.value <= self.least and self.high <= self.least + self.near):
            return "HOLD"
        return "NOT ENOUGH EVIDENCE"


def judge(
    tuned: SystemResult,
    baselines: Sequence[SystemResult],
    predictions: Mapping[str, Sequence[Prediction]],
    ruler: Ruler,
    *,
    min_gain: float,
    learned: bool = True,
    doubt: str = "",
) -> Verdict:
    """The verdict on ``tuned`` against the best of ``baselines`` by the ruler's first metric; ``predictions`` holds the
    test answers by name. ``learned`` is false where no step was better than the start: what differs is the prompt.
    ``doubt`` says why the metric cannot be believed: then nothing ships by it.

    ``difference`` is tuned minus baseline in the metric's own units (for perplexity a negative one is good). Raises
    RecipeError when no baseline has the metric, DataError when rows do not pair.
    """
    metric, references = ruler.metrics[0], ruler.references
    part = find_metric(metric)
    able = [b for b in baselines if has_inputs(part, predictions[b.name])]
    if not able:
        raise RecipeError(
            f"evaluate.baselines: none of {[b.name for b in baselines]} has {metric}, expected at least one system to "
            "compare with. Add zero_shot, or choose another primary metric."
        )
    stats = {s.name: statistics(part, predictions[s.name], references) for s in (tuned, *able)}
    values = {name: float(part.reduce(rows.sum(axis=0))) for name, rows in stats.items()}
    sign = 1 if part.higher_is_better else -1
    best = max(able, key=lambda b: sign * values[b.name])
    comparison = compare(part, stats[tuned.name], stats[best.name], seed=ruler.seed, units=ruler.units)
    gain = replace(_oriented(comparison.difference, part, min_gain, values[best.name]), learned=learned, doubt=doubt)
    independent = len(set(ruler.units)) if ruler.units else len(references)
    decision = gain.decide(independent, comparison.p_value)
    return Verdict(
        decision=decision,
        metric=metric,
        baseline=best.name,
        difference=comparison.difference,
        p_value=comparison.p_value,
        test=comparison.test,
        rule=_rule(part, gain, comparison, len(able), independent),
        sentence=_sentence(
            decision, part, gain, comparison, (values[tuned.name], values[best.name], best.name, independent)
        ),
        cost_sentence=cost_sentence(tuned, able, values, part),
    )


def _oriented(difference: Estimate, metric: Metric, min_gain: float, bar: float) -> _Gain:
    if metric.higher_is_better:
        return _Gain(difference.value, difference.low, difference.high, min_gain, NEAR)
    return _Gain(-difference.value, -difference.high, -difference.low, min_gain, NEAR * bar)


def _rule(metric: Metric, gain: _Gain, comparison: Comparison, candidates: int, independent: int) -> str:
    rows = comparison.difference.n
    drawn = f"{rows} test rows" if independent == rows else f"{independent} groups of {rows} test rows"
    order = "tuned minus best baseline" if metric.higher_is_better else "best baseline minus tuned, for lower is better"
    rule = (
        f"Gain = {metric.name}, {order}. SHIP when its whole 95% interval (paired bootstrap over "
        f"{drawn}) lies above {gain.least:g} and p < {ALPHA:g} ({comparison.test}). "
        f"HOLD where training has not beaten its start on dev, when the interval ends at or below {gain.least:g}, or "
        f"when the gain is at most {gain.least:g} and the interval ends at or below {gain.least + gain.near:.3g}. "
        f"Otherwise, and always with fewer than {MIN_ROWS} {'rows' if independent == rows else 'groups'}, NOT ENOUGH "
        f"EVIDENCE{', as with signs that the metric cannot be believed' if gain.doubt else ''}."
    )
    if candidates == 1:
        return rule
    return (
        f"{rule} The best of the {candidates} baselines is picked on the same test rows; luck can only lift the best "
        "of several, so this raises the bar for SHIP and p needs no correction."
    )


def _sentence(
    decision: Decision, metric: Metric, gain: _Gain, comparison: Comparison, values: tuple[float, float, str, int]
) -> str:
    tuned, bar, name, independent = values
    rows = comparison.difference.n
    return (
        f"{_HEADS[decision]}: on {rows} held-out rows the tuned model has {metric.name} {tuned:.3f}, the best baseline "
        f"({name}) {bar:.3f}: a gain of {gain.value:+.3f}, 95% interval {gain.low:+.3f} to {gain.high:+.3f}, "
        f"p {_p(comparison.p_value)}. {_reason(decision, gain, independent)}"
    )


_HEADS: Mapping[Decision, str] = {"SHIP": "Ship it", "HOLD": "Hold it", "NOT ENOUGH EVIDENCE": "Not enough evidence"}


def _reason(decision: Decision, gain: _Gain, rows: int) -> str:
    if decision == "SHIP":
        return f"The whole interval lies above {gain.least:g}."
    if not gain.learned:
        return "No step was better on dev than the start: these are the weights that training began with."
    if decision == "HOLD" and gain.high <= gain.least:
        return f"The whole interval lies at or below {gain.least:g}."
    if decision == "HOLD":
        return f"The gain is at most {gain.least:g}, and the interval leaves no room for one that would matter."
    if gain.doubt and gain.low > gain.least and rows >= MIN_ROWS:
        return f"The whole interval lies above {gain.least:g}, but it cannot be believed: {gain.doubt}"
    if rows < MIN_ROWS:
        return f"At least {MIN_ROWS} test rows that do not belong together are needed for a decision."
    return f"The rows leave open whether the gain is above {gain.least:g}; more test rows would tell."


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def tokens_cost(system: SystemResult) -> float:
    """Tokens an answer, a written one counted as four read ones."""
    return system.prompt_tokens + WRITTEN_TOKEN_WEIGHT * system.new_tokens


def cost_sentence(
    tuned: SystemResult, baselines: Sequence[SystemResult], values: Mapping[str, float], metric: Metric
) -> str:
    """What prompting alone buys: its share of the tuned quality and of the tuned cost per answer.

    Quality is the ratio of the metric's values (turned round when lower is better), where they have a zero. Cost is
    tokens read plus four times the tokens written (the usual ratio of prices), on the same base model; training is not
    counted. A baseline that reads no prompt costs no model call.
    """
    sign = 1 if metric.higher_is_better else -1
    prompted = [b for b in baselines if b.prompt_tokens > 0]
    best = max(prompted or baselines, key=lambda b: sign * values[b.name])
    who = "The run that it went on from" if best.name == "start" else f"Prompting ({best.name})"
    top, bottom = (best.name, tuned.name) if metric.higher_is_better else (tuned.name, best.name)
    if values[bottom] <= 0 or metric.needs in ("reward", "judged"):
        quality = f"scores {values[best.name]:.3f} where the tuned model scores {values[tuned.name]:.3f}"
    else:
        quality = f"reaches {100 * values[top] / values[bottom]:.0f}% of the tuned quality"
    if not prompted:
        return f"No prompted baseline was run; {best.name} {quality} without a prompted model call."
    read, tuned_read = tokens_cost(best), tokens_cost(tuned)
    if tuned_read <= 0:
        return f"{who} {quality}; the tuned model's tokens were not counted, so costs stay open."
    return (
        f"{who} {quality} at {100 * read / tuned_read:.0f}% of its cost ({read:.0f} against "
        f"{tuned_read:.0f} tokens an answer, a written token counted as {WRITTEN_TOKEN_WEIGHT} read ones; training "
        "itself not counted)."
    )
