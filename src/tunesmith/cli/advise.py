"""``tunesmith advise``: prompt, retrieve, tune, or collect more data, decided on the user's own rows before a run."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.output import AsJson, Runs, Settings, show, show_json, tell
from tunesmith.cli.progress import Watch
from tunesmith.core.errors import RecipeError

if TYPE_CHECKING:
    from tunesmith.core.advice import Facts
    from tunesmith.flows.trials import Trials

EXAMPLES = {
    "advise": (
        "tunesmith advise support.yaml",
        "tunesmith advise support.yaml --calls-per-day 20000 --facts-change yearly --time 10m",
        "tunesmith advise support.yaml --price-in 0.5 --price-out 1.5 --host-price 0.8 --calls-per-day 5000",
        "tunesmith advise support.yaml --dry-run",
        "tunesmith advise support.yaml --json --out advice/",
    )
}
CHANGES = ("never", "yearly", "monthly", "weekly", "daily")
SKIP = " (Enter: not known)"
PRICES = {
    "price_in": "a million tokens that the prompted model reads",
    "price_out": "a million tokens that it writes",
    "host_price": "an hour of the machine that serves a tuned one",
}

Recipe = Annotated[Path, typer.Argument(help="The recipe: YAML, JSON or TOML.", show_default=False)]
Calls = Annotated[float | None, typer.Option("--calls-per-day", metavar="N", help="Expected traffic, in calls a day.")]
Change = Annotated[
    str | None, typer.Option("--facts-change", metavar="HOW_OFTEN", help="never, yearly, monthly, weekly or daily.")
]
Prototype = Annotated[
    bool | None, typer.Option("--prototype/--no-prototype", help="Whether this is a prototype.", show_default=False)
]
Latency = Annotated[
    float | None, typer.Option("--latency", metavar="SECONDS", help="Longest time that an answer may take.")
]
LabelPrice = Annotated[
    float | None, typer.Option("--label-price", metavar="PRICE", help="Price of one more labelled example.")
]
PriceIn = Annotated[
    float | None,
    typer.Option("--price-in", metavar="PRICE", help="Price of a million tokens that the prompted model reads."),
]
PriceOut = Annotated[
    float | None, typer.Option("--price-out", metavar="PRICE", help="Price of a million tokens that it writes.")
]
HostPrice = Annotated[
    float | None,
    typer.Option("--host-price", metavar="PRICE", help="Price of an hour of the machine that serves a tuned one."),
]
Retrain = Annotated[
    float | None, typer.Option("--retrain-every", metavar="DAYS", help="Days after which it is trained anew.")
]
Time = Annotated[
    str | None,
    typer.Option(
        "--time",
        metavar="TIME",
        help="Time that the small runs may take: 10m, 1h, or seconds. The first is made whatever it takes.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Folder of the page and of what is measured.", show_default=False),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be run and write nothing.")]


def advise(
    recipe: Recipe,
    calls_per_day: Calls = None,
    facts_change: Change = None,
    prototype: Prototype = None,
    latency: Latency = None,
    label_price: LabelPrice = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    host_price: HostPrice = None,
    retrain_every: Retrain = None,
    budget: Time = None,
    settings: Settings = None,
    runs: Runs = Path(),
    out: Out = None,
    as_json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Measure on your rows whether to prompt, retrieve, tune or collect more data, and what each would cost.

    Prompted baselines and small runs on 5, 10, 20 and 40% of the training rows give a learning curve with bands. Rows
    to score on are held back from train; the locked test is not looked at. A larger model that would be prompted
    instead is asked too where evaluate.rival names its endpoint. Asked again with other facts, it takes over what is
    measured. At a terminal, a few questions ask for what no flag gives.
    """
    from tunesmith.core.advice import Facts
    from tunesmith.decide.economics import checked

    given: dict[str, Any] = {
        "calls_per_day": calls_per_day,
        "facts_change": _change(facts_change),
        "prototype": prototype,
        "latency": latency,
        "label_price": label_price,
        "price_in": price_in,
        "price_out": price_out,
        "host_price": host_price,
        "retrain_every": retrain_every,
    }
    facts, seconds = checked(Facts(**given)), _seconds(budget)
    from tunesmith.flows import advise as flow

    if dry_run:
        _plan(flow.plan(recipe, settings or []), as_json)
        return
    if not as_json and _at_a_terminal():
        facts = checked(_asked(given))
    with Watch() as watch:
        found = flow.advise(
            recipe, facts=facts, seconds=seconds, overrides=settings or [], workspace=runs, out=out, watch=watch
        )
    page = (out or runs / flow.FOLDER / found.id) / "advice.html"
    if as_json:
        show_json(found.model_dump(mode="json") | {"html": str(page)})
    else:
        from tunesmith.present.advice import advice_summary

        show(advice_summary(found))
    tell(f"The page: {page}")


