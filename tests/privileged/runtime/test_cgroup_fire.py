"""Freezing, signalling, killing and deleting groups that do not hold still. With either cgroup version."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sampan.errors import NotFound
from sampan.linux import namespaces
from sampan.linux.cgroup import Cgroup, hierarchies
from sampan.linux.cgroup import group as group_module
from sampan.oci.runtime import LinuxResources, Pids
from sampan.runtime.container import Container, Stdio
from tests.privileged.runtime.test_container import Box

pytestmark = pytest.mark.requires("root")

BASE = f"/sampan-fire-{os.getpid()}"
ROOT = hierarchies().root("devices") or ""
"""The tree that tells who is in a group."""


@pytest.fixture
def group() -> Iterator[Cgroup]:
    made = Cgroup(f"{BASE}/group")
    made.create()
    made.apply(LinuxResources(pids=Pids(limit=200)))
    yield made
    base = Cgroup(BASE)
    base.kill()
    base.delete()
    assert not base.exists()


def below(path: str) -> Cgroup:
    """A group that the container makes: in one tree, with no controllers."""
    os.mkdir(f"{ROOT}{BASE}/group/{path}")
    return Cgroup(f"{BASE}/group/{path}", {ROOT: f"{BASE}/group/{path}"})


def started(group: Cgroup, work: Callable[[], object]) -> int:
    """A process in the group that does the work, for ever."""
    reading, writing = os.pipe()
    born_in = group.open()
    pid, pidfd = namespaces.clone(0, born_in)
    if pid == 0:
        with contextlib.suppress(BaseException):
            if born_in is None:
                group.join()
            os.write(writing, b".")
            while True:
                work()
        os._exit(1)
    os.close(pidfd)
    os.close(writing)
    if born_in is not None:
        os.close(born_in)
    assert os.read(reading, 1) == b"."
    os.close(reading)
    return pid


def reap(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


_BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""


def bomb() -> None:
    """Fork as fast as it goes; those that are born do the same. In a small interpreter: the tests' is large, and the
    longer a fork takes, the more processes are on their way into a group that is to hold still."""
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", _BOMB])


def grown(group: Cgroup, to: int) -> None:
    deadline = time.monotonic() + 60
    while len(group.pids()) < to:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_fork_bomb_is_killed(group: Cgroup, frozen: bool) -> None:
    pid = started(group, bomb)
    grown(group, 150)
    if frozen:
        group.freeze(True)
        assert group.frozen()
    group.kill()
    assert group.pids() == []
    group.delete()
    assert not group.exists()
    reap(pid)


def test_a_group_that_another_removes_meanwhile(group: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two deletes of one container: the one that comes late must not wait for what is no more."""
    really = group_module._freezes

    def removed_first(directory: str, *, unified: bool) -> bool:
        group.delete()
        return really(directory, unified=unified)

    monkeypatch.setattr(Cgroup, "_kill_at_once", lambda _: False)
    monkeypatch.setattr(group_module, "_freezes", removed_first)
    begun = time.monotonic()
    group.signal(signal.SIGKILL)
    assert time.monotonic() - begun < 4
    assert not group.exists()


