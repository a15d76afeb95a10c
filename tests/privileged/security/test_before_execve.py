"""What a container can reach of the process that enters it, between its birth and its execve (docs/design/0010)."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

from sampan.linux.capabilities import NAMES
from sampan.oci.runtime import Capabilities, IDMapping, Namespace, Process, User
from sampan.runtime import init
from sampan.runtime.container import Container, Stdio
from tests.privileged.runtime.test_container import Box
from tests.privileged.security.attacks import Command

pytestmark = pytest.mark.requires("root", "overlay", "program:busybox")

_BOUNDED = 20.0
_KINDS = ("mount", "pid", "network", "ipc", "uts", "user")
_MAP = (IDMapping(container_id=0, host_id=100000, size=1000),)


def _capabilities(*names: str) -> Capabilities:
    return Capabilities(bounding=names, effective=names, permitted=names)


@contextlib.contextmanager
def _running(box: Box, *capabilities: str, **changes: object) -> Iterator[Container]:
    spec = box.spec("sleep", "100", capabilities=_capabilities(*capabilities), **changes)
    container = Container.create(box.id, str(box.bundle), box.state_root, Stdio(), spec=spec)
    container.start()
    try:
        yield container
    finally:
        container.kill(signal.SIGKILL)
        os.waitpid(container.pid, 0)
        container.delete(force=True)


def _process(*args: str, uid: int = 0) -> Process:
    return Process(cwd="/", args=args, env=("PATH=/bin",), user=User(uid=uid, gid=uid))


def _run(container: Container, script: str, uid: int = 0) -> str:
    """In the container, beside what is already there."""
    reading, writing = os.pipe()
    try:
        made = container.exec(_process("sh", "-c", script, uid=uid), Stdio(None, writing))
    finally:
        os.close(writing)
    with os.fdopen(reading) as output:
        text = output.read()
    os.waitpid(made.pid, 0)
    os.close(made.pidfd)
    return text


@contextlib.contextmanager
def _entering(container: Container, monkeypatch: pytest.MonkeyPatch, at: str, uid: int = 0) -> Iterator[int]:
    """A process that enters the container and is stopped on its way, `at` a function of init's. Its id in there."""
    before = set(container.pids())
    real: Callable[..., object] = getattr(init, at)

    def stopped(*arguments: object, **named: object) -> object:
        os.kill(os.getpid(), signal.SIGSTOP)
        return real(*arguments, **named)

    helper = os.fork()
    if helper == 0:
        try:
            monkeypatch.setattr(init, at, stopped)
            made = container.exec(_process("true", uid=uid), Stdio())
            os.waitpid(made.pid, 0)
        finally:
            os._exit(0)
    try:
        yield _number_inside(container, helper, before)
    finally:
        for pid in set(container.pids()) - before | _children(helper):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        os.waitpid(helper, 0)


