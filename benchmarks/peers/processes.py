"""Each measured configuration is a process of its own: started, timed, and its peak memory read from the system.

Notable: the parent stays small (it never imports torch), for the system counts a child's peak from the moment of the
fork. A process that fails stops the benchmark with the end of its log: a missing figure must not look like a result.
"""

import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent.parent
SOURCE = BENCHMARKS.parent / "src"
Result = dict[str, Any]
OURS = ("ours", "material", "planned")  # what the names of modules that use our package begin with
POLL = 0.5  # seconds between two looks at a process that may be stopped


class Failed(RuntimeError):
    """A process that ended with an error."""


Hopeless = Callable[[float, int], bool]  # (seconds of training so far, optimiser steps done) -> stop it?


def run(module: str, spec: dict[str, Any], work: Path, name: str, hopeless: Hopeless | None = None) -> Result:
    """What ``python -m peers.MODULE SPEC`` wrote, with ``peak_bytes``, ``process_seconds`` and ``ready_seconds`` (from
    the start of the process to the start of training). Where ``hopeless`` says so while it trains, the process is
    ended and the result holds ``stopped_after`` (seconds of training) and ``steps_done`` instead."""
    out, log = work / f"{name}.json", work / f"{name}.log"
    times = Path(f"{out}.times")
    for old in (out, times):
        old.unlink(missing_ok=True)
    began = time.time()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", f"peers.{module}", json.dumps(spec | {"out": str(out)})],
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=work,
            env=_environment(module, work),
        )
        code, peak, stopped = _watched(process, times, hopeless)
    told: Result = {"peak_bytes": peak, "process_seconds": round(time.time() - began, 1)}
    if stopped:
        return told | {"stopped_after": round(stopped[0], 1), "steps_done": stopped[1]}
    if code != 0 or not out.exists():
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise Failed(f"{name} ended with exit code {code}; the end of {log}:\n{tail}")
    told |= json.loads(out.read_text(encoding="utf-8"))
    if "began" in told:
        told["ready_seconds"] = round(told.pop("began") - began, 1)
    return told


def _environment(module: str, work: Path) -> dict[str, str]:
    """Our package is on the path of our own processes alone."""
    paths = [BENCHMARKS] + ([SOURCE] if module.startswith(OURS) else [])
    own = {"PYTHONPATH": os.pathsep.join(map(str, paths)), "HF_HUB_OFFLINE": "1", "HF_HOME": str(work / "hf")}
    return os.environ | own


def _watched(
    process: subprocess.Popen[bytes], times: Path, hopeless: Hopeless | None
) -> tuple[int, int, tuple[float, int] | None]:
    """Exit code, peak resident bytes, and (seconds of training, steps done) where it was ended as hopeless."""
    stopped = None
    while True:
        ended, status, usage = os.wait4(process.pid, 0 if hopeless is None or stopped else os.WNOHANG)
        if ended:
            break
        marks = times.read_text(encoding="utf-8").split() if times.exists() else []
        if marks and hopeless and hopeless(time.time() - float(marks[0]), len(marks) - 1):
            stopped = (time.time() - float(marks[0]), len(marks) - 1)
            process.kill()
        else:
            time.sleep(POLL)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts in kilobytes
    return process.returncode, usage.ru_maxrss * unit, stopped


def command(script: str, arguments: Sequence[str], folders: Mapping[str, Path]) -> str:
    """What was run, with folders of this machine under the names in ``folders``.

    >>> command("rlhf.py", ["--only", "imdb", "--jobs", "2", "--runs=/tmp/x"], {"WORK": Path("/tmp/x")})
    'python benchmarks/rlhf.py --only imdb --jobs 2 --runs=WORK'
    """
    found = []
    for argument in arguments:
        option, equals, value = argument.rpartition("=")
        name = next((name for name, folder in folders.items() if value == str(folder)), value)
        found.append(option + equals + name)
    return shlex.join(["python", f"benchmarks/{script}", *found])


def _processor() -> list[str]:
    info = Path("/proc/cpuinfo")
    return info.read_text(encoding="utf-8").splitlines() if info.exists() else []


def _flags() -> set[str]:
    return {word for line in _processor() if line.startswith("flags") for word in line.split()}


def has_fast_bfloat16() -> bool:
    """As ``tunesmith.models.machine`` has it for processors, without torch, which the parent must not import."""
    return bool(_flags() & {"amx_tile", "avx512_bf16"})


@cache
def commit() -> str:
    """The commit that these scripts are of, with ``-dirty`` where a tracked file differed from it when first asked:
    results that are written later are such files."""
    asked = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        told = subprocess.run(asked, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return "unknown"
    return told.stdout.strip()


def machine() -> str:
    """The processor, its cores and instructions that matter here, and the memory."""
    names = [line.partition(":")[2].strip() for line in _processor() if line.startswith("model name")]
    flags = _flags()
    known = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX-512 BF16", "amx_bf16": "AMX BF16"}
    found = [text for flag, text in known.items() if flag in flags]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    threads = os.environ.get("OMP_NUM_THREADS")
    parts = [names[0] if names else platform.machine(), f"{cores} cores", *found, f"{memory:.0f} GiB memory"]
    return ", ".join(parts + ([f"OMP_NUM_THREADS={threads}"] if threads else []))
