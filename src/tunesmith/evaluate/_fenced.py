"""A program of its own: puts up fences, runs a model's program and then the tests, and proves that both came to an end.

Notable: it is run by path in a fresh interpreter (``evaluate.sandbox``), so it imports nothing of Tunesmith. The proof
is a token that lies unread behind the orders on a descriptor until the tests have run; no Python object holds it
before. The fences: limits of the kernel (time, memory, files), a network namespace without any network where the
kernel grants one, and a guard (an audit hook, PEP 578) that cannot be taken off and refuses sockets, other processes,
ctypes and changes outside the working folder. What changes something without an audit event is replaced by a function
that refuses, and modules whose C code opens files itself are not found. They stop accidents and lazy attacks. Code that
is written to break out (finds what was replaced, writes to memory, uses a bug of the interpreter or descriptors guessed
by number) is not stopped: this is no security boundary.
"""

import os
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

TOKEN = 32  # bytes at the end of the orders
SAID = 300  # bytes of a reason, far below what a pipe takes at once
PROCESSES = 32
NEW_USER_AND_NETWORK = 0x10000000 | 0x40000000

PROCESS = ("os.exec", "os.fork", "os.forkpty", "os.kill", "os.killpg", "os.posix_spawn", "os.spawn", "os.system")
SPAWN = ("pty.spawn", "resource.prlimit", "subprocess.Popen", "sys.remote_exec")
REFUSED = {
    **dict.fromkeys((*PROCESS, *SPAWN), "other processes"),
    **dict.fromkeys(("ctypes.dlopen", "ctypes.dlsym", "ctypes.dlsym/handle", "ctypes.call_function"), "ctypes"),
    **dict.fromkeys(("syslog.openlog", "syslog.setlogmask", "syslog.syslog"), "the log of the system"),
    "fcntl.ioctl": "devices",
}
# Events that change a file or folder: how many paths come first, and where the descriptors of their folders stand.
CHANGES: dict[str, tuple[int, tuple[int, ...]]] = {
    "fcntl.flock": (1, ()),
    "fcntl.lockf": (1, ()),
    "os.chflags": (1, ()),
    "os.chmod": (1, (2,)),
    "os.chown": (1, (3,)),
    "os.link": (2, (2, 3)),
    "os.mkdir": (1, (2,)),
    "os.remove": (1, (1,)),
    "os.removexattr": (1, ()),
    "os.rename": (2, (2, 3)),
    "os.rmdir": (1, (1,)),
    "os.setxattr": (1, ()),
    "os.symlink": (2, (2, 2)),
    "os.truncate": (1, ()),
    "os.utime": (1, (3,)),
}
HARMLESS = range(5)  # fcntl's F_DUPFD to F_SETFL; others can make the kernel send signals to anyone
# Modules whose C code starts programs, or opens files or devices, without an audit event (SQL's ATTACH has none), or
# makes interpreters, in which the guard would not stand.
INTERPRETERS = ("_interpreters", "_xxsubinterpreters")
MODULES = ("_dbm", "_gdbm", "_posixshmem", "_sqlite3", "_ssl", "_tkinter", "readline", "termios", *INTERPRETERS)
# Functions that reach out of the process without one, by what they would use, and those that may with a path inside.
SILENT = {
    "pidfd_send_signal": "other processes",
    "fork_exec": "other processes",
    "setpriority": "other processes",
    "sched_setaffinity": "other processes",
    "sched_setparam": "other processes",
    "sched_setscheduler": "other processes",
    "chroot": "another root",
    "setns": "another network",
    "unshare": "another network",
    "clock_settime": "the clock of the system",
    "clock_settime_ns": "the clock of the system",
    "activate_stack_trampoline": "files outside the working folder",
}
WITH_PATH = ("open", "mkfifo", "mknod")
Inside = Callable[[Any, Any], bool]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def leave_network() -> bool:
    """Moves this process into a network namespace that holds no network; False where the kernel does not grant it."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        import ctypes
    except ImportError:
        return False
    # os.unshare exists only from Python 3.12 on
    return bool(ctypes.CDLL(None).unshare(NEW_USER_AND_NETWORK) == 0)


def limit(kind: str, value: int) -> None:
    """Sets a limit of the kernel that cannot be raised again; one that this system does not have is left out."""
    import resource

    number = getattr(resource, kind, None)
    if number is None:
        return
    hard = resource.getrlimit(number)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    try:
        resource.setrlimit(number, (value, value))
    except (OSError, ValueError):
        return


def within(folder: str) -> Inside:
    """Whether a path or descriptor, as seen from a base (the descriptor of a folder, or none), lies in ``folder``."""
    home, real_path, read_link, join = os.path.realpath(folder), os.path.realpath, os.readlink, os.path.join

    def inside(path: Any, base: Any) -> bool:
        name = read_link(f"/proc/self/fd/{path}") if isinstance(path, int) else os.fsdecode(path)
        if isinstance(base, int) and base >= 0 and not name.startswith("/"):
            name = join(read_link(f"/proc/self/fd/{base}"), name)
        whole = real_path(name)
        return whole == home or whole.startswith(home + "/")

    return inside


def guard(inside: Inside) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that refuses what a program under test has no business with."""
    real_path = os.path.realpath
    unix = 1  # AF_UNIX: asyncio makes such a pair for itself; connecting and binding are refused like all else

    def writable(path: Any) -> bool:  # a descriptor was looked at when it was opened
        return isinstance(path, int) or inside(path, None) or real_path(os.fsdecode(path)) == "/dev/null"

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            if given[2] & WRITES and not writable(given[0]):
                raise PermissionError(f"open({given[0]!r}): only files in the working folder may be written")
        elif event in CHANGES:
            paths, bases = CHANGES[event]
            for place in range(paths):
                if not inside(given[place], given[bases[place]] if bases else None):
                    raise PermissionError(f"{event}({given[place]!r}): only the working folder may be changed")
        elif event == "fcntl.fcntl" and given[1] not in HARMLESS:
            raise PermissionError(f"{event}: a program under test may not use it for this")
        elif event == "import" and given[1] and inside(given[1], None):
            raise PermissionError(f"import of {given[1]!r}: a program under test may not use machine code")
        elif event in REFUSED:
            raise PermissionError(f"{event}: a program under test may not use {REFUSED[event]}")
        elif event.startswith("socket.") and not (event == "socket.__new__" and given[1] == unix):
            raise PermissionError(f"{event}: a program under test may not use the network")

    return hook


