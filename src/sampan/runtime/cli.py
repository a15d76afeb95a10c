"""`sampan-runtime`: the runtime as a command, in runc's words. `create` and `start` from two processes come later."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys

import msgspec

from sampan import __version__
from sampan.errors import InvalidArgument, SampanError, Unsupported
from sampan.oci.runtime import State
from sampan.runtime import state
from sampan.runtime.container import Container, Stdio, load_spec
from sampan.runtime.example import EXAMPLE, OCI_VERSION


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sampan-runtime", description=__doc__)
    parser.add_argument("--root", default="/run/sampan-runtime", help="where the state is kept")
    parser.add_argument(
        "--systemd-cgroup", action="store_true", help="cgroupsPath is slice:prefix:name, made by systemd"
    )
    parser.add_argument("--version", action="version", version=f"sampan-runtime {__version__}\nspec: {OCI_VERSION}")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="create and run a container, and end as it ends")
    run.add_argument("-b", "--bundle", default=".")
    run.add_argument("id")
    execute = commands.add_parser("exec", help="run one more process in a container")
    execute.add_argument("id")
    execute.add_argument("words", nargs=argparse.REMAINDER)
    for name in ("state", "ps", "pause", "resume"):
        commands.add_parser(name).add_argument("id")
    kill = commands.add_parser("kill", help="send a signal")
    kill.add_argument("-a", "--all", action="store_true")
    kill.add_argument("id")
    kill.add_argument("signal", nargs="?", default="TERM")
    delete = commands.add_parser("delete", help="remove a container that has ended")
    delete.add_argument("-f", "--force", action="store_true")
    delete.add_argument("id")
    commands.add_parser("list", help="list containers")
    commands.add_parser("spec", help="write an example config.json")
    for name in ("create", "start", "update", "events", "checkpoint", "restore"):
        commands.add_parser(name).add_argument("words", nargs=argparse.REMAINDER)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The exit status: the container's own for `run` and `exec`, 1 with one line for an error."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except SampanError as error:
        print(f"sampan-runtime: {error.message}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    root = options.root
    match options.command:
        case "run":
            return _run_container(root, options.id, os.path.abspath(options.bundle), options.systemd_cgroup)
        case "exec":
            return _exec(root, options.id, options.words)
        case "state":
            print(msgspec.json.format(msgspec.json.encode(_state(root, options.id))).decode())
        case "list":
            for container_id in sorted(os.listdir(root)) if os.path.isdir(root) else ():
                if not container_id.startswith("."):
                    shown = _state(root, container_id)
                    print(f"{shown.id}\t{shown.pid}\t{shown.status}\t{shown.bundle}")
        case "ps":
            print("\n".join(map(str, Container.load(options.id, root).pids())))
        case "pause":
            Container.load(options.id, root).pause()
        case "resume":
            Container.load(options.id, root).resume()
        case "kill":
            Container.load(options.id, root).kill(_signal(options.signal), options.all)
        case "delete":
            _delete(root, options.id, options.force)
        case "spec":
            _write_spec()
        case _:
            raise Unsupported(f"{options.command} is not supported yet")
    return 0


def _run_container(root: str, container_id: str, bundle: str, systemd: bool) -> int:
    container = Container.create(container_id, bundle, root, Stdio(0, 1, 2), systemd=systemd)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda number, _: container.kill(number))
    try:
        container.start()
        status = os.waitstatus_to_exitcode(os.waitpid(container.pid, 0)[1])
    finally:
        container.delete(force=True)
    return status if status >= 0 else 128 - status


def _exec(root: str, container_id: str, words: list[str]) -> int:
    if not words:
        raise InvalidArgument("exec: a command is needed")
    container = Container.load(container_id, root)
    own = load_spec(container.bundle).process
    assert own is not None
    process = container.exec(msgspec.structs.replace(own, args=tuple(words), terminal=False), Stdio(0, 1, 2))
    status = os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])
    return status if status >= 0 else 128 - status


def _state(root: str, container_id: str) -> State:
    record = state.load(root, container_id)
    alive = state.start_time(record.pid) == record.start_time
    paused = alive and Container.load(container_id, root).paused
    return State(
        oci_version=OCI_VERSION, id=record.id, bundle=record.bundle, pid=record.pid if alive else 0,
        status="paused" if paused else "running" if alive else "stopped",
    )  # fmt: skip


def _signal(text: str) -> int:
    name = text.upper().removeprefix("SIG")
    if name.isdigit():
        return int(name)
    try:
        return signal.Signals[f"SIG{name}"].value
    except KeyError:
        raise InvalidArgument(f"unknown signal {text!r}") from None


def _delete(root: str, container_id: str, force: bool) -> None:
    with contextlib.ExitStack() as stack:
        if force:
            stack.enter_context(contextlib.suppress(SampanError))
        Container.load(container_id, root).delete(force)


def _write_spec() -> None:
    try:
        with open("config.json", "xb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(EXAMPLE), indent=4) + b"\n")
    except FileExistsError:
        raise InvalidArgument("file config.json exists. Remove it first") from None


if __name__ == "__main__":
    sys.exit(main())
