"""The network block of ``conftest.py`` holds, and loopback stays open."""

import os
import socket

import pytest


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("8.8.8.8", 53)])
@pytest.mark.parametrize("method", ["connect", "connect_ex"])
def test_a_connection_to_another_machine_raises(method: str, address: tuple[str, int]) -> None:
    with socket.socket() as sock, pytest.raises(RuntimeError, match="no network"):
        getattr(sock, method)(address)


def test_a_datagram_to_another_machine_raises() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(RuntimeError, match="no network"):
        sock.sendto(b"hello", ("192.0.2.1", 53))


def test_a_name_lookup_raises() -> None:
    with pytest.raises(RuntimeError, match="no network"):
        socket.create_connection(("example.org", 80), timeout=1)


def test_loopback_stays_open() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=5) as client,
    ):
        accepted, peer = server.accept()
        accepted.close()
        assert peer[1] == client.getsockname()[1]


def test_the_hub_is_offline() -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
