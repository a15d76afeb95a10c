"""Through all states and back, and what each state refuses. runtime-spec runtime.md, lifecycle and operations."""

from __future__ import annotations

import os
import pathlib
import signal

import pytest

from tests.contract.box import FOREVER, Box, Outcome, wait_for


def test_the_states_of_a_container(box: Box) -> None:
    box.create()
    pid = box.pid
    state = box.state()
    assert state | {"id": box.id, "status": "created", "bundle": str(box.bundle)} == state
    assert state["ociVersion"].startswith("1.")
    assert state["created"].startswith("20")
    assert os.path.exists(f"/proc/{pid}")
    box.start()
    assert box.state() | {"status": "running", "pid": pid} == box.state()
    box.call("pause", box.id).succeeded()
    assert box.state() | {"status": "paused", "pid": pid} == box.state()
    box.call("resume", box.id).succeeded()
    assert box.status == "running"
    assert box.end(pid) == -signal.SIGKILL
    assert box.state() | {"status": "stopped", "pid": 0} == box.state()
    box.call("delete", box.id).succeeded()
    assert box.left() == []


def test_the_states_members(box: Box) -> None:
    """What runc's and crun's have in common, which is what podman and containerd read."""
    box.configure(*FOREVER, annotations={"org.example.some": "thing"})
    box.create()
    state = box.state()
    assert {"ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"} <= state.keys()
    assert {type(state[each]) for each in state.keys() - {"pid", "annotations"}} == {str}
    assert state["annotations"] == {"org.example.some": "thing"}
    if box.runtime.differs("state-rootfs"):
        assert state["rootfs"] == "rootfs"
    else:
        assert state["rootfs"] == str(box.rootfs)


def test_the_program_waits_for_start(box: Box) -> None:
    box.configure("touch", "/host/ran")
    box.create()
    assert not (box.directory / "ran").exists()
    pid = box.pid
    box.start()
    assert box.reap(pid) == 0
    assert (box.directory / "ran").exists()
    assert box.status == "stopped"


def test_an_id_that_is_taken(box: Box) -> None:
    box.create()
    before = box.state()
    for command in ("create", "run"):
        box.call(command, box.id).refused("already exists", crun="already exists")
    assert box.state() == before
    box.start()
    box.end(before["pid"])
    box.call("create", box.id).refused("already exists", crun="already exists")


def test_start_where_there_is_nothing_to_start(box: Box) -> None:
    pid = box.launch()
    box.call("start", box.id).refused("cannot start an already running container", crun="exec.fifo")
    box.call("pause", box.id).succeeded()
    box.call("start", box.id).refused("cannot start a container in the paused state", crun="exec.fifo")
    box.call("resume", box.id).succeeded()
    box.end(pid)
    box.call("start", box.id).refused("cannot start a container that has stopped", crun="is not running")


MISSING = [
    ("state",), ("start",), ("kill",), ("pause",), ("resume",), ("ps",), ("delete",), ("update",), ("exec", "true"),
    ("events",),
]  # fmt: skip


@pytest.mark.parametrize("command", MISSING, ids=lambda command: str(command[0]))
def test_a_container_that_is_not_there(box: Box, command: tuple[str, ...]) -> None:
    name, *words = command
    outcome = box.call(name, "nope", *words)
    if name == "events" and box.runtime.differs("no-events"):
        outcome.refused("", crun="unknown command events")
        return
    status = {"exec": 255}.get(name, 1)
    crun = "cannot open directory" if name == "delete" else "No such file or directory"
    outcome.refused("does not exist", crun=crun, status=status, crun_status={"ps": 253}.get(name, 1))


# --- Signals ------------------------------------------------------------------------------------------

TRAP = """
for each in TERM USR1 HUP; do trap "echo got $each >>/host/got" $each; done
touch /host/ready
while :; do sleep 0.01; done
"""


def test_signals_by_name_and_number(box: Box) -> None:
    box.launch("sh", "-c", TRAP)
    wait_for((box.directory / "ready").exists)
    got = box.directory / "got"
    for name in ("TERM", "SIGUSR1", "term", "15", "10", "SIGHUP", None):
        box.call("kill", box.id, *([name] if name else [])).succeeded()
        if name == "term" and box.runtime.differs("unknown-signal"):
            continue
        wait_for(lambda: got.exists() and got.read_text())
        assert got.read_text() == {"SIGUSR1": "got USR1\n", "10": "got USR1\n", "SIGHUP": "got HUP\n"}.get(
            name or "", "got TERM\n"
        )
        got.unlink()


def test_signals_that_there_are_not(box: Box) -> None:
    pid = box.launch()
    outcome = box.call("kill", box.id, "bogus")
    if box.runtime.differs("unknown-signal"):
        outcome.succeeded()
    else:
        outcome.refused("unknown signal", crun="")
    box.call("kill", box.id, "999").refused("", crun="Invalid argument")
    box.call("kill", box.id, "0").succeeded()  # Asks only whether it is there.
    assert box.state() | {"status": "running", "pid": pid} == box.state()


def test_kill_of_a_created_container(box: Box) -> None:
    box.create()
    pid = box.pid
    assert box.end(pid) == -signal.SIGKILL
    assert box.status == "stopped"
    box.call("delete", box.id).succeeded()


def test_a_created_container_and_a_signal_that_can_be_handled(box: Box) -> None:
    """Docker's stop of a container that is only created."""
    box.create()
    pid = box.pid
    box.kill("TERM")
    if box.runtime.differs("created-holds-signals"):
        assert box.status == "created"
        return
    assert box.reap(pid) != 0
    assert box.status == "stopped"


