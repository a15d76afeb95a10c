"""Hooks: runtime-spec config.md, POSIX-platform hooks.

Where a hook runs and what it is told::

    prestart, createRuntime    create   the runtime's namespaces     before the root is changed
    createContainer            create   the container's namespaces   before the root is changed
    startContainer             start    the container's namespaces   in the container's root
    poststart                  start    the runtime's namespaces     after the program was executed
    poststop                   delete   the runtime's namespaces     after the container is gone
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest

from tests.contract.box import FOREVER, Box, Json, wait_for

POINTS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
EARLY = POINTS[:3]

# Leaves a line in the log, and in POINT.NUMBER what it was given: the state, namespaces, place, environment, arguments.
SCRIPT = """
export PATH=/bin
cd_to=$(busybox pwd)
read -r state
out=$LOGS/$0.$1
echo "$state" >$out.state
for each in mnt net pid uts; do echo $each $(busybox readlink /proc/self/ns/$each); done >$out.namespaces
busybox ls / >$out.root
echo "$cd_to" >$out.directory
busybox env >$out.env
echo "$0 $*" >$out.args
echo $0 $1 >>$LOGS/log
"""


def hook(box: Box, point: str, number: int, then: str = "", **changes: Any) -> Json:
    inside = point == "startContainer"
    logs = "/host/logs" if inside else str(box.directory / "logs")
    return {
        "path": "/bin/busybox",
        "args": ["sh", "-c", f"{SCRIPT}\n{then}", point, str(number), "last"],
        "env": [f"LOGS={logs}", "OTHER=a b"],
        **changes,
    }


def hooks(box: Box, failing: str = "", then: str = "exit 7", **changes: Any) -> Json:
    """Two at each point; the first of the one named goes wrong."""
    (box.directory / "logs").mkdir(exist_ok=True)
    return {
        point: [
            hook(box, point, 0, then, **changes) if point == failing else hook(box, point, 0),
            hook(box, point, 1),
        ]
        for point in POINTS
    }


def ran(box: Box) -> list[str]:
    """The points in the order in which their hooks ran."""
    log = box.directory / "logs/log"
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    for point in {point for point, _ in lines}:
        assert [number for each, number in lines if each == point] in (["0", "1"], ["0"])
    return list(dict.fromkeys(point for point, _ in lines))


def told(box: Box, point: str, what: str, number: int = 0) -> str:
    return (box.directory / f"logs/{point}.{number}.{what}").read_text()


def namespaces(box: Box, point: str) -> dict[str, str]:
    lines = told(box, point, "namespaces").splitlines()
    return {line.split()[0]: line.split()[1] for line in lines}


def life(box: Box) -> int:
    """Create, start, kill and delete; the pid that it had."""
    box.create()
    pid = box.pid
    assert ran(box) == ([*EARLY, "poststart"] if box.runtime.differs("poststart-early") else list(EARLY))
    box.start()
    log = box.directory / "logs/log"
    wait_for(lambda: {"startContainer 1", "poststart 1"} <= set(log.read_text().splitlines()))
    box.end(pid)
    assert "poststop" not in ran(box)
    box.call("delete", box.id).succeeded()
    return pid


def test_all_points_in_order(box: Box) -> None:
    box.configure(*FOREVER, hooks=hooks(box))
    life(box)
    expected = list(POINTS)
    if box.runtime.differs("poststart-early"):
        expected = [*EARLY, "poststart", "startContainer", "poststop"]
    found = ran(box)
    if box.runtime.differs("poststart-at-once") and found[3] == "poststart":
        found[3:5] = found[4], found[3]
    assert found == expected


def test_arguments_and_environment(box: Box) -> None:
    """All of both is the hook's own: nothing of the runtime's environment is added."""
    box.configure(*FOREVER, hooks=hooks(box))
    life(box)
    for point in POINTS:
        for number in (0, 1):
            assert told(box, point, "args", number) == f"{point} {number} last\n"
            names = {line.partition("=")[0] for line in told(box, point, "env", number).splitlines()}
            assert names - {"PWD", "SHLVL", "PATH"} == {"LOGS", "OTHER"}  # The shell adds these.
            assert "OTHER=a b\n" in told(box, point, "env", number)


def test_the_state_on_standard_input(box: Box) -> None:
    box.configure(*FOREVER, hooks=hooks(box), annotations={"org.example.a": "b"})
    pid = life(box)
    statuses = ["creating", "creating", "creating", "created", "running", "stopped"]
    if box.runtime.differs("hook-status"):
        statuses = ["created", "created", "created", "starting", "running", "stopped"]
    elif box.runtime.differs("poststart-early"):
        statuses[4] = "created"
    inside = box.runtime.differs("hook-pid-0")
    for point, status in zip(POINTS, statuses, strict=True):
        found = json.loads(told(box, point, "state"))
        assert (found["id"], found["status"]) == (box.id, status), point
        assert found["ociVersion"].startswith("1.")
        if point != "startContainer":
            assert found["bundle"] == str(box.bundle)
        assert found["annotations"] == {"org.example.a": "b"}
        if point in ("createContainer", "startContainer"):
            assert found["pid"] == (0 if inside else 1)  # As it is in the container's pid namespace.
        elif point == "poststop":
            assert found.get("pid", 0) == 0
        else:
            assert found["pid"] == pid


def test_namespaces_and_places(box: Box) -> None:
    box.configure(*FOREVER, hooks=hooks(box))
    own = {kind: box.runtime.namespace(kind) for kind in ("mnt", "net", "pid", "uts")}
    life(box)
    for point in ("prestart", "createRuntime", "poststart", "poststop"):
        assert namespaces(box, point) == own, point
        assert told(box, point, "directory") == f"{box.bundle}\n"
        assert "rootfs" not in told(box, point, "root")
    start = namespaces(box, "startContainer")
    assert not set(start.values()) & set(own.values())
    assert namespaces(box, "createContainer") == start
    assert told(box, "startContainer", "directory") == "/\n"
    assert told(box, "startContainer", "root").split() == ["bin", "dev", "etc", "host", "proc", "sys", "tmp"]
    # The path of a createContainer hook is the host's.
    assert "host" not in told(box, "createContainer", "root").split()
    place = box.bundle if box.runtime.differs("hook-in-bundle") else box.rootfs
    assert told(box, "createContainer", "directory") == f"{place}\n"


def test_the_network_is_there_in_time(box: Box) -> None:
    """dockerd's bridge: a prestart hook finds the network namespace by the pid, and the program finds it done."""
    net = box.directory / "net"
    script = f"""
    read -r state
    state=${{state#*pid\\":}}
    busybox readlink /proc/${{state%%,*}}/ns/net >{net}
    """
    hook = {"path": "/bin/busybox", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}
    box.configure("readlink", "/proc/self/ns/net", hooks={"prestart": [hook]})
    outcome = box.create()
    pid = box.pid
    assert net.read_text() == os.readlink(f"/proc/{pid}/ns/net") + "\n"
    box.start()
    assert box.reap(pid) == 0
    assert outcome.out == net.read_text()


