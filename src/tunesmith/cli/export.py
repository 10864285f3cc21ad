"""``tunesmith export``: a run's model in another format, proven against the trained one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.output import AsJson, Runs, show, show_json, the_run
from tunesmith.cli.progress import Watch

if TYPE_CHECKING:
    from tunesmith.flows.export import Order

EXAMPLES = {
    "export": (
        "tunesmith export 20261124-0126 --to peft",
        "tunesmith export 20261124-0126 --to merged --out support-model",
        "tunesmith export 20261124-0126 --to gguf --type q8_0",
        "tunesmith export 20261124-0126 --to merged --dry-run --json",
    )
}


def export(
    run: Annotated[str, typer.Argument(help="The run's id, or its start.", show_default=False)],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="peft, merged or gguf.")],
    weights: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Numbers of a GGUF: f16, bf16 or q8_0.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="A new folder; export/FORMAT of the run otherwise.")
    ] = None,
    runs: Runs = Path(),
    as_json: AsJson = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written; write nothing.")] = False,
) -> None:
    """Write a run's model for other programs, and prove that it answers as the trained one.

    Held-out prompts that the run has kept go through both; an export that answers otherwise is not published.
    """
    found = the_run(run, runs)
    from tunesmith.flows import export as flow

    made = flow.order(Path(found.folder), to, weights=weights, out=out)
    if dry_run:
        _tell(made, None, "nothing was written", as_json)
        return
    with Watch() as watch:
        proof = flow.export(made, watch)
    _tell(made, proof.model_dump(mode="json"), proof.sentence, as_json)


def _tell(made: "Order", proof: dict[str, Any] | None, words: str, as_json: bool) -> None:
    if as_json:
        about = {"run": made.run.id, "format": made.part.name, "type": made.weights, "folder": str(made.out)}
        show_json({**about, "proof": proof})
        return
    show(f"{made.part.name} ({made.weights}): {made.out}\n{words[0].upper()}{words[1:]}.")
    for name, kl in (proof or {}).get("others", {}).items():
        show(f"{name}: KL {kl:.1e} nats a token")
