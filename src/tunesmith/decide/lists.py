"""The two lists that every practitioner knows, for and against tuning, each item with what was measured for it.

Notable: an item is a function of the evidence with its thresholds beside it. Items say how strongly they speak; the
decision does not count them up (``advise`` says by which rule it was made), for ten weak reasons are no forecast.
"""

from collections.abc import Callable

from tunesmith.core.advice import Bar, Economics, Evidence, Reason, Side, Strength
from tunesmith.decide.economics import CHANGES, unpriced
from tunesmith.decide.wording import rows_of, shown, time_of, unknown

PROMPTED = ("zero_shot", "few_shot", "rival")
RETRIEVED = "nearest_neighbour"
LIKE = (0.5, 0.2, 0.05)  # how far like inputs have like answers, between chance and always: strong, medium, weak
BUSY = (10_000, 1_000, 100)  # calls a day
QUICKER = 1.5  # times as fast
SHORTER = 0.5  # of the tokens that a prompt has
PIECES = (1.4, 1.2)  # tokens a word, in times those of general text
PATTERNS = (0.1, 0.03)  # what shown or copied rows add to the bare instruction
TORN = (0.1, 0.03)  # share of rows with another answer than their likes
FLAWS = {
    "exact_duplicates": "repeat an earlier row",
    "near_duplicates": "nearly repeat an earlier input",
    "contradictions": "give different answers to the same input",
    "lengths": "are longer than fits",
}
USUAL = (1_000, 10_000)  # examples that tuning is said to need

Item = Callable[[Evidence, Economics], Reason]


def steps(value: float, strong: float, medium: float, weak: float | None = None) -> Strength:
    """
    >>> steps(0.6, 0.5, 0.2), steps(0.3, 0.5, 0.2), steps(0.1, 0.5, 0.2), steps(0.1, 0.5, 0.2, 0.05)
    ('strong', 'medium', 'none', 'weak')
    """
    if value >= strong:
        return "strong"
    if value >= medium:
        return "medium"
    return "weak" if weak is not None and value >= weak else "none"


def best(evidence: Evidence, names: tuple[str, ...]) -> Bar | None:
    """The best of the bars of these names."""
    sign = 1 if evidence.higher_is_better else -1
    able = [bar for bar in evidence.bars if bar.name in names]
    return max(able, key=lambda bar: sign * bar.score.value, default=None)


def by_name(evidence: Evidence, bar: Bar | None) -> bool:
    """Whether ``bar`` takes the label with the nearest name: an encoder reads no prompt, and so no token."""
    return bar is not None and evidence.task == "classify" and bar.name == "zero_shot" and not bar.tokens_in


def likeness(evidence: Evidence) -> float:
    """How far the answer of the most similar row is right: 0 as any row's, 1 always."""
    variety = evidence.variety
    return max(0.0, variety.agree - variety.chance) / max(1 - variety.chance, 1e-9)


def _reason(topic: str, side: Side, strength: Strength, sentence: str, *, measured: bool = True) -> Reason:
    kept: Side = side if strength != "none" else "neutral"
    return Reason(topic=topic, side=kept, strength=strength, sentence=sentence, measured=measured)


def consistent(evidence: Evidence, _: Economics) -> Reason:
    variety, strength = evidence.variety, steps(likeness(evidence), *LIKE)
    told = (
        f"The answer of the most similar row scores {variety.agree:.0%}, that of any row {variety.chance:.0%} "
        f"({variety.rows:,} rows looked at)."
    )
    return _reason("consistent behaviour", "for", strength, told)


def volume(evidence: Evidence, _: Economics) -> Reason:
    calls = evidence.facts.calls_per_day
    if calls is None:
        told = unknown(evidence.facts, "", "calls_per_day")
        return _reason("high volume", "neutral", "none", told, measured=False)
    if calls < BUSY[-1]:
        return _reason("high volume", "against", "weak", f"{calls:,.0f} calls a day: little to save.")
    return _reason("high volume", "for", steps(calls, *BUSY), f"{calls:,.0f} calls a day.")


