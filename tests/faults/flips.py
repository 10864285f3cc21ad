"""Every file of a checkpoint damaged at rest: one byte flipped, cut, zeroed, emptied, deleted.

Notable: what counts is what would be loaded. Damage is found when the checkpoint is left out with a sentence and the
one before is taken, and with ``strict`` is an error; damage that verifies and loads what was written is harmless and
counted by itself; anything else is silent corruption.
"""

import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from tests.faults.outcome import Outcome

from tunesmith.core import files
from tunesmith.core.errors import DataError
from tunesmith.records.checkpoints import Checkpoints

FLIPS = 64  # of each of the four files

Damage = Callable[[bytes], bytes | None]  # None: deleted


def tensors(step: int) -> dict[str, Any]:
    draw = np.random.default_rng(step)
    return {name: draw.standard_normal((24, 32)).astype(np.float32) for name in ("weight", "moment")}


def values(step: int) -> dict[str, Any]:
    return {"progress": {"step": step, "loss": 1 / step}, "order": list(range(step, step + 40))}


def write(folder: Path, step: int) -> None:
    save_file(tensors(step), folder / "state.safetensors")
    save_file({"weight": tensors(step)["weight"]}, folder / "best.safetensors")
    (folder / "state.json").write_text(json.dumps(values(step)))


def loads(folder: Path, step: int) -> bool:
    """Whether what would be loaded is what was written at ``step``."""
    state, best = load_file(folder / "state.safetensors"), load_file(folder / "best.safetensors")
    wanted = tensors(step)
    return (
        state.keys() == wanted.keys()
        and all(np.array_equal(state[name], wanted[name]) for name in wanted)
        and best.keys() == {"weight"}
        and np.array_equal(best["weight"], wanted["weight"])
        and json.loads((folder / "state.json").read_text()) == values(step)
    )


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


def damages(size: int, draw: random.Random) -> Iterator[tuple[str, Damage]]:
    """Flips from the first byte to the last, then the coarse ones."""
    for number in range(FLIPS):
        at, bit = number * (size - 1) // (FLIPS - 1), draw.randrange(8)
        yield f"bit {bit} of byte {at}", lambda data, at=at, bit=bit: flipped(data, at, bit)  # type: ignore[misc]
    yield "last byte cut off", lambda data: data[:-1]
    yield "cut in half", lambda data: data[: len(data) // 2]
    yield "emptied", lambda data: b""
    yield "zeroed", lambda data: bytes(len(data))
    yield "deleted", lambda data: None


def run(*, share: int = 1) -> Outcome:
    """Damage each file of the newest of two checkpoints in each way, or in every ``share``-th."""
    started = time.monotonic()
    violations: list[str] = []
    n = harmless = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        checkpoints = Checkpoints(Path(name))
        for step in (1, 2):
            checkpoints.save(step, lambda folder, step=step: write(folder, step))  # type: ignore[misc]
        newest = checkpoints.all()[0][1]
        for path in sorted(newest.iterdir()):
            data, draw = path.read_bytes(), random.Random(path.name)
            for how, damage in list(damages(len(data), draw))[::share]:
                _apply(path, damage(data))
                problem = look(checkpoints)
                n, harmless = n + 1, harmless + (problem == "harmless")
                if problem not in (None, "harmless"):
                    violations.append(f"{path.name}, {how}: {problem}")
                path.write_bytes(data)
    what = f"a byte flipped in each of four files, and each cut, zeroed, emptied, deleted ({harmless} harmless)"
    return Outcome("`flips`: a checkpoint damaged at rest", what, n, violations, time.monotonic() - started)


def _apply(path: Path, data: bytes | None) -> None:
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)


def look(checkpoints: Checkpoints) -> str | None:
    """None where the damage to the newest was found, "harmless" where it changes nothing, else what is wrong."""
    (_, newest), (_, before) = checkpoints.all()
    try:
        files.verify(newest)
        return "harmless" if loads(newest, 2) else "verifies, and something else is loaded"
    except DataError:
        pass
    except Exception as error:  # noqa: BLE001  whatever else is raised is what is looked for
        return f"verify raised {type(error).__name__}: {error}"
    return _falls_back(checkpoints, newest, before)


def _falls_back(checkpoints: Checkpoints, newest: Path, before: Path) -> str | None:
    told: list[str] = []
    if checkpoints.latest(told.append) != before or not loads(before, 1):
        return "the checkpoint before was not taken"
    if len(told) != 1 or not told[0].startswith(f"{newest.name} is left out: ") or not told[0].endswith("."):
        return f"told {told}"
    try:
        checkpoints.latest(told.append, strict=True)
    except DataError:
        return None
    return "strict did not raise"
