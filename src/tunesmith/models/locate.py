"""Where a model is, without torch: a plan reads its config.json alone."""

import importlib.util
from importlib import resources
from pathlib import Path

from tunesmith.core.errors import ModelError


def locate(reference: str) -> Path | str:
    """``bundled``, ``package:NAME/FOLDER``, an existing folder, or else a hub id (returned as it is)."""
    if reference == "bundled":
        return Path(str(resources.files("tunesmith") / "assets" / "base"))
    if reference.startswith("package:"):
        name, _, below = reference.removeprefix("package:").partition("/")
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise ModelError(
                f'model: "{reference}" names the Python package {name!r}, which is not installed. '
                "Install it, or name a folder."
            )
        return Path(next(iter(spec.submodule_search_locations))) / below
    path = Path(reference).expanduser()
    if path.exists() or reference.startswith((".", "/", "~")) or reference.count("/") > 1:
        return path
    return reference
