"""A program of its own: puts up fences, runs a model's program and then the tests, and proves that both came to an end.

Notable: it is run by path in a fresh interpreter (``evaluate.sandbox``), so it imports nothing of Tunesmith. The proof
is a token that lies unread behind the orders on a descriptor until the tests have run; no Python object holds it
before. The fences: limits of the kernel (time, memory, files), a network namespace without any network where the
kernel grants one, and a guard (an audit hook, PEP 578) that cannot be taken off and refuses sockets, other processes,
ctypes and changes outside the working folder. They stop accidents and lazy attacks. Code that is written to break out
(through ``_posixsubprocess``, a bug of the interpreter, descriptors guessed by number) is not stopped: this is no
security boundary.
"""

import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

TOKEN = 32  # bytes at the end of the orders
SAID = 300  # bytes of a reason, far below what a pipe takes at once
PROCESSES = 32
NEW_USER_AND_NETWORK = 0x10000000 | 0x40000000

PROCESS = ("os.exec", "os.fork", "os.forkpty", "os.kill", "os.killpg", "os.posix_spawn", "os.spawn", "os.system")
REFUSED = {
    **dict.fromkeys((*PROCESS, "pty.spawn", "subprocess.Popen"), "other processes"),
    **dict.fromkeys(("ctypes.dlopen", "ctypes.dlsym", "ctypes.dlsym/handle"), "ctypes"),
}
# Events that change a file or folder: how many paths come first, and where the descriptors of their folders stand.
CHANGES: dict[str, tuple[int, tuple[int, ...]]] = {
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


def guard(folder: str) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that refuses what a program under test has no business with; files may change in ``folder``."""
    home, real_path, read_link, join = os.path.realpath(folder), os.path.realpath, os.readlink, os.path.join
    unix = 1  # AF_UNIX: asyncio makes such a pair for itself; connecting and binding are refused like all else

    def inside(path: Any, base: Any) -> bool:
        if isinstance(path, int):  # a descriptor that is open already
            return True
        name = os.fsdecode(path)
        if isinstance(base, int) and base >= 0 and not name.startswith("/"):
            name = join(read_link(f"/proc/self/fd/{base}"), name)
        whole = real_path(name)
        return whole == home or whole.startswith(home + "/") or whole == "/dev/null"

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            if given[2] & WRITES and not inside(given[0], None):
                raise PermissionError(f"open({given[0]!r}): only files in the working folder may be written")
        elif event in CHANGES:
            paths, bases = CHANGES[event]
            for place in range(paths):
                if not inside(given[place], given[bases[place]] if bases else None):
                    raise PermissionError(f"{event}({given[place]!r}): only the working folder may be changed")
        elif event in REFUSED:
            raise PermissionError(f"{event}: a program under test may not use {REFUSED[event]}")
        elif event.startswith("socket.") and not (event == "socket.__new__" and given[1] == unix):
            raise PermissionError(f"{event}: a program under test may not use the network")

    return hook


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
    sys.addaudithook(guard("."))
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