def _children(pid: int) -> set[int]:
    return {int(each) for each in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def _number_inside(container: Container, helper: int, before: set[int]) -> int:
    depth = _namespaces(container.pid)
    until = time.monotonic() + _BOUNDED
    while time.monotonic() < until:
        for pid in set(container.pids()) - before | _children(helper):
            with contextlib.suppress(OSError):
                status = pathlib.Path(f"/proc/{pid}/status").read_text()
                if "State:\tT" in status and _namespaces(pid) == depth:
                    return int(status.partition("NSpid:")[2].splitlines()[0].split()[-1])
        time.sleep(0.005)
    raise AssertionError("no process has come")


def _namespaces(pid: int) -> int:
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return len(text.partition("NSpid:")[2].splitlines()[0].split())


def _tried(number: int) -> str:
    """A script that tries all that /proc shows of a process."""
    at = f"/proc/{number}"
    return (
        f'for each in root/bin cwd/bin map_files; do [ -n "$(ls {at}/$each 2>/dev/null)" ] && echo $each; done; '
        f"for each in environ maps auxv syscall stack; do cat {at}/$each >/dev/null 2>&1 && echo $each; done; "
        f"for each in exe fd/0 ns/mnt; do busybox readlink {at}/$each >/dev/null && echo $each; done; "
        f"busybox dd if={at}/mem of=/dev/null bs=1 count=0 2>/dev/null && echo mem; echo tried"
    )


@pytest.mark.parametrize("at", ["run_exec", "_execute"])
def test_without_ptrace_it_is_closed(box: Box, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """CVE-2016-9962: from its birth on, with the host's powers, and later, with the container's own."""
    with _running(box, "CAP_KILL", "CAP_DAC_OVERRIDE") as container, _entering(container, monkeypatch, at) as number:
        assert _run(container, _tried(number)) == "tried\n"


def test_a_user_finds_it_closed(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same user without capabilities, as the process is at last. By its change of user it would be open again,
    where the host's fs.suid_dumpable is 1."""
    setting = pathlib.Path("/proc/sys/fs/suid_dumpable")
    before = setting.read_text()
    with _running(box) as container, contextlib.ExitStack() as undo:
        undo.callback(setting.write_text, before)
        setting.write_text("1")
        number = undo.enter_context(_entering(container, monkeypatch, "_execute", uid=7))
        assert _run(container, _tried(number), uid=7) == "tried\n"


@pytest.mark.parametrize("at", ["run_exec", "_execute"])
def test_root_of_a_user_namespace_finds_it_closed(box: Box, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """With every capability in there: the memory is one of the host's user namespace, from before."""
    for each in (box.root, *box.root.rglob("*")):
        os.chown(each, 100000, 100000, follow_symlinks=False)
    namespaces = tuple(Namespace(type=kind) for kind in _KINDS)
    with (
        _running(box, *NAMES, namespaces=namespaces, uid_mappings=_MAP, gid_mappings=_MAP) as container,
        _entering(container, monkeypatch, at) as number,
    ):
        assert _run(container, _tried(number)) == "tried\n"


def test_with_ptrace_nothing_of_the_hosts_files_is_in_reach(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """CAP_SYS_PTRACE opens it. Its root, directory, mounts and descriptors are the container's from its birth on."""
    secret = box.bundle / "secret"
    secret.write_text("of the host")
    held = [os.open(secret, os.O_RDONLY), os.open("/", os.O_RDONLY | os.O_DIRECTORY)]
    try:
        with _running(box, "CAP_SYS_PTRACE") as container, _entering(container, monkeypatch, "run_exec") as number:
            text = _run(container, _tried(number))
            assert {"root/bin", "fd/0", "exe", "mem"} <= set(text.split())  # So it is a test.
            at = f"/proc/{number}"
            shown = _run(container, f"ls {at}/root/ {at}/cwd/; cat {at}/mountinfo; ls -l {at}/fd")
            assert "usr" not in shown.split() and "boot" not in shown.split()
            assert str(box.bundle) not in shown.replace(f"{box.bundle}/rootfs", "")
            descriptors = [line.split(" -> ")[1] for line in shown.splitlines() if " -> " in line]
            assert len(descriptors) >= 4
            assert all(
                each.startswith(("/dev/null", "socket:", "anon_inode:[pidfd]", "pidfd:")) or "/sampan-test-" in each
                for each in descriptors
            )
    finally:
        for descriptor in held:
            os.close(descriptor)


def test_process_1_that_reaps_is_closed(box: Box) -> None:
    """With `--init`, process 1 is our interpreter for as long as the container lives, with the container's capabilities
    and no more."""
    names = ("CAP_KILL", "CAP_DAC_OVERRIDE")

    def run(*more: str) -> str:
        held = _capabilities(*names, *more)
        script = f"{_tried(1)}; cat /proc/1/status"
        return box.run("sh", "-c", script, capabilities=held, annotations={"sampan.init": "true"})[1]

    text = run()
    assert text.startswith("tried\n")
    assert f"CapPrm:\t{1 << 5 | 1 << 1:016x}\nCapEff:\t{1 << 5 | 1 << 1:016x}\nCapBnd:\t{1 << 5 | 1 << 1:016x}" in text
    assert {"root/bin", "exe", "mem"} <= set(run("CAP_SYS_PTRACE").partition("tried")[0].split())


def test_no_module_of_the_bundles_is_imported(box: Box) -> None:
    """Engines run the command in the bundle's directory."""
    for name in ("msgspec", "sampan", "os", "errno", "encodings", "sitecustomize"):
        (box.bundle / f"{name}.py").write_text(f"open({str(box.bundle / 'imported')!r}, 'w')\n")
    command = Command(box)
    command.configure(box.spec("true"))
    program = pathlib.Path(__file__).parents[3] / "scripts/sampan-runtime"
    done = subprocess.run(
        [sys.executable, program, "--root", box.state_root, "run", box.id],
        cwd=box.bundle,
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert not (box.bundle / "imported").exists()


def test_no_module_of_an_images_is_imported(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image has modules wherever ours are looked for, which leave a mark."""
    import encodings

    mark = "import os\nos.close(os.open('/imported', os.O_CREAT | os.O_WRONLY))\n"
    places = [*sys.path, *encodings.__path__]
    names = {name.rpartition(".")[2] for name in sys.stdlib_module_names} | {"ascii", "idna", "latin_1", "utf_16"}
    for place in places:
        directory = box.root / place.lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        for name in names:
            (directory / f"{name}.py").write_text(mark)
    real = init._take_terminal

    def importing(*arguments: object, **named: object) -> None:
        for name in ("encodings.utf_16", "this"):
            with contextlib.suppress(ImportError, ImportWarning):
                __import__(name)
        real(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(init, "_take_terminal", importing)
    spec = box.spec("sleep", "100", terminal=True)
    container = Container.create(box.id, str(box.bundle), box.state_root, Stdio(), spec=spec)
    try:
        container.start()
        made = container.exec(msgspec.structs.replace(_process("true"), terminal=True), Stdio())
        os.waitpid(made.pid, 0)
        os.close(made.pidfd)
        assert made.master is not None and container.master is not None
        os.close(made.master)
        os.close(container.master)
    finally:
        container.delete(force=True)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(container.pid, 0)
    assert not (box.root / "imported").exists()
