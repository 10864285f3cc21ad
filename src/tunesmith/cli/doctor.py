"""``tunesmith doctor``: is this machine ready, and if not, what to do about it."""

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import typer

from tunesmith.cli.output import AsJson, Runs, show_json
from tunesmith.core.errors import DataError

EXAMPLES = {"doctor": ("tunesmith doctor", "tunesmith doctor --json", "tunesmith doctor --runs /data/work")}
GIB = 1 << 30


class Finding(NamedTuple):
    """One line: ``fix`` says what to do unless the level is ok."""

    level: Literal["ok", "warn", "fail"]
    subject: str
    found: str
    fix: str = ""


def doctor(runs: Runs = Path(), as_json: AsJson = False) -> None:
    """Check Python, libraries, processor, memory, disk and the bundled model.

    Exit code 2 when something is missing that every run needs.
    """
    findings = [*_python(), *_libraries(), *_processor(), *_memory(), *_disk(runs), *_torch(), *_base()]
    failed = any(f.level == "fail" for f in findings)
    if as_json:
        show_json({"ok": not failed, "findings": [f._asdict() for f in findings]})
    else:
        for f in findings:
            colour = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}[f.level]
            typer.echo(f"{typer.style(f'{f.level:4}', fg=colour)}  {f.subject:16} {f.found}")
            if f.level != "ok":
                typer.echo(f"      {'':16} {f.fix}")
    if failed:
        raise typer.Exit(2)


def version(text: str) -> tuple[int, ...]:
    """The leading numbers of a version.

    >>> version("2.13.0+cpu") >= version("2.11"), version("0.9.1") >= version("0.22")
    (True, False)
    """
    return tuple(int(part) for part in re.findall(r"[0-9]+", text.split("+")[0])[:3])


def _python() -> Iterator[Finding]:
    found = platform.python_version()
    enough = sys.version_info >= (3, 11)
    yield Finding(
        "ok" if enough else "fail", "python", f"{found} on {platform.machine()}", "Install Python 3.11 or later."
    )


def _libraries() -> Iterator[Finding]:
    """Each dependency against the minimum that the package itself declares."""
    import importlib.metadata

    try:
        wanted = importlib.metadata.requires("tunesmith") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding(
            "warn", "tunesmith", "not installed as a package", "pip install tunesmith, so that versions can be checked."
        )
        return
    fine = []
    for line in wanted:
        match = re.fullmatch(r"([\w.-]+)\s*>=\s*([0-9.]+)", line.strip())
        if match is None:  # an extra
            continue
        name, least = match.groups()
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("fail", name, "missing", f'pip install "{name}>={least}"')
            continue
        if version(found) < version(least):
            yield Finding("fail", name, f"{found}, older than {least}", f'pip install "{name}>={least}"')
        else:
            fine.append(f"{name} {found}")
    yield Finding("ok", "libraries", ", ".join(fine), "")


def _processor() -> Iterator[Finding]:
    info = Path("/proc/cpuinfo")
    flags = set(re.findall(r"\w+", info.read_text(errors="replace"))) if info.is_file() else set()
    known = {"AVX2": "avx2", "AVX-512": "avx512f", "AVX-512 bf16": "avx512_bf16", "AMX bf16": "amx_bf16"}
    has = [name for name, flag in known.items() if flag in flags]
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("ok", "processor", f"{usable} cores, {', '.join(has) or 'no AVX2 found'}")


def _memory() -> Iterator[Finding]:
    if "SC_PHYS_PAGES" not in os.sysconf_names:
        yield Finding("warn", "memory", "unknown", "Have at least 2 GiB free.")
        return
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    available = Path("/proc/meminfo")
    if available.is_file() and (match := re.search(r"MemAvailable:\s+(\d+) kB", available.read_text())):
        free = int(match[1]) * 1024
    level: Literal["ok", "warn"] = "ok" if free >= 2 * GIB else "warn"
    yield Finding(
        level,
        "memory",
        f"{free / GIB:.1f} of {total / GIB:.1f} GiB free",
        "Close other programs; a run needs about 2 GiB.",
    )


def _disk(workspace: Path) -> Iterator[Finding]:
    import tempfile

    folder = workspace.absolute()
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        yield Finding(
            "fail", "workspace", f"{folder}: {error.strerror}", "Give a folder that you may write with --runs."
        )
        return
    free = shutil.disk_usage(folder).free
    level: Literal["ok", "warn"] = "ok" if free >= GIB else "warn"
    yield Finding(
        level, "workspace", f"{folder} is writable, {free / GIB:.1f} GiB free", "Free some space; keep 1 GiB or more."
    )


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library that does not load
        yield Finding(
            "fail", "torch", f"does not load: {str(error).splitlines()[0]}", "Reinstall it: pip install torch"
        )
        return
    yield Finding("ok", "torch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        yield Finding("ok", "accelerator", f"{card.name}, {card.total_memory / GIB:.0f} GiB, {bf16}")
    else:
        yield Finding("ok", "accelerator", "none found; everything runs on the processor")


def _base() -> Iterator[Finding]:
    from importlib import resources

    from tunesmith.core import files

    with resources.as_file(resources.files("tunesmith").joinpath("assets/base")) as folder:
        fix = "Install the package again, or set model: to a folder or a hub id."
        if not folder.is_dir():
            yield Finding("fail", "bundled model", f"{folder} is missing", fix)
            return
        try:
            files.verify(folder)
        except DataError as error:
            yield Finding("fail", "bundled model", str(error), fix)
            return
        yield Finding("ok", "bundled model", f"{folder} is whole")
