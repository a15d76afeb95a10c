"""The connection that is kept from call to call."""

from __future__ import annotations

import pathlib
import socket
import threading
from collections.abc import Iterator

import pytest

from sampan.client.client import Client
from sampan.client.http import Host
from sampan.errors import Unavailable

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n"


class Peer:
    """It answers with the number of the connection, and closes one after as many answers as `calls` says."""

    def __init__(self, path: pathlib.Path, *calls: int) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self.closed = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._serve, args=[calls], daemon=True)
        self._thread.start()

    def _serve(self, calls: tuple[int, ...]) -> None:
        for number, count in enumerate(calls):
            connection, _ = self._socket.accept()
            with connection:
                for _ in range(count):
                    while b"\r\n\r\n" not in connection.recv(1 << 16):
                        pass
                    connection.sendall(_ANSWER + str(number).encode())
            self.closed.release()

    def end(self) -> None:
        self._thread.join(5)
        self._socket.close()


@pytest.fixture
def client(tmp_path: pathlib.Path) -> Iterator[tuple[Peer, Client]]:
    peer = Peer(tmp_path / "socket", 2, 1, 0)
    client = Client(Host(path=str(tmp_path / "socket")))
    yield peer, client
    client.close()
    peer.end()


def test_it_is_kept_until_the_engine_closes_it(client: tuple[Peer, Client]) -> None:
    peer, ours = client
    assert [ours.call("GET", "/x") for _ in range(2)] == [0, 0]
    peer.closed.acquire(timeout=5)
    assert ours.call("GET", "/x") == 1
    peer.closed.acquire(timeout=5)
    with pytest.raises(Unavailable):  # A new one that is closed is not tried again: the call may have been done.
        ours.call("POST", "/x")
