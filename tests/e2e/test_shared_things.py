"""What containers have of one another, or of a vendor: namespaces, links, CDI devices."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:docker", "program:busybox")


def _run(engine: Engine, name: str, *words: str) -> str:
    return engine.docker("run", "-d", "--name", name, *words, check=True).stdout.strip()


def _pins(engine: Engine) -> list[str]:
    table = pathlib.Path("/proc/self/mountinfo").read_text()
    return [line.split()[4] for line in table.splitlines() if line.split()[4].startswith(engine.paths.shims)]


# --- Namespaces -------------------------------------------------------------------------------------


def test_a_pid_namespace_is_shared(engine: Engine) -> None:
    docker = engine.docker
    first = _run(engine, "first", "--network", "none", "box", "sleep", "612")
    seen = docker("run", "--rm", "--network", "none", "--pid", "container:first", "box", "ps", check=True).stdout
    assert "sleep 612" in seen
    _run(engine, "second", "--network", "none", "--pid", "container:first", "box", "sleep", "613")
    shown = json.loads(docker("inspect", "second").stdout)[0]
    assert shown["HostConfig"]["PidMode"] == f"container:{first}"
    assert "sleep 613" in docker("exec", "first", "ps", check=True).stdout
    namespaces = {
        os.readlink(f"/proc/{json.loads(docker('inspect', name).stdout)[0]['State']['Pid']}/ns/pid")
        for name in ("first", "second")
    }
    assert len(namespaces) == 1
    # Its first process's end takes the namespace, and the other one, along.
    docker("stop", "-t", "0", "first", check=True)
    assert docker("wait", "second").stdout == "137\n"
    refused = docker("start", "second")
    assert refused.returncode == 1
    assert f"failed to join PID namespace: container {first} is not running" in refused.stderr
    assert docker("inspect", "-f", "{{.State.Status}}", "second").stdout == "exited\n"
    docker("rm", "-f", "first", "second", check=True)
    assert engine.left_over() == []
    assert _pins(engine) == []


def test_memory_and_queues_are_shared(engine: Engine) -> None:
    docker = engine.docker
    donor = _run(engine, "donor", "--network", "none", "--ipc", "shareable", "--shm-size", "8m", "box", "sleep", "600")
    _run(engine, "alone", "--network", "none", "box", "sleep", "600")
    docker("exec", "donor", "sh", "-c", "echo from donor >/dev/shm/word; touch /dev/mqueue/queue", check=True)
    taker = ("run", "--rm", "--network", "none", "--ipc", "container:donor", "box")
    assert docker(*taker, "sh", "-c", "cat /dev/shm/word; ls /dev/mqueue").stdout == "from donor\nqueue\n"
    size = docker(*taker, "sh", "-c", "mount | grep /dev/shm").stdout
    assert "size=8192k" in size and "nosuid,nodev,noexec" in size
    refused = docker("run", "--rm", "--network", "none", "--ipc", "container:alone", "box", "true")
    assert "non-shareable IPC (hint: use IpcMode:shareable for the donor container)" in refused.stderr
    docker("stop", "-t", "0", "donor", check=True)
    refused = docker("run", "--rm", "--network", "none", "--ipc", "container:donor", "box", "true")
    assert f"failed to join IPC namespace: container {donor} is not running" in refused.stderr
    # The memory is a new one at the next start.
    docker("start", "donor", check=True)
    assert docker("exec", "donor", "ls", "/dev/shm").stdout == ""
    docker("rm", "-f", "donor", "alone", check=True)
    assert engine.left_over() == []
    assert _pins(engine) == []


def test_what_is_joined_stays_joined_without_an_engine(engine: Engine) -> None:
    """The shim starts the joining one again by itself; the pins are the same ones."""
    docker = engine.docker
    _run(engine, "donor", "--network", "none", "--ipc", "shareable", "box", "sleep", "600")
    docker("exec", "donor", "sh", "-c", "echo 1 >/dev/shm/runs", check=True)
    _run(
        engine, "taker", "--network", "none", "--ipc", "container:donor", "--pid", "container:donor", "--restart",
        "always", "box", "sh", "-c", "echo run >>/dev/shm/runs; sleep 0.3",
    )  # fmt: skip
    engine.stop(signal.SIGKILL)
    time.sleep(1.5)
    engine.start()
    assert docker("exec", "donor", "cat", "/dev/shm/runs").stdout.count("run\n") > 2
    docker("rm", "-f", "taker", "donor", check=True)
    assert engine.left_over() == []
    assert _pins(engine) == []


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--pid", "container:nosuch"), "No such container: nosuch"),
        (("--ipc", "container:nosuch"), "No such container: nosuch"),
        (("--storage-opt", "size=1G"), "--storage-opt is supported only for overlay over xfs with 'pquota'"),
        (("--storage-opt", "nope=1"), "Unknown option nope"),
        (("--gpus", "all"), 'could not select device driver "" with capabilities: [[gpu]]'),
        (("--device", "vendor.com/class=nope"), "CDI device injection failed: unresolvable CDI devices vendor.com"),
        (("--link", "nosuch:x"), "could not get container for nosuch: No such container: nosuch"),
        (("--isolation", "hyperv"), "invalid isolation (hyperv): linux only supports 'default'"),
    ],
)
def test_refusals_leave_nothing(engine: Engine, option: tuple[str, str], message: str) -> None:
    done = engine.docker("run", "--rm", *option, "box", "true")
    assert done.returncode == 125 and message in done.stderr
    deadline = time.monotonic() + 10
    while engine.docker("ps", "-aq").stdout and time.monotonic() < deadline:
        time.sleep(0.05)
    assert engine.docker("ps", "-aq").stdout == ""
    assert engine.left_over() == []
    assert _pins(engine) == []


# --- Links ------------------------------------------------------------------------------------------


def test_links(engine: Engine) -> None:
    docker = engine.docker
    exposed = ("--expose", "80", "--expose", "90/udp", "--expose", "8000-8002")
    _run(engine, "web", "-e", "FOO=bar", "-e", "SP=a b", "--hostname", "webhost", *exposed, "box", "sleep", "600")
    address = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web").stdout.strip()
    _run(engine, "par", "--link", "web:d-b", "box", "sleep", "600")
    told = dict(line.split("=", 1) for line in docker("exec", "par", "env").stdout.splitlines())
    expected = {
        "D_B_NAME": "/par/d-b", "D_B_ENV_FOO": "bar", "D_B_ENV_SP": "a b", "D_B_PORT": f"tcp://{address}:80",
        "D_B_PORT_80_TCP": f"tcp://{address}:80", "D_B_PORT_80_TCP_ADDR": address, "D_B_PORT_80_TCP_PORT": "80",
        "D_B_PORT_80_TCP_PROTO": "tcp", "D_B_PORT_90_UDP": f"udp://{address}:90",
        "D_B_PORT_8000_TCP_START": f"tcp://{address}:8000", "D_B_PORT_8000_TCP_PORT_START": "8000",
        "D_B_PORT_8000_TCP_END": f"tcp://{address}:8002", "D_B_PORT_8000_TCP_PORT_END": "8002",
        "D_B_PORT_8002_TCP_PORT": "8002",
    }  # fmt: skip
    assert {name: told.get(name) for name in expected} == expected
    assert "D_B_ENV_PATH" not in told
    assert f"{address}\td-b webhost web\n" in docker("exec", "par", "cat", "/etc/hosts").stdout
    assert docker("inspect", "-f", "{{json .HostConfig.Links}}", "par").stdout == '["/web:/par/d-b"]\n'
    listed = docker("ps", "--no-trunc", "--format", "{{.Names}}").stdout.split()
    assert listed == ["par", "par/d-b,web"]
    assert docker("inspect", "-f", "{{.Name}}", "par/d-b").stdout == "/web\n"
    # It comes back with another address, which the linking one is told.
    docker("stop", "-t", "0", "web", check=True)
    _run(engine, "between", "box", "sleep", "600")
    docker("start", "web", check=True)
    now = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web").stdout.strip()
    assert f"{now}\td-b webhost web\n" in docker("exec", "par", "cat", "/etc/hosts").stdout
    docker("stop", "-t", "0", "web", "par", check=True)
    refused = docker("start", "par")
    assert "Cannot link to a non running container: /web AS /par/d-b" in refused.stderr
    assert docker("rm", "--link", "par/d-b", check=True).stdout == "par/d-b\n"
    assert "No such container: par/d-b" in docker("rm", "--link", "par/d-b").stderr
    assert "cannot remove the default link name of the container" in docker("rm", "--link", "web").stderr
    docker("start", "par", check=True)
    assert "web" not in docker("exec", "par", "cat", "/etc/hosts").stdout
    docker("rm", "-f", "web", "par", "between", check=True)
    assert engine.left_over() == []


def test_a_link_goes_with_what_it_leads_to(engine: Engine) -> None:
    docker = engine.docker
    _run(engine, "web", "box", "sleep", "600")
    _run(engine, "par", "--link", "web", "box", "sleep", "600")
    assert docker("inspect", "-f", "{{json .HostConfig.Links}}", "par").stdout == '["/web:/par/web"]\n'
    docker("rm", "-f", "web", check=True)
    docker("restart", "-t", "0", "par", check=True)
    assert docker("inspect", "-f", "{{json .HostConfig.Links}}", "par").stdout == "null\n"


# --- Devices that vendors describe ------------------------------------------------------------------


@pytest.fixture
def described() -> Iterator[tuple[Engine, pathlib.Path]]:
    directory = pathlib.Path(tempfile.mkdtemp(prefix="smp", dir="/tmp"))
    (directory / "cdi").mkdir()
    running = Engine(directory, "--cdi-spec-dir", str(directory / "cdi"))
    running.start()
    try:
        running.load_box()
        yield running, directory / "cdi"
        running.remove_containers()
        assert running.left_over() == []
    finally:
        running.stop()
        running.take_down()
        shutil.rmtree(directory, ignore_errors=True)


def _description(directory: pathlib.Path) -> dict[str, object]:
    return {
        "cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "containerEdits": {"env": ["EVERY=1"]},
        "devices": [
            {
                "name": name,
                "containerEdits": {
                    "env": [f"ONE={name}"],
                    "deviceNodes": [{"path": "/dev/one", "hostPath": "/dev/fuse", "permissions": "r", "fileMode": 420}],
                    "mounts": [{"hostPath": str(directory), "containerPath": "/vendor", "options": ["ro", "bind"]}],
                    "hooks": [
                        {"hookName": "createRuntime", "path": "/bin/sh", "args": ["sh", "-c", f"cat >{directory}/hook"]}
                    ],
                    "additionalGids": [4711],
                },
            }
            for name in ("0", "all")
        ],
    }  # fmt: skip


@pytest.mark.parametrize("option", [("--device", "nvidia.com/gpu=0"), ("--gpus", "1"), ("--gpus", "device=0")])
def test_a_device_that_is_described(described: tuple[Engine, pathlib.Path], option: tuple[str, str]) -> None:
    engine, directory = described
    (directory / "vendor.json").write_text(json.dumps(_description(directory)))
    script = "env; id -G; stat -c '%t:%T %a' /dev/one; ls /vendor; sh -c ': </dev/one' && echo opens; : >/dev/one"
    done = engine.docker("run", "--rm", "--network", "none", *option, "box", "sh", "-c", script)
    lines = done.stdout.splitlines()
    assert {"EVERY=1", "ONE=0", "0 4711", "a:e5 644", "opens", "vendor.json"} <= set(lines)
    assert "can't create /dev/one" in done.stderr
    assert json.loads((directory / "hook").read_text())["status"] in ("creating", "created")


@pytest.mark.requires("module:yaml")
def test_descriptions_in_yaml(described: tuple[Engine, pathlib.Path]) -> None:
    engine, directory = described
    (directory / "vendor.yaml").write_text(
        "cdiVersion: 0.6.0\nkind: nvidia.com/gpu\ndevices:\n- name: all\n  containerEdits:\n    env: [ONE=all]\n"
    )
    done = engine.docker("run", "--rm", "--network", "none", "--gpus", "all", "box", "env", check=True)
    assert "ONE=all" in done.stdout
    # Two that describe one device: nobody knows which is meant.
    shutil.copy(directory / "vendor.yaml", directory / "other.yaml")
    refused = engine.docker("run", "--rm", "--network", "none", "--device", "nvidia.com/gpu=all", "box", "env")
    assert "unresolvable CDI devices nvidia.com/gpu=all" in refused.stderr
    (directory / "other.yaml").write_text("no: [description")
    engine.docker("run", "--rm", "--network", "none", "--device", "nvidia.com/gpu=all", "box", "env", check=True)
    assert engine.client.call("GET", "/info")["CDISpecDirs"] == [str(directory)]


# --- Others -----------------------------------------------------------------------------------------


def test_without_a_network(engine: Engine) -> None:
    body = {"Image": "box", "Cmd": ["sh", "-c", "ip -o addr; ls /sys/class/net"], "NetworkDisabled": True}
    made = engine.client.call("POST", "/containers/create?name=off", body)["Id"]
    engine.client.call("POST", f"/containers/{made}/start")
    engine.docker("wait", "off", check=True)
    assert engine.docker("logs", "off").stdout.splitlines()[-1] == "lo"
    assert json.loads(engine.docker("inspect", "off").stdout)[0]["Config"]["NetworkDisabled"] is True