def test_a_fork_bomb_is_killed_without_the_kernels_kill(group: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on v1, and on v2 before Linux 5.14."""
    monkeypatch.setattr(Cgroup, "_kill_at_once", lambda _: False)
    pid = started(group, bomb)
    grown(group, 150)
    group.kill()
    assert group.pids() == []
    reap(pid)


def test_a_fork_bomb_is_stopped_and_goes_on(group: Cgroup) -> None:
    pid = started(group, bomb)
    grown(group, 150)
    group.freeze(True)
    before = group.pids()
    time.sleep(0.05)
    assert group.pids() == before
    group.freeze(False)
    assert not group.frozen()
    group.kill()
    reap(pid)


def test_a_signal_reaches_those_that_are_being_born(group: Cgroup) -> None:
    pid = started(group, bomb)
    grown(group, 150)
    group.signal(signal.SIGTERM)
    assert reap(pid) == -signal.SIGTERM
    deadline = time.monotonic() + 20
    while group.pids():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_signal_to_a_frozen_group_waits(group: Cgroup) -> None:
    """One that is handled: v2 lets those that kill through."""

    def ready() -> None:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
        signal.pause()

    pid = started(group, ready)
    time.sleep(0.3)
    group.freeze(True)
    group.signal(signal.SIGTERM)
    assert group.frozen()
    assert group.pids() == [pid]
    group.freeze(False)
    assert reap(pid) == 7


def test_a_kill_of_a_frozen_group_does_not(group: Cgroup) -> None:
    pid = started(group, signal.pause)
    group.freeze(True)
    group.signal(signal.SIGKILL)
    assert reap(pid) == -signal.SIGKILL


def test_groups_below_that_the_container_made(group: Cgroup) -> None:
    pids = [started(below(path), signal.pause) for path in ("a", "a/b", "a/b/c", "d")]
    assert group.pids() == sorted(pids)
    group.kill()
    group.delete()
    assert not group.exists()
    assert [reap(pid) for pid in pids] == [-signal.SIGKILL] * 4


def test_groups_below_that_are_deeper_than_a_path_is_long(group: Cgroup) -> None:
    deepest = os.open(f"{ROOT}{group.path}", os.O_RDONLY)
    for _ in range(60):
        os.mkdir("n" * 100, dir_fd=deepest)
        at = os.open("n" * 100, os.O_RDONLY, dir_fd=deepest)
        os.close(deepest)
        deepest = at
    pid, pidfd = namespaces.clone(0, None)
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.write(os.open("cgroup.procs", os.O_WRONLY, dir_fd=deepest), b"0")
            while True:
                signal.pause()
        os._exit(1)
    os.close(pidfd)
    os.close(deepest)
    grown(group, 1)
    assert group.pids() == [pid]
    group.kill()
    assert reap(pid) == -signal.SIGKILL
    group.delete()
    assert not group.exists()


def test_many_groups_below(group: Cgroup) -> None:
    for number in range(300):
        below(str(number))
        below(f"{number}/x")
    group.delete()
    assert not group.exists()


def test_a_group_that_somebody_is_in_is_not_deleted_and_says_so(group: Cgroup) -> None:
    pid = started(group, signal.pause)
    with pytest.raises(OSError, match=rf"processes in it: {pid}"):
        group.delete()
    group.kill()
    reap(pid)


def test_two_deletes_at_once(group: Cgroup) -> None:
    pids = [started(below(path), signal.pause) for path in ("a", "a/b", "c")]
    failed: list[BaseException] = []

    def end() -> None:
        try:
            other = Cgroup(group.path)
            other.kill()
            other.delete()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=end) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for pid in pids:
        reap(pid)
    assert failed == []
    assert not group.exists()


@pytest.mark.requires("overlay", "seccomp", "program:busybox")
@pytest.mark.parametrize("frozen", [False, True])
def test_a_container_that_several_delete_at_once(tmp_path: pathlib.Path, frozen: bool) -> None:
    """While it forks without an end."""
    box = Box(tmp_path)
    script = "for i in 1 2 3 4; do (while :; do busybox true | busybox true; done) & done; wait"
    spec = box.spec("sh", "-c", script)
    container = Container.create(box.id, str(box.bundle), box.state_root, Stdio(), spec=spec)
    container.start()
    if frozen:
        container.pause()
        assert container.status == "paused"
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                try:
                    Container.load(box.id, box.state_root).delete(force=True)
                    status = 0
                except NotFound:
                    status = 0
            os._exit(status)
        children.append(child)
    assert os.waitstatus_to_exitcode(os.waitpid(container.pid, 0)[1]) == -signal.SIGKILL
    assert [reap(child) for child in children] == [0, 0, 0]
    container.delete()
    assert box.left() == []


def test_groups_made_while_others_are_removed() -> None:
    """The group above goes with a failed start that made it, unless somebody else's group is in it by now."""
    failed: list[BaseException] = []

    def come_and_go(name: str) -> None:
        try:
            for _ in range(40):
                made = Cgroup(f"{BASE}-made/{name}")
                made.create()
                made.apply(LinuxResources(pids=Pids(limit=5)))
                made.undo()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=come_and_go, args=(name,)) for name in "abcd"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    Cgroup(f"{BASE}-made").delete()
    assert failed == []


def test_one_above_that_is_frozen(group: Cgroup) -> None:
    pid = started(group, lambda: time.sleep(0.001))
    above = Cgroup(BASE)
    above.freeze(True)
    try:
        assert group.frozen()
        with pytest.raises(TimeoutError, match="do not react"):
            group.freeze(False, timeout=0.1)
        with pytest.raises(OSError, match="frozen"):
            Cgroup(f"{BASE}/other").create()
        assert not Cgroup(f"{BASE}/other").exists()
    finally:
        above.freeze(False)
    assert not group.frozen()
    group.kill()
    reap(pid)
