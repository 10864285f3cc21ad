"""What would be lost if the power went: a linter of the system calls of a scenario.

Notable: kill -9 cannot show it, since the page cache outlives the process. So the log of one run is read: what has been
written, made, linked or renamed is dirty until an fsync of that file or folder. Nothing dirty may be renamed into a
final place, nothing that was moved away may be deleted while its folder is dirty, and at the end nothing is.
"""

import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import points
from tests.faults.outcome import Outcome
from tests.faults.scenarios import SCENARIOS

from tunesmith.core import files

CALL = re.compile(r"^\d+ +(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>\d+)(?:<(?P<opened>[^>]*)>)?")
HANDLE = re.compile(r"^\d+<([^>]*)>")
QUOTED = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"([^"]*)"')

WRITES = {"write", "pwrite64", "writev", "ftruncate", "fchmod"}
SYNCS = {"fsync", "fdatasync"}
RENAMES = {"rename", "renameat", "renameat2"}
LINKS = {"link", "linkat"}
MAKES = {"mkdir", "mkdirat"}
READ = "nothing: is what a rename or a deletion rests on synced before it?"
MODES = {"chmod", "fchmodat"}
DELETES = {"unlink", "unlinkat", "rmdir"}


@dataclass
class Disk:
    """What is not on it yet, by path, with the reason; and where what was moved away lies."""

    dirty: dict[str, str] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    checked: int = 0

    def name(self, path: str, why: str) -> None:
        """A new name in a folder: the folder is dirty."""
        self.dirty[_folder(path)] = f"{why} {path}"

    def below(self, folder: str) -> list[str]:
        return [path for path in self.dirty if path == folder or path.startswith(f"{folder}/")]

    def rename(self, source: str, target: str) -> Iterator[str]:
        if target.rpartition("/")[2].startswith(files.TEMPORARY):
            self.away.add(target)
        else:
            self.checked += 1
            for path in self.below(source):
                yield f"{path} is not synced ({self.dirty[path]}) when it is renamed to {target}"
        for path in self.below(source):
            self.dirty[target + path.removeprefix(source)] = self.dirty.pop(path)
        self.name(target, "rename to")

    def delete(self, path: str) -> Iterator[str]:
        for folder in self.away:
            if path.startswith(f"{folder}/"):
                self.checked += 1
                if (why := self.dirty.get(_folder(folder))) is not None:
                    yield f"{path} is deleted while {_folder(folder)} is not synced ({why})"
        for gone in self.below(path):
            del self.dirty[gone]


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def lint(lines: list[str]) -> tuple[list[str], int]:
    """What is not safe in a log of ``strace -y``, and how many renames and deletions were looked at."""
    disk = Disk()
    said: list[str] = []
    for line in lines:
        if (call := CALL.match(line)) is not None:
            said += _step(disk, call)
    said += [f"{path} is not synced at the end ({why})" for path, why in disk.dirty.items()]
    return said, disk.checked


def _step(disk: Disk, call: re.Match[str]) -> list[str]:
    name, arguments = call["name"], call["arguments"]
    handle = HANDLE.match(arguments)
    paths = [path if path.startswith("/") else f"{base}/{path}" for base, path in QUOTED.findall(arguments)]
    if name in RENAMES:
        return list(disk.rename(*paths))
    if name in DELETES:
        return list(disk.delete(*paths))
    if name in SYNCS and handle:
        disk.dirty.pop(handle[1], None)
    elif name in WRITES and handle:
        disk.dirty[handle[1]] = name
    elif name in points.OPENS and points.CREATES.search(arguments):
        disk.dirty[call["opened"]] = "opened to write"
        disk.name(call["opened"], "new")
    elif name in LINKS | MAKES | MODES:
        disk.dirty[paths[-1]] = name
        if name not in MODES:
            disk.name(paths[-1], name)
    return []


def run(*, share: int = 1) -> Outcome:
    """Lint every scenario, whatever the share: it takes no longer than a second."""
    started = time.monotonic()
    seen = [look(name) for name in SCENARIOS]
    violations = [problem for said, _ in seen for problem in said]
    checked = sum(number for _, number in seen)
    return Outcome("`power`: each of these writes", READ, checked, violations, time.monotonic() - started, faults=False)


def look(name: str, broken: str | None = None) -> tuple[list[str], int]:
    """Lint one scenario: what is wrong, and how many renames and deletions were looked at."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        root = Path(folder) / "root"
        root.mkdir()
        SCENARIOS[name].prepare(root)
        traced = ",".join(f"?{call}" for call in (*points.CHANGES, *points.OPENS, *points.MARKS))
        ended = points.run(name, root, Path(folder) / "log", ["-y", "-s", "0", "-e", f"trace={traced}"], broken)
    _, during = points.between(ended.log)
    said, checked = lint(during)
    said = [f"{name}: {problem}".replace(f"{root}/", "").replace(str(root), "the run's folder") for problem in said]
    return said if checked else [*said, f"{name}: no rename and no deletion was seen"], checked
