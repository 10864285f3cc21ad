"""What every test gets: no network, no model hub, and the real sets where they are at hand.

Notable: the block is laid when pytest starts, before any test file or doctest is imported, so that an import that calls
home fails too. Loopback and Unix sockets stay open. CUDA devices are hidden, for the tests ask for the processor's
numbers; ``make gpu`` shows them to ``tests/gpu``.
"""

import ipaddress
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported anywhere; child processes inherit it
if "TUNESMITH_TEST_GPU" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

REPO_ROOT = Path(__file__).resolve().parent.parent
SHARED = REPO_ROOT.parent / "shared"
_PATCHES = pytest.MonkeyPatch()


class NetworkBlocked(RuntimeError):
    """A test tried to leave this machine."""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return host in ("localhost", "")


def _guarded(method: str) -> Callable[..., Any]:
    original = getattr(socket.socket, method)

    def guard(self: socket.socket, *arguments: Any) -> Any:
        address = arguments[-1]
        if isinstance(address, tuple) and not _is_loopback(str(address[0])):
            raise NetworkBlocked(f"socket.{method}({address!r}): tests use no network. Use a file of the repository.")
        return original(self, *arguments)

    return guard


def _guarded_lookup(host: Any, *arguments: Any, **keywords: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else host
    if name is not None and not _is_loopback(name):
        raise NetworkBlocked(f"socket.getaddrinfo({host!r}): tests use no network. Use a file of the repository.")
    return _LOOKUP(host, *arguments, **keywords)


_LOOKUP = socket.getaddrinfo


def pytest_configure() -> None:
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:  # started in the background, or by nohup; children inherit it
            signal.signal(number, usual)
    for method in ("connect", "connect_ex", "sendto"):
        _PATCHES.setattr(socket.socket, method, _guarded(method))
    _PATCHES.setattr(socket, "getaddrinfo", _guarded_lookup)


def pytest_unconfigure() -> None:
    _PATCHES.undo()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if SHARED.is_dir():
        return
    for item in items:
        if item.get_closest_marker("shared"):
            item.add_marker(pytest.mark.skip(reason=f"{SHARED} is absent"))


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return REPO_ROOT


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent")
    return SHARED
