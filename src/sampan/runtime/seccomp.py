"""The system call filter: checked when a container is planned, compiled by the parent, loaded by the process.

Where an agent decides about some calls (SCMP_ACT_NOTIFY), the kernel gives a descriptor to the process that loads the
filter. It must be with the agent before that process makes a call which waits for the agent's answer::

    parent                                child                                         agent
      │                                     │ seccomp(2)                                  │ listens at listenerPath
      │ ◀────────────────────── LISTENER ───│ (the descriptor, or its number)             │
      │ ── container process state, descriptor ──────────────────────────────────────────▶│
      │ ── LISTENING ──────────────────────▶│ goes on; every call may be one it waits for │

The child's one call before that is a sendmsg(2), or a write(2) of the number, which the parent fetches with
pidfd_getfd(2), if sendmsg is the agent's. That is why write can't be. runtime-spec config-linux.md, "Seccomp", and
runtime-linux.md
"""

from __future__ import annotations

import array
import os
import socket

import msgspec

from sampan.errors import Internal, InvalidArgument, Unsupported
from sampan.linux import process as linux_process
from sampan.linux import seccomp
from sampan.linux.seccomp import profile as profiles
from sampan.oci.runtime import ContainerProcessState, Seccomp, State
from sampan.runtime import sync

_CACHE = ".seccomp"
_DESCRIPTOR = "seccompFd"
_PATIENCE = 10.0
"""Seconds until an agent must have taken the connection."""


def compiled(profile: Seccomp | None, state_root: str) -> bytes:
    """The program; empty if there is no profile. Raises InvalidArgument, Unsupported (no libseccomp)."""
    if profile is None:
        return b""
    try:
        return seccomp.program(profile, f"{state_root}/{_CACHE}")
    except ValueError as error:
        raise InvalidArgument(f"linux.seccomp: {error}") from error
    except OSError as error:
        raise Unsupported(f"linux.seccomp: {error.strerror}") from error


def load(profile: Seccomp, program: bytes, connection: socket.socket) -> None:
    """In the process itself: obey the filter from here on. Raises InvalidArgument for what the kernel refuses."""
    try:
        listener = seccomp.load(program, profiles.flag_bits(profile))
    except OSError as error:
        raise InvalidArgument(f"linux.seccomp: load the filter: {(error.strerror or '').lower()}") from error
    if not profiles.notifies(profile):
        return
    if profiles.intercepts(profile, "sendmsg"):
        sync.send(connection, sync.LISTENER + listener.to_bytes(4, "little"))
    else:
        sync.send(connection, sync.LISTENER, listener)
    sync.await_word(connection, sync.LISTENING)
    # As long as anybody holds it, calls wait for an agent that may have ended.
    os.close(listener)


def pass_on(connection: socket.socket, pidfd: int, profile: Seccomp | None, pid: int, state: State) -> None:
    """In the parent, while the process `pid` loads its filter: hand the listener on, if there is an agent."""
    if profile is None or not profiles.notifies(profile):
        return
    message, descriptors = sync.expect(connection, sync.LISTENER)
    if not descriptors:
        descriptors = [_borrowed(pidfd, int.from_bytes(message, "little"))]
    try:
        told = ContainerProcessState(
            oci_version=state.oci_version, fds=(_DESCRIPTOR,), pid=pid, metadata=profile.listener_metadata, state=state
        )  # fmt: skip
        _tell(profile.listener_path, msgspec.json.encode(told), descriptors[0])
    finally:
        os.close(descriptors[0])
    sync.send(connection, sync.LISTENING)


def _borrowed(pidfd: int, number: int) -> int:
    try:
        return linux_process.borrow_descriptor(pidfd, number)
    except OSError as error:
        raise Internal(f"linux.seccomp: fetch the listener: {(error.strerror or '').lower()}") from error


def _tell(path: str, document: bytes, descriptor: int) -> None:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as agent:
            agent.settimeout(_PATIENCE)
            agent.connect(path)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", (descriptor,)))
            sent = agent.sendmsg([document], [rights])
            agent.sendall(document[sent:])
    except OSError as error:
        raise Internal(f"linux.seccomp: the agent at {path}: {(error.strerror or str(error)).lower()}") from error
