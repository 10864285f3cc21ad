"""Programs that do what programs of models do, in real processes; nothing may be left of them."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tunesmith.core.errors import RecipeError
from tunesmith.evaluate import sandbox
from tunesmith.evaluate._fenced import MODULES, SAID, limit
from tunesmith.evaluate.metrics.unit_tests import PART
from tunesmith.evaluate.sandbox import FENCED, FLAGS, Limits, Outcome, run_programs

SOON = Limits(seconds=1.0)


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Allowed, and with the programs' folders in one that can be looked at."""
    monkeypatch.setenv("TUNESMITH_RUN_CODE", "1")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def run(program: str, tests: str = "pass", limits: Limits = SOON) -> Outcome:
    return run_programs([(program, tests)], limits)[0]


def still_running(mark: str) -> list[str]:
    """Processes of a sandbox whose working folder lies in one that holds ``mark``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                folder = str((entry / "cwd").readlink())
            except OSError:  # ended meanwhile, or a stranger's
                continue
            found += [entry.name] * (mark in folder and "tunesmith-program-" in folder)
    return found


WRONG = {
    "syntax error": ("def f(:", "pass", "program: SyntaxError"),
    "error in the program": ("1 / 0", "pass", "program: ZeroDivisionError: division by zero"),
    "failed test": ("x = 1", "assert x == 2, 'one'", "tests: AssertionError: one"),
    "error in the tests": ("x = 1", "x ==", "tests: SyntaxError"),
    "sys.exit(0)": ("import sys; sys.exit(0)", "pass", "program: SystemExit: 0"),
    "os._exit(0)": ("import os; os._exit(0)", "pass", "ended before the tests did"),
    "sys.exit(0) while tested": ("def f(): raise SystemExit(0)", "f()", "tests: SystemExit"),
    "a signal to itself": ("import signal; signal.raise_signal(9)", "pass", "ended before the tests did"),
    "tests swallowed by a text": ("'''", "assert 0\n'''", "program: SyntaxError"),
    "tests swallowed by a branch": ("if 0:\n  pass\nelse:", "  pass", "program: "),
    "another exec": ("import builtins\nbuiltins.exec = builtins.compile = print", "assert 0", "tests: AssertionError"),
    "another write": ("import os\nos.write = os.pread = lambda *a: b''", "assert 0", "tests: AssertionError"),
    "closed descriptors": ("import os; os.closerange(3, 100)", "pass", "ended before the tests did"),
    "input": ("input()", "pass", "program: EOFError"),
    "memory": ("x = bytearray(2**30)", "pass", "program: MemoryError"),
    "much memory in small pieces": ("x = []\nwhile 1: x.append(bytes(2**20))", "pass", "program: MemoryError"),
    "a large file": ("f = open('a', 'w')\nwhile 1: f.write('x' * 2**16)", "pass", "program: OSError"),
    "many files": ("x = []\nwhile 1: x.append(open('a', 'w'))", "pass", "program: OSError"),
    "fork bomb": ("import os\nwhile 1: os.fork()", "pass", "program: PermissionError: os.fork"),
    "another program": ("import subprocess; subprocess.run(['true'])", "pass", "program: PermissionError: subprocess"),
    "a shell": ("import os; os.system('true')", "pass", "program: PermissionError: os.system"),
    "a signal to others": ("import os; os.kill(os.getppid(), 9)", "pass", "program: PermissionError: os.kill"),
    "ctypes": ("import ctypes; ctypes.CDLL(None)", "pass", "program: PermissionError: ctypes"),
    "site packages": ("import numpy", "pass", "program: ModuleNotFoundError"),
    "our own package": ("import tunesmith", "pass", "program: ModuleNotFoundError"),
    "null bytes": ("x = '\0'", "pass", "program: SyntaxError"),
    "half a character": ("x = '\ud800'", "pass", "program: UnicodeEncodeError"),
    "too long": ("#" * 100_001, "pass", "longer than 100,000 characters"),
    "an error that answers no question": (
        "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E",
        "pass",
        "program: E",
    ),
    "an error with a long text": ("raise ValueError('x' * 10**6)", "pass", "program: ValueError: xxx"),
}


@pytest.mark.parametrize(("program", "tests", "why"), WRONG.values(), ids=WRONG)
def test_wrong(program: str, tests: str, why: str, temporary: Path) -> None:
    outcome = run(program, tests)
    assert not outcome.passed
    assert outcome.why.startswith(why), outcome.why
    assert len(outcome.why) <= SAID
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "while True: print('x' * 100_000)",
        "while True:\n  try:\n    while True: pass\n  except BaseException: pass",
    ],
    ids=["loop", "sleep", "flood of output", "loop that catches all"],
)
def test_what_does_not_end_is_ended(program: str, temporary: Path) -> None:
    started = time.monotonic()
    assert run(program, limits=Limits(seconds=0.4)) == Outcome(False, "ran longer than 0.4 seconds")
    assert time.monotonic() - started < 2.0
    assert not list(temporary.iterdir())
    assert not still_running(str(temporary))


RIGHT = {
    "function": ("def f(x): return x + 1", "assert f(1) == 2"),
    "class with annotations": (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int",
        "assert A(1).x == 1",
    ),
    "libraries": ("import re, math, collections, itertools, heapq, decimal, json, cmath, datetime, typing", "pass"),
    "prints": ("print('x' * 10**6)", "print('y')"),
    "main": ("done = []\nif __name__ == '__main__': done.append(1)", "assert done == [1]"),
    "files of its own": (
        "import os, tempfile\nos.mkdir('a')\nopen('a/b', 'w').write('x')\nos.rename('a/b', 'c')\nos.remove('c')",
        "with tempfile.TemporaryDirectory() as folder: open(folder + '/x', 'w').write('x')",
    ),
    "by descriptor": (
        "import os\nd = os.open('.', os.O_RDONLY)\nos.close(os.open('a', os.O_CREAT | os.O_WRONLY, dir_fd=d))\n"
        "f = os.open('a', os.O_RDWR)\nos.fchmod(f, 0o600)\nos.ftruncate(f, 3)\nos.utime(f)\nos.mkfifo('p', dir_fd=d)",
        "assert os.stat('a').st_size == 3 and os.open in os.supports_dir_fd",
    ),
    "a file without a name": ("import tempfile\nf = tempfile.TemporaryFile()\nf.write(b'x')\nf.truncate(9)", "pass"),
    "the empty device": ("open('/dev/null', 'w').write('x')", "pass"),
    "database of its own": (
        "import dbm\nwith dbm.open('x', 'c') as d: d['a'] = 'b'",
        "assert dbm.open('x')['a'] == b'b'",
    ),
    "numbers of C": ("import ctypes\nx = ctypes.c_int32(2**31).value", "assert x == -(2**31)"),
    "pool of threads": (
        "from multiprocessing.pool import ThreadPool\nwith ThreadPool(2) as p: x = p.map(abs, [-1, 2])",
        "assert x == [1, 2]",
    ),
    "flags of a descriptor": ("import fcntl, os\nfcntl.fcntl(os.pipe()[0], fcntl.F_SETFL, os.O_NONBLOCK)", "pass"),
    "coroutine": ("import asyncio\nasync def f(): return 3", "assert asyncio.run(f()) == 3"),
    "thread": ("import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()", "pass"),
    "nothing from outside": ("import os, sys", "assert (dict(os.environ), os.listdir(), sys.argv[1:]) == ({}, [], [])"),
    "left threads": ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()", "pass"),
    "left cleaning up": ("import atexit, time\natexit.register(time.sleep, 60)", "pass"),
}


@pytest.mark.parametrize(("program", "tests"), RIGHT.values(), ids=RIGHT)
def test_right(program: str, tests: str, temporary: Path) -> None:
    assert run(program, tests) == Outcome(True)
    assert not list(temporary.iterdir())


def test_sets_of_texts_have_one_order() -> None:
    order = "x = list({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'})"
    seen = run(order, "raise ValueError(x)").why
    assert run(order, "raise ValueError(x)", Limits(seconds=2.0)).why == seen


CHANGES = {
    "write": "open('{0}', 'w')",
    "append": "open('{0}', 'a')",
    "low-level": "os.open('{0}', os.O_WRONLY)",
    "remove": "os.remove('{0}')",
    "move": "os.rename('{0}', 'mine')",
    "put in its place": "open('mine', 'w').close(); os.replace('mine', '{0}')",
    "truncate": "os.truncate('{0}', 0)",
    "mode": "os.chmod('{0}', 0)",
    "time": "os.utime('{0}')",
    "link": "os.symlink('{0}', 'mine'); open('mine', 'w')",
    "folder": "os.mkdir('{0}.d')",
    "the tree": "import shutil; shutil.rmtree(os.path.dirname('{0}'))",
    "by descriptor": "os.remove('kept', dir_fd=os.open(os.path.dirname('{0}'), os.O_RDONLY))",
    "relative": "os.remove(os.path.relpath('{0}'))",
    "bytes": "os.remove(b'{0}')",
    "opened from its folder": "os.open('kept', os.O_WRONLY | os.O_TRUNC, dir_fd=os.open(os.path.dirname('{0}'), 0))",
    "made in its folder": "os.open('new', flags=os.O_CREAT, dir_fd=os.open(os.path.dirname('{0}'), 0))",
    "opened by posix": "import posix; posix.open('kept', os.O_WRONLY, dir_fd=os.open(os.path.dirname('{0}'), 0))",
    "mode of a descriptor": "os.fchmod(os.open('{0}', os.O_RDONLY), 0o777)",
    "mode of a descriptor as a path": "os.chmod(os.open('{0}', os.O_RDONLY), 0o777)",
    "owner of a descriptor": "os.fchown(os.open('{0}', os.O_RDONLY), -1, -1)",
    "time of a descriptor": "os.utime(os.open('{0}', os.O_RDONLY), (1, 1))",
    "attribute of a descriptor": "os.setxattr(os.open('{0}', os.O_RDONLY), 'user.a', b'x')",
    "attribute": "os.setxattr('{0}', 'user.a', b'x')",
    "pipe": "os.mkfifo('{0}.d')",
    "pipe in its folder": "os.mkfifo('new', dir_fd=os.open(os.path.dirname('{0}'), 0))",
    "node": "os.mknod('{0}.d')",
    "hard link": "os.link('{0}', 'mine')",
    "hard link in its folder": "os.link('{0}', 'b', dst_dir_fd=os.open(os.path.dirname('{0}'), 0))",
    "soft link in its folder": "os.symlink('a', 'b', dir_fd=os.open(os.path.dirname('{0}'), 0))",
    "another working folder": "os.chdir(os.path.dirname('{0}')); open('kept', 'w')",
    "a descriptor as working folder": "os.fchdir(os.open(os.path.dirname('{0}'), 0)); open('kept', 'w')",
    "its own descriptor as a file": "d = os.open('{0}', 0); open(f'/proc/self/fd/{{d}}', 'w')",
    "lock": "import fcntl; fcntl.flock(os.open('{0}', 0), fcntl.LOCK_EX)",
    "flags": "import fcntl; fcntl.ioctl(os.open('{0}', 0), 0x40086602, bytes(8))",
    "the empty device": "os.utime('/dev/null')",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_nothing_outside_its_folder_changes(change: str, temporary: Path) -> None:
    kept = temporary / "kept"
    kept.write_text("as it was")
    before = kept.stat()
    outcome = run("import os\n" + change.format(kept))
    assert outcome.why.startswith("program: PermissionError"), outcome
    assert [path.name for path in temporary.iterdir()] == ["kept"]
    assert kept.read_text() == "as it was"
    assert (kept.stat().st_mode, kept.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


SILENT = {
    "signal by descriptor": "import signal; signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 0)",
    "the same of its C module": "import _signal; _signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 0)",
    "signal by the kernel": "import fcntl; fcntl.fcntl(os.pipe()[0], 8, os.getppid())",
    "limits": "import resource; resource.prlimit(os.getppid(), resource.RLIMIT_CORE)",
    "priority": "os.setpriority(os.PRIO_PROCESS, os.getppid(), os.getpriority(os.PRIO_PROCESS, os.getppid()))",
    "processors": "os.sched_setaffinity(os.getppid(), os.sched_getaffinity(os.getppid()))",
    "scheduler": "os.sched_setscheduler(os.getppid(), os.SCHED_OTHER, os.sched_param(0))",
    "fork by its C module": "import _posixsubprocess; _posixsubprocess.fork_exec()",
    "multiprocessing": ("from multiprocessing import util, spawn\nutil.spawnv_passfds(b'/bin/true', [b'true'], [])"),
    "root": "os.chroot('.')",
    "clock": "import time; time.clock_settime(time.CLOCK_MONOTONIC, 0)",
    "the log": "import syslog; syslog.syslog('x')",
    "ctypes by address": "import _ctypes; _ctypes.call_function(1, ())",
    "machine code": "open('mine.so', 'w').close(); import sys; sys.path.insert(0, os.getcwd()); import mine",
}


@pytest.mark.parametrize("attempt", SILENT.values(), ids=SILENT)
def test_nothing_outside_its_process_is_reached(attempt: str) -> None:
    assert run(f"import os\n{attempt}").why.startswith("program: PermissionError: "), attempt


@pytest.mark.parametrize("name", MODULES)
def test_modules_that_no_event_tells_of_are_not_found(name: str) -> None:
    for way in (f"import {name}", f"import importlib; importlib.import_module({name!r})"):
        assert run(way).why == f"program: ModuleNotFoundError: import of {name} halted; None in sys.modules"


def test_the_guard_refuses_sockets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        address = server.getsockname()
        for attempt in (
            f"socket.create_connection({address})",
            f"socket.socket().connect({address})",
            f"socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', {address})",
            "socket.socket(socket.AF_UNIX).connect('/run/x.sock')",
            "socket.getaddrinfo('example.org', 80)",
        ):
            why = run(f"import socket\n{attempt}").why
            assert "may not use the network" in why, (attempt, why)
        with pytest.raises(TimeoutError):
            server.accept()


def _fenced_script(code: str) -> "subprocess.CompletedProcess[str]":
    load = f"import sys; sys.path.insert(0, {str(FENCED.parent)!r}); import _fenced\n"
    return subprocess.run(
        [sys.executable, *FLAGS, "-c", load + code], capture_output=True, text=True, check=False, timeout=20
    )


def test_where_the_kernel_grants_it_no_network_is_left_without_the_guard() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        attempt = f"import socket\nsocket.create_connection({server.getsockname()}, timeout=2)"
        assert _fenced_script(attempt).returncode == 0  # the server answers who has a network
        apart = _fenced_script("sys.exit(not _fenced.leave_network())")
        if apart.returncode:
            pytest.skip("this kernel grants no network namespace")
        assert "OSError" in _fenced_script(f"_fenced.leave_network()\n{attempt}").stderr


@pytest.mark.skipif(os.getuid() == 0, reason="root's processes are never limited")
def test_where_the_kernel_grants_it_processes_are_limited_without_the_guard() -> None:
    bomb = """
