"""The processes of a container, as `ps` shows them: read from /proc, so that no program of the host is needed. The
columns are those of procps' ps(1), by the same names and under the same titles."""

from __future__ import annotations

import grp
import os
import pwd
import time
from collections.abc import Callable, Iterable, Sequence

from sampan.api.container_documents import TopResponse
from sampan.errors import InvalidArgument, Unsupported

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class _Process:
    """One process, as /proc had it at one moment. Raises OSError where it is gone."""

    def __init__(self, pid: int, boot: float) -> None:
        self.pid = pid
        with open(f"/proc/{pid}/stat", "rb") as file:
            head, _, tail = file.read().rpartition(b")")
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            arguments = file.read().rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            self._status = {key: value for key, _, value in (line.rstrip().partition(":\t") for line in file)}
        self.name = head.partition(b"(")[2].decode("utf-8", "replace")
        self.command = arguments or f"[{self.name}]"
        self._fields = tail.decode().split()
        self.began = boot + self.number(22) / _TICKS
        self.age = max(time.time() - self.began, 0.01)
        self.used = self.number(14) + self.number(15)

    def text(self, field: int) -> str:
        """A field of stat, by its number in proc(5)."""
        return self._fields[field - 3]

    def number(self, field: int) -> int:
        return int(self.text(field))

    def ids(self, kind: str) -> list[int]:
        """Real, effective, saved and file-system ids; `kind`: Uid or Gid."""
        return [int(each) for each in self._status[kind].split()]

    def resident(self) -> int:
        """KiB; the kernel's own processes have none."""
        return int(self._status.get("VmRSS", "0 kB").split()[0])

    def locked(self) -> bool:
        return self._status.get("VmLck", "0 kB").split()[0] != "0"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _share(process: _Process) -> float:
    """Of one processor's time since it began, in percent."""
    return process.used / _TICKS / process.age * 100


def _memory(process: _Process) -> str:
    with open("/proc/meminfo", encoding="ascii") as file:
        total = int(file.readline().split()[1])
    return _tenths(process.resident() / total * 100)


def _tenths(share: float) -> str:
    """Cut, not rounded."""
    return f"{int(share * 10) / 10:.1f}"


def _start(process: _Process) -> str:
    began, now = time.localtime(process.began), time.localtime()
    same_day, same_year = began[:3] == now[:3], began.tm_year == now.tm_year
    return time.strftime("%H:%M" if same_day else "%b%d" if same_year else "%Y", began)


def _terminal(process: _Process) -> str:
    number = process.number(7)
    major, minor = os.major(number), os.minor(number)
    return "?" if not number else f"pts/{minor}" if major == 136 else f"tty{minor}"


def _clock(seconds: int) -> str:
    days, rest = divmod(seconds, 86400)
    text = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{text}" if days else text


def _elapsed(process: _Process) -> str:
    text = _clock(int(process.age))
    return text.removeprefix("00:") if text.count(":") == 2 and "-" not in text else text


def _state(process: _Process) -> str:
    """With BSD's letters behind it."""
    nice = process.number(19)
    return (
        process.text(3) + ("<" if nice < 0 else "N" if nice > 0 else "") + ("L" if process.locked() else "")
        + ("s" if process.number(6) == process.pid else "") + ("l" if process.number(20) > 1 else "")
        + ("+" if process.number(8) == process.number(5) else "")
    )  # fmt: skip


def _waits(process: _Process) -> str:
    with open(f"/proc/{process.pid}/wchan", encoding="ascii") as file:
        return file.read().strip("0") or "-"


