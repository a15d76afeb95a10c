"""A config.json that cannot be: one clear line, status 1, and nothing of a container. And what is to be let pass."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import pytest

from tests.contract.box import ABSENT, FOREVER, Box, Json, wait_for


class Case(NamedTuple):
    """`says`: runc's words and ours. `crun`: its own, or None where it sees no fault."""

    name: str
    changes: Json
    says: str
    crun: str | None


def namespaces(**changed: Any) -> Json:
    """The usual ones, with a path for the one that is named, or without it."""
    kinds: list[Json] = [{"type": each} for each in ("pid", "network", "ipc", "uts", "mount") if each not in changed]
    return {
        "linux": {"namespaces": kinds + [{"type": kind, **how} for kind, how in changed.items() if how is not None]}
    }


def process(**members: Any) -> Json:
    return {"process": members}


def linux(**members: Any) -> Json:
    return {"linux": members}


CASES = [
    Case("no root", {"root": ABSENT}, "root", "no 'root' block"),
    Case("no such root", {"root": {"path": "nope"}}, "no such file or directory", "No such file or directory"),
    Case("a root that is a file", {"root": {"path": "config.json"}}, "not a directory", "Not a directory"),
    Case("no process", {"process": ABSENT}, "process", "not initialized"),
    Case("no args", process(args=[]), "args must not be empty", "Invalid argument"),
    Case("args absent", process(args=ABSENT), "args must not be empty", None),
    Case("cwd relative", process(cwd="relative"), "absolute path", None),
    Case("cwd empty", process(cwd=""), "wd", "chdir ``"),
    Case("cwd a file", process(cwd="/etc/data"), "not a directory", "Not a directory"),
    Case("an environment without =", process(env=["NOTHING"]), "invalid environment variable", "not found in $PATH"),
    Case(
        "an unknown limit", process(rlimits=[{"type": "RLIMIT_NOPE", "soft": 1, "hard": 1}]), "RLIMIT_NOPE",
        "RLIMIT_NOPE",
    ),
    Case("a negative uid", process(user={"uid": -1, "gid": 0}), "-1", "error loading config.json"),
    Case("a uid too large", process(user={"uid": 1 << 32, "gid": 0}), "4294967296", "error loading config.json"),
    Case("process a string", {"process": "x"}, "process", "not initialized"),
    Case("args a string", process(args="true"), "args", None),
    Case("an unknown namespace", namespaces(nope={}), "nope", "invalid namespace type: `nope`"),
    Case("a hostname without uts", namespaces(uts=None), "hostname", "hostname requires the UTS namespace"),
    Case(
        "a namespace that is not there", namespaces(network={"path": "/nope"}), "/nope: no such file or directory",
        "open `/nope`: No such file",
    ),
    # (crun's first process may be gone before crun has read what it says.)
    Case("a namespace of another kind", namespaces(network={"path": "/proc/self/ns/uts"}), "", ""),
    Case("a namespace that is a file", namespaces(network={"path": "/etc/passwd"}), "", ""),
    Case("a relative namespace", namespaces(network={"path": "proc/self/ns/net"}), "", "No such file or directory"),
    Case("a namespace twice", linux(namespaces=[{"type": each} for each in ("mount", "uts", "mount")]), "mount", None),
    Case("a kernel parameter of the host", linux(sysctl={"kernel.nope": "1"}), "kernel.nope", "is not namespaced"),
    Case("a kernel parameter that is not there", linux(sysctl={"net.nope": "1"}), "net", "No such file or directory"),
    Case("an unknown seccomp action", linux(seccomp={"defaultAction": "SCMP_ACT_NOPE"}), "SCMP_ACT_NOPE", "NOPE"),
    Case("an unknown propagation", linux(rootfsPropagation="nope"), "nope", None),
    Case("a memory limit that is text", linux(resources={"memory": {"limit": "x"}}), "limit", None),
    Case("processors that there are not", linux(resources={"cpu": {"cpus": "99"}}), "cpuset.cpus", "cpuset"),
    Case("too little memory", linux(resources={"memory": {"limit": 1}}), "memory", "memory limit could be too low"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[each.name for each in CASES])
def test_what_cannot_be(box: Box, case: Case) -> None:
    box.configure(*FOREVER, **case.changes)
    outcome = box.call("create", "--pid-file", "../pid", box.id)
    if box.runtime.name == "crun" and case.crun is None:
        outcome.succeeded()
        return
    outcome.refused(case.says, crun=case.crun or "")
    assert not (box.directory / "pid").exists()
    if case.name == "processors that there are not" and box.runtime.differs("groups-left"):
        box.sweep()
    assert box.nothing_left()


MOUNTS = [
    Case("no such source", {"type": "bind", "source": "/nope", "options": ["bind"]}, "/nope", "`/nope`"),
    Case("an unknown file system", {"type": "nope", "source": "x"}, "no such device", "No such device"),
    Case("an unknown option", {"type": "tmpfs", "source": "x", "options": ["nope"]}, "/tmp", "Invalid"),
]


@pytest.mark.parametrize("case", MOUNTS, ids=[each.name for each in MOUNTS])
def test_a_mount_that_cannot_be(box: Box, case: Case) -> None:
    document = box.configuration(*FOREVER)
    document["mounts"].append({"destination": "/tmp", **case.changes})
    box.write(document)
    box.call("create", box.id).refused(case.says, crun=case.crun or "")
    assert box.nothing_left()


TEXTS = [
    ("truncated", '{"ociVersion": "1.0.2", '), ("empty", ""), ("a list", "[]"), ("text", '"x"'), ("not utf-8", "\x80"),
    ("two documents", "{}{}"), ("deep", "[" * 100_000),
]  # fmt: skip


@pytest.mark.parametrize("text", [each[1] for each in TEXTS], ids=[each[0] for each in TEXTS])
def test_what_is_not_a_configuration(box: Box, text: str) -> None:
    (box.bundle / "config.json").write_bytes(text.encode("latin-1"))
    assert box.call("create", box.id).status == 1
    assert box.nothing_left()


def test_no_configuration(box: Box) -> None:
    (box.bundle / "config.json").unlink()
    says = "config.json"
    box.call("create", box.id).refused(says, crun="config.json")
    box.call("run", box.id).refused(says, crun="config.json")
    says = "/nope"
    box.call("create", "--bundle", "/nope", box.id).refused(says, crun="chdir `/nope` failed: No such file")
    assert box.nothing_left()


# --- The program --------------------------------------------------------------------------------------

PROGRAMS = [
    ("nope", 'exec: "nope": executable file not found in $PATH', "executable file `nope` not found in $PATH"),
    ("/nope", 'exec: "/nope": stat /nope: no such file or directory', "executable file `/nope` not found"),
    ("/etc", "permission denied", "open executable: Operation not permitted"),
    ("/etc/data", 'exec: "/etc/data": permission denied', "open executable: Permission denied"),
    ("", "", ""),
]


@pytest.mark.parametrize(("program", "says", "crun"), PROGRAMS, ids=[repr(each[0]) for each in PROGRAMS])
def test_a_program_that_cannot_run(box: Box, program: str, says: str, crun: str) -> None:
    """At create, not at start: dockerd turns these words into the exit codes 126 and 127."""
    box.configure(program)
    box.call("create", box.id).refused(says, crun=crun)
    assert box.nothing_left()
    box.call("run", box.id).refused(says, crun=crun)
    assert box.nothing_left()


@pytest.mark.parametrize("body", ["text\n", "#!/nope\n"], ids=["no program", "no interpreter"])
def test_a_program_that_the_kernel_refuses(box: Box, body: str) -> None:
    """Nobody can know before the execve, which is at start."""
    path = box.rootfs / "bin/bad"
    path.write_text(body)
    path.chmod(0o755)
    box.configure("/bin/bad")
    outcome = box.create()
    pid = box.pid
    started = box.call("start", box.id)
    assert started.status in (0, 1)
    assert box.reap(pid) in (1, 126, 127)
    words = "exec format error" if body == "text\n" else "no such file or directory"
    assert words in (outcome.err + started.err).lower()
    assert box.status == "stopped"


def test_the_program_is_found_as_its_user_will_find_it(box: Box) -> None:
    """Not as root: a directory of PATH that only root can look into is not looked into."""
    (box.rootfs / "bin/secret").mkdir(mode=0o700)
    (box.rootfs / "bin/secret/prog").symlink_to("/bin/busybox")
    changes: Json = {"user": {"uid": 5, "gid": 5}, "env": ["PATH=/bin/secret:/bin"]}
    box.configure("prog", process=changes)
    if not box.runtime.differs("found-as-root"):
        assert box.call("create", box.id).status == 1
    box.configure("true", process=changes)
    box.call("run", box.id).succeeded()


# --- What is to be let pass ---------------------------------------------------------------------------


def test_members_that_nobody_knows(box: Box) -> None:
    document = box.configuration("true", unknown={"a": [1]})
    for name in ("process", "linux", "root"):
        document[name]["unknown"] = True
    document["linux"]["resources"]["unknown"] = {}
    box.write(document)
    box.call("run", box.id).succeeded()


@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.2.1", "1.3.0"])
def test_versions_of_the_specification(box: Box, version: str) -> None:
    box.configure("true", ociVersion=version)
    outcome = box.call("run", box.id)
    if version.startswith("1.0") or not box.runtime.differs("version-1.0"):
        outcome.succeeded()
    else:
        outcome.refused("", crun="unknown version specified")


@pytest.mark.parametrize("version", ["2.0.0", "", "x", ABSENT], ids=str)
def test_other_versions(box: Box, version: str) -> None:
    """runc takes whatever there is; semantic versioning says that of 2.0 nothing is known."""
    box.configure("true", ociVersion=version)
    outcome = box.call("run", box.id)
    if box.runtime.differs("any-version"):
        outcome.succeeded()
        return
    assert outcome.status == 1, outcome
    assert box.nothing_left()


def test_a_working_directory_is_made(box: Box) -> None:
    box.configure("pwd", process={"cwd": "/made/here"}, root={"readonly": False})
    assert box.call("run", box.id).succeeded().out == "/made/here\n"
    assert (box.rootfs / "made/here").is_dir()


def test_an_unknown_capability(box: Box) -> None:
    """A warning: a newer engine may name what an older kernel does not know."""
    names = ["CAP_KILL", "CAP_NOPE"]
    capabilities = dict.fromkeys(("bounding", "effective", "permitted"), names)
    box.configure("grep", "CapBnd", "/proc/self/status", process={"capabilities": capabilities})
    assert int(box.call("run", box.id).succeeded().out.split()[1], 16) == 1 << 5


def test_a_cgroup_path_does_not_lead_out(box: Box) -> None:
    """runc makes the path clean, as if / were its root."""
    if box.runtime.differs("cgroup-out"):
        return  # It would leave its directories all over this machine.
    name = f"sampan-out-{os.getpid()}"
    box.configure(*FOREVER, linux={"cgroupsPath": f"../../../../{name}"})
    outcome = box.call("create", box.id)
    assert outcome.status in (0, 1), outcome
    assert not any(os.path.exists(f"{top}/{name}") for top in ("/", "/sys", "/sys/fs", "/tmp"))


def test_a_cgroup_path_that_no_file_can_have(box: Box) -> None:
    for path in (f"{box.group}/a\0b", f"{box.group}/{'x' * 5000}"):
        box.configure(*FOREVER, linux={"cgroupsPath": path})
        outcome = box.call("create", box.id)
        if outcome.status == 0:
            assert box.runtime.differs("half-grouped")
            box.call("delete", "--force", box.id).succeeded()
        assert outcome.status == 0 or outcome.message
        if box.runtime.differs("groups-left"):
            box.sweep()
        assert box.nothing_left()


def test_the_configuration_of_a_container_is_that_of_its_creation(box: Box) -> None:
    """runtime.md: an update of config.json after that must not affect it."""
    secret = box.configuration("sh", "-c", "echo ours; exec sleep 1000", annotations={"a": "b"})
    secret["process"]["env"].append("OURS=1")
    box.write(secret)
    outcome = box.create()
    pid = box.pid
    box.write("rubbish")
    box.start()
    wait_for(lambda: outcome.out == "ours\n")
    assert box.state() | {"status": "running", "annotations": {"a": "b"}} == box.state()
    shown = box.call("exec", box.id, "sh", "-c", "echo $OURS; grep CapBnd /proc/self/status")
    if box.runtime.differs("exec-rereads"):
        assert shown.status == 255
    else:
        assert shown.succeeded().out.split() == ["1", "CapBnd:", f"{0x20000420:016x}"]
    box.call("update", "--pids-limit", "77", box.id).succeeded()
    box.call("pause", box.id).succeeded()
    box.call("resume", box.id).succeeded()
    box.end(pid)
    (box.bundle / "config.json").unlink()
    assert box.status == "stopped"
    box.call("delete", box.id).succeeded()
    assert box.nothing_left()