import os, time
if not _fenced.leave_network(): sys.exit(7)
_fenced.limit("RLIMIT_NPROC", 8)
for n in range(20):
    if os.fork() == 0: time.sleep(2); os._exit(0)
"""
    done = _fenced_script(bomb)
    if done.returncode == 7:
        pytest.skip("this kernel grants no user namespace")
    assert "BlockingIOError" in done.stderr


def test_a_limit_that_the_system_lacks_is_left_out() -> None:
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    before = [resource.getrlimit(getattr(resource, name)) for name in names]
    limit("RLIMIT_OF_ANOTHER_SYSTEM", 1)
    assert [resource.getrlimit(getattr(resource, name)) for name in names] == before


def test_a_limit_is_never_raised_and_cannot_be_taken_back() -> None:
    lowered = """
import resource
_fenced.limit("RLIMIT_NOFILE", 20); _fenced.limit("RLIMIT_NOFILE", 30)
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    assert _fenced_script(lowered).stdout.strip() == "(20, 20)"


def test_leftovers_of_a_program_go_with_it(temporary: Path) -> None:
    outcome = run("import os\nos.makedirs('a/b')\nopen('a/b/c', 'w').write('x')\nos.chmod('a', 0)")
    assert outcome.passed, outcome
    assert not list(temporary.iterdir())


