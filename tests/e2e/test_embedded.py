"""An engine of a program's own, and that nothing of it is left, however the program ends."""

from __future__ import annotations

import json
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator

import pytest

import sampan
from sampan.api.containers import CreateRequest, HostConfig, PortBinding
from sampan.api.networks import NetworkCreateRequest
from sampan.core.paths import Paths
from sampan.embedded import PREFIX
from sampan.errors import Forbidden, Unavailable

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:busybox")


@pytest.fixture
def base() -> Iterator[str]:
    """Where this test's engines have their directories."""
    with tempfile.TemporaryDirectory(prefix="emb", dir="/tmp") as directory:
        yield directory


def _left(base: str) -> list[str]:
    """Directories, processes, mounts, interfaces and rules."""
    found = [entry for entry in os.listdir(base) if entry.startswith(PREFIX)]
    with open("/proc/self/mountinfo") as table:
        found += [line for line in table if base in line]
    for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes()
        except OSError:
            continue
        found += [words.decode()] if base.encode() in words and str(os.getpid()) not in str(entry) else []
    return found


def _in_the_kernel() -> set[str]:
    """Interfaces and firewall tables; other engines may come and go meanwhile."""
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    return {*os.listdir("/sys/class/net"), *(line.split()[-1] for line in listed.splitlines())}


def _names(base: str) -> set[str]:
    """The bridge and the table of each engine below a directory."""
    found: set[str] = set()
    for each in pathlib.Path(base).glob(f"{PREFIX}*"):
        paths = Paths(f"{each}/data", f"{each}/run")
        found |= {paths.bridge, paths.table}
    return found


def _wait_until_gone(base: str, names: set[str]) -> None:
    assert names
    deadline = time.monotonic() + 60
    while (_left(base) or _in_the_kernel() & names) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _left(base) == []
    assert _in_the_kernel() & names == set()


def test_an_engine_from_nothing_to_nothing(base: str) -> None:
    with sampan.Engine(directory=base) as engine:
        engine.image_from_host("tools", "sh", "cat", "sleep")
        done = engine.docker.run(CreateRequest(image="tools", cmd=("/bin/sh", "-c", "cat; exit 3")), stdin=b"in")
        assert (done.exit_code, done.stdout) == (3, b"in")
        network = engine.docker.networks.create(NetworkCreateRequest(name="own"))
        ports = HostConfig(network_mode="own", port_bindings={"80/tcp": (PortBinding(host_ip="127.0.0.1"),)})
        made = engine.docker.containers.create(
            CreateRequest(image="tools", cmd=("/bin/sleep", "600"), volumes={"/v": {}}, host_config=ports)  # type: ignore[dict-item]
        )
        engine.docker.containers.start(made.id)
        names = _names(base) | {f"br-{network[:12]}"}
        assert names <= _in_the_kernel()
        command = [sys.executable, "-m", "sampan.cli.__main__", "ps", "-q", "--no-trunc"]
        assert subprocess.run(command, env=engine.environment, capture_output=True).stdout.decode().strip() == made.id
    _wait_until_gone(base, names)
    engine.close()


def test_what_is_raised_goes_through(base: str) -> None:
    with pytest.raises(ZeroDivisionError), sampan.Engine(directory=base) as engine:
        assert engine.docker.system.ping()
        names = _names(base)
        raise ZeroDivisionError
    _wait_until_gone(base, names)


def test_two_at_once(base: str) -> None:
    answers: list[str] = []
    names: set[str] = set()
    both = threading.Barrier(2, timeout=60)

    def run() -> None:
        with sampan.Engine(directory=base) as engine:
            engine.image_from_host("tools", "sh")
            both.wait()
            names.update(_names(base))
            answers.append(
                engine.docker.run(CreateRequest(image="tools", cmd=("/bin/sh", "-c", "echo hi"))).stdout.decode()
            )
            answers.append(json.dumps(engine.docker.networks.inspect("bridge").ipam.config[0].subnet))  # type: ignore[index]

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.count("hi\n") == 2
    assert len(set(answers)) == 3, "each has addresses of its own"
    _wait_until_gone(base, names)


_PROGRAM = textwrap.dedent("""
    import sys, time, sampan
    from sampan.api.containers import CreateRequest
    with sampan.Engine(directory=sys.argv[1]) as engine:
        engine.image_from_host("tools", "sleep")
        made = engine.docker.containers.create(CreateRequest(image="tools", cmd=("/bin/sleep", "600")))
        engine.docker.containers.start(made.id)
        print(engine._guard.pid, engine.docker.containers.inspect(made.id).state.pid, flush=True)
        time.sleep(600)
""")


def _program(base: str) -> tuple[subprocess.Popen[str], int, int]:
    """A program with an engine, its guard's process, and its container's."""
    process = subprocess.Popen([sys.executable, "-c", _PROGRAM, base], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    guard, container = map(int, process.stdout.readline().split())
    return process, guard, container


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_program_that_is_killed_leaves_nothing(base: str) -> None:
    process, _, container = _program(base)
    names = _names(base)
    _kill(process)
    _wait_until_gone(base, names)
    assert not os.path.exists(f"/proc/{container}")


def test_an_engine_that_is_killed_leaves_nothing(base: str) -> None:
    """The containers outlive it, as always; the guard has another engine remove them."""
    process, _, container = _program(base)
    names = _names(base)
    (directory,) = pathlib.Path(base).glob(f"{PREFIX}*")
    os.kill(int((directory / "run/sampan.pid").read_text()), signal.SIGKILL)
    assert os.path.exists(f"/proc/{container}")
    _kill(process)
    _wait_until_gone(base, names)
    assert not os.path.exists(f"/proc/{container}")


def test_what_a_killed_guard_left_goes_with_the_next_engine(base: str) -> None:
    process, guard, container = _program(base)
    names = _names(base)
    os.kill(guard, signal.SIGKILL)
    _kill(process)
    time.sleep(0.2)
    assert os.path.exists(f"/proc/{container}")
    (old,) = pathlib.Path(base).glob(f"{PREFIX}*")
    (engine_pid,) = [int((old / "run/sampan.pid").read_text())]
    with sampan.Engine(directory=base):
        assert not old.exists()
        for pid in (container, engine_pid):  # Whose corpse the machine's first process has to collect.
            deadline = time.monotonic() + 10
            while os.path.exists(f"/proc/{pid}"):
                assert time.monotonic() < deadline
                time.sleep(0.05)
    _wait_until_gone(base, names)


def test_somebody_elses_directory_is_left_alone(base: str) -> None:
    theirs = pathlib.Path(base, f"{PREFIX}theirs")
    theirs.mkdir()
    (theirs / "precious").write_text("x")
    os.chown(theirs, 1000, 1000)
    os.symlink("/etc", f"{base}/{PREFIX}link")
    with sampan.Engine(directory=base):
        assert (theirs / "precious").read_text() == "x"
    assert os.path.exists("/etc/passwd")


def test_one_that_cannot_start_says_why(base: str) -> None:
    with pytest.raises(Unavailable, match="unknown flag: --nonsense"), sampan.Engine("--nonsense", directory=base):
        pass
    assert _left(base) == []


def test_it_needs_root(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Forbidden, match="root"), sampan.Engine(directory=base):
        pass


def _close(engine: sampan.Engine) -> None:
    engine.close()


def test_a_forked_child_does_not_end_it(base: str) -> None:
    with sampan.Engine(directory=base) as engine:
        child = multiprocessing.get_context("fork").Process(target=_close, args=[engine])
        child.start()
        child.join()
        assert engine.docker.system.ping()
    assert _left(base) == []