def latency(evidence: Evidence, _: Economics) -> Reason:
    topic, bar, tuned, wanted = "latency", best(evidence, PROMPTED), evidence.tuned, evidence.facts.latency
    if tuned is None or tuned.seconds is None:
        return _reason(topic, "neutral", "none", "No answer of a tuned model was timed.", measured=False)
    told = f"One answer takes {time_of(tuned.seconds)} tuned"
    prompted = bar.seconds if bar is not None else None
    if prompted is not None:
        how = "by the names of labels" if by_name(evidence, bar) else "prompted"
        told += f" and {time_of(prompted)} {how} ({bar.name})" if bar is not None else ""
    if wanted is None:
        quick = prompted is not None and prompted >= QUICKER * tuned.seconds
        open_ = unknown(evidence.facts, "What is wanted was", "latency")
        return _reason(topic, "for", "weak" if quick else "none", f"{told}. {open_}")
    told += f"; at most {time_of(wanted)} is wanted."
    if tuned.seconds > wanted:
        return _reason(topic, "against", "medium", f"{told} Tuned it is too slow here.")
    if prompted is None or prompted <= wanted:
        return _reason(topic, "neutral", "none", f"{told} That is met here.")
    return _reason(topic, "for", "strong", f"{told} Only tuned it is fast enough here.")


def length(evidence: Evidence, _: Economics) -> Reason:
    topic, bar, tuned = "prompt length", best(evidence, PROMPTED), evidence.tuned
    if tuned is None or bar is None or not bar.tokens_in:
        return _reason(topic, "neutral", "none", "No prompt was measured beside a small run's.", measured=False)
    own = ", as its own tokenizer counts," if bar.name == "rival" else ""
    told = f"A call of {bar.name} reads {bar.tokens_in:,.0f} tokens{own} and one of the tuned model "
    told += f"{tuned.tokens_in:,.0f}: tuning saves "
    share = 1 - tuned.tokens_in / bar.tokens_in
    told += f"{bar.tokens_in - tuned.tokens_in:,.0f} a call ({share:.0%})." if share > 0 else "none."
    return _reason(topic, "for", "weak" if share >= SHORTER else "none", told)


def vocabulary(evidence: Evidence, _: Economics) -> Reason:
    times = evidence.variety.pieces
    told = f"The tokenizer cuts a word of these inputs into {times:.2f} times as many pieces as one of general text."
    return _reason("special vocabulary", "for", steps(times, *PIECES), told)


def scale(evidence: Evidence, costs: Economics) -> Reason:
    topic, calls, even = "cost at scale", evidence.facts.calls_per_day, costs.break_even
    if not costs.known or calls is None:
        missing = unpriced(evidence.facts)
        open_ = [unknown(evidence.facts, "Prices", *missing)] if missing else []
        open_ += [unknown(evidence.facts, "Traffic", "calls_per_day")] if calls is None else []
        return _reason(topic, "neutral", "none", " ".join([costs.sentence, *open_]), measured=False)
    if even is None:
        return _reason(topic, "against", "medium", costs.sentence)
    side: Side = "for" if calls >= even else "against"
    far = calls >= 2 * even if side == "for" else 2 * calls <= even
    return _reason(topic, side, "strong" if far else "medium", costs.sentence)


def patterns(evidence: Evidence, _: Economics) -> Reason:
    topic, bare = "private patterns", best(evidence, ("zero_shot",))
    shown_rows = best(evidence, ("few_shot", RETRIEVED))
    if bare is None or shown_rows is None:
        return _reason(
            topic, "neutral", "none", "Too few ways without training could be asked to tell.", measured=False
        )
    sign = 1 if evidence.higher_is_better else -1
    gain = sign * (shown_rows.score.value - bare.score.value)
    gain /= 1.0 if evidence.higher_is_better else max(bare.score.value, 1e-9)
    values = [shown(evidence.metric, bar.score.value) for bar in (bare, shown_rows)]
    alone = "The names of the labels alone score" if by_name(evidence, bare) else "An instruction alone scores"
    told = f"{alone} {values[0]}, with training rows at hand ({shown_rows.name}) {values[1]}"
    return _reason(topic, "for", steps(gain, *PATTERNS), f"{told}: what is in the rows and not in the base.")


def broad(evidence: Evidence, _: Economics) -> Reason:
    variety, like = evidence.variety, likeness(evidence)
    many = variety.answers > variety.rows / 2
    strength: Strength = "none"
    if many and like < LIKE[1]:
        strength = "strong" if like < LIKE[2] else "medium"
    told = f"{variety.answers:,} different answers in {variety.rows:,} rows; "
    told += f"{variety.types:.0%} of the words are new ones."
    return _reason("broad task", "against", strength, told)


