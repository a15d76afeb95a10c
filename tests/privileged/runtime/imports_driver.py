"""Runs containers as a shim does, and tells what their processes import between their birth and their execve.

python -I -S imports_driver.py PATHS: reads cases from standard input, writes what came of them. It imports what the
spawner imports and no more, so that nothing is there by chance.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # The test that reads its answers imports the types, and must lose no module.
    sys.path[:0] = sys.argv[1].split(":")

    from sampan.linux.lean import leave_out

    leave_out()

import mmap
import os

import msgspec

from sampan.errors import SampanError
from sampan.oci.runtime import Process, Spec
from sampan.runtime.container import Container, Stdio
from sampan.runtime.newborn import bear, rehearse
from sampan.runtime.plan import Options
from sampan.shim import spawner  # noqa: F401 - what a shim has imported


class Case(msgspec.Struct, kw_only=True):
    """`run`: what the container runs; `exec`: one more process in it. `newborn`: into one that was forked ahead;
    `detached`: started by way of the state directory, as by the runtime's command."""

    name: str
    spec: Spec
    exec: Process | None = None
    newborn: bool = False
    detached: bool = False


class Cases(msgspec.Struct):
    id: str
    bundle: str
    state_root: str
    cases: list[Case]


class Outcome(msgspec.Struct):
    """`imported`: the modules. `error`: of a container or an exec that did not start."""

    name: str
    imported: list[str]
    error: str = ""


_memory = mmap.mmap(-1, 1 << 16)
"""Shared with the children."""
_driver = os.getpid()


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    """An import of what is there already is no event."""
    if event == "import" and os.getpid() != _driver:
        name = f"{arguments[0]}\n".encode()
        at = _memory.find(b"\0")
        _memory[at : at + len(name)] = name


def _imported() -> list[str]:
    names = _memory[: _memory.find(b"\0")].decode().split()
    _memory[:] = bytes(len(_memory))
    return names


def _control() -> Outcome:
    """That an import is seen at all."""
    pid = os.fork()
    if pid == 0:
        import colorsys  # noqa: F401

        os._exit(0)
    os.waitpid(pid, 0)
    return Outcome("control", _imported())


def _wait(container: Container, pid: int, master: int | None) -> None:
    if master is not None:
        try:
            while os.read(master, 4096):
                pass
        except OSError:  # The terminal is hung up at its last process's end.
            pass
        os.close(master)
    os.waitpid(pid, 0)


def _play_ahead(case: Case, where: Cases) -> Outcome:
    """As a shim's maker does: what it bears is this process's child."""
    global _driver
    pid = os.fork()
    if pid == 0:
        _driver = os.getpid()
        container = Container.create(
            where.id, where.bundle, where.state_root, Stdio(), spec=case.spec, newborn=bear()
        )  # fmt: skip
        container.start()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    container = Container.load(where.id, where.state_root)
    os.waitpid(container.pid, 0)
    container.delete()
    return Outcome(case.name, _imported(), "" if status == 0 else "it did not start")


def _play(case: Case, where: Cases) -> Outcome:
    if case.newborn:
        return _play_ahead(case, where)
    outcome = Outcome(case.name, [])
    try:
        container = Container.create(
            where.id, where.bundle, where.state_root, Stdio(), spec=case.spec,
            content=msgspec.json.encode(case.spec), options=Options(detached=case.detached),
        )  # fmt: skip
    except SampanError as error:
        outcome.error = error.message
        outcome.imported = _imported()
        return outcome
    try:
        if case.detached:
            container.release()
            Container.load(where.id, where.state_root).start()
        else:
            container.start()
        if case.exec is not None:
            ran = container.exec(case.exec, Stdio())
            os.close(ran.pidfd)
            _wait(container, ran.pid, ran.master)
            container.kill(9)
    except SampanError as error:
        outcome.error = error.message
        container.kill(9)
    _wait(container, container.pid, container.master)
    container.delete()
    outcome.imported = _imported()
    return outcome


def main() -> None:
    with open(0, "rb") as stream:
        where = msgspec.json.decode(stream.read(), type=Cases)
    rehearse()
    sys.addaudithook(_watch)
    outcomes = [_control(), *(_play(case, where) for case in where.cases)]
    os.write(1, msgspec.json.encode(outcomes))


if __name__ == "__main__":
    main()
