"""What a recipe's training will need, from its files' sizes alone: no weight is read and torch is not imported.

Notable: rows are read and counted with the model's own tokenizer file; a model that is not here is planned by its name
from the table of known ones. Earlier runs of the workspace correct the times, where a probe was kept before they ran.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from random import Random

from tunesmith.core import order
from tunesmith.core.errors import ModelError, RecipeError, TunesmithError
from tunesmith.core.forecast import Choice, Forecast
from tunesmith.core.learnable import check_answers, check_task
from tunesmith.core.recipe import OBJECTIVE, Recipe
from tunesmith.core.report import Report
from tunesmith.data import read
from tunesmith.data.sizes import Counter, Size
from tunesmith.flows.networks import network_of, with_scorers
from tunesmith.plan.calibrate import LEAST_RUNS, Earlier, correction
from tunesmith.plan.devices import find, known_devices
from tunesmith.plan.fit import Job
from tunesmith.plan.foresee import Place, fitting, forecast, foresee, on_devices
from tunesmith.plan.here import here, machine_of
from tunesmith.plan.objectives import ObjectiveFacts, objective_facts
from tunesmith.plan.resolve import Data, dev_rows
from tunesmith.plan.work import Rollouts
from tunesmith.records.index import Index

MOST_ROWS = 10_000_000  # of --rows
MOST_EARLIER = 50  # runs that times are corrected by
ANSWER_LIMIT = 16  # of a policy whose rows have no answer
COUNTED = 5_000  # rows whose steps are counted; those of more rows are reckoned
EIGHT_BIT = "train.memory: least keeps moments in eight bits; bitsandbytes is taken to be installed on the device."
UNPROBED = (
    "Of the earlier runs in this workspace, {} cannot correct the time: no probe of the machine was kept when they "
    f"ran. tunesmith plan --probe first; {LEAST_RUNS} runs after it do."
)


@dataclass(frozen=True)
class Asked:
    """What ``tunesmith plan`` was asked beside the recipe: a device by name instead of the machine at hand, and how
    many of them, rows and tokens of a row instead of a file, what it may cost, and whether settings or devices are to
    be searched."""

    device: str | None = None
    count: int = 1
    devices_file: Path | None = None
    rows: int | None = None
    tokens: int | None = None
    usd: float | None = None
    fit: bool = False
    devices: bool = False


def plans(recipes: Sequence[Recipe], asked: Asked | None = None, workspace: Path | None = None) -> list[Forecast]:
    """Of stages, in their order: a policy's reward model is that of the last stage before it that trains one."""
    found: list[Forecast] = []
    rewards: Recipe | None = None
    for recipe in recipes:
        found.append(plan(recipe, asked, workspace, rewards))
        rewards = recipe if recipe.objective.name == "reward" else rewards
    return found


def plan(
    recipe: Recipe, asked: Asked | None = None, workspace: Path | None = None, rewards: Recipe | None = None
) -> Forecast:
    """``rewards``: the recipe of an earlier stage that is to train the reward model. Raises RecipeError, DataError,
    ModelError, each a sentence."""
    asked = asked or Asked()
    _check(asked)
    place, devices = _place(asked, workspace), known_devices(asked.devices_file)
    card, shape, folder = network_of(recipe.model)
    name = recipe.objective.name if recipe.objective.name != "auto" else OBJECTIVE[recipe.task]
    facts = objective_facts(name)
    check_task(recipe.task, name, needs=facts.needs, unit=facts.unit)
    data, assumed = _data(recipe, name, asked, folder, encoder=shape.kind == "encoder")
    wanted = recipe.train.max_length
    data = data.cut(card.context if wanted == "auto" else min(wanted, card.context))
    if data.rollouts is not None:
        rollouts, told = with_scorers(data.rollouts, recipe, (card, shape), rewards)
        data, assumed = replace(data, rollouts=rollouts), [*assumed, *told]
    job = Job(recipe, name, card, shape, data)
    found = foresee(job, place)
    if asked.device is not None and found.plan.moments == "int8":
        assumed.append(EIGHT_BIT)
    choices: list[Choice] = []
    if asked.fit:
        choices += fitting(job, place)
    if asked.devices:
        choices += on_devices(job, place, devices.values())
    return forecast(found, choices, assumed)


