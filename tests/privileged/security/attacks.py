"""Ways to carry out an attack: from inside a container, by its image, and beside one that is being made."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator

import msgspec
import pytest

from sampan.oci.runtime import Spec
from sampan.runtime import init
from tests.privileged.runtime.test_container import Box

RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def say(text: object) -> None:
    """To the container's standard output."""
    os.write(1, f"{text}\n".encode())


def attempt(name: str, action: Callable[[], object]) -> None:
    """Carry out one step of an attack, and say what came of it."""
    try:
        result = action()
    except OSError as error:
        say(f"{name}: refused: {error.strerror}")
    else:
        say(f"{name}: done: {result}")


def inside(box: Box, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None], **changes: object) -> str:
    """Have the container's process, confined and at the point of its execve, do `act` instead; what it said."""

    def instead(*_: object) -> None:
        try:
            act()
        except BaseException as error:
            say(f"ended: {type(error).__name__}: {error}")
        finally:
            os._exit(0)

    with monkeypatch.context() as patch:
        patch.setattr(init, "_execute", instead)
        return box.run("true", **changes)[1]


@contextlib.contextmanager
def swapping(first: str | pathlib.Path, second: str | pathlib.Path) -> Iterator[None]:
    """A second process that exchanges the two as fast as it goes, as one in another container that has the same volume
    can."""
    libc = ctypes.CDLL(None, use_errno=True)
    one, other = os.fsencode(first), os.fsencode(second)
    attacker = os.fork()
    if attacker == 0:
        try:
            os.nice(5)
            while True:
                if libc.renameat2(_AT_FDCWD, one, _AT_FDCWD, other, RENAME_EXCHANGE):
                    os._exit(1)
        finally:
            os._exit(1)
    try:
        yield
        assert os.waitpid(attacker, os.WNOHANG) == (0, 0), "the attacker has failed"
    finally:
        os.kill(attacker, signal.SIGKILL)
        os.waitpid(attacker, 0)


class Command:
    """`sampan-runtime`, with the box's bundle and state."""

    def __init__(self, box: Box) -> None:
        self._box = box

    def configure(self, spec: Spec) -> None:
        (self._box.bundle / "config.json").write_bytes(msgspec.json.encode(spec))

    def __call__(self, *words: str, output: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sampan.runtime", "--root", self._box.state_root, *words]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True, timeout=60, check=False,
            cwd=self._box.bundle,
        )  # fmt: skip

    def run(self, spec: Spec) -> subprocess.CompletedProcess[str]:
        self.configure(spec)
        return self("run", self._box.id)

    @contextlib.contextmanager
    def running(self, spec: Spec) -> Iterator[None]:
        self.configure(spec)
        # A pipe would be the container's too, and have no end.
        assert self("run", "-d", self._box.id, output=subprocess.DEVNULL).returncode == 0
        try:
            yield
        finally:
            self("delete", "--force", self._box.id)


def elf_interpreter() -> bytes:
    """A program for x86-64 that holds /proc/self/exe open as descriptor 3 and executes busybox's `sh /attack`.

    As an image's /lib64/ld-linux-x86-64.so.2 it is what runs when somebody executes a program of the host's by
    /proc/self/exe: the kernel takes the program's loader from the container.
    """
    base = 0x10000000
    code = bytes.fromhex(
        "488d3d4100000031f6b8020000000f05"  # open("/proc/self/exe", O_RDONLY)
        "488d3d40000000488d351200000031d2b83b0000000f05"  # execve("/bin/busybox", argv, NULL)
        "89c7b83c0000000f05"  # exit
        "dc00001000000000df0000100000000000000000000000002f70726f632f73656c662f657865002f62696e2f62757379626f78007368"
        "002f61747461636b00"
    )
    head = 64 + 56
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + head, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, base, base, head + len(code), head + len(code), 4096)
    return header + segment + code
