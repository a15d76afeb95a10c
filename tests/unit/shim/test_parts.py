"""The shim's parts that need no container: framing, detach keys, the restart policy."""

from __future__ import annotations

import os
import socket

import pytest

from sampan.errors import DataCorrupt
from sampan.shim.restart import Backoff, restarts
from sampan.shim.streams import DetachKeys
from sampan.shimapi import framing
from sampan.shimapi.messages import Done, Envelope, Failure, RestartName, RestartPolicy


def test_envelopes_in_pieces_with_descriptors() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pipes = [os.pipe() for _ in range(150)]
        descriptors = [end for pair in pipes for end in pair]
        framing.send(ours, Envelope(1, Done()), descriptors)
        framing.send(ours, Envelope(2, Failure(kind="NotFound", message="x")))
        inbox = framing.Inbox()
        got: list[tuple[Envelope, list[int]]] = []
        while len(got) < 2:
            inbox.read(theirs)
            got += inbox.envelopes()
        assert [envelope.number for envelope, _ in got] == [1, 2]
        assert len(got[0][1]) == 300
        assert os.fstat(got[0][1][299]).st_ino == os.fstat(descriptors[299]).st_ino
        framing.close_all(got[0][1])
        framing.close_all(descriptors)


def test_a_broken_envelope_is_refused() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"\xff\xff\xff\xff\0\0\0\0")
        inbox = framing.Inbox()
        inbox.read(theirs)
        with pytest.raises(DataCorrupt):
            list(inbox.envelopes())


def test_detach_keys_in_pieces() -> None:
    keys = DetachKeys(b"\x10\x11")
    assert keys.filter(b"ab\x10") == (b"ab", False)
    assert keys.filter(b"c") == (b"\x10c", False)
    assert keys.filter(b"\x10\x10") == (b"\x10", False)
    assert keys.filter(b"\x11rest") == (b"", True)
    assert DetachKeys(b"").filter(b"\x10\x11") == (b"\x10\x11", False)


def test_when_a_container_is_started_again() -> None:
    failing = RestartPolicy(name=RestartName.ON_FAILURE, maximum_retry_count=2)
    assert [restarts(failing, 1, count) for count in range(4)] == [True, True, False, False]
    assert not restarts(failing, 0, 0)
    assert restarts(RestartPolicy(name=RestartName.ALWAYS), 0, 1000)
    assert not restarts(RestartPolicy(), 1, 0)
    backoff = Backoff()
    assert [backoff.after(0) for _ in range(4)] == [0.1, 0.2, 0.4, 0.8]
    assert [backoff.after(0) for _ in range(10)][-1] == 60
    assert backoff.after(11) == 0.1
