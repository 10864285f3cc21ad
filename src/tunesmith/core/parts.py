"""The file name is the registry: ``objectives/sft.py`` exists, so ``sft`` exists.

Notable: ``find`` imports one file and returns its ``PART``; no list names the parts. Other packages add theirs
through an entry point in the group ``tunesmith.<room>``, for instance ``[project.entry-points."tunesmith.objectives"]
mine = "pkg.mine"``.
"""

import importlib
import pkgutil
from functools import cache
from importlib import metadata
from typing import Any

from tunesmith.core.errors import PartError, did_you_mean


@cache
def names(room: str) -> tuple[str, ...]:
    """All part names in ``room`` (a dotted path below ``tunesmith``), sorted; files that start with ``_`` are no
    parts."""
    package = importlib.import_module(f"tunesmith.{room}")
    own = {m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_") and not m.ispkg}
    return tuple(sorted(own | set(_foreign(room))))


@cache
def _foreign(room: str) -> dict[str, str]:
    return {point.name: point.value for point in metadata.entry_points(group=f"tunesmith.{room}")}


def find(room: str, name: str) -> Any:
    """The ``PART`` of ``room`` called ``name``. Raises PartError with the nearest name and the whole list."""
    if name not in names(room):
        kind = room.rsplit(".", 1)[-1].removesuffix("s")
        raise PartError(
            f'No {kind} called "{name}".{did_you_mean(name, names(room))} There are: {", ".join(names(room))}.'
        )
    return importlib.import_module(_foreign(room).get(name, f"tunesmith.{room}.{name}")).PART