Column = tuple[str, Callable[[_Process], object]]
_COLUMNS: dict[str, Column] = {
    "addr": ("ADDR", lambda _: "-"),
    "args": ("COMMAND", lambda each: each.command),
    "bsdtime": ("TIME", lambda each: f"{each.used // _TICKS // 60}:{each.used // _TICKS % 60:02}"),
    "c": ("C", lambda each: min(99, int(_share(each)))),
    "comm": ("COMMAND", lambda each: each.name),
    "egid": ("EGID", lambda each: each.ids("Gid")[1]),
    "egroup": ("EGROUP", lambda each: _group(each.ids("Gid")[1])),
    "etime": ("ELAPSED", _elapsed),
    "etimes": ("ELAPSED", lambda each: int(each.age)),
    "euid": ("EUID", lambda each: each.ids("Uid")[1]),
    "euser": ("EUSER", lambda each: _user(each.ids("Uid")[1])),
    "flags": ("F", lambda each: f"{each.number(9) >> 6 & 7:o}"),
    "lstart": ("STARTED", lambda each: time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(each.began))),
    "ni": ("NI", lambda each: each.number(19)),
    "nlwp": ("NLWP", lambda each: each.number(20)),
    "pcpu": ("%CPU", lambda each: _tenths(_share(each))),
    "pgid": ("PGID", lambda each: each.number(5)),
    "pid": ("PID", lambda each: each.pid),
    "pmem": ("%MEM", _memory),
    "ppid": ("PPID", lambda each: each.number(4)),
    "pri": ("PRI", lambda each: 39 - each.number(18)),
    "opri": ("PRI", lambda each: 60 + each.number(18)),
    "psr": ("PSR", lambda each: each.number(39)),
    "rgid": ("RGID", lambda each: each.ids("Gid")[0]),
    "rgroup": ("RGROUP", lambda each: _group(each.ids("Gid")[0])),
    "rss": ("RSS", lambda each: each.resident()),
    "ruid": ("RUID", lambda each: each.ids("Uid")[0]),
    "ruser": ("RUSER", lambda each: _user(each.ids("Uid")[0])),
    "s": ("S", lambda each: each.text(3)),
    "sid": ("SID", lambda each: each.number(6)),
    "start_time": ("START", _start),
    "stat": ("STAT", _state),
    "stime": ("STIME", _start),
    "sz": ("SZ", lambda each: each.number(23) // _PAGE),
    "time": ("TIME", lambda each: _clock(each.used // _TICKS)),
    "tpgid": ("TPGID", lambda each: each.number(8)),
    "tt": ("TT", _terminal),
    "tty": ("TT", _terminal),
    "vsz": ("VSZ", lambda each: each.number(23) // 1024),
    "wchan": ("WCHAN", _waits),
}
_COLUMNS |= {
    other: (title or _COLUMNS[name][0], _COLUMNS[name][1])
    for other, name, title in (
        ("cmd", "args", "CMD"), ("command", "args", ""), ("ucmd", "comm", "CMD"), ("ucomm", "comm", ""),
        ("%cpu", "pcpu", ""), ("%mem", "pmem", ""), ("cputime", "time", ""), ("f", "flags", ""), ("flag", "flags", ""),
        ("gid", "egid", "GID"), ("group", "egroup", "GROUP"), ("uid", "euid", "UID"), ("user", "euser", "USER"),
        ("uname", "euser", "USER"), ("nice", "ni", ""), ("pgrp", "pgid", "PGRP"), ("rssize", "rss", ""),
        ("rsz", "rss", "RSZ"), ("sess", "sid", "SESS"), ("session", "sid", "SESS"), ("state", "s", ""),
        ("thcount", "nlwp", "THCNT"), ("tname", "tty", "TTY"), ("vsize", "vsz", ""),
    )
}  # fmt: skip
_FULL = ("user=UID", "pid", "ppid", "c", "stime", "tty=TTY", "time", "cmd")
_FORMATS: dict[str, tuple[str, ...]] = {
    "-f": _FULL,
    "-F": ("user=UID", "pid", "ppid", "c", "sz", "rss", "psr", "stime", "tty=TTY", "time", "cmd"),
    "-j": ("pid", "pgid", "sid", "tty=TTY", "time", "ucmd"),
    "-l": ("f", "s", "uid", "pid", "ppid", "c", "opri", "ni", "addr", "sz", "wchan", "tty=TTY", "time", "ucmd"),
    "-": ("pid", "tty=TTY", "time", "ucmd"),
    "u": ("user", "pid", "%cpu", "%mem", "vsz", "rss", "tty=TTY", "stat", "start_time", "bsdtime=TIME", "command"),
    "": ("pid", "tty=TTY", "stat", "bsdtime=TIME", "command"),
}  # fmt: skip
"""By the letter that asks for them: with a dash as Unix has it, without as BSD; alone for none."""
_WITHOUT_MEANING = frozenset("eAadwxgNT")
"""Which processes, and how wide: those of the container are shown, and whole."""


def top(pids: Iterable[int], arguments: str) -> TopResponse:
    """In the columns that these arguments to `ps` ask for; of `ps -ef` without any. Raises InvalidArgument, and
    Unsupported for what is not known here."""
    titles, columns = _columns(arguments.split() or ["-ef"])
    if "PID" not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    boot = _boot_time()
    rows = (_row(pid, boot, columns) for pid in sorted(pids))
    return TopResponse(titles=tuple(titles), processes=tuple(row for row in rows if row is not None))


def _columns(words: Sequence[str]) -> tuple[list[str], list[Callable[[_Process], object]]]:
    wanted: list[str] = []
    formats: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        dash = "-" if word.startswith("-") else ""
        letters = word.removeprefix("-")
        if letters.startswith("-"):
            raise Unsupported(f"top: ps argument {word!r} is not supported")
        for at, letter in enumerate(letters):
            if letter == "o" or (letter == "O" and not dash):
                given = letters[at + 1 :] or (rest.pop(0) if rest else "")
                wanted += _named(given)
                break
            if f"{dash}{letter}" in _FORMATS:
                formats.append(f"{dash}{letter}")
            elif letter not in _WITHOUT_MEANING:
                raise Unsupported(f"top: ps argument {word!r} is not supported")
            else:
                formats += [] if formats else [dash]
    chosen = [each for each in formats if each not in ("", "-")] or formats[:1]
    if wanted and len(chosen) and chosen[0] not in ("", "-"):
        raise InvalidArgument("ps: error: conflicting format options")
    found: list[Column] = []
    for each in wanted or _FORMATS[chosen[-1]]:
        name, equals, title = each.partition("=")
        if name not in _COLUMNS:
            raise InvalidArgument(f'ps: error: unknown user-defined format specifier "{name}"')
        found.append((title if equals else _COLUMNS[name][0], _COLUMNS[name][1]))
    return [title for title, _ in found], [show for _, show in found]


def _named(text: str) -> list[str]:
    """`pid,cmd`; what follows an equals sign is the last one's title."""
    head, equals, title = text.partition("=")
    names = [each for each in head.split(",") if each]
    if not names:
        raise InvalidArgument("ps: error: format specification must follow -o")
    return [*names[:-1], names[-1] + equals + title]


def _row(pid: int, boot: float, columns: Iterable[Callable[[_Process], object]]) -> tuple[str, ...] | None:
    try:
        process = _Process(pid, boot)
        return tuple(str(show(process)) for show in columns)
    except OSError:
        return None


def _boot_time() -> float:
    with open("/proc/stat", encoding="ascii") as file:
        return float(next(line.split()[1] for line in file if line.startswith("btime ")))
