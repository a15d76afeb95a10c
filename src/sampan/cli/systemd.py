"""`generate systemd`, `system install` and `system uninstall`: what systemd is told of the engine and of containers.

The engine's socket is systemd's: a client that comes finds the engine, and so does the boot of the machine, for what
restart policies start. A container's unit holds a small process that waits for its end: the container itself stays with
its shim, whatever becomes of the engine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time

from sampan.cli.arguments import Parser
from sampan.cli.context import DEFAULT_SOCKET, Context
from sampan.client.client import Client, Document
from sampan.errors import Conflict, InvalidArgument, NotFound, NotModified, SampanError, Unavailable, Unsupported

UNITS = "/etc/systemd/system"
GROUP = "sampan"
SOCKET_UNIT, SERVICE_UNIT = "sampan.socket", "sampan.service"
_RUNNING = "/run/systemd/system"
_AWAY = 0.5
"""Seconds between two tries while the engine is away."""
_END_OF_ENGINE = 20.0

SOCKET_TEXT = """\
[Unit]
Description=Sampan engine's socket

[Socket]
ListenStream={socket}
SocketMode=0660
SocketUser=root
SocketGroup={group}
DirectoryMode=0711
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
"""

SERVICE_TEXT = """\
[Unit]
Description=Sampan engine
After=network-online.target nftables.service firewalld.service time-set.target
Wants=network-online.target
Requires={socket_unit}

[Service]
Type=notify
ExecStart={engine} -H fd://{options}
# After a boot there may be much to look after before it answers.
TimeoutStartSec=infinity
Restart=always
RestartSec=2
# The containers' shims are in this group, and do not depend on the engine.
KillMode=process
Delegate=yes
OOMScoreAdjust=-500
OOMPolicy=continue
LimitNOFILE=infinity
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity

[Install]
WantedBy=multi-user.target
"""

CONTAINER_TEXT = """\
# {unit}, written by `sampan generate systemd`.
[Unit]
Description=Sampan container {name}
Requires={socket_unit}
Wants=network-online.target
After=network-online.target {socket_unit} {service_unit}

[Service]
Type=notify
ExecStart={command} start --wait {name}
ExecStop={command} stop --time {timeout} {name}
Restart={restart}
# What its stop signal ends it with is no failure.
SuccessExitStatus={success}
TimeoutStartSec=infinity
TimeoutStopSec={stop_timeout}

[Install]
WantedBy=multi-user.target
"""
RESTARTS = ("no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always")


def quoted(words: list[str]) -> str:
    """A command line of a unit file (systemd.service(5), "Command lines"). Raises InvalidArgument."""
    found: list[str] = []
    for word in words:
        if not word.isprintable():
            raise InvalidArgument(f"{word!r} can't stand in a unit")
        text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
        found.append(f'"{text}"' if not word or set(" '\"\\;") & set(word) else text)
    return " ".join(found)


def own_command(context: Context, *words: str) -> list[str]:
    """This command, by the interpreter that runs it: a unit has no PATH to rely on."""
    host = ["-H", context.host] if context.host else []
    return [sys.executable, "-I", "-m", "sampan.cli", *host, *words]


# --- A container's unit -------------------------------------------------------------------------------


def container_unit(inspected: Document, command: list[str], *, restart: str, timeout: int | None) -> str:
    """The text. `timeout`: seconds until a stop kills it; None: the container's own."""
    name = inspected["Name"].removeprefix("/")
    if timeout is None:
        own = inspected["Config"].get("StopTimeout")
        timeout = 10 if own is None else own
    number = _signal_number(inspected["Config"].get("StopSignal") or "SIGTERM")
    policy = inspected["HostConfig"]["RestartPolicy"]["Name"] or "no"
    return CONTAINER_TEXT.format(
        unit=f"container-{name}.service", name=name, socket_unit=SOCKET_UNIT, service_unit=SERVICE_UNIT,
        command=quoted(command), timeout=timeout, stop_timeout=timeout + 30 if timeout >= 0 else "infinity",
        success=f"{128 + number}",
        # Who has a policy of its own is started again by its shim; two would do it twice.
        restart=restart or ("on-failure" if policy == "no" else "no"),
    )  # fmt: skip