def _change(given: str | None) -> str | None:
    """Raises RecipeError with the nearest word."""
    if given is None or given in CHANGES:
        return given
    from tunesmith.core.errors import did_you_mean

    raise RecipeError(
        f"--facts-change is {given[:40]}; expected one of {', '.join(CHANGES)}.{did_you_mean(given, CHANGES)}"
    )


def _seconds(given: str | None) -> float | None:
    """Raises RecipeError."""
    if given is None:
        return None
    from tunesmith.core.recipe import seconds

    try:
        found = seconds(given)
    except ValueError as error:
        raise RecipeError(f"--time is {given[:40]}: {error}.") from None
    if not 0 < found < float("inf"):
        raise RecipeError(f"--time is {given[:40]}; expected a time above 0, such as --time 10m.")
    return found


def _at_a_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _asked(given: dict[str, Any]) -> "Facts":
    """The facts that only the user knows: those ``given``, a question for each of the others, and one for all prices;
    Enter leaves one open."""
    from tunesmith.core.advice import Facts

    questions: dict[str, tuple[str, Callable[[str], Any]]] = {
        "calls_per_day": ("How many calls a day do you expect?", _number),
        "facts_change": (f"How often do the facts in the answers change? {', '.join(CHANGES)}", _one_of_changes),
        "prototype": ("Is this a prototype? yes or no", _yes),
        "latency": ("Within how many seconds must an answer be there?", _number),
        "label_price": ("What does one more labelled example cost?", _number),
    }
    open_ = [name for name in questions if given[name] is None]
    prices = [name for name in PRICES if given[name] is None]
    if open_ or prices:
        tell("A few things only you can know:")
    told = {name: _ask(*questions[name]) for name in open_}
    if prices:
        asked = f"What do these cost: {'; '.join(PRICES[name] for name in prices)}?"
        told |= zip(prices, _ask(asked, _numbers(len(prices))) or [], strict=False)
    return Facts.model_validate(given | told | {"asked": (*open_, *prices)})


def _ask(question: str, read: Callable[[str], Any]) -> Any:
    """The answer as ``read`` has it, asked again while it raises ValueError; None for none."""

    def take(text: str) -> Any:
        try:
            return read(text.strip().lower()) if text.strip() else None
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return typer.prompt(question + SKIP, default="", show_default=False, err=True, value_proc=take)


def _number(text: str) -> float:
    try:
        found = float(text.replace(",", ""))
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise ValueError(f"{text[:40]} is no number of at least 0.")
    return found


def _numbers(count: int) -> Callable[[str], list[float]]:
    def read(text: str) -> list[float]:
        found = [_number(word) for word in re.split(r"[,;\s]+", text)]
        if len(found) != count:
            such_as = ", ".join(("0.5", "1.5", "0.8")[:count])
            raise ValueError(f"{text[:40]} is not {count} {'prices' if count > 1 else 'price'}, such as {such_as}.")
        return found

    return read


def _one_of_changes(text: str) -> str:
    if text not in CHANGES:
        raise ValueError(f"{text[:40]} is none of {', '.join(CHANGES)}.")
    return text


def _yes(text: str) -> bool:
    if text not in ("y", "yes", "n", "no"):
        raise ValueError(f"{text[:40]} is neither yes nor no.")
    return text.startswith("y")


def _plan(found: "Trials", as_json: bool) -> None:
    told = {
        "rows": found.rows,
        "scored": found.scored,
        "metric": found.whole.metrics[0],
        "method": found.whole.recipe.method.name,
        "runs": [{"rows": rows, "seed": seed} for rows, seed in found.sizes],
        "how": found.how,
    }
    if as_json:
        show_json(told)
        return
    show(f"{told['rows']:,} rows to train on; {found.how}.")
    for rows, seed in found.sizes:
        show(f"{told['method']} on {rows:,} rows, seed {seed}, scored by {told['metric']} on {told['scored']:,}")
    if not found.sizes:
        show("No small run would be made.")
