"""``tunesmith demo``: the whole story on the bundled base model and the bundled tickets."""

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.output import AsJson, tell
from tunesmith.cli.progress import Watch
from tunesmith.core.errors import DataError, DiskError

EXAMPLES = {"demo": ("tunesmith demo", "tunesmith demo --out /tmp/first-look", "tunesmith demo --json")}
RECIPE = "recipe.yaml"


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the demo is written.")] = Path(
        "tunesmith-demo"
    ),
    as_json: AsJson = False,
) -> None:
    """Fine-tune the bundled model on the bundled helpdesk tickets, offline, in about two minutes."""
    recipe = unpack(out)
    tell(f"The recipe is {recipe}; its data lies beside it.")
    from tunesmith.cli.run import finish
    from tunesmith.core import recipe_file
    from tunesmith.flows.finetune import finetune

    with Watch() as watch:
        done = finetune(recipe_file.load(recipe), workspace=out, watch=watch)
    finish(done, as_json)


def unpack(out: Path) -> Path:
    """Copy the bundled data set and its recipe into ``out``, keeping files that are there; return the recipe's path."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; expected a folder to write the demo into. Give another one with --out.")
    from importlib import resources

    from tunesmith.core import files

    try:
        out.mkdir(parents=True, exist_ok=True)
        for source in resources.files("tunesmith").joinpath("assets/helpdesk").iterdir():
            target = out / source.name
            if source.is_file() and not target.exists():
                files.write_bytes(target, source.read_bytes())
    except DiskError:
        raise
    except OSError as error:
        raise DiskError(
            f"Cannot write the demo into {out}: {error.strerror}. Choose another folder with --out."
        ) from error
    return out / RECIPE
