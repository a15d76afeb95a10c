"""A container's main process, or one more of its processes, in the foreground of this terminal."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Collection

from sampan.cli.streams import Attached, raw_terminal, terminal_size
from sampan.client.client import Client
from sampan.errors import NotModified, SampanError

OUTPUTS = ("stdout", "stderr")
_NOT_FOUND = ("executable file not found", "no such file or directory")
_NOT_EXECUTABLE = ("permission denied", "is a directory", "not a directory", "exec format error")


def failed_start(error: SampanError) -> int:
    """The line, and Docker's status for what it says: 127 no such program, 126 not executable, 125 else."""
    print(f"sampan: {error.message}", file=sys.stderr)
    text = error.message.lower()
    if any(each in text for each in _NOT_FOUND):
        return 127
    return 126 if any(each in text for each in _NOT_EXECUTABLE) else 125


def run_attached(
    client: Client,
    container_id: str,
    *,
    terminal: bool,
    stdin: bool,
    outputs: Collection[str] = OUTPUTS,
    detach_keys: str,
    forward_signals: bool,
    start: bool,
    removed: bool,
) -> int:
    """Attach, start if that is wanted, and give the container's exit status; 0 when the user detaches.

    `terminal`: the container has one. `removed`: it removes itself at its end, which is waited for.
    """
    path = f"/containers/{container_id}"
    connection, first = client.upgrade(
        f"{path}/attach", stream=True, stdin=stdin, detachKeys=detach_keys,
        **{output: output in outputs for output in OUTPUTS},
    )  # fmt: skip
    # The wait stands before the start: an end cannot be missed, nor the removal of a container that removes itself.
    waiting = client.stream("POST", f"{path}/wait", condition="removed" if removed else "next-exit")
    if start:
        try:
            client.call("POST", f"{path}/start")
        except NotModified:
            pass
        except SampanError as error:
            connection.close()
            return failed_start(error)
    interactive = terminal and stdin
    resize = resizer(client, path) if terminal else None
    if resize:
        resize()
    with raw_terminal() if interactive else contextlib.nullcontext():
        Attached(
            connection, first, framed=not terminal, stdin=stdin, on_resize=resize,
            # A raw terminal has the keys that make signals go to the process itself.
            on_signal=_forwarder(client, path) if forward_signals and not interactive else None,
        ).run()  # fmt: skip
    if interactive and _is_running(client, path):
        return 0
    return int(json.loads(waiting.read())["StatusCode"])


def resizer(client: Client, path: str) -> Callable[[], None]:
    """What tells the container or exec at `path` the size of this terminal."""

    def resize() -> None:
        size = terminal_size()
        if size is not None:
            with contextlib.suppress(SampanError):
                client.call("POST", f"{path}/resize", h=size[0], w=size[1])

    return resize


def _forwarder(client: Client, path: str) -> Callable[[int], None]:
    def forward(number: int) -> None:
        with contextlib.suppress(SampanError):
            client.call("POST", f"{path}/kill", signal=signal.Signals(number).name)

    return forward


def _is_running(client: Client, path: str) -> bool:
    """Whether the stream has ended because somebody typed the detach keys."""
    with contextlib.suppress(SampanError):
        state = client.call("GET", f"{path}/json")["State"]
        return bool(state["Running"] and not state["Restarting"])
    return False
