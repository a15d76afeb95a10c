"""`python -I -m sampan.embedded.guard DIRECTORY LOCK [OPTIONS]`: makes an engine there; at the end removes everything.

It says `ready` when the engine answers. The end is a line on its standard input, or that input's end.
`--sweep DIRECTORY` does no more than remove, where no other guard holds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from sampan.client.client import Client, parse_host
from sampan.core.paths import Paths
from sampan.embedded import LOCK
from sampan.errors import NotFound, SampanError

_START = 60.0
_STOP = 20.0
_TRIES = 5
_POOL_LOCK = "/run/sampan-engines.lock"
"""Held while an engine chooses the addresses of its bridge: two that choose at once would choose the same."""


class Guard:
    """One engine in a directory of its own."""

    def __init__(self, directory: str, options: Sequence[str] = ()) -> None:
        self._directory = directory
        self._options = options
        self._paths = Paths(f"{directory}/data", f"{directory}/run")
        self._engine: subprocess.Popen[bytes] | None = None

    def start(self) -> bool:
        """Whether it answers."""
        with open(_POOL_LOCK, "a") as pools, open(f"{self._directory}/log", "ab") as log:
            fcntl.flock(pools, fcntl.LOCK_EX)
            self._engine = subprocess.Popen(
                [
                    sys.executable, "-I", "-m", "sampan.engine", "--config-file", os.devnull, "--data-root",
                    self._paths.data_root, "--exec-root", self._paths.exec_root, "-H", f"unix://{self._paths.socket}",
                    *self._options,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
            deadline = time.monotonic() + _START
            while time.monotonic() < deadline and self._engine.poll() is None:
                with contextlib.suppress(SampanError), contextlib.closing(self._client()) as client:
                    client.call("GET", "/_ping")
                    return True
                time.sleep(0.02)
        return False

    def _client(self) -> Client:
        return Client(parse_host(f"unix://{self._paths.socket}"))

    def wait(self) -> None:
        """Until the program that wanted the engine ends, or says that it wants it no more, or a signal says so."""
        ended, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, frame: None)
        select.select([0, ended], [], [])

    def remove(self) -> None:
        """Everything: containers, network, directory. What is gone already is no error."""
        for _ in range(_TRIES if os.path.exists(self._paths.database) else 0):
            if self._engine is None or self._engine.poll() is not None:
                self._end_another()
                self.start()
            try:
                self._remove_containers()
                break
            except SampanError:
                time.sleep(0.2)  # An engine that is being killed may look alive.
        self._stop()
        if os.path.exists(self._paths.database):
            self._remove_network()
        self._remove_directory()

    def _remove_containers(self) -> None:
        """Raises SampanError when some are left."""
        with contextlib.closing(self._client()) as client:
            for each in client.call("GET", "/containers/json", all=True):
                with contextlib.suppress(NotFound):
                    client.call("DELETE", f"/containers/{each['Id']}", force=True, v=True)

    def _end_another(self) -> None:
        """An engine that a killed guard has left."""
        with contextlib.suppress(OSError, ValueError):
            with open(self._paths.pidfile) as file:
                pid = int(file.read())
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            # The number may have gone to another process.
            if self._paths.exec_root.encode() not in words:
                return
            descriptor = os.pidfd_open(pid)
            for number in (signal.SIGTERM, signal.SIGKILL):
                signal.pidfd_send_signal(descriptor, number)
                if select.select([descriptor], [], [], _STOP)[0]:
                    break
            os.close(descriptor)

    def _stop(self) -> None:
        if self._engine is None:
            return
        self._engine.terminate()
        try:
            self._engine.wait(_STOP)
        except subprocess.TimeoutExpired:
            self._engine.kill()
            self._engine.wait()

    def _remove_network(self) -> None:
        from sampan.core.metadata import Metadata
        from sampan.network.controller import NetworkController, NetworkSettings

        paths = self._paths
        metadata = Metadata(paths.database)
        controller = NetworkController(
            metadata, NetworkSettings(bridge=paths.bridge, table=paths.table, netns_dir=paths.netns)
        )
        try:
            controller.setup()
            controller.teardown()
        finally:
            controller.close()
            metadata.close()

    def _remove_directory(self) -> None:
        from sampan.linux.mount import MNT_DETACH, umount
        from sampan.linux.trees import remove_tree

        for path in reversed(_mounts_below(self._directory)):
            with contextlib.suppress(OSError):
                umount(path, MNT_DETACH)
        # A mount that stays would be emptied with the directory: its files are somebody else's.
        if not _mounts_below(self._directory):
            remove_tree(self._directory)


def _mounts_below(directory: str) -> list[str]:
    from sampan.linux.mount import mounts

    return [each.point for each in mounts() if each.point.startswith(f"{directory}/")]


def _guard(directory: str, options: Sequence[str]) -> int:
    guard = Guard(directory, options)
    started = False
    try:
        started = guard.start()
        # Whoever waits for it may have gone.
        with contextlib.suppress(BrokenPipeError):
            print("ready" if started else "failed", flush=True)
        guard.wait()
    finally:
        guard.remove()
    return 0 if started else 1


def _sweep(directory: str) -> int:
    try:
        lock = os.open(f"{directory}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        return 0  # Its own guard was quicker.
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    Guard(directory).remove()
    return 0


def main(words: Sequence[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if words[0] == "--sweep":
        return _sweep(words[1])
    # The lock is held until this process ends, however it does: who can take it finds a directory that nobody guards.
    os.set_inheritable(int(words[1]), False)
    return _guard(words[0], words[2:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
