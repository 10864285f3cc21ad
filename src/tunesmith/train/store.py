"""A snapshot as the files of a checkpoint: tensors as safetensors, everything else as JSON; no pickle.

Notable: the best weights of a run seldom change from save to save; where they have not, the file of the checkpoint
before gets a second name instead of being written again.
"""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tunesmith.core.errors import DataError, DiskError
from tunesmith.records.checkpoints import link_or_copy
from tunesmith.train.state import Snapshot

SCHEMA = 1
STATE, BEST, VALUES = "state.safetensors", "best.safetensors", "state.json"


def write(folder: Path, snapshot: Snapshot, previous: Path | None) -> None:
    """Put ``snapshot`` into ``folder``. ``previous`` is an earlier checkpoint of the same run. Raises DiskError."""
    try:
        save_file(snapshot.tensors, folder / STATE)
        if snapshot.best is not None:
            if previous is not None and _best_step(previous) == snapshot.progress["best_step"]:
                link_or_copy(previous / BEST, folder / BEST)
            else:
                save_file(snapshot.best, folder / BEST)
        values = {"schema": SCHEMA, "progress": snapshot.progress, "numbers": snapshot.numbers}
        (folder / VALUES).write_text(json.dumps(values), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise DiskError(f"Cannot write {folder}: {error}. Free space.") from error


def _best_step(checkpoint: Path) -> int | None:
    try:
        found = json.loads((checkpoint / VALUES).read_text(encoding="utf-8"))["progress"]["best_step"]
        return int(found) if (checkpoint / BEST).is_file() else None
    except (OSError, ValueError, LookupError):
        return None


def read(folder: Path) -> Snapshot:
    """The snapshot in a checkpoint that has been verified. Raises DataError."""
    try:
        values = json.loads((folder / VALUES).read_text(encoding="utf-8"))
        if values.get("schema") != SCHEMA:
            raise DataError(
                f"{folder} has schema {values.get('schema')}; this Tunesmith reads {SCHEMA}. Resume with the version "
                "that wrote it."
            )
        best = load_file(folder / BEST) if (folder / BEST).is_file() else None
        return Snapshot(values["progress"], load_file(folder / STATE), best, values["numbers"])
    except (OSError, SafetensorError, ValueError, LookupError) as error:
        raise DataError(f"{folder} cannot be read ({error}). Use an older checkpoint, or start over.") from error
