"""What every test can use: the `requires` marker, and short directories for unix sockets."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator

import hypothesis
import pytest
from hypothesis import HealthCheck, settings

# How long it takes to make an example says how busy the machine is.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# How long an example takes says how busy the machine is, and nothing about the code.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)  # fmt: skip
hypothesis.settings.load_profile("patient")


def _file_system(name: str) -> bool:
    return any(line.split()[-1] == name for line in pathlib.Path("/proc/filesystems").read_text().splitlines())


def _netlink(protocol: int) -> bool:
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol).close()
    except OSError:
        return False
    return True


def _erofs_utils() -> bool:
    """Older ones know blocks of 4096 bytes only, and no tar."""
    try:
        done = subprocess.run(["mkfs.erofs", "--version"], capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return False
    version = re.search(r"(\d+)\.(\d+)", done.stdout + done.stderr)
    return version is not None and (int(version[1]), int(version[2])) >= (1, 8)


def postgresql() -> str:
    """The directory of the server's programs, which Debian puts on nobody's PATH; empty if there is none."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    return str(found[-1].parent) if found else ""


def _link(kind: str) -> bool:
    """Whether the kernel makes links of that kind upon others."""
    words = f"ip link add x0 type veth peer name x1 && ip link add link x0 name x2 type {kind}"
    return subprocess.run(["unshare", "-n", "sh", "-c", words], capture_output=True, check=False).returncode == 0


NEEDS: dict[str, Callable[[], bool]] = {
    "root": lambda: os.geteuid() == 0,
    "overlay": lambda: _file_system("overlay"),
    "erofs": lambda: _file_system("erofs"),
    "erofs-utils-1.8": _erofs_utils,
    "cgroup1": lambda: os.path.isdir("/sys/fs/cgroup/memory"),
    "cgroup2": lambda: os.path.exists("/sys/fs/cgroup/cgroup.controllers"),
    "systemd": lambda: os.path.isdir("/run/systemd/system"),
    "netns": lambda: os.path.exists("/proc/self/ns/net"),
    "bridge": lambda: _netlink(socket.NETLINK_ROUTE),
    "veth": lambda: _netlink(socket.NETLINK_ROUTE),
    "macvlan": lambda: _link("macvlan"),
    "ipvlan": lambda: _link("ipvlan"),
    "nftables": lambda: _netlink(12),  # NETLINK_NETFILTER
    "postgresql": lambda: bool(postgresql()),
    "seccomp": lambda: os.path.exists("/proc/sys/kernel/seccomp/actions_avail"),
}
"""What a test can ask for by name; `program:NAME` asks for a command on the PATH, `module:NAME` for a Python module,
`kernel:6.3` for that version or a later one."""

# What CI's machines have by nature: a cgroup version, systemd and how new a package
# its distribution has are the machine's choice, all else must be there.
_MACHINE_DEPENDENT = {"cgroup1", "cgroup2", "systemd", "erofs-utils-1.8", "macvlan", "ipvlan"}


def _kernel() -> tuple[int, int]:
    major, minor, *_ = re.split(r"\D+", os.uname().release)
    return int(major), int(minor)


def _met(need: str) -> bool:
    if need.startswith("kernel:"):
        major, _, minor = need.removeprefix("kernel:").partition(".")
        return _kernel() >= (int(major), int(minor))
    if need.startswith("program:"):
        return shutil.which(need.removeprefix("program:"), path=os.environ["PATH"] + ":/usr/sbin:/sbin") is not None
    if need.startswith("module:"):
        return importlib.util.find_spec(need.removeprefix("module:")) is not None
    if need not in NEEDS:
        pytest.fail(f"the test requires {need!r}, which tests/conftest.py does not know", pytrace=False)
    return NEEDS[need]()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose needs are not met; in CI that is a failure."""
    for marker in item.iter_markers("requires"):
        missing = [need for need in marker.args if not _met(need)]
        if not missing:
            continue
        reason = f"needs {', '.join(missing)}"
        if os.environ.get("CI") and not _MACHINE_DEPENDENT.issuperset(missing):
            pytest.fail(f"{reason}: a skipped privileged test fails CI", pytrace=False)
        pytest.skip(reason)


@pytest.fixture
def short_dir() -> Iterator[pathlib.Path]:
    """A directory whose path leaves room in a unix socket's 108 bytes."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="smp", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
