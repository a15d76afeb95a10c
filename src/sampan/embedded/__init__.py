"""An engine of a program's own: `with sampan.Engine() as engine:`, for tests and sandboxes.

It has a data root, a socket, a bridge and a firewall table of its own, and needs no daemon of the system. At the end of
the block nothing of it is left, and as little when the program is killed: a second process guards it.

```
  this program ── pipe ── guard ── child ── engine ── spawner ── shims
```

The guard makes the engine and waits for the pipe's end, which the kernel brings about however this program ends. Then
it removes the containers (by another engine, if the first is dead), the network and the directory. If the guard is
killed too, the next `Engine` on the machine finds the directory unlocked, and has it removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING

from sampan.errors import Forbidden, Unavailable

if TYPE_CHECKING:
    from sampan.client import AsyncDocker, Docker

PREFIX = "sampan-engine-"
LOCK = "lock"
"""Held by whoever looks after a directory."""
_LAST_LINES = 3


class Engine:
    """`options`: more of `sampan daemon`'s. `directory`: where its own is made (the system's for temporary files).

    Raises Forbidden without root's rights, and Unavailable when it does not start, with the end of its log.
    """

    def __init__(self, *options: str, directory: str = "") -> None:
        self._options: Sequence[str] = options
        self._base = directory or tempfile.gettempdir()
        self._guard: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self.directory = ""

    def __enter__(self) -> Engine:
        if os.geteuid() != 0:
            raise Forbidden("an engine needs root's rights")
        _sweep(self._base)
        self.directory, lock = _locked_directory(self._base)
        self._owner = os.getpid()
        # A session of its own: what a terminal sends to this program is none of the guard's business.
        self._guard = subprocess.Popen(
            [*_guard_command(), self.directory, str(lock), *self._options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, cwd="/", pass_fds=[lock],
        )  # fmt: skip
        os.close(lock)
        assert self._guard.stdout is not None
        answer = self._guard.stdout.readline()
        if answer != b"ready\n":
            said = _log_end(f"{self.directory}/log")
            self.close()
            raise Unavailable(f"the engine did not start: {said}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        """End it, and remove everything; again: nothing."""
        guard, self._guard = self._guard, None
        # A process forked off this one has the same objects, and is not the one whose block ends.
        if guard is None or os.getpid() != self._owner:
            return
        if "docker" in self.__dict__:
            self.__dict__.pop("docker").close()
        assert guard.stdin is not None and guard.stdout is not None
        with contextlib.suppress(OSError):
            guard.stdin.write(b"end\n")
            guard.stdin.close()
        guard.wait()
        guard.stdout.close()

    @property
    def host(self) -> str:
        """Where it listens: what DOCKER_HOST wants."""
        return f"unix://{self.directory}/run/sampan.sock"

    @property
    def environment(self) -> dict[str, str]:
        """This program's, with what makes docker-py, testcontainers and the commands come here."""
        others = ("DOCKER_", "SAMPAN_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        return {**kept, **self.variables}

    @property
    def variables(self) -> dict[str, str]:
        """What makes docker-py, testcontainers and the commands come here."""
        # What testcontainers' Ryuk is for, the guard does: nothing outlives this engine.
        return {"DOCKER_HOST": self.host, "SAMPAN_HOST": self.host, "TESTCONTAINERS_RYUK_DISABLED": "true"}

    @cached_property
    def docker(self) -> Docker:
        """A client of it; threads may share it."""
        from sampan.client import Docker

        return Docker(self.host)

    def async_docker(self) -> AsyncDocker:
        """A new asynchronous client of it."""
        from sampan.client import AsyncDocker

        return AsyncDocker(self.host)

    def image_from_host(self, name: str, *programs: str) -> str:
        """Make an image of programs of this machine, with what they need; its name. No registry is asked."""
        from sampan.fromhost import pack

        with tempfile.TemporaryFile() as file:
            pack(name, list(programs), file)
            file.seek(0)
            list(self.docker.images.load(iter(lambda: file.read(1 << 20), b"")))
        return name


def _guard_command() -> list[str]:
    # -I: neither the working directory nor the environment adds a module to what runs as root.
    return [sys.executable, "-I", "-m", "sampan.embedded.guard"]


def _log_end(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return " ".join(file.read().splitlines()[-_LAST_LINES:]) or "it said nothing"
    return "it said nothing"


def _locked_directory(base: str) -> tuple[str, int]:
    """A new directory, and the descriptor of its lock: it has no name of ours before it is locked."""
    made = tempfile.mkdtemp(prefix=".sampan-new-", dir=base)
    lock = os.open(f"{made}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    path = f"{base}/{PREFIX}{made.rpartition('-')[2]}"
    os.rename(made, path)
    return path, lock


def _sweep(base: str) -> None:
    """Remove what engines left whose guard was killed: directories of ours that nobody holds."""
    for entry in os.scandir(base):
        if not entry.name.startswith(PREFIX) or not entry.is_dir(follow_symlinks=False):
            continue
        with contextlib.suppress(OSError):
            # Somebody else's may lead anywhere.
            if entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                subprocess.run([*_guard_command(), "--sweep", entry.path], stdin=subprocess.DEVNULL, check=False)