def inconsistent(evidence: Evidence, _: Economics) -> Reason:
    variety = evidence.variety
    doubts = [x for x in (variety.torn, variety.doubted) if x is not None]
    said = []
    if variety.torn is not None:
        of_those = f"{variety.torn:.1%} of those have another answer"
        said.append(f"{variety.repeated:.1%} of the rows nearly repeat another, and {of_those}")
    if variety.doubted is not None:
        said.append(f"against {variety.doubted:.1%} of the answers the five nearest rows are of one mind")
    if not said:
        return _reason("inconsistent inputs", "neutral", "none", "No row nearly repeats another, and answers are open.")
    return _reason("inconsistent inputs", "against", steps(max(doubts), *TORN), f"{'; '.join(said)}.".capitalize())


def quality(evidence: Evidence, _: Economics) -> Reason:
    topic, seen = "data quality", evidence.quality
    if seen is None:
        return _reason(topic, "neutral", "none", "Not looked at.", measured=False)
    said = [f"{seen.found[name]:,} {flaw}" for name, flaw in FLAWS.items() if name in seen.found]
    told = f"Of {seen.rows:,} rows {', '.join(said) or 'none repeats or contradicts another or is too long'}."
    if seen.left_out:
        told += f" {seen.left_out:,} more could not be read and were left out."
    if others := [name for name in seen.found if name not in FLAWS]:
        told += f" {'More' if said else 'Something'} was found by: {', '.join(others)}."
    if seen.found:
        told += " tunesmith check RECIPE names the rows."
    return _reason(topic, "against", steps(seen.found.get("contradictions", 0) / max(seen.rows, 1), *TORN), told)


def prototyping(evidence: Evidence, _: Economics) -> Reason:
    asked = evidence.facts.prototype
    if asked is None:
        told = unknown(evidence.facts, "", "prototype")
        return _reason("prototyping", "neutral", "none", told, measured=False)
    told = "A prototype: what is asked may change next week." if asked else "Not a prototype."
    return _reason("prototyping", "against", "strong" if asked else "none", told)


def little(evidence: Evidence, _: Economics) -> Reason:
    rows, curve = evidence.rows, evidence.curve
    usual = f"the usual advice is {USUAL[0]:,} to {USUAL[1]:,}"
    if curve is None:
        told = f"{rows:,} rows to train on, no learning curve; {usual}."
        return _reason("little data", "against", "medium" if rows < USUAL[0] else "none", told)
    if curve.within_reach < 0.5:
        told = f"{rows:,} rows to train on; tuning is not likely to overtake within ten times as many ({usual})."
        return _reason("little data", "against", "strong", told)
    needed = curve.overtakes
    told = f"{rows:,} rows to train on; on the curve tuning overtakes at about {rows_of(needed.value)} ({usual})."
    strength: Strength = "none" if needed.value <= rows else "strong" if needed.value > 2 * rows else "medium"
    return _reason("little data", "against", strength, told)


def stale(evidence: Evidence) -> bool:
    """Whether the facts change faster than the model would be trained anew."""
    change, retrain = evidence.facts.facts_change, evidence.facts.retrain_every
    if change is None:
        return False
    days = CHANGES[change]
    return days <= CHANGES["weekly"] and (retrain is None or retrain > days)


def changing(evidence: Evidence, _: Economics) -> Reason:
    topic, change, retrain = "fast-changing facts", evidence.facts.facts_change, evidence.facts.retrain_every
    if change is None:
        return _reason(topic, "neutral", "none", unknown(evidence.facts, "", "facts_change"), measured=False)
    told = f"The facts change {change if change != 'never' else 'not at all'}"
    if retrain is not None:
        told += f"; the model would be trained anew every {retrain:g} days."
    elif CHANGES[change] <= CHANGES["monthly"]:
        told += f". {unknown(evidence.facts, 'How often the model would be trained anew was', 'retrain_every')}"
    else:
        told += "."
    strength: Strength = (
        "strong" if stale(evidence) else "medium" if change == "monthly" and retrain is None else "none"
    )
    return _reason(topic, "against", strength, told)


FOR: tuple[Item, ...] = (consistent, volume, latency, length, vocabulary, scale, patterns)
AGAINST: tuple[Item, ...] = (broad, inconsistent, quality, prototyping, little, changing)


def lists(evidence: Evidence, costs: Economics) -> dict[str, tuple[Reason, ...]]:
    """Both lists, every item of them."""
    both = (("for tuning", FOR), ("against tuning", AGAINST))
    return {name: tuple(item(evidence, costs) for item in items) for name, items in both}
