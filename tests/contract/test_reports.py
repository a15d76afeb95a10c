"""What the commands print that change nothing: ps, list, events, features, spec, --version, --help."""

from __future__ import annotations

import json
import os
import pathlib
import re
import stat
import subprocess

from tests.contract.box import FOREVER, Box, wait_for

# --- ps -----------------------------------------------------------------------------------------------


def test_ps_as_json(box: Box) -> None:
    """Pids of the runtime's pid namespace, one list: what containerd's pids call reads."""
    pid = box.launch("sh", "-c", "sleep 1000 & sleep 1000 & exec sleep 1000")
    wait_for(lambda: pathlib.Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
    for flags in (("--format", "json"), ("-f", "json"), ("--format=json",)):
        found = json.loads(box.call("ps", *flags, box.id).succeeded().out)
        assert len(found) == 3
        assert pid in found
        assert all(os.path.exists(f"/proc/{each}") for each in found)


def test_ps_as_a_table(box: Box) -> None:
    pid = box.launch()
    shown = box.call("ps", box.id).succeeded().out
    head, line = shown.splitlines()
    if box.runtime.differs("ps-of-pids"):
        assert (head, line) == ("PID", str(pid))
        return
    assert head.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert line.split()[:2] == ["root", str(pid)]
    assert line.endswith("sleep 1000")
    assert box.call("ps", "--format", "table", box.id).succeeded().out == shown
    shown = box.call("ps", box.id, "-o", "pid,comm").succeeded().out
    assert [each.split() for each in shown.splitlines()] == [["PID", "COMMAND"], [str(pid), "sleep"]]


def test_ps_that_cannot_be(box: Box) -> None:
    box.launch()
    box.call("ps", "--format", "xml", box.id).refused("invalid format option", crun="invalid format `xml`")
    if not box.runtime.differs("ps-of-pids"):
        box.call("ps", box.id, "-o", "comm").refused("PID", crun="")  # Without it nobody knows whose lines they are.
        assert box.call("ps", box.id, "--nope").status == 1


def test_ps_of_a_stopped_container(box: Box) -> None:
    box.end(box.launch())
    outcome = box.call("ps", "--format", "json", box.id)
    if box.runtime.differs("ps-crashes"):
        assert outcome.status != 0
        return
    assert json.loads(outcome.succeeded().out) in ([], None)


# --- list ---------------------------------------------------------------------------------------------


def test_list(box: Box) -> None:
    box.create()
    one = box.state()
    box.id = "another"
    box.configure(*FOREVER)
    pid = box.launch()
    shown = box.call("list").succeeded().out
    head, *lines = [each.split() for each in shown.splitlines()]
    assert head[0] in ("ID", "NAME")
    assert [each for each in head if each not in ("ID", "NAME", "PATH")] == [
        "PID", "STATUS", "BUNDLE", "CREATED", "OWNER",
    ]  # fmt: skip
    bundle = str(box.bundle)
    assert sorted(each[:4] for each in lines) == [
        ["another", str(pid), "running", bundle], ["box", str(one["pid"]), "created", bundle],
    ]  # fmt: skip
    assert {each[-1] for each in lines} == {"root"}
    for flag in ("-q", "--quiet"):
        assert sorted(box.call("list", flag).succeeded().out.split()) == ["another", "box"]
    for flags in (("-f", "json"), ("--format=json",)):
        found = {each["id"]: each for each in json.loads(box.call("list", *flags).succeeded().out)}
        assert found.keys() == {"another", "box"}
        some = {key: one[key] for key in ("id", "pid", "status", "bundle", "created")} | {"owner": "root"}
        assert found["box"] | some == found["box"]


def test_list_of_nothing(box: Box) -> None:
    """Not even a state root."""
    assert len(box.call("list").succeeded().out.splitlines()) == 1
    assert box.call("list", "-q").succeeded().out == ""
    assert not json.loads(box.call("list", "-f", "json").succeeded().out)
    box.call("list", "-f", "xml").refused("invalid format option", crun="invalid format `xml`")


def test_list_goes_on_where_one_cannot_be_read(box: Box) -> None:
    """A directory that a killed create left."""
    box.create()
    (box.state_root / "half").mkdir()
    outcome = box.call("list", "-q").succeeded()
    assert outcome.out.split() == [box.id]
    box.call("state", "half").refused("does not exist", crun="No such file or directory")
    box.call("delete", "--force", "half").succeeded()
    assert not (box.state_root / "half").exists()


# --- events -------------------------------------------------------------------------------------------


def test_statistics_once(box: Box) -> None:
    box.launch("sh", "-c", "while :; do :; done")
    outcome = box.call("events", "--stats", box.id)
    if box.runtime.differs("no-events"):
        outcome.refused("", crun="unknown command events")
        return
    (line,) = outcome.succeeded().out.splitlines()
    found = json.loads(line)
    assert (found["type"], found["id"]) == ("stats", box.id)
    data = found["data"]
    assert {"cpu", "memory", "pids", "blkio"} <= data.keys()
    assert data["pids"]["current"] == 1
    assert data["memory"]["usage"]["usage"] > 4096
    usage = data["cpu"]["usage"]
    assert {"total", "kernel", "user"} <= usage.keys()
    wait_for(lambda: _cpu(box) > usage["total"])


def _cpu(box: Box) -> int:
    return int(json.loads(box.call("events", "--stats", box.id).succeeded().out)["data"]["cpu"]["usage"]["total"])


def test_statistics_again_and_again(box: Box) -> None:
    """Until the container is gone, as runc's; ours may end with the container's process."""
    if box.runtime.differs("no-events"):
        return
    pid = box.launch()
    running = box.spawn("events", "--interval", "50ms", box.id)
    wait_for(lambda: running.out.count("\n") >= 2)
    found = [json.loads(line) for line in running.out.splitlines()]
    assert {(each["type"], each["id"]) for each in found} == {("stats", box.id)}
    box.end(pid)
    box.call("delete", box.id).succeeded()
    assert running.wait().status == 0


def test_statistics_that_cannot_be(box: Box) -> None:
    if box.runtime.differs("no-events"):
        return
    pid = box.launch()
    box.call("events", "--interval", "0s", box.id).refused("duration", crun="")
    assert box.call("events", "--interval", "x", box.id).status == 1
    box.end(pid)
    box.call("events", "--stats", box.id).refused("is not running", crun="")


# --- spec ---------------------------------------------------------------------------------------------


def test_spec_writes_an_example_that_runs(box: Box) -> None:
    path = box.bundle / "config.json"
    path.unlink()
    assert box.call("spec").succeeded().out == ""
    assert stat.S_IMODE(path.stat().st_mode) & 0o444
    found = json.loads(path.read_text())
    assert (
        found["process"] | {"terminal": True, "args": ["sh"], "cwd": "/", "noNewPrivileges": True} == found["process"]
    )
    assert found["root"] == {"path": "rootfs", "readonly": True}
    assert [each["destination"] for each in found["mounts"]] == [
        "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup",
    ]  # fmt: skip
    assert {"pid", "network", "ipc", "uts", "mount"} <= {each["type"] for each in found["linux"]["namespaces"]}
    assert {"/proc/kcore", "/sys/firmware"} <= set(found["linux"]["maskedPaths"])
    found["process"] |= {"terminal": False, "args": ["/bin/sh", "-c", "exit 3"]}
    found["linux"]["cgroupsPath"] = box.configuration()["linux"]["cgroupsPath"]
    box.write(found)
    assert box.call("run", box.id).status == 3


def test_spec_overwrites_nothing(box: Box) -> None:
    before = (box.bundle / "config.json").read_text()
    box.call("spec").refused("ile config.json exists. Remove it first", crun="`config.json` already exists")
    assert (box.bundle / "config.json").read_text() == before


def test_spec_into_a_bundle(box: Box) -> None:
    for flag in ("-b", "--bundle"):
        directory = box.directory / f"new{flag}"
        directory.mkdir()
        box.call("spec", flag, str(directory)).succeeded()
        assert json.loads((directory / "config.json").read_text())["ociVersion"].startswith("1.")
    box.call("spec", "--bundle", "/nope").refused("no such file or directory", crun="No such file or directory")


def test_spec_for_an_ordinary_user(box: Box) -> None:
    (box.bundle / "config.json").unlink()
    box.call("spec", "--rootless").succeeded()
    found = json.loads((box.bundle / "config.json").read_text())
    kinds = {each["type"] for each in found["linux"]["namespaces"]}
    assert "user" in kinds
    assert not any("gid=5" in each.get("options", []) for each in found["mounts"])
    if box.runtime.differs("rootless-spec"):
        return
    assert "network" not in kinds
    for name, own in (("uidMappings", os.geteuid()), ("gidMappings", os.getegid())):
        assert found["linux"][name] == [{"containerID": 0, "hostID": own, "size": 1}]
    assert {each["destination"]: each for each in found["mounts"]}["/sys"]["options"][0] == "rbind"


# --- features, --version, --help ----------------------------------------------------------------------


def test_features(box: Box) -> None:
    """runtime-spec features.md."""
    outcome = box.call("features")
    if box.runtime.differs("no-features"):
        outcome.refused("", crun="unknown command features")
        return
    found = json.loads(outcome.succeeded().out)
    assert found["ociVersionMin"] == "1.0.0"
    assert re.fullmatch(r"1\.\d+\.\d+(-dev)?", found["ociVersionMax"])
    assert found["hooks"] == [
        "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
    ]  # fmt: skip
    assert {"bind", "rbind", "ro", "nosuid", "noexec", "nodev", "rshared", "rslave"} <= set(found["mountOptions"])
    linux = found["linux"]
    assert {"cgroup", "ipc", "mount", "network", "pid", "user", "uts"} <= set(linux["namespaces"])
    assert {"CAP_CHOWN", "CAP_SYS_ADMIN"} <= set(linux["capabilities"])
    assert linux["cgroup"]["v1"] is True
    assert linux["cgroup"]["v2"] is True
    assert linux["cgroup"]["systemd"] is True
    assert linux["seccomp"]["enabled"] is True
    assert {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_LOG"} <= set(
        linux["seccomp"]["actions"]
    )
    assert {"SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"} <= set(linux["seccomp"]["operators"])
    assert {"SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"} <= set(linux["seccomp"]["archs"])
    assert isinstance(linux["apparmor"]["enabled"], bool)
    assert isinstance(linux["selinux"]["enabled"], bool)
    assert all(isinstance(each, str) for each in found["annotations"].values())


def test_version(box: Box) -> None:
    """dockerd and podman read the first line's last word, and `spec:`."""
    for flag in ("--version", "-v"):
        shown = box.call(flag).succeeded().out
        first, *others = shown.splitlines()
        assert re.match(r"(runc|crun|sampan-runtime) version \d+\.\d+", first)
        assert any(re.fullmatch(r"spec: 1\.\d+\.\d+(-dev)?", each) for each in others)


def test_help(box: Box) -> None:
    names = {
        "create",
        "delete",
        "exec",
        "kill",
        "list",
        "pause",
        "ps",
        "resume",
        "run",
        "spec",
        "start",
        "state",
        "update",
    }
    for flag in ("--help", "help"):
        outcome = box.call(flag)
        if flag == "help" and box.runtime.differs("no-help-command"):
            outcome.refused("", crun="unknown command help")
            continue
        assert names <= set(re.findall(r"[a-z]+", outcome.succeeded().out))
    for name in ("create", "exec", "kill", "update"):
        shown = box.call(name, "--help").succeeded().out
        assert name in shown
        assert len(shown.splitlines()) > 2


def test_no_terminal_and_no_root_is_needed_to_look(box: Box) -> None:
    """Engines ask as anybody may."""
    line = [*box.runtime.argv(str(box.bundle)), "--version"]
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, env={}, check=True)
    assert b"spec: " in done.stdout
