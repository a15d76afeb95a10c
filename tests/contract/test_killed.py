"""The runtime itself killed at any instant, and many of it at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.contract.box import Box, wait_for

INSTANTS = 6

STEPS = {
    "create": ("mkdir", "rename", "clone3", "sendmsg", "recvmsg"),
    "start": ("connect", "sendmsg", "recvmsg", "unlink"),
    "delete": ("pidfd_send_signal", "rmdir", "unlink"),
}
"""System calls that change something, or at which another process comes in."""


def _kill_at_instants(box: Box, prepare: Callable[[], object], *line: str) -> Iterator[bool]:
    """Make the call, which is killed after ever longer times; each time whether that was before its end."""
    whole = 0.0
    for number in range(-1, INSTANTS):
        prepare()
        before = time.monotonic()
        running = box.spawn(*line)
        if number < 0:
            running.wait()
            whole = time.monotonic() - before
        else:
            time.sleep(whole * number / INSTANTS)
            running.process.kill()
        yield running.wait().status == -signal.SIGKILL


def _removed(box: Box) -> None:
    box.call("delete", "--force", box.id).succeeded()
    if box.runtime.differs("killed-leaves"):
        box.sweep()
        shutil.rmtree(box.state_root / box.id, ignore_errors=True)
    assert box.nothing_left()


def test_create_killed_at_any_instant(box: Box) -> None:
    """Then delete --force leaves nothing, and the id is free."""
    killed = 0
    for each in _kill_at_instants(box, lambda: None, "create", box.id):
        killed += each
        _removed(box)
    assert killed
    box.create()


def test_start_killed_at_any_instant(box: Box) -> None:
    killed = 0
    for each in _kill_at_instants(box, box.create, "start", box.id):
        killed += each
        _removed(box)
    assert killed


def test_delete_killed_at_any_instant(box: Box) -> None:
    killed = 0
    for each in _kill_at_instants(box, lambda: box.end(box.launch()), "delete", box.id):
        killed += each
        _removed(box)
    assert killed


@pytest.mark.requires("program:strace")
@pytest.mark.parametrize("command", STEPS)
def test_killed_at_every_step(box: Box, command: str) -> None:
    """By the kernel's tracing, so that no step is missed by chance: at the first of its system calls of a kind, the
    second, and so on in growing steps, as long as there are so many."""
    if box.runtime.differs("killed-leaves"):
        return
    preparations: dict[str, Callable[[], object]] = {"start": box.create, "delete": box.launch}
    prepare = preparations.get(command, lambda: None)
    force = ["--force"] if command == "delete" else []
    killed = 0
    for call in STEPS[command]:
        for number in (1, 2, 4, 8):
            prepare()
            inject = f"inject={call}:signal=KILL:when={number}"
            strace = ("strace", "-qq", "-o", f"{box.directory}/trace", "-e", f"trace={call}", "-e", inject)
            died = box.spawn(command, *force, box.id, prefix=strace).wait().status == -signal.SIGKILL
            killed += died
            _removed(box)
            if not died:
                break
    assert killed >= len(STEPS[command])


def test_exec_killed_at_any_instant(box: Box) -> None:
    """The container does not notice."""
    pid = box.launch()
    assert sum(_kill_at_instants(box, lambda: None, "exec", box.id, "sleep", "0.01"))
    assert box.call("exec", box.id, "echo", "well").succeeded().out == "well\n"
    assert box.state() | {"status": "running", "pid": pid} == box.state()


def test_run_killed(box: Box) -> None:
    """The container is as a detached one then."""
    box.configure("sh", "-c", "echo $$ >/host/started; exec sleep 1000")
    running = box.spawn("run", box.id)
    wait_for((box.directory / "started").exists)
    wait_for(lambda: box.call("state", box.id).status == 0)  # crun writes it down when the program runs already.
    running.process.kill()
    running.wait()
    pid = box.state()["pid"]
    assert box.status == "running"
    assert box.end(pid) == -signal.SIGKILL
    box.call("delete", box.id).succeeded()
    assert box.nothing_left()


def test_two_creates_of_one_id(box: Box) -> None:
    """Exactly one wins, and what the other does is not seen by it."""
    for _ in range(5):
        both = [box.spawn("create", box.id) for _ in range(2)]
        ended = sorted((each.wait() for each in both), key=lambda each: each.status)
        if box.runtime.differs("create-race"):
            box.sweep()
            shutil.rmtree(box.state_root / box.id, ignore_errors=True)
            continue
        assert [each.status for each in ended] == [0, 1], ended
        assert "exist" in ended[1].message or box.runtime.differs("create-race-words")
        assert box.status == "created"
        pid = box.state()["pid"]
        box.start()
        assert box.call("exec", box.id, "echo", "well").succeeded().out == "well\n"
        assert box.end(pid) == -signal.SIGKILL
        box.call("delete", box.id).succeeded()
        assert box.nothing_left()


def test_twenty_containers_at_once(box: Box) -> None:
    running = []
    for number in range(20):
        bundle = box.directory / f"bundle{number}"
        bundle.mkdir()
        document = box.configuration("sh", "-c", f"echo {number}; exit {number}", root={"path": str(box.rootfs)})
        document["linux"]["cgroupsPath"] = f"{box.group}/c{number}"
        (bundle / "config.json").write_text(json.dumps(document))
        running.append(box.spawn("run", "--bundle", str(bundle), f"c{number}"))
    ended = [each.wait() for each in running]
    assert [(each.status, each.out) for each in ended] == [(number, f"{number}\n") for number in range(20)], ended
    for number in range(20):
        assert box.nothing_left(f"c{number}")
    assert [each for each in os.listdir(box.state_root) if not each.startswith(".")] == []


def test_state_while_it_is_created(box: Box) -> None:
    """There is no container, or there is one: never half of one's state."""
    running = box.spawn("create", box.id)
    seen = set()
    while running.process.poll() is None:
        outcome = box.call("state", box.id)
        seen.add(json.loads(outcome.out)["status"] if outcome.status == 0 else outcome.status)
    running.wait().succeeded()
    assert seen <= {"creating", "created", "stopped", 1}
    assert box.status == "created"


def test_two_deletes_at_once(box: Box) -> None:
    for flags in ((), ("--force",)):
        box.end(box.launch())
        both = [box.spawn("delete", *flags, box.id) for _ in range(2)]
        statuses = sorted(each.wait().status for each in both)
        assert statuses[0] == 0
        assert statuses[1] in (0, 1)
        assert box.nothing_left()


def test_kill_and_delete_at_once(box: Box) -> None:
    pid = box.launch()
    killing, deleting = box.spawn("kill", box.id, "KILL"), box.spawn("delete", "--force", box.id)
    assert killing.wait().status in (0, 1)
    deleting.wait().succeeded()
    assert box.reap(pid) == -signal.SIGKILL
    assert box.nothing_left()