def _signal_number(name: str) -> int:
    if name.isdigit():
        return int(name)
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    number: int = getattr(signal, full, signal.SIGTERM)
    return int(number)


def generate(words: list[str], context: Context) -> int:
    made = Parser("generate systemd", "[OPTIONS] CONTAINER", "Write a systemd unit for a container", 1)
    made.add_argument("-f", "--files", action="store_true", help="into a file of this directory, whose name is printed")
    made.add_argument("--restart-policy", default="", choices=("", *RESTARTS), help="systemd's Restart=")
    made.add_argument("-t", "--time", type=int, help="seconds that a stop waits before it kills")
    made.add_argument("container")
    flags = made.parse_args(words)
    inspected = context.client.call("GET", f"/containers/{flags.container}/json")
    if inspected["HostConfig"]["AutoRemove"]:
        raise Conflict(f"container {flags.container} is removed when it ends: a unit could start it only once")
    text = container_unit(inspected, own_command(context), restart=flags.restart_policy, timeout=flags.time)
    if not flags.files:
        print(text, end="")
        return 0
    path = os.path.abspath(f"container-{inspected['Name'].removeprefix('/')}.service")
    _write(path, text)
    print(path)
    return 0


def tell_systemd(state: str) -> None:
    """sd_notify(3), if somebody listens."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path.startswith(("/", "@")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)


def start_and_wait(client: Client, container: str) -> int:
    """Start it, if it does not run, and stay until it has ended for good. Its exit status. An engine that is away
    meanwhile is waited for."""
    with contextlib.suppress(NotModified):
        client.call("POST", f"/containers/{container}/start")
    tell_systemd("READY=1")
    while True:
        try:
            client.call("POST", f"/containers/{container}/wait")
            state = client.call("GET", f"/containers/{container}/json")["State"]
        except (Unavailable, OSError):
            client.close()
            time.sleep(_AWAY)
            continue
        if not state["Running"] and not state["Restarting"]:
            status: int = state["ExitCode"]
            return status


# --- The engine's units -------------------------------------------------------------------------------


def engine_units(socket_path: str, group: str, options: list[str]) -> dict[str, str]:
    """By their names."""
    engine = quoted([sys.executable, "-I", "-m", "sampan.engine"])
    more = f" {quoted(options)}" if options else ""
    return {
        SOCKET_UNIT: SOCKET_TEXT.format(socket=quoted([socket_path]), group=group),
        SERVICE_UNIT: SERVICE_TEXT.format(engine=engine, options=more, socket_unit=SOCKET_UNIT),
    }


def install(words: list[str], context: Context) -> int:
    made = Parser("system install", "[OPTIONS] [-- DAEMON-OPTIONS]", "Have systemd run the engine", 1)
    made.add_argument("--group", default=GROUP, help=f"who may use the engine; made if it is not there ({GROUP})")
    made.add_argument("--user", action="append", default=[], help="put this user into the group: who is, is root here")
    made.add_argument("--socket", default=DEFAULT_SOCKET, help=f"path of the socket ({DEFAULT_SOCKET})")
    made.add_argument("--no-boot", action="store_true", help="start it when it is asked for, not with the machine")
    made.add_argument("options", nargs="*", help="options of `sampan daemon`")
    flags = made.parse_args(words)
    _check_machine("install")
    if not os.path.isabs(flags.socket):
        raise InvalidArgument(f"--socket must be an absolute path: {flags.socket}")
    for user in flags.user:
        _check_user(user)
    _check_options(flags.options)
    if present := _present():  # Installed anew, perhaps with other options.
        _run("systemctl", "stop", *present)
    _end_engine()
    _run("groupadd", "--system", "--force", flags.group)
    for user in flags.user:
        _run("usermod", "--append", "--groups", flags.group, user)
    for name, text in engine_units(flags.socket, flags.group, flags.options).items():
        _write(f"{UNITS}/{name}", text)
    _run("systemctl", "daemon-reload")
    _run("systemctl", "enable", "--now", SOCKET_UNIT)
    if not flags.no_boot:
        _run("systemctl", "enable", "--now", SERVICE_UNIT)
    print(f"{flags.socket} answers to root and to the group {flags.group}")
    return 0


def uninstall(words: list[str], context: Context) -> int:
    made = Parser("system uninstall", "[OPTIONS]", "Undo `system install`; containers and images stay", 1)
    made.add_argument("--group", default=GROUP, help=f"remove this group, if nobody is in it ({GROUP})")
    flags = made.parse_args(words)
    _check_machine("uninstall")
    found = _present()
    if not found:
        raise NotFound(f"no {SOCKET_UNIT} and {SERVICE_UNIT} in {UNITS}")
    _run("systemctl", "disable", "--now", *found)
    for name in found:
        os.unlink(f"{UNITS}/{name}")
    _run("systemctl", "daemon-reload")
    import grp

    try:
        empty = not grp.getgrnam(flags.group).gr_mem
    except KeyError:
        return 0
    if empty:
        _run("groupdel", flags.group)
    return 0


def _present() -> list[str]:
    """The units of ours that are there."""
    return [name for name in (SERVICE_UNIT, SOCKET_UNIT) if os.path.exists(f"{UNITS}/{name}")]


def _check_machine(what: str) -> None:
    if os.geteuid() != 0:
        raise InvalidArgument(f"system {what} needs to be run as root")
    if not os.path.isdir(_RUNNING):
        raise Unsupported(f"system {what}: systemd does not run this machine")


def _check_user(user: str) -> None:
    import pwd

    try:
        pwd.getpwnam(user)
    except KeyError:
        raise NotFound(f"user {user} not found") from None


def _check_options(options: list[str]) -> None:
    """A wrong one is told now, and not by a service that does not start."""
    if any(each in ("-H", "--host") or each.startswith(("--host=", "-H")) for each in options):
        raise InvalidArgument("the service listens on the socket that --socket names; others go into daemon.json")
    import subprocess

    check = "import sys; from sampan.engine.config import load; load(sys.argv[1:])"
    done = subprocess.run([sys.executable, "-I", "-c", check, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InvalidArgument(done.stderr.strip().rpartition("\n")[2].partition(": ")[2] or done.stderr.strip())


def _end_engine() -> None:
    """One that a command has started on demand has the data root and the socket: it makes room."""
    try:
        with open(f"{os.path.dirname(DEFAULT_SOCKET)}/sampan.pid") as file:
            pid = int(file.read())
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
        if b"sampan.engine" not in words:
            return
        if b"--on-demand" not in words:
            raise Conflict(f"an engine is running (process {pid}), and was not started by a client: end it first")
        os.kill(pid, signal.SIGTERM)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return
    deadline = time.monotonic() + _END_OF_ENGINE
    while os.path.exists(f"/proc/{pid}/fd/0"):
        if time.monotonic() > deadline:
            raise Unavailable(f"the engine (process {pid}) does not end")
        time.sleep(0.05)


def _write(path: str, text: str) -> None:
    """Whole, or not at all. Raises Unavailable."""
    try:
        with open(f"{path}.new", "w") as file:
            file.write(text)
        os.rename(f"{path}.new", path)
    except OSError as error:
        raise Unavailable(f"{path}: {(error.strerror or '').lower()}") from None


def _run(*command: str) -> None:
    """Raises Unavailable with what the command says."""
    import subprocess

    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Unavailable(f"{command[0]}: command not found") from None
    if done.returncode:
        raise SampanError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