def test_kill_of_a_stopped_container(box: Box) -> None:
    box.end(box.launch())
    for number in ("KILL", "0"):
        # containerd's shim takes either of these for news, and all else for an error.
        box.call("kill", box.id, number).refused("container not running", crun="No such process")
    # Whether anything is left of it is not the caller's to know: engines clean up so.
    box.call("kill", "--all", box.id, "KILL").succeeded()


def test_kill_all(box: Box) -> None:
    """Every process at once, those that joined by exec too; in the host's pid namespace nothing else does."""
    kinds = [{"type": each} for each in ("network", "ipc", "uts", "mount")]
    pid = box.launch("sh", "-c", "sleep 1000 & exec sleep 1000", linux={"namespaces": kinds})
    box.call("exec", "--detach", "--pid-file", str(box.directory / "pid"), box.id, *FOREVER).succeeded()
    one_more = int((box.directory / "pid").read_text())
    assert len(json_ps(box)) == 3
    box.call("kill", "--all", box.id, "9").succeeded()
    assert (box.reap(pid), box.reap(one_more)) == (-9, -9)
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"))
    box.nothing_runs()
    assert box.status == "stopped"


def json_ps(box: Box) -> list[int]:
    import json

    found: list[int] = json.loads(box.call("ps", "--format", "json", box.id).succeeded().out)
    return found


# --- Delete -------------------------------------------------------------------------------------------


def _not_stopped(outcome: Outcome, state: str) -> None:
    says = f"cannot delete container box that is not stopped: {state}"
    outcome.refused(says, crun="is not in `created` or `stopped` state")


def test_delete_of_a_running_container(box: Box) -> None:
    pid = box.launch()
    _not_stopped(box.call("delete", box.id), "running")
    assert box.status == "running"
    box.call("delete", "--force", box.id).succeeded()
    assert box.reap(pid) == -signal.SIGKILL
    assert box.left() == []


def test_delete_of_a_created_container(box: Box) -> None:
    box.create()
    pid = box.pid
    box.call("delete", box.id).succeeded()
    assert box.reap(pid) == -signal.SIGKILL
    assert box.left() == []


def test_delete_of_a_paused_container(box: Box) -> None:
    pid = box.launch()
    box.call("pause", box.id).succeeded()
    _not_stopped(box.call("delete", box.id), "paused")
    box.call("delete", "-f", box.id).succeeded()
    assert box.reap(pid) == -signal.SIGKILL
    assert box.left() == []


@pytest.mark.parametrize("stage", ["created", "stopped"])
def test_delete_by_force(box: Box, stage: str) -> None:
    box.create()
    if stage == "stopped":
        box.end(box.pid)
    box.call("delete", "--force", box.id).succeeded()
    assert box.nothing_left()


def test_delete_by_force_of_nothing(box: Box) -> None:
    assert box.call("delete", "--force", "nope").succeeded().err == ""


def test_delete_when_the_process_was_killed_from_outside(box: Box) -> None:
    pid = box.launch()
    os.kill(pid, signal.SIGKILL)
    # Dead, but a zombie until its parent looks: that is stopped.
    stat = pathlib.Path(f"/proc/{pid}/stat")
    wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z")
    if not box.runtime.differs("zombie-runs"):
        assert box.status == "stopped"
    assert box.reap(pid) == -signal.SIGKILL
    box.call("delete", box.id).succeeded()
    assert box.nothing_left()


def test_delete_takes_what_the_first_process_left_behind(box: Box) -> None:
    """Without a pid namespace of its own a container can outlive its first process."""
    kinds = [{"type": each} for each in ("network", "ipc", "uts", "mount")]
    pid = box.launch("sh", "-c", "sleep 1000 & exit 0", linux={"namespaces": kinds})
    assert box.reap(pid) == 0
    assert box.status == "stopped"
    box.call("delete", box.id).succeeded()
    assert box.nothing_left()


# --- Freezing -----------------------------------------------------------------------------------------


def test_pause_stops_every_process(box: Box) -> None:
    ticks = box.directory / "ticks"
    box.launch("sh", "-c", "while :; do echo >>/host/ticks; sleep 0.01; done")
    wait_for(lambda: ticks.exists() and ticks.stat().st_size > 2)
    box.call("pause", box.id).succeeded()
    first = ticks.stat().st_size
    assert box.status == "paused"
    assert ticks.stat().st_size == first
    box.call("resume", box.id).succeeded()
    wait_for(lambda: ticks.stat().st_size > first)


def test_pause_and_resume_in_the_wrong_state(box: Box) -> None:
    pid = box.launch()
    pause, resume = ("pause", box.id), ("resume", box.id)
    lenient = box.runtime.differs("pause-again")
    outcome = box.call(*resume)
    outcome.succeeded() if lenient else outcome.refused("container not paused", crun="")
    box.call(*pause).succeeded()
    outcome = box.call(*pause)
    outcome.succeeded() if lenient else outcome.refused("container not running", crun="")
    box.call(*resume).succeeded()
    box.end(pid)
    box.call(*pause).refused("container not running", crun="is not running")
    box.call(*resume).refused("container not paused", crun="is not running")


def test_a_created_container_can_be_paused(box: Box) -> None:
    box.create()
    box.call("pause", box.id).succeeded()
    assert box.status == ("created" if box.runtime.differs("paused-is-created") else "paused")
    box.call("resume", box.id).succeeded()
    assert box.status == "created"


def test_kill_of_a_paused_container(box: Box) -> None:
    """On cgroup v1 a frozen process dies when it is thawed, so that is what SIGKILL does."""
    pid = box.launch()
    box.call("pause", box.id).succeeded()
    box.kill()
    if box.runtime.differs("kill-leaves-frozen"):
        assert box.status == "paused"
        box.call("resume", box.id).succeeded()
    assert box.reap(pid) == -signal.SIGKILL
    assert box.status == "stopped"
