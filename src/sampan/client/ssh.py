"""An engine behind `ssh://[USER@]HOST[:PORT][/SOCKET]`: the ssh program, and over there `system dial-stdio`, which
copies between its own streams and the engine's socket, as Docker's command does it."""

from __future__ import annotations

import socket
import subprocess

from sampan.client.http import Host
from sampan.errors import Unavailable

_THERE = (
    "if command -v sampan >/dev/null 2>&1; then exec sampan {0}system dial-stdio; "
    "else exec docker {0}system dial-stdio; fi"
)
_running: list[subprocess.Popen[bytes]] = []


def command(host: Host) -> list[str]:
    """What is run for one connection. The name of the host comes after `--`: it cannot be taken for an option."""
    words = ["ssh", "-o", "ConnectTimeout=30", "-T"]
    if host.user:
        words += ["-l", host.user]
    if host.port:
        words += ["-p", str(host.port)]
    path = "'\\''".join(host.path.split("'"))
    there = _THERE.format(f"-H 'unix://{path}' " if host.path else "")
    return [*words, "--", host.address, "sh -c '" + "'\\''".join(there.split("'")) + "'"]


def connect(host: Host) -> socket.socket:
    """A connection to the engine over there. It ends when it is closed. Raises Unavailable."""
    _running[:] = [each for each in _running if each.poll() is None]
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            _running.append(subprocess.Popen(command(host), stdin=theirs.fileno(), stdout=theirs.fileno()))
        except OSError as error:
            ours.close()
            raise Unavailable(f"ssh: {(error.strerror or str(error)).lower()}") from error
    return ours
