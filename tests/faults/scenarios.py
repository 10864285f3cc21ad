"""What is interrupted: the writes of a run, each between two marks that strace sees.

Notable: this file is also the child process (``python -S scenarios.py NAME FOLDER [BROKEN]``), so it imports the
standard library and two torch-free modules of ours. ``prepare`` makes the folder as an earlier process left it, ``act``
is what the faults hit, ``found`` says which versions stand there, the newest first, and raises Mixture where the bytes
are of no version.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunesmith.core import files
from tunesmith.core.errors import DataError, DiskError
from tunesmith.records.checkpoints import Checkpoints

BEGIN, END = "/tunesmith-faults/begin", "/tunesmith-faults/end"  # paths that do not exist; access() of them is a mark
PIECE = 20_000
DISK_ERROR = 6  # the exit code

Content = dict[str, bytes]


class Mixture(Exception):
    """What stands in a final place is no version that anyone wrote."""


@dataclass(frozen=True)
class Scenario:
    """``old`` and ``new`` are the newest versions before and after; ``least`` is how many stand there at any time."""

    what: str
    prepare: Callable[[Path], None]
    act: Callable[[Path], None]
    again: Callable[[Path], None]  # the next write of the same kind, which leads to the version "9"
    found: Callable[[Path], list[str]]
    old: str
    new: str
    least: int = 0
    at_start: bool = False  # a process that cannot do it goes no further, so the sweep of the next comes first


def body(version: str, name: str) -> bytes:
    """The bytes of one file in one version, long enough for two pieces where ``name`` ends in safetensors."""
    line = f"{name} of version {version}\n".encode()
    return line * (1 + (2 * PIECE // len(line) if name.endswith("safetensors") else 0))


def write(path: Path, data: bytes) -> None:
    """As a writer in another language does: unbuffered, in pieces."""
    with path.open("wb", buffering=0) as stream:
        for start in range(0, len(data), PIECE):
            stream.write(data[start : start + PIECE])


def content(folder: Path) -> Content:
    found = (p for p in folder.rglob("*") if p.is_file() and p.name != files.MANIFEST)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def which(folder: Path, versions: dict[str, Content]) -> str:
    """The version that stands in a published folder. Raises Mixture."""
    try:
        files.verify(folder)
    except DataError as error:
        raise Mixture(str(error)) from error
    have = content(folder)
    for version, wanted in versions.items():
        if have == wanted:
            return version
    raise Mixture(f"{folder} verifies and holds no version that was written")


# -- checkpoints -------------------------------------------------------------------------------------------------------


def checkpoint(version: str) -> Content:
    return {
        "state.safetensors": body(version, "state.safetensors"),
        "best.safetensors": body("best", "best.safetensors"),
        "state.json": body(version, "state.json"),
    }


def save(root: Path, version: str) -> None:
    """Save what ``version`` ("3", "3 again") holds."""
    checkpoints = Checkpoints(root / "checkpoints")

    def fill(folder: Path) -> None:
        for name, data in checkpoint(version).items():
            write(folder / name, data)

    checkpoints.save(int(version.split()[0]), fill)


def saved(*versions: str) -> Callable[[Path], None]:
    def prepare(root: Path) -> None:
        for version in versions:
            save(root, version)

    return prepare


def checkpoints(root: Path) -> list[str]:
    """The version of each checkpoint, the newest first; ``latest`` has to agree."""
    reader = Checkpoints(root / "checkpoints")
    found = []
    for step, path in reader.all():
        found.append(which(path, {version: checkpoint(version) for version in (f"{step}", f"{step} again")}))
    told: list[str] = []
    newest = reader.latest(told.append)
    if told or (newest is None) != (not found):
        raise Mixture(f"latest gave {newest} and said {told}; there stand {found}")
    return found


def _prepare_over(root: Path) -> None:
    """Step 3 stands, and a second save of it was killed while it wrote."""
    saved("2", "3")(root)
    half = root / "checkpoints" / f"{files.TEMPORARY}step-000000003-0badcafe"
    half.mkdir()
    write(half / "state.safetensors", body("3 again", "state.safetensors")[:PIECE])


def _act_over(root: Path) -> None:
    files.sweep(root / "checkpoints")
    save(root, "3 again")


def _prepare_many(root: Path) -> None:
    for version in ("1", "2", "3", "4", "5"):
        with files.publish(root / "checkpoints" / f"step-{int(version):09d}") as folder:
            for name, data in checkpoint(version).items():
                write(folder / name, data)


def _act_rotate(root: Path) -> None:
    Checkpoints(root / "checkpoints").rotate()


def _prepare_sweep(root: Path) -> None:
    """A second save of step 3 died between its two renames, a first one of step 4 while it wrote."""
    saved("2", "3")(root)
    folder = root / "checkpoints"
    (folder / "step-000000003").rename(folder / f"{files.TEMPORARY}step-000000003-00000001")
    save(root, "3 again")
    (folder / "step-000000003").rename(folder / f"{files.TEMPORARY}step-000000003-00000002")
    (folder / f"{files.TEMPORARY}step-000000004-00000003").mkdir()
    write(folder / f"{files.TEMPORARY}step-000000004-00000003" / "state.safetensors", b"half")
    write(folder / f"{files.TEMPORARY}state.json-00000004", b"half")


def _act_sweep(root: Path) -> None:
    files.sweep(root / "checkpoints")


# -- an adapter, a data file, a set of rendered rows -------------------------------------------------------------------


def adapter(version: str) -> Content:
    names = ("adapter_model.safetensors", "adapter_config.json", "tokenizer/tokenizer.json")
    return {name: body(version, name) for name in names}


def rows(version: str) -> Content:
    return {name: body(version, name) for name in ("rows.safetensors", "refused.json")}


def publish(place: Path, parts: Content) -> None:
    with files.publish(place) as folder:
        for name, data in parts.items():
            (folder / name).parent.mkdir(exist_ok=True)
            write(folder / name, data)


def publish_adapter(version: str) -> Callable[[Path], None]:
    return lambda root: publish(root / "adapter", adapter(version))


def adapters(root: Path) -> list[str]:
    versions = {version: adapter(version) for version in ("old", "new", "9")}
    return [which(root / "adapter", versions)] if (root / "adapter").exists() else []


def import_data(version: str) -> Callable[[Path], None]:
    return lambda root: files.write_bytes(root / "data" / "train.jsonl", body(version, "train.safetensors"))


def imported(root: Path) -> list[str]:
    path = root / "data" / "train.jsonl"
    if not path.exists():
        return []
    for version in ("old", "new", "9"):
        if path.read_bytes() == body(version, "train.safetensors"):
            return [version]
    raise Mixture(f"{path} holds {path.stat().st_size} bytes of no version that was written")


def keep_rows(version: str) -> Callable[[Path], None]:
    """A new set, and the oldest goes: each version is a place of its own, as the hash of its content is."""

    def act(root: Path) -> None:
        oldest = [root / "rows" / other for other in ("old", "new") if other != version]
        publish(root / "rows" / version, rows(version))
        for place in oldest:
            if place.exists():
                files.remove(place)

    return act


def kept_rows(root: Path) -> list[str]:
    folder = root / "rows"
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(files.TEMPORARY))
    order = {"9": 0, "new": 1, "old": 2}
    return sorted((which(folder / n, {n: rows(n)}) for n in names), key=order.__getitem__)


def _save_next(root: Path) -> None:
    save(root, "9")


SCENARIOS = {
    "first": Scenario(
        "the first checkpoint", saved(), lambda root: save(root, "1"), _save_next, checkpoints, old="", new="1"
    ),
    "save": Scenario(
        "the third checkpoint, and rotation", saved("1", "2"), lambda root: save(root, "3"), _save_next, checkpoints,
        old="2", new="3", least=2,
    ),
    "over": Scenario(
        "a second save of a step, after one that was killed", _prepare_over, _act_over, _save_next, checkpoints,
        old="3", new="3 again", least=2,
    ),
    "rotate": Scenario(
        "rotation of five checkpoints", _prepare_many, _act_rotate, _save_next, checkpoints, old="5", new="5", least=2
    ),
    "sweep": Scenario(
        "the sweep after a kill", _prepare_sweep, _act_sweep, _save_next, checkpoints, old="3", new="3 again", least=2,
        at_start=True,
    ),
    "adapter": Scenario(
        "publishing an adapter over an older one", publish_adapter("old"), publish_adapter("new"),
        publish_adapter("9"), adapters, old="old", new="new", least=1,
    ),
    "data": Scenario(
        "importing a data file over an older one", import_data("old"), import_data("new"), import_data("9"), imported,
        old="old", new="new", least=1,
    ),
    "rows": Scenario(
        "keeping rendered rows, and the oldest set goes", keep_rows("old"), keep_rows("new"), keep_rows("9"),
        kept_rows, old="old", new="new", least=1,
    ),
}  # fmt: skip


def main(name: str, root: Path, broken: str | None = None) -> int:
    """Act once. Exit 0 after "saved VERSION", 6 after the sentence of a DiskError; anything else is a traceback."""
    if broken is not None:
        from broken import PROTOCOLS  # type: ignore[import-not-found]  # beside this file

        PROTOCOLS[broken]()
    scenario = SCENARIOS[name]
    os.access(BEGIN, os.F_OK)
    try:
        scenario.act(root)
    except DiskError as error:
        print(error)
        return DISK_ERROR
    finally:
        os.access(END, os.F_OK)
    print(f"saved {scenario.new}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
