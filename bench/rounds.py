"""What the benchmarks share: a root file system, cases that are measured in turn, and tables of their medians."""

from __future__ import annotations

import compileall
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

APPLETS = ("sh", "true", "sleep", "echo")
WITHOUT_UNIFIED = ["unshare", "-m", "sh", "-c", 'umount /sys/fs/cgroup/unified && exec "$@"', "sh"]
"""crun refuses the hybrid of cgroups 1 and 2: it gets a mount namespace without the latter."""

Cases = dict[str, Callable[[], None]]


def root_file_system(directory: pathlib.Path) -> pathlib.Path:
    """busybox and a few of its names."""
    root = directory / "rootfs"
    for name in ("bin", "etc", "proc", "dev", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", root / "bin/busybox")
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    return root


def compiled() -> None:
    """Compile our modules, as pip does when it installs: a check-out is compiled when a module is first imported, or
    each time anew where PYTHONDONTWRITEBYTECODE is set."""
    import sampan

    compileall.compile_dir(os.path.dirname(sampan.__file__), quiet=1)


def bundle(root: pathlib.Path, directory: pathlib.Path, *args: str) -> pathlib.Path:
    """An OCI bundle with runc's own example of a configuration: an empty network namespace, no seccomp."""
    directory.mkdir()
    subprocess.run(["runc", "spec"], cwd=directory, check=True)
    config = json.loads((directory / "config.json").read_text())
    config["process"].update(terminal=False, args=args)
    config["root"] = {"path": str(root), "readonly": False}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def quiet(command: list[str], env: dict[str, str] | None = None) -> Callable[[], None]:
    """A case: the command, which must succeed."""

    def run() -> None:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False, env=env
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)}: {done.returncode}: {done.stderr.decode()}")

    return run


def measure(cases: Cases, rounds: int) -> dict[str, list[float]]:
    """Each case once a round, so that what disturbs the machine disturbs all; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, run in cases.items():
            begin = time.perf_counter()
            run()
            if number:
                times[name].append((time.perf_counter() - begin) * 1000)
            time.sleep(0.05)
    return times


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(each) for name, each in times.items()}


def machine(rounds: int) -> str:
    return f"{platform.platform()}, {os.cpu_count()} CPUs, {rounds} rounds, medians"
