"""The sockets that reserve ports: told by where they are bound, and let go of one by one."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from sampan.shim.reservations import place, release


def test_only_what_is_named_is_closed() -> None:
    kinds = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
    places: list[tuple[str, str, int]] = []
    held: list[int] = []
    for name in ("tcp", "tcp", "udp"):
        made = socket.socket(socket.AF_INET, kinds[name])
        made.bind(("127.0.0.1", 0))
        places.append((name, "127.0.0.1", made.getsockname()[1]))
        held.append(made.detach())
    pair = socket.socketpair()
    other, pipe = pair[0].detach(), os.pipe()
    held += [other, *pipe]
    first, second, third, *rest = held
    assert [place(each) for each in held] == [*places, None, None, None]

    release(held, (places[0], ("udp", "127.0.0.1", places[1][2]), ("tcp", "0.0.0.0", places[1][2])))
    assert held == [second, third, *rest]
    with pytest.raises(OSError) as caught:
        os.fstat(first)
    assert caught.value.errno == errno.EBADF
    release(held, (places[1], places[2]))
    assert held == rest
    for each in rest:
        os.close(each)
    pair[1].close()
