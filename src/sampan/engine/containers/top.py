"""The processes of a container, as `ps` shows them: read from /proc, so that no program of the host is needed."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Iterable

from sampan.api.container_documents import TopResponse
from sampan.errors import Unsupported

_TICKS = os.sysconf("SC_CLK_TCK")
_TITLES = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")


def top(pids: Iterable[int], arguments: str) -> TopResponse:
    """In the columns of `ps -ef`. Raises Unsupported for other arguments to ps."""
    if arguments not in ("", "-ef", "ef"):
        raise Unsupported(f"top: ps arguments {arguments!r} are not supported, only -ef")
    rows = [row for row in map(_row, sorted(pids)) if row is not None]
    return TopResponse(titles=_TITLES, processes=tuple(rows))


def _row(pid: int) -> tuple[str, ...] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            head, _, tail = file.read().rpartition(b")")
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read().rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
        uid = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
    fields = tail.split()
    name = head.partition(b"(")[2].decode("utf-8", "replace")
    used = int(fields[11]) + int(fields[12])
    began = _boot_time() + int(fields[19]) / _TICKS
    age = max(time.time() - began, 0.01)
    seconds = used // _TICKS
    return (
        _user(uid), str(pid), fields[1].decode(), str(min(99, int(used / _TICKS / age * 100))), _start(began),
        _terminal(int(fields[4])), f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}",
        command or f"[{name}]",
    )  # fmt: skip


def _boot_time() -> float:
    with open("/proc/stat", encoding="ascii") as file:
        return float(next(line.split()[1] for line in file if line.startswith("btime ")))


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _start(began: float) -> str:
    moment = time.localtime(began)
    return time.strftime("%H:%M" if time.time() - began < 86400 else "%b%d", moment)


def _terminal(number: int) -> str:
    major, minor = os.major(number), os.minor(number)
    return "?" if not number else f"pts/{minor}" if major == 136 else f"tty{minor}"
