"""`sampan-runtime`: the runtime as a command that drops in for runc, for engines and for people.

The exit status is 0, or the process's own for `run` and `exec`; 1 with one line on standard error, and in the log that
was asked for; 255 where an exec fails.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import msgspec

from sampan import __version__
from sampan.errors import Conflict, InvalidArgument, NotFound, SampanError, Unsupported
from sampan.oci.runtime import CPU, OCI_VERSION, BlockIO, LinuxResources, Memory, Pids
from sampan.runtime import log, state
from sampan.runtime.container import Container
from sampan.runtime.options import COMMANDS, GLOBAL, Words, read, usage
from sampan.runtime.signals import number_of

_ROOT = "/run/sampan-runtime"


class Failed(SampanError):
    """With an exit status of its own."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def main(words: Sequence[str]) -> int:
    """The exit status."""
    try:
        options, rest = read(words, GLOBAL, whole=True)
        if not options.arguments or options.on("help"):
            return _without_command(options)
        log.configure(options.text("log"), options.text("log-format", "text"), options.on("debug"))
        log.debug(f"sampan-runtime {__version__}: {' '.join(words)}")
        return _command(options, options.arguments[0], rest)
    except Failed as error:
        log.error(error.message)
        return error.status
    except SampanError as error:
        log.error(error.message)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        log.error(f"{place}{(error.strerror or str(error)).lower()}")
    return 1


def _without_command(options: Words) -> int:
    if options.on("version"):
        print(f"sampan-runtime version {__version__}\nspec: {OCI_VERSION}")
    else:
        print(usage())
    return 0


def _command(options: Words, name: str, rest: list[str]) -> int:
    if name in ("help", "-h"):
        print(usage(*rest[:1]))
        return 0
    command = COMMANDS.get(name)
    if command is None:
        raise InvalidArgument(f"no such command: {name}")
    if name in ("checkpoint", "restore"):
        # Whatever is asked of them, --help too: by its status podman tells whether a runtime has them.
        raise Unsupported(f"{name} is not supported")
    if {"--help", "-h"} & set(rest[: 1 if command.whole else None]):
        print(usage(name))
        return 0
    given, more = read(rest, command.options, command.whole)
    given.arguments += more
    if not command.least <= len(given.arguments) <= command.most:
        many = f"{command.least}" if command.least == command.most else f"at least {command.least}"
        raise InvalidArgument(f"{name} takes {many} argument{'s' if command.least != 1 else ''}: {command.arguments}")
    return _carry_out(name, _root(options), options, given)


def _root(options: Words) -> str:
    given = options.text("root")
    if given:
        return os.path.abspath(given)
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR")
    return f"{runtime_dir}/sampan-runtime" if os.geteuid() and runtime_dir else _ROOT


def _carry_out(name: str, root: str, options: Words, given: Words) -> int:
    arguments = given.arguments
    match name:
        case "create" | "run" | "exec":
            return _launch(name, root, options, given)
        case "state" | "list" | "ps" | "events" | "spec" | "features":
            from sampan.runtime import report

            return report.carry_out(name, root, given)
        case "delete":
            _delete(root, arguments[0], given.on("force"))
            return 0
        case "update":
            resources = _resources(given)
            container = Container.load(arguments[0], root)
            if not container.alive:
                raise Conflict(f"container not running: {container.id}")
            container.update(resources)
            return 0
    container = Container.load(arguments[0], root)
    match name:
        case "start":
            container.start()
        case "pause":
            if container.status not in ("running", "created"):
                raise Conflict(f"container not running: {container.status}")
            container.pause()
        case "resume":
            if container.status != "paused":
                raise Conflict(f"container not paused: {container.status}")
            container.resume()
        case "kill":
            container.kill(number_of(arguments[1] if len(arguments) > 1 else "TERM"), given.on("all"))
    return 0


def _launch(name: str, root: str, options: Words, given: Words) -> int:
    from sampan.runtime import launch

    try:
        return launch.carry_out(name, root, options, given)
    except (SampanError, OSError) as error:
        message = error.message if isinstance(error, SampanError) else launch.text_of(error)
        if name == "exec":
            raise Failed(f"exec failed: {message}", 255) from error
        raise Failed(f"{name} failed: {message}", 1) from error


def _delete(root: str, container_id: str, force: bool) -> None:
    try:
        container = Container.load(container_id, root)
    except NotFound:
        if not force:
            raise
        # One whose creation was killed before anything was written down has a directory, and nothing else.
        state.remove(root, container_id)
        return
    container.delete(force)


def _resources(given: Words) -> LinuxResources:
    """From the options, or from a document."""
    source = given.text("resources")
    if source:
        try:
            if source == "-":
                return msgspec.json.decode(sys.stdin.buffer.read(), type=LinuxResources)
            with open(source, "rb") as file:
                return msgspec.json.decode(file.read(), type=LinuxResources)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidArgument(f"resources: {error}") from error
    for refused in ("l3-cache-schema", "mem-bw-schema"):
        if given.text(refused):
            raise Unsupported(f"--{refused}: Intel RDT is not supported")

    def number(name: str) -> int | None:
        return given.number(name) if given.text(name) else None

    memory = Memory(
        limit=given.size("memory"), reservation=given.size("memory-reservation"), swap=given.size("memory-swap")
    )
    cpu = CPU(
        shares=number("cpu-share"), quota=number("cpu-quota"), period=number("cpu-period"), burst=number("cpu-burst"),
        realtime_period=number("cpu-rt-period"), realtime_runtime=number("cpu-rt-runtime"), idle=number("cpu-idle"),
        cpus=given.text("cpuset-cpus"), mems=given.text("cpuset-mems"),
    )  # fmt: skip
    weight, pids = number("blkio-weight"), number("pids-limit")
    return LinuxResources(
        memory=memory if memory != Memory() else None,
        cpu=cpu if cpu != CPU() else None,
        block_io=None if weight is None else BlockIO(weight=weight),
        pids=None if pids is None else Pids(limit=pids),
    )