def test_hooks_of_run(box: Box) -> None:
    box.configure("sh", "-c", "exit 3", hooks=hooks(box))
    assert box.call("run", box.id).status == 3
    assert sorted(ran(box)) == sorted(POINTS)
    assert ran(box)[-1] == "poststop"


# --- Failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", EARLY)
def test_an_early_hook_fails(box: Box, point: str) -> None:
    """Then there is no container, and nothing of one; what came before is told that it has stopped."""
    box.configure(*FOREVER, hooks=hooks(box, point))
    status = 1 if point == "createContainer" else 255
    outcome = box.call("create", "--pid-file", "../pid", box.id)
    outcome.refused("hook #0: ", crun="error executing hook `/bin/busybox` (exit code: 7)", crun_status=status)
    if box.runtime.name != "crun":
        assert "exit status 7" in outcome.message
    after = [] if box.runtime.differs("no-poststop") else ["poststop"]
    assert ran(box) == [*EARLY[: EARLY.index(point) + 1], *after]
    assert not (box.directory / f"logs/{point}.1.state").exists()
    assert box.nothing_left()


def test_what_a_failing_hook_says_is_passed_on(box: Box) -> None:
    box.configure(*FOREVER, hooks={"createRuntime": [hook(box, "createRuntime", 0, "echo so sorry >&2; exit 7")]})
    (box.directory / "logs").mkdir()
    assert ("so sorry" in box.call("create", box.id).err) != box.runtime.differs("hook-unheard")
    assert box.nothing_left()