def test_outcomes_keep_the_order_and_equal_jobs_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, str]] = []
    original = sandbox._Running.__init__

    def counting(self: sandbox._Running, job: tuple[str, str], limits: Limits) -> None:
        started.append(job)
        original(self, job, limits)

    monkeypatch.setattr(sandbox._Running, "__init__", counting)
    jobs = [(f"x = {n % 3}", "assert x == 1") for n in range(9)]
    assert [o.passed for o in run_programs(jobs)] == [False, True, False] * 3
    assert len(started) == 3
    assert run_programs([]) == []


def test_no_more_at_once_than_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    started = time.monotonic()
    run_programs([(f"import time; time.sleep(0.2)  # {n}", "pass") for n in range(3)])
    assert time.monotonic() - started > 0.6


@pytest.mark.parametrize("value", [None, "", "0", "true"])
def test_nothing_runs_without_permission(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is None:
        monkeypatch.delenv("TUNESMITH_RUN_CODE")
    else:
        monkeypatch.setenv("TUNESMITH_RUN_CODE", value)
    found = "unset" if value is None else repr(value)
    for answers in ([], ["x = 1"]):
        with pytest.raises(RecipeError, match=f"unit_tests: found TUNESMITH_RUN_CODE {found} .*Start with"):
            PART.rows(answers, ["pass"] * len(answers))


def test_not_on_systems_without_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(RecipeError, match="found the system nt"):
        patch.setattr(os, "name", "nt")
        sandbox.require_permission()


INTERRUPTED = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from tunesmith.evaluate.rewards import Asked, Mixture, rule
from tunesmith.evaluate.sandbox import Limits, run_programs
loops = [f"while True: pass  # {n}" for n in range(4)]
if sys.argv[2] == "mixture":
    Mixture({"unit_tests": (1.0, rule("unit_tests"))})([Asked((), "pass")] * 4, loops)
else:
    run_programs([(loop, "pass") for loop in loops], Limits(seconds=30))
"""


def test_an_error_of_our_own_leaves_nothing(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: sandbox._Running, *, in_time: bool) -> Outcome:
        raise KeyboardInterrupt

    monkeypatch.setattr(sandbox._Running, "outcome", fails)
    with pytest.raises(KeyboardInterrupt):
        run_programs([("x = 1", "pass"), ("while True: pass", "pass")], Limits(seconds=30))
    assert not still_running(str(temporary))
    assert not list(temporary.iterdir())


def test_a_program_whose_run_was_killed_ends_by_itself(temporary: Path) -> None:
    script = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from tunesmith.evaluate.sandbox import Limits, run_programs
run_programs([("import time; time.sleep(60)", "pass")], Limits(seconds=1.0))
"""
    with subprocess.Popen([sys.executable, "-c", script, str(temporary)]) as process:
        deadline = time.monotonic() + 30
        while not still_running(str(temporary)) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
    assert still_running(str(temporary))
    while still_running(str(temporary)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not still_running(str(temporary))


@pytest.mark.parametrize("way", ["alone", "mixture"])
def test_ctrl_c_leaves_nothing(way: str, temporary: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(temporary), way], stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 30
        while len(still_running(str(temporary))) < 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert still_running(str(temporary))
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in said
    assert process.returncode != 0
    assert not still_running(str(temporary))
    assert not list(temporary.iterdir())


@pytest.mark.shared
def test_real_mbpp_rows(shared_folder: Path) -> None:
    lines = (shared_folder / "data" / "mbpp" / "mbpp.jsonl").read_text(encoding="utf-8").splitlines()
    problems = [json.loads(line) for line in lines[10:34]]
    references = ["\n".join([p["test_setup_code"], *p["test_list"]]) for p in problems]
    answers = [f"Here you are:\n```python\n{p['code']}\n```\n" for p in problems]
    assert PART.rows(answers, references)[:, 0].tolist() == [1.0] * len(problems)
    moved = PART.rows(answers[1:], references[:-1])[:, 0]
    assert moved.tolist() == [0.0] * len(moved)
