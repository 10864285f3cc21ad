"""A snapshot as the files of a checkpoint: tensors as safetensors, everything else as JSON; no pickle.

Notable: a checkpoint shares nothing with the one before, so that what rots in one is whole in the other.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tunesmith.core.errors import DataError, DiskError
from tunesmith.train.state import Snapshot

SCHEMA = 1
STATE, BEST, VALUES = "state.safetensors", "best.safetensors", "state.json"


def write(folder: Path, snapshot: Snapshot, origin: str) -> None:
    """Put ``snapshot`` into ``folder``; ``origin`` names what the run stands on. Raises DiskError."""
    try:
        save_file(snapshot.tensors, folder / STATE)
        if snapshot.best is not None:
            save_file(snapshot.best, folder / BEST)
        values = {"schema": SCHEMA, "origin": origin, "progress": snapshot.progress, "numbers": snapshot.numbers}
        (folder / VALUES).write_text(json.dumps(values), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise DiskError(f"Cannot write {folder}: {error}. Free space.") from error


def read(folder: Path, origins: Sequence[str]) -> Snapshot:
    """The snapshot in a checkpoint that has been verified, of a run that stands on one of ``origins``. Raises
    DataError."""
    try:
        values = json.loads((folder / VALUES).read_text(encoding="utf-8"))
        if values.get("schema") != SCHEMA:
            raise DataError(
                f"{folder} has schema {values.get('schema')}; this Tunesmith reads {SCHEMA}. Resume with the version "
                "that wrote it."
            )
        if values["origin"] not in origins:
            raise DataError(
                f"{folder} belongs to another run, or to other data: it stands on {values['origin']}, this run on "
                f"{', '.join(origins)}. Remove it, or resume the run that it belongs to."
            )
        best = load_file(folder / BEST) if (folder / BEST).is_file() else None
        return Snapshot(values["progress"], load_file(folder / STATE), best, values["numbers"])
    except (OSError, SafetensorError, ValueError, LookupError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{folder} cannot be read ({error}). Use an older checkpoint, or start over.") from error