def test_a_start_container_hook_fails(box: Box) -> None:
    """The program does not run; who started it learns by the container's end."""
    box.configure("touch", "/host/ran", hooks=hooks(box, "startContainer"))
    box.create()
    pid = box.pid
    outcome = box.call("start", box.id)
    assert outcome.status in (0, 1), outcome  # runc and crun do not wait for it; the specification asks for an error.
    assert box.reap(pid) != 0
    assert not (box.directory / "ran").exists()
    assert box.status == "stopped"
    box.call("delete", box.id).succeeded()
    assert "poststop" in ran(box)


def test_a_poststart_hook_fails(box: Box) -> None:
    """With runc 1.1 the end of the create, with crun a warning, and with ours, as it should be, the container's end."""
    box.configure(*FOREVER, hooks=hooks(box, "poststart"))
    outcome = box.call("create", box.id)
    if box.runtime.differs("poststart-early"):
        outcome.refused("hook #0: ", crun="")
        assert box.nothing_left()
        return
    outcome.succeeded()
    pid = box.state()["pid"]
    outcome = box.call("start", box.id)
    if box.runtime.differs("poststart-warns"):
        outcome.succeeded()
        assert box.status == "running"
    else:
        outcome.refused("hook #0: ", crun="")
        assert box.reap(pid) == -signal.SIGKILL
        assert box.status == "stopped"


def test_a_poststop_hook_fails(box: Box) -> None:
    """A warning: the container is gone all the same."""
    box.configure(*FOREVER, hooks=hooks(box, "poststop"))
    life(box)
    assert ran(box)[-1] == "poststop"
    assert box.nothing_left()


def test_a_hook_that_takes_too_long(box: Box) -> None:
    pid = box.directory / "hook-pid"
    box.configure(*FOREVER, hooks=hooks(box, "createRuntime", f"echo $$ >{pid}; exec busybox sleep 100", timeout=1))
    before = time.monotonic()
    outcome = box.call("create", box.id)
    assert 0.9 < time.monotonic() - before < 5
    outcome.refused("time", crun="timeout expired")
    assert not os.path.exists(f"/proc/{pid.read_text().strip()}")
    assert box.nothing_left()


@pytest.mark.parametrize("point", ["prestart", "createContainer"])
def test_a_hook_that_is_not_there(box: Box, point: str) -> None:
    box.configure(*FOREVER, hooks={point: [{"path": "/nope/hook"}]})
    outcome = box.call("create", box.id)
    assert outcome.status != 0, outcome
    assert box.nothing_left()


@pytest.mark.parametrize("entry", [{}, {"path": ""}, {"path": "relative"}, {"path": "/bin/true", "timeout": 0}])
def test_a_hook_that_makes_no_sense(box: Box, entry: Json) -> None:
    """The path is absolute and a timeout greater than zero; the specification says so, runc and crun don't look."""
    box.configure(*FOREVER, hooks={"prestart": [entry]})
    outcome = box.call("create", box.id)
    if outcome.status != 0:
        assert box.nothing_left()
    assert box.runtime.name != "sampan" or outcome.status == 1, outcome


def test_an_early_hook_fails_in_run(box: Box) -> None:
    box.configure(*FOREVER, hooks=hooks(box, "createRuntime"))
    assert box.call("run", box.id).status in (1, 255)
    assert box.nothing_left()
