"""CVE-2019-5736: a container that gets at the host's executable through /proc/PID/exe, and overwrites it.

Here the executable is the interpreter. The runtime's processes execute a sealed copy of it in memory instead.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import sys

import pytest

from sampan.oci.runtime import Capabilities
from tests.privileged.runtime.test_container import Box
from tests.privileged.security.attacks import Command, elf_interpreter

pytestmark = [
    pytest.mark.requires("root", "overlay", "seccomp", "program:busybox"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the attacker's program is x86-64's"),
]

_SEALED = "/memfd:sampan-python (deleted)"

_IMAGE = """
echo "exe $(busybox readlink /proc/self/fd/3)"
(echo overwritten > /proc/self/fd/3) 2>/dev/null && echo written
(echo overwritten >> /proc/self/fd/3) 2>/dev/null && echo appended
echo over
"""
"""What the image's loader does with descriptor 3, which is the executed program."""

_WATCHER = """
: > /seen
while :; do
  for exe in /proc/[0-9]*/exe; do
    (exec 4<$exe && busybox readlink /proc/self/fd/4 && echo overwritten > /proc/self/fd/4) >>/seen 2>/dev/null
  done
done
"""
"""What a running container does with every process that it sees."""


def _interpreter() -> tuple[str, int, float]:
    path = pathlib.Path(os.path.realpath(sys.executable))
    found = path.stat()
    return hashlib.sha256(path.read_bytes()).hexdigest(), found.st_ino, found.st_mtime


@pytest.mark.parametrize("form", ["program", "link", "script"])
def test_an_image_whose_program_is_proc_self_exe(box: Box, form: str) -> None:
    before = _interpreter()
    (box.root / "lib64").mkdir()
    loader = box.root / "lib64/ld-linux-x86-64.so.2"
    loader.write_bytes(elf_interpreter())
    loader.chmod(0o755)
    (box.root / "attack").write_text(_IMAGE)
    program = "/proc/self/exe" if form == "program" else "/entry"
    match form:
        case "link":
            (box.root / "entry").symlink_to("/proc/self/exe")
        case "script":
            (box.root / "entry").write_text("#!/proc/self/exe\n")
            (box.root / "entry").chmod(0o755)
    done = Command(box).run(box.spec(program))
    assert done.stdout == f"exe {_SEALED}\nover\n", done.stderr
    assert _interpreter() == before


@pytest.mark.parametrize("capability", ["CAP_KILL", "CAP_SYS_PTRACE"])
def test_a_container_that_waits_for_who_enters(box: Box, capability: str) -> None:
    """Without CAP_SYS_PTRACE it sees nothing of the process that enters; with it, the sealed copy."""
    before = _interpreter()
    capabilities = Capabilities(bounding=(capability,), effective=(capability,), permitted=(capability,))
    command = Command(box)
    (box.root / "watch").write_text(_WATCHER)
    with command.running(box.spec("sh", "/watch", capabilities=capabilities)):
        for _ in range(8):
            done = command("exec", box.id, "busybox", "true")
            assert done.returncode == 0, done.stderr
    seen = set((box.root / "seen").read_text().split("\n")) - {""}
    assert seen <= {_SEALED, "/bin/busybox"}
    assert "/bin/busybox" in seen
    assert (_SEALED in seen) <= (capability == "CAP_SYS_PTRACE")
    assert _interpreter() == before
