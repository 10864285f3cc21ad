"""``tunesmith chat``: the base model and the tuned one, one after the other, as they write.

Notable: each question stands alone; answers of one model never become the context of the other. What is asked of the
sampler is checked before a model is loaded, and an option that would do nothing is refused.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.output import LONGEST, AsJson, Runs, show_json, tell, the_run

if TYPE_CHECKING:
    from tunesmith.generate.sampler import Sampling

EXAMPLES = {
    "chat": (
        "tunesmith chat 20261124-0126",
        'tunesmith chat 20261124-0126 --prompt "My invoice is wrong"',
        'tunesmith chat 20261124-0126 --prompt "My invoice is wrong" --json',
        "tunesmith chat 20261124-0126 --temperature 0.8 --top-p 0.95 --seed 7",
        'tunesmith chat 20261124-0126 --prompt "List three causes" --stop "4." --max-new-tokens 200',
        "tunesmith chat their-adapter --base their-model",
    )
}

TopP = Annotated[
    float | None,
    typer.Option("--top-p", metavar="P", help="Draw from the likeliest tokens that together have this share."),
]
TopK = Annotated[int | None, typer.Option("--top-k", metavar="N", help="Draw from so many of the likeliest tokens.")]
MinP = Annotated[
    float | None,
    typer.Option("--min-p", metavar="P", help="Leave out tokens less likely than this share of the likeliest one."),
]
Stop = Annotated[
    list[str] | None,
    typer.Option("--stop", metavar="TEXT", help="End an answer before this text; may be repeated."),
]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Draw other answers; 0 unless it is given.")]


def chat(
    run: Annotated[
        str,
        typer.Argument(help="The run's id, or its start; with --base the folder of an adapter.", show_default=False),
    ],
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="MODEL", help="Talk to a PEFT adapter made elsewhere, on this model."),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", metavar="TEXT", help="Ask this one question and leave.")
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", metavar="TEXT", help="System prompt that goes before the question.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", metavar="N", help="Longest answer.")] = 128,
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="T", help="0 always takes the likeliest token.")
    ] = 0.0,
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: MinP = None,
    seed: Seed = None,
    stop: Stop = None,
    runs: Runs = Path(),
    as_json: AsJson = False,
) -> None:
    """Ask the base model and the tuned one the same question."""
    from tunesmith.core.example import Message

    folder = Path(run if base is not None else the_run(run, runs).folder)
    drawn = {"top_p": top_p, "top_k": top_k, "min_p": min_p, "seed": seed}
    sampling = _sampling(max_new_tokens, temperature, stop or (), drawn)
    from tunesmith.flows.chat import open_adapter, open_chat

    if base is not None:
        pair, unproven = open_adapter(folder, base)
        tell(unproven)
    else:
        pair = open_chat(folder)
    for question in _questions() if prompt is None else (prompt,):
        before = (Message(role="system", content=system),) if system else ()
        messages = (*before, Message(role="user", content=question))
        most = sampling.max_new_tokens
        if as_json:
            untuned, tuned = pair.answer(messages, draw=sampling, max_new_tokens=most)
            show_json({"prompt": question, "base": untuned, "tuned": tuned})
        else:
            _written(pair.pieces(messages, draw=sampling, max_new_tokens=most))


def _sampling(max_new_tokens: int, temperature: float, stops: Sequence[str], asked: dict[str, Any]) -> "Sampling":
    """What the options ask for. Raises RecipeError for values that mean nothing, and for options that do nothing."""
    from tunesmith.core.errors import RecipeError
    from tunesmith.generate.sampler import Sampling

    given = {name: value for name, value in asked.items() if value is not None}
    sampling = Sampling(max_new_tokens, (), temperature=temperature, stops=tuple(stops), **given)
    if given and not temperature:
        name, value = next(iter(given.items()))
        raise RecipeError(
            f"--{name.replace('_', '-')} is {value}, but at temperature 0 the likeliest token is taken and nothing is "
            "drawn. Set --temperature above 0, or leave it out."
        )
    return sampling


def _questions() -> Iterator[str]:
    """Questions from the terminal until an empty line, or one a line from a pipe."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin if line.strip())
        return
    tell("Ask a question; an empty line ends.")
    while question := typer.prompt("you", default="", show_default=False).strip():
        yield question


def _written(pieces: Iterator[tuple[str, str]]) -> None:
    """Each answer behind the name of its model, as it is written."""
    from tunesmith.present.words import clean

    before = ""
    for who, text in pieces:
        name = "" if who == before else f"{who}: " if not before else f"\n{who}: "
        typer.echo(name + clean(text, LONGEST), nl=False)
        before = who
    typer.echo()
