"""The command line: runc's commands and options, as a table, and what reads it.

argparse would cost a fifth of the time in which a container is made. Options are `--name VALUE`, `--name=VALUE`,
`-n VALUE` and, as runc takes them, `-name`; they may stand on either side of the arguments, but for `exec`, whose
arguments are a command.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from sampan.errors import InvalidArgument


class Option(msgspec.Struct, frozen=True):
    """`value` is its name in the help, empty for a switch. `many`: it may be given more than once."""

    name: str
    letter: str
    value: str
    help: str
    many: bool = False


class Command(msgspec.Struct, frozen=True):
    """`arguments` are as the help shows them; `least` and `most` say how many there may be."""

    help: str
    arguments: str
    least: int
    most: int
    options: tuple[Option, ...] = ()
    whole: bool = False
    """Everything from the first argument on is an argument."""


_MANY = 1 << 30
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_BUNDLE = Option("bundle", "b", "DIR", "the bundle's directory (default: the current one)")
_CONSOLE = Option("console-socket", "", "SOCKET", "a unix socket that is sent the terminal's master descriptor")
_PID_FILE = Option("pid-file", "", "FILE", "write the process's id to this file")
_DETACH = Option("detach", "d", "", "return when the process runs")
_PRESERVE = Option("preserve-fds", "", "N", "pass on N descriptors, from 3 on ($LISTEN_FDS are passed on besides)")
_MAKING = (
    _BUNDLE, _CONSOLE, _PID_FILE, _PRESERVE,
    Option("no-pivot", "", "", "change the root without pivot_root(2), where it lies in a RAM file system"),
    Option("no-new-keyring", "", "", "stay in the caller's session keyring"),
)  # fmt: skip
_FORMAT = Option("format", "f", "FORMAT", "table or json (default: table)")
_ID = "ID"

GLOBAL = (
    Option("root", "", "DIR", "where the state of containers is kept; it should be in RAM"),
    Option("log", "", "FILE", "write errors and warnings to this file"),
    Option("log-format", "", "FORMAT", "text or json (default: text)"),
    Option("debug", "", "", "say more in the log"),
    Option("systemd-cgroup", "", "", "have systemd make the cgroup; cgroupsPath is slice:prefix:name"),
    Option("rootless", "", "BOOL", "bear with cgroups that can't be made: true, false or auto (default: auto)"),
    Option("version", "v", "", "print the version"),
    Option("help", "h", "", "print this"),
)

COMMANDS = {
    "create": Command("make a container, up to its program", _ID, 1, 1, _MAKING),
    "start": Command("run the program of a created container", _ID, 1, 1),
    "run": Command(
        "create and start a container", _ID, 1, 1,
        (
            *_MAKING, _DETACH, Option("keep", "", "", "do not delete the container when it has ended"),
            Option("no-subreaper", "", "", "leave orphaned processes to somebody else"),
        ),
    ),
    "state": Command("print a container's state", _ID, 1, 1),
    "kill": Command(
        "send a signal to a container's first process", "ID [SIGNAL]", 1, 2,
        (Option("all", "a", "", "send it to all processes"),),
    ),
    "delete": Command(
        "remove a container", _ID, 1, 1, (Option("force", "f", "", "kill it first; no error where there is none"),)
    ),
    "exec": Command(
        "run one more process in a container", "ID COMMAND [ARG…]", 1, _MANY,
        (
            Option("process", "p", "FILE", "the process as JSON, instead of a command"), _CONSOLE, _PID_FILE, _DETACH,
            _PRESERVE, Option("tty", "t", "", "give it a terminal"), Option("cwd", "", "DIR", "working directory"),
            Option("env", "e", "NAME=VALUE", "set an environment variable", True),
            Option("user", "u", "UID[:GID]", "user and group"),
            Option("additional-gids", "g", "GID", "one more group", True),
            Option("cap", "c", "CAPABILITY", "one more capability", True),
            Option("no-new-privs", "", "", "never gain privileges"),
            Option("apparmor", "", "PROFILE", "AppArmor profile"),
            Option("process-label", "", "LABEL", "SELinux label"),
            Option("cgroup", "", "PATH", "refused: a group below the container's"),
            Option("ignore-paused", "", "", "wait for a paused container instead of refusing it"),
        ),
        whole=True,
    ),
    "ps": Command("list a container's processes", "ID [PS-OPTION…]", 1, _MANY, (_FORMAT,), whole=True),
    "list": Command(
        "list containers", "", 0, 0, (_FORMAT, Option("quiet", "q", "", "print their ids only"))
    ),
    "pause": Command("freeze all processes of a container", _ID, 1, 1),
    "resume": Command("thaw them", _ID, 1, 1),
    "update": Command(
        "change a container's limits", _ID, 1, 1,
        (
            Option("resources", "r", "FILE", "read them as JSON from this file, or from standard input if it is -"),
            Option("memory", "", "BYTES", "memory limit"),
            Option("memory-reservation", "", "BYTES", "soft limit of memory"),
            Option("memory-swap", "", "BYTES", "memory and swap together; -1: no limit"),
            Option("cpu-period", "", "USEC", "period of the CPU quota"),
            Option("cpu-quota", "", "USEC", "CPU time in each period"),
            Option("cpu-burst", "", "USEC", "CPU time that may be saved up"),
            Option("cpu-share", "", "WEIGHT", "CPU time in relation to others"),
            Option("cpu-rt-period", "", "USEC", "period of the real-time runtime"),
            Option("cpu-rt-runtime", "", "USEC", "real-time CPU time in each period"),
            Option("cpu-idle", "", "0|1", "run only when nothing else wants to"),
            Option("cpuset-cpus", "", "LIST", "CPUs to run on"),
            Option("cpuset-mems", "", "LIST", "memory nodes to use"),
            Option("blkio-weight", "", "WEIGHT", "block I/O in relation to others, 10 to 1000"),
            Option("pids-limit", "", "N", "most processes; -1: no limit"),
            Option("l3-cache-schema", "", "SCHEMA", "refused: Intel RDT"),
            Option("mem-bw-schema", "", "SCHEMA", "refused: Intel RDT"),
        ),
    ),
    "events": Command(
        "print a container's counters, and when it runs out of memory", _ID, 1, 1,
        (
            Option("interval", "", "DURATION", "between two counts (default: 5s)"),
            Option("stats", "", "", "print the counters once"),
        ),
    ),
    "spec": Command(
        "write an example config.json", "", 0, 0,
        (_BUNDLE, Option("rootless", "", "", "for a container of an ordinary user")),
    ),
    "features": Command("print what this runtime can do, as JSON", "", 0, 0),
    "checkpoint": Command("refused: checkpoint and restore", "ID", 0, _MANY, whole=True),
    "restore": Command("refused: checkpoint and restore", "ID", 0, _MANY, whole=True),
}  # fmt: skip


class Words:
    """A command line, read: the options that were given, by name, and the arguments."""

    def __init__(self) -> None:
        self.given: dict[str, list[str]] = {}
        self.arguments: list[str] = []

    def on(self, name: str) -> bool:
        """Whether the switch was given, and not as `--name=false`."""
        return self.text(name, "false").lower() in ("true", "1", "t", "")

    def text(self, name: str, default: str = "") -> str:
        """The option's last value."""
        return self.given.get(name, [default])[-1]

    def many(self, name: str) -> list[str]:
        """All of its values."""
        return self.given.get(name, [])

    def number(self, name: str, default: int = 0) -> int:
        """Raises InvalidArgument."""
        text = self.text(name, "")
        if not text:
            return default
        if not text.removeprefix("-").isascii() or not text.removeprefix("-").isdigit() or len(text) > 20:
            raise InvalidArgument(f"invalid value {text!r} for --{name}: not a number")
        return int(text)

    def size(self, name: str) -> int | None:
        """Bytes: a number, or one with a unit, as in `64m` and `1.5GiB`; the units are powers of 1024. None if it was
        not given. Raises InvalidArgument."""
        text = self.text(name)
        size = _size(text) if text else None
        if text and size is None:
            raise InvalidArgument(f"invalid size {text!r} for --{name}")
        return size


