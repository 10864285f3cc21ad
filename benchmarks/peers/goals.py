"""What learning from preferences and rewards has to reach, and whether it does: read from the parts of ``rlhf.py``.

Notable: a goal counts as reached by its value (over seeds the mean); whether the whole interval reaches it is said
beside, and so is how many of the seeds reach it alone.
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peers.policies import shown

Part = dict[str, Any]
COMPARED: Mapping[str | int, str] = {"gain": "against", "over_sft": "sft"}  # where a part names the other arm
RELATIONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True)
class Goal:
    """``place`` leads to an estimate in the part; below ``over_seeds`` it has a value for ``each`` seed as well."""

    part: str
    about: str
    place: tuple[str | int, ...]
    relation: str
    limit: float
    percent: bool = False

    def wanted(self) -> str:
        return f"{self.relation} {self.limit:.0%}" if self.percent else f"{self.relation} {self.limit:g}"


def _policy(name: str, *measure: str) -> tuple[str | int, ...]:
    return ("arms", name, "over_seeds", *measure)


GOALS = (
    Goal("verifiable", "pass@1 before rewards", ("arms", "sft", "each", 0), "<", 0.4, percent=True),
    Goal("verifiable", "pass@1 after GRPO", _policy("grpo"), ">", 0.8, percent=True),
    Goal("imdb", "PPO: reward gained, in deviations of sft", _policy("ppo", "gain"), ">=", 1.0),
    Goal("imdb", "PPO: the judge's value gained, in deviations of sft", _policy("ppo", "judge_gain"), ">", 0.0),
    Goal("imdb", "PPO: KL from sft, nats an answer", _policy("ppo", "kl_from_start"), "<=", 10.0),
    Goal("imdb", "GRPO: reward gained, in deviations of sft", _policy("grpo", "gain"), ">=", 1.0),
    Goal("imdb", "GRPO: the judge's value gained, in deviations of sft", _policy("grpo", "judge_gain"), ">", 0.0),
    Goal("imdb", "GRPO: KL from sft, nats an answer", _policy("grpo", "kl_from_start"), "<=", 10.0),
    Goal("imdb", "accuracy of the reward model, MiniLM", ("classifiers", "reward"), ">=", 0.85, percent=True),
    Goal("short", "accuracy of DPO less that of sft", ("arms", "dpo", "gain"), ">", 0.0, percent=True),
    Goal(
        "short_flipped", "accuracy of robust DPO less that of DPO, labels flipped", ("arms", "robust_flipped", "gain"),
        ">", 0.0, percent=True,
    ),
    Goal("flipped", "accuracy of DPO less that of sft", ("arms", "dpo_clean", "over_sft"), ">", 0.0, True),
    Goal(
        "flipped", "accuracy of robust DPO less that of DPO, labels flipped", ("arms", "robust_flipped", "gain"),
        ">", 0.0, percent=True,
    ),
)  # fmt: skip


def reached(parts: Mapping[str, Part]) -> list[Part]:
    """Each goal with what was found; its verdict is "not measured" where the part lacks it."""
    return [_found(goal, parts.get(goal.part)) for goal in GOALS]


def _found(goal: Goal, part: Any) -> Part:
    told: Part = {"part": goal.part, "about": goal.about, "goal": goal.wanted()}
    value = _at(part, goal.place)
    if value is None:
        return told | {"verdict": "not measured"}
    meets, limit = RELATIONS[goal.relation], goal.limit
    verdict = "missed"
    if meets(value["value"], limit):
        whole = meets(value["low"], limit) and meets(value["high"], limit)
        verdict = "reached" if whole else "reached; not by all of the interval"
    if _kept_its_start(part, goal.place[:2]):
        verdict = "missed: it kept the weights of its start"
    other = part.get(COMPARED.get(goal.place[-1], ""))
    if other and _kept_its_start(part, ("arms", other)):
        verdict += f"; {other} kept the weights of its start"
    told |= {"value": value, "percent": goal.percent, "verdict": verdict}
    if "over_seeds" not in goal.place:
        return told
    at = goal.place.index("over_seeds")
    each = [_at(seed, goal.place[at + 1 :])["value"] for seed in _at(part, (*goal.place[:at], "each"))]
    return told | {"seeds": len(each), "seeds_that_reach_it": sum(meets(x, limit) for x in each)}


def _kept_its_start(part: Part, place: Sequence[str | int]) -> bool:
    """Whether no run of the arm at ``place`` learned anything."""
    steps = _at(part, (*place, "best_step"))
    return bool(steps) and not any(steps)


def _at(held: Any, place: Sequence[str | int]) -> Any:
    """What lies at ``place`` in nested dicts and lists; None where there is nothing."""
    for key in place:
        if isinstance(held, dict):
            held = held.get(key)
        elif isinstance(held, list) and isinstance(key, int):
            held = held[key]
        else:
            return None
    return held


def page(found: Sequence[Part]) -> list[str]:
    out = ["| part | what | goal | found, 95% interval | seeds that reach it | |", "|---|---|---|---|---|---|"]
    for told in found:
        seeds = f"{told['seeds_that_reach_it']} of {told['seeds']}" if "seeds" in told else ""
        value = shown(told.get("value"), percent=told.get("percent", False))
        out.append(f"| {told['part']} | {told['about']} | {told['goal']} | {value} | {seeds} | {told['verdict']} |")
    return [*out, ""]
