"""No container's process imports anything between its birth and its execve: it would read the container's files."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec
import pytest

import sampan
from sampan.linux.cgroup import hierarchies
from sampan.oci.runtime import Hook, Hooks, IDMapping, Namespace, Process
from tests.privileged.runtime.imports_driver import Case, Cases, Outcome
from tests.privileged.runtime.test_container import Box

pytestmark = pytest.mark.requires("root", "overlay", "seccomp", "program:busybox")

MAP = (IDMapping(container_id=0, host_id=100_000, size=65536),)
DRIVER = os.path.join(os.path.dirname(__file__), "imports_driver.py")


def cases(box: Box) -> list[Case]:
    shell = Process(cwd="/", args=("true",), env=("PATH=/bin",))
    sleeps = box.spec("sleep", "100")
    assert sleeps.linux is not None
    kinds = (*sleeps.linux.namespaces, Namespace(type="user"))
    apart = {"namespaces": kinds, "uid_mappings": MAP, "gid_mappings": MAP}
    hooks = Hooks(
        create_container=(Hook(path="/bin/true"),), start_container=(Hook(path="/bin/busybox", args=("true",)),),
    )  # fmt: skip
    made = [
        Case(name="plain", spec=box.spec("true")),
        Case(name="terminal", spec=box.spec("true", terminal=True)),
        Case(name="reaper", spec=box.spec("true", annotations={"sampan.init": "true"})),
        Case(name="hooks", spec=box.spec("true", hooks=hooks)),
        Case(name="user namespace", spec=box.spec("true", **apart)),
        Case(name="detached", spec=box.spec("true"), detached=True),
        Case(name="no program", spec=box.spec("nope")),
        Case(name="no directory", spec=box.spec("true", cwd="/bin/busybox/none")),
        Case(name="exec", spec=sleeps, exec=shell),
        Case(name="exec with a terminal", spec=sleeps, exec=msgspec.structs.replace(shell, terminal=True)),
        Case(name="exec of no program", spec=sleeps, exec=msgspec.structs.replace(shell, args=("nope",))),
        Case(name="exec in a user namespace", spec=box.spec("sleep", "100", **apart), exec=shell),
    ]
    if not hierarchies().unified:
        made.append(Case(name="forked ahead", spec=box.spec("true"), newborn=True))
    return made


def test_nothing_is_imported_in_a_containers_process(box: Box) -> None:
    os.chmod(box.bundle, 0o755)
    wanted = cases(box)
    paths = {os.path.dirname(os.path.dirname(str(module.__file__))) for module in (sampan, msgspec)}
    done = subprocess.run(
        [sys.executable, "-I", "-S", DRIVER, ":".join(paths)], capture_output=True, check=False,
        input=msgspec.json.encode(Cases(id=box.id, bundle=str(box.bundle), state_root=box.state_root, cases=wanted)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    control, *outcomes = msgspec.json.decode(done.stdout, type=list[Outcome])
    assert control.imported == ["colorsys"]
    assert [each.name for each in outcomes] == [each.name for each in wanted]
    assert {each.name: each.imported for each in outcomes if each.imported} == {}
    assert {each.name for each in outcomes if each.error} == {"no program", "no directory", "exec of no program"}