def _size(text: str) -> int | None:
    number = text.lower().removesuffix("b").removesuffix("i")
    factor = _UNITS.get(number[-1:], 1)
    try:
        size = float(number[:-1] if factor > 1 else number)
    except ValueError:
        return None
    # What is larger is no limit of anything, and inexact.
    return int(size * factor) if size == -1 or 0 <= size * factor < 1 << 60 else None


def read(words: Sequence[str], options: Iterable[Option], whole: bool) -> tuple[Words, list[str]]:
    """The words before the first argument (all words, unless `whole`), and those that are left.

    Raises InvalidArgument for an option that is not one.
    """
    by_name = {option.name: option for option in options} | {option.letter: option for option in options}
    by_name.pop("", None)
    found = Words()
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            found.arguments += words[at:]
            break
        if not word.startswith("-") or word == "-":
            found.arguments.append(word)
            if whole:
                return found, list(words[at:])
            continue
        name, separator, value = word.lstrip("-").partition("=")
        option = by_name.get(name)
        if option is None or word.startswith("---"):
            raise InvalidArgument(f"flag provided but not defined: {word.partition('=')[0]}")
        if not separator:
            if not option.value:
                value = "true"
            elif at < len(words):
                value = words[at]
                at += 1
            else:
                raise InvalidArgument(f"flag needs an argument: {word}")
        found.given.setdefault(option.name, []).append(value)
    return found, []


def usage(name: str = "") -> str:
    """The help of a command, or of all."""
    command = COMMANDS.get(name)
    if command is None:
        lines = ["usage: sampan-runtime [OPTION…] COMMAND [OPTION…] [ARGUMENT…]", "", "commands:"]
        lines += [f"  {each:<12}{COMMANDS[each].help}" for each in COMMANDS]
        return "\n".join([*lines, "", "options:", *_lines(GLOBAL)])
    lines = [f"usage: sampan-runtime {name} [OPTION…] {command.arguments}".rstrip(), "", command.help]
    return "\n".join([*lines, *(["", "options:", *_lines(command.options)] if command.options else [])])


def _lines(options: Iterable[Option]) -> list[str]:
    shown = []
    for option in options:
        letter = f"-{option.letter}, " if option.letter else ""
        shown.append(f"  {f'{letter}--{option.name} {option.value}'.rstrip():<34} {option.help}")
    return shown