def probed() -> None:
    """Measure the machine at hand and keep it; in a process of its own, whose memory is that of the libraries alone.
    Raises ModelError."""
    done = subprocess.run(
        [sys.executable, "-m", "tunesmith.models.probe"], capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode != 0:
        raise ModelError(f"The probe failed: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")


def _check(asked: Asked) -> None:
    for name, value in (("--rows", asked.rows), ("--tokens", asked.tokens), ("--usd", asked.usd)):
        if value is not None and not 0 < value < 1e12:
            raise RecipeError(f"{name} is {value}; expected a number above 0.")
    if asked.usd is not None and not (asked.fit or asked.devices):
        raise RecipeError(f"--usd is {asked.usd:g}; expected --fit or --devices beside it, whose choices it bounds.")
    if asked.rows is not None and asked.rows > MOST_ROWS:
        raise RecipeError(
            f"--rows is {asked.rows}; expected at most {MOST_ROWS:,}. Plan so many, and multiply the time: memory is "
            "the same."
        )
    if not 1 <= asked.count <= 100_000 or (asked.count > 1 and asked.device is None):
        raise RecipeError(f"--count is {asked.count}; expected a number of devices from 1 up, beside --device.")
    if (asked.rows is None) != (asked.tokens is None):
        raise RecipeError("--rows and --tokens go together: how many rows, and tokens of a row.")


def _place(asked: Asked, workspace: Path | None) -> Place:
    if asked.device is not None:
        device = find(asked.device, asked.devices_file)
        return Place(replace(machine_of(device), ranks=asked.count), device, None, asked.usd)
    machine, known_device, rates, assumed = here(asked.devices_file)
    earlier, unforeseen = _earlier(workspace) if workspace is not None else ([], 0)
    if unforeseen and (rates is None or correction(earlier, rates.name, "") is None):
        assumed = [*assumed, UNPROBED.format(unforeseen)]
    return Place(machine, known_device, rates, asked.usd, earlier, assumed)


def _earlier(workspace: Path) -> tuple[list[Earlier], int]:
    """The newest runs of this workspace that told what was foreseen, of which device, and what came; and how many tell
    what came alone."""
    if not (workspace / "runs").is_dir():
        return [], 0
    found: list[Earlier] = []
    unforeseen = 0
    for run in Index.open(workspace).all()[:MOST_EARLIER]:
        try:
            report = Report.load(Path(run.folder) / "report.json")
        except (OSError, ValueError, TunesmithError):  # a run of another time, or one that did not end
            continue
        planned, measured = report.plan, report.fit.step_seconds
        if planned.device and planned.step_seconds and measured:
            found.append(Earlier(planned.step_seconds, measured, planned.device, run.method))
        elif measured:
            unforeseen += 1
    return found, unforeseen


def _data(
    recipe: Recipe, objective: str, asked: Asked, folder: Path | None, *, encoder: bool
) -> tuple[Data, list[str]]:
    """What there is to train on, and what was taken for granted of it."""
    facts = objective_facts(objective)
    if asked.rows is not None and asked.tokens is not None:
        third = max(1, asked.tokens // 3)
        answers = (third, third) if facts.unit == "pair" else (third,)
        sizes = [Size(max(1, asked.tokens - third), answers)]
        data = _of_sizes(recipe, facts, sizes, asked.rows, encoder=encoder, labels=2)
        return data, ["A third of each row is taken to be answer."]
    dataset = read.read(Path(recipe.data.train), recipe.data, recipe.task)
    if recipe.task == "prefer":
        for example in dataset.examples:
            check_answers(example, objective, unit=facts.unit)
    counter = Counter(folder)
    sizes, longest = counter.sizes(dataset.examples), counter.longest(dataset.examples)
    if longest:
        spread = f"{len(sizes):,} of {len(dataset.examples):,} rows were counted, evenly spread"
        counter.assumed.append(f"{spread}, and the {len(longest)} with the most characters.")
    labels = len({e.label for e in dataset.examples}) if recipe.task == "classify" else 0
    data = _of_sizes(recipe, facts, sizes, len(dataset.examples), encoder=encoder, labels=labels, longest=longest)
    return data, counter.assumed


def _of_sizes(
    recipe: Recipe,
    facts: ObjectiveFacts,
    sizes: Sequence[Size],
    count: int,
    *,
    encoder: bool,
    labels: int,
    longest: Sequence[Size] = (),
) -> Data:
    """``sizes`` of a sample of ``count`` rows, and of the ``longest`` of them."""
    each = [(size.prompt, own) for size in sizes for own in size.answers]
    unit, times = 2 if facts.unit == "pair" else 1, 1.0  # rows of a unit, units of a row
    if facts.unit == "judged":
        unit, times = 2, len(each) / len(sizes)
        sizes, longest = _judged(sizes, [*sizes[1:], *sizes[:1]]), _judged(longest, sizes)
    if unit == 1:  # of a pair the better answer alone is trained
        sizes, longest = ([Size(s.prompt, s.answers[:1]) for s in of] for of in (sizes, longest))
    if unit > 1 and encoder:  # which reads both ways, and shares no prompt
        sizes, longest = ([Size(0, tuple(s.prompt + own for own in s.answers)) for s in of] for of in (sizes, longest))
    shares = recipe.data.split
    dev = 0.0 if recipe.data.dev else shares.dev
    test = 0.0 if recipe.data.test else shares.test
    train = max(1, round(count * (1 - dev - test)))
    if recipe.data.limit is not None:
        train = min(train, recipe.data.limit)
    looked_at = min(dev_rows(round(train * times)), round(count * (dev or shares.dev))) * times
    taken = _spread(sizes, longest, round(train * times), round(count * times))
    rows = [size.tokens for size in taken]
    lengths = [size.tokens for size in sizes]
    mean = sum(lengths) / len(lengths)
    rollouts = _rollouts(recipe, facts, sizes, train) if facts.unit == "answer" else None
    answers = [tokens for size in sizes for tokens in size.answers]
    trained = sum(answers) / sum(lengths)

    def steps(batch: int, max_length: int) -> int:
        if rollouts:
            return recipe.rollout.steps_of(train)
        bounded = [min(n, max_length * unit) for n in rows]
        if len(rows) <= COUNTED:
            return len(order.steps(bounded, batch, Random(0)))
        total = sum(bounded)
        return ceil(total / max(batch - total / len(rows) / 2, total / len(rows)))

    return Data(
        rows,
        steps,
        dev_tokens=0 if rollouts else int(looked_at * mean),
        trained=int(trained * sum(rows)),
        longest=max(size.longest for size in (*sizes, *longest)),
        unit=unit,
        outputs=labels if facts.needs == "class_logp" else int(facts.needs == "score"),
        reference=facts.reference,
        rollouts=rollouts,
        answers=each if facts.adds_up else (),
        widths=[size.longest for size in taken] if unit > 1 else (),
    )


def _rollouts(recipe: Recipe, facts: ObjectiveFacts, sizes: Sequence[Size], train: int) -> Rollouts:
    how, limit = recipe.rollout, recipe.evaluate.max_new_tokens
    answer = round(sum(max(s.answers) for s in sizes) / len(sizes))
    longest = max(answer, ANSWER_LIMIT) if limit == "auto" else limit
    prompt = round(sum(s.prompt for s in sizes) / len(sizes))
    prompts = min(how.prompts, train)  # of a rollout; there are no more
    critic = facts.needs == "token_logp_value"
    return Rollouts(prompts, how.answers, prompt, longest, how.steps * how.passes, critic)


def _spread(sizes: Sequence[Size], longest: Sequence[Size], train: int, count: int) -> list[Size]:
    """``train`` of ``count`` rows: the ``longest`` as far as they fall to them, one at least, others by the sample,
    evenly over its sizes from the largest."""
    tail = longest[: max(1, round(len(longest) * train / count))]
    others, ordered = train - len(tail), sorted(sizes, key=lambda size: size.tokens, reverse=True)
    return [*tail, *(ordered[i * len(ordered) // others] for i in range(others))]


def _judged(sizes: Sequence[Size], others: Sequence[Size]) -> list[Size]:
    """Of each answer, with the first to another prompt beside it, as far as the longest row goes, as the engine sets
    them (``data/preferences.py``)."""
    most = max((size.longest for size in (*sizes, *others)), default=0)
    return [
        Size(size.prompt, (own, min(beside.answers[0], most - size.prompt)))
        for size, beside in zip(sizes, others, strict=False)
        for own in size.answers
    ]