def silence(inside: Inside) -> None:
    """Puts functions that refuse in the place of those that no audit event tells of, wherever a module holds them."""
    import _posixsubprocess
    import signal

    homes, new = (os, signal, sys, time, _posixsubprocess), dict[int, tuple[Any, Any]]()
    for home in homes:
        for name, what in SILENT.items():
            old = getattr(home, name, None)
            if old is not None:
                new[id(old)] = old, _refusing(name, what)
    for name in WITH_PATH:
        if hasattr(os, name):
            new[id(getattr(os, name))] = getattr(os, name), _looking(name, getattr(os, name), inside)
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()):
            if id(value) in new:
                setattr(module, name, new[id(value)][1])
            elif type(value) is set:  # os.supports_dir_fd and its like
                for old, put in new.values():
                    if old in value:
                        value.remove(old)
                        value.add(put)
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(MODULES))


def _refusing(name: str, what: str) -> Callable[..., Any]:
    def refuses(*given: Any, **named: Any) -> Any:
        raise PermissionError(f"{name}: a program under test may not use {what}")

    return refuses


def _looking(name: str, original: Callable[..., Any], inside: Inside) -> Callable[..., Any]:
    """``original`` for paths in the folder; ``os.open`` without a base has an event of its own."""

    def looks(path: Any, *given: Any, dir_fd: int | None = None, **named: Any) -> Any:
        path = os.fspath(path)
        if name == "open":
            allowed = dir_fd is None or not (given[0] if given else named["flags"]) & WRITES or inside(path, dir_fd)
        else:
            allowed = inside(path, dir_fd)
        if not allowed:
            raise PermissionError(f"os.{name}({path!r}): only the working folder may be changed")
        return original(path, *given, dir_fd=dir_fd, **named)

    return looks


def _words(error: BaseException | None, stage: str) -> bytes:
    """Why it failed. Only Python's own errors are asked for their text, for others would run the program's code."""
    kind = type(error)
    text = f": {error}" if kind.__module__ == "builtins" and str(error) else ""
    return f"{stage}: {kind.__name__}{text}".encode("utf-8", "replace")[:SAID]


def main() -> None:
    """Orders on standard input: a line of numbers, program, tests, token. One write to ``result`` answers."""
    import signal

    length = os.fstat(0).st_size - TOKEN
    head, _, rest = os.pread(0, length, 0).partition(b"\n")
    size, result, seconds, memory, file_bytes, files = map(int, head.split())
    sources = rest[:size].decode("utf-8", "surrogatepass"), rest[size:].decode("utf-8", "surrogatepass")
    orders, nothing = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    signal.alarm(seconds + 1)  # ends it also when nobody is left to kill it
    apart = leave_network()
    if apart and os.getuid() != 0:  # processes are counted per user and namespace; root's are never limited
        limit("RLIMIT_NPROC", PROCESSES)
    for kind, value in (("CPU", seconds), ("AS", memory), ("FSIZE", file_bytes), ("NOFILE", files), ("CORE", 0)):
        limit(f"RLIMIT_{kind}", value)
    sys.argv, space = ["program.py"], ModuleType("__main__")
    sys.modules["__main__"] = space
    os.environ.clear()
    # What is needed later is held here, so that a program cannot put something else in its place.
    run, build, read, write, leave, describe = exec, compile, os.pread, os.write, os._exit, _words
    error_now, answer, stage = sys.exc_info, b"", "program"
    inside = within(".")
    silence(inside)
    sys.addaudithook(guard(inside))
    try:
        run(build(sources[0], "program.py", "exec", dont_inherit=True), space.__dict__)
        stage = "tests"
        run(build(sources[1], "tests.py", "exec", dont_inherit=True), space.__dict__)
        answer = read(orders, TOKEN, length)
    finally:
        write(result, answer or describe(error_now()[1], stage))
        leave(0)


if __name__ == "__main__":
    main()
