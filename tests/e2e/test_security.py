"""Attacks on the whole chain, by hostile images and containers, through the docker command: named after their entries.

Those on the runtime alone are in tests/privileged/security.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.conftest import Engine, busybox_tar
from tests.privileged.security.attacks import elf_interpreter

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:docker", "program:busybox")

_SEALED = "/memfd:sampan-python (deleted)"
_X86_64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the attacker's program is x86-64's")

Entry = tuple[str, str | bytes | None]
"""A name in the image; a link's target (text that begins with `->`), a file's content, or None for a directory."""


@pytest.fixture
def image(engine: Engine) -> Iterator[Callable[..., str]]:
    """Makes an image of busybox and what else it is to hold."""
    made: list[str] = []

    def make(*entries: Entry, change: tuple[str, ...] = ()) -> str:
        name = f"evil{len(made)}"
        words = [word for each in change for word in ("--change", each)]
        engine.docker("import", *words, "-", name, stdin=_archive(entries), check=True)
        made.append(name)
        return name

    yield make
    for name in made:
        engine.docker("rmi", "-f", name, check=True)


def _archive(entries: tuple[Entry, ...]) -> bytes:
    buffer = io.BytesIO(busybox_tar())
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755
            if content is None:
                entry.type = tarfile.DIRTYPE
            elif isinstance(content, str) and content.startswith("->"):
                entry.type, entry.linkname = tarfile.SYMTYPE, content[2:]
            else:
                content = content.encode() if isinstance(content, str) else content
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
                continue
            archive.addfile(entry)
    return buffer.getvalue()


def _interpreter() -> str:
    return hashlib.sha256(pathlib.Path(os.path.realpath(sys.executable)).read_bytes()).hexdigest()


def _refused(engine: Engine, *words: str) -> str:
    """A run that fails, and leaves nothing; what it said."""
    volumes = engine.docker("volume", "ls", "-q").stdout
    done = engine.docker("run", "--rm", "--network", "none", *words)
    assert done.returncode in (125, 126, 127), done
    assert done.stdout == ""
    assert engine.docker("ps", "-aq").stdout == ""
    assert engine.docker("volume", "ls", "-q").stdout == volumes
    return done.stderr


@contextlib.contextmanager
def _running(engine: Engine, *words: str) -> Iterator[str]:
    container = engine.docker("run", "-d", "--network", "none", *words, check=True).stdout.strip()
    try:
        yield container
    finally:
        engine.docker("rm", "-f", container)


# --- The executable -----------------------------------------------------------------------------------------


@_X86_64
@pytest.mark.parametrize("init", [(), ("--init",)])
@pytest.mark.parametrize("entry", ["->/proc/self/exe", "#!/proc/self/exe\n"])
def test_cve_2019_5736_an_image_whose_program_is_proc_self_exe(
    engine: Engine, image: Callable[..., str], entry: str, init: tuple[str, ...]
) -> None:
    before = _interpreter()
    attack = (
        "echo $(busybox readlink /proc/self/fd/3)\n(echo overwritten > /proc/self/fd/3) 2>/dev/null && echo written\n"
        "echo over\n"
    )
    name = image(
        ("lib64", None), ("lib64/ld-linux-x86-64.so.2", elf_interpreter()), ("attack", attack), ("entry", entry)
    )
    done = engine.docker("run", "--rm", "--network", "none", *init, name, "/entry")
    assert done.stdout == f"{_SEALED}\nover\n", done.stderr
    assert _interpreter() == before


@pytest.mark.parametrize("more", [(), ("--cap-add", "SYS_PTRACE")])
def test_cve_2019_5736_a_container_that_waits_for_who_enters(engine: Engine, more: tuple[str, ...]) -> None:
    before = _interpreter()
    watch = (
        ": > /seen; while :; do for exe in /proc/[0-9]*/exe; do (exec 4<$exe && busybox readlink /proc/self/fd/4 && "
        "echo overwritten > /proc/self/fd/4) >>/seen 2>/dev/null; done; done"
    )
    with _running(engine, *more, "box", "sh", "-c", watch) as container:
        for _ in range(8):
            engine.docker("exec", container, "true", check=True)
        seen = set(engine.docker("exec", container, "cat", "/seen", check=True).stdout.split("\n")) - {""}
    assert seen <= {"/bin/busybox", _SEALED}
    assert (_SEALED in seen) <= bool(more)
    assert _interpreter() == before


# --- Descriptors --------------------------------------------------------------------------------------------


def test_cve_2024_21626_a_working_directory_by_a_descriptor(engine: Engine, image: Callable[..., str]) -> None:
    script = "ls . .. ../.. ../../.. | grep -e state.db -e sampan.sock -e lost+found; exit 0"
    for number in range(3, 15):
        done = engine.docker(
            "run", "--rm", "--network", "none", "-w", f"/proc/self/fd/{number}", "box", "sh", "-c", script
        )
        assert done.stdout == ""
    name = image(change=("WORKDIR /proc/self/fd/7",))
    assert engine.docker("run", "--rm", "--network", "none", name, "sh", "-c", script).stdout == ""
    with _running(engine, "box", "sleep", "100") as container:
        for number in range(3, 15):
            done = engine.docker("exec", "-w", f"/proc/self/fd/{number}", container, "sh", "-c", script)
            assert done.stdout == "" or done.stdout.startswith("OCI runtime exec failed")
        shown = engine.docker("exec", container, "ls", "-l", "/proc/self/fd", check=True).stdout
        assert all("pipe:" in line or "null" in line for line in shown.splitlines() if " -> " in line)
    shown = engine.docker("run", "--rm", "--network", "none", "box", "ls", "-l", "/proc/self/fd", check=True).stdout
    assert all("pipe:" in line or "null" in line for line in shown.splitlines() if " -> " in line)


# --- /proc and /dev -----------------------------------------------------------------------------------------


def test_cve_2019_16884_an_image_with_a_volume_at_proc(engine: Engine, image: Callable[..., str]) -> None:
    """Its content is copied into the volume: a /proc as the image wants it."""
    entries = (("proc", None), ("proc/self", None), ("proc/self/status", "CapBnd:\t0\n"))
    for place in ("/proc", "/proc/self", "/proc/sys", "/proc/self/attr"):
        name = image(*entries, change=(f"VOLUME {place}",))
        said = _refused(engine, name, "cat", "/proc/self/status")
        assert "cannot be mounted" in said, place
    assert "cannot be mounted" in _refused(engine, "-v", "/etc:/proc", "box", "true")
    assert "cannot be mounted" in _refused(engine, "--tmpfs", "/proc", "box", "true")
    assert "cannot be mounted" in _refused(engine, "-v", "/dev/null:/proc/version", "box", "true")


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
@pytest.mark.parametrize("target", ["/elsewhere", "/data", "../../../../../../../../tmp"])
def test_cve_2019_19921_2023_27561_and_28642_2026_41579_and_47766_a_link(
    engine: Engine, image: Callable[..., str], name: str, target: str
) -> None:
    """In the place of /proc, /sys or /dev; into the image, into a volume, out to the host."""
    before = set(os.listdir("/tmp"))
    evil = image(("elsewhere", None), (name, f"->{target}"))
    engine.docker("volume", "create", "shared", check=True)
    said = _refused(engine, "-v", "shared:/data", evil, "true")
    assert "must be mounted on ordinary directory" in said or "symbolic links" in said
    made = set(os.listdir("/tmp")) - before
    assert not made & {"null", "zero", "fd", "stdin", "ptmx", "pts", "shm", "self", "kernel"}
    engine.docker("volume", "rm", "-f", "shared", check=True)


def test_cve_2025_31133_and_52565_what_the_image_has_in_dev(engine: Engine, image: Callable[..., str]) -> None:
    """Links in the place of null, console and ptmx to what can break the host: /dev is the container's own."""
    pattern = "->/proc/sys/kernel/core_pattern"
    evil = image(("dev", None), *((f"dev/{each}", pattern) for each in ("null", "console", "ptmx", "tty", "core")))
    script = "stat -c '%F' /dev/null /proc/keys; echo x > /proc/keys; cat /proc/keys"
    done = engine.docker("run", "--rm", "--network", "none", evil, "sh", "-c", script)
    assert done.stdout == "character special file\ncharacter special file\n"
    done = engine.docker("run", "--rm", "--network", "none", "-t", evil, "sh", "-c", "stat -c '%F' /dev/console; tty")
    assert done.stdout.split("\r\n") == ["character special file", "/dev/pts/0", ""], done.stderr


# --- Users and capabilities ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "user", ["4294967296", "2147483648", "99999999999999999999", "0:4294967296", "1:-1", "+1", "\u0661"]
)
def test_cve_2024_40635_and_2026_46680_a_user_that_would_be_root(
    engine: Engine, image: Callable[..., str], user: str
) -> None:
    """A number that is cut to 32 bits is 0; and one that is looked up as a name is whatever the image makes of it."""
    name = user.partition(":")[0]
    evil = image(
        ("etc/passwd", f"root:x:0:0::/:\n{name}:x:0:0::/:\n"), change=() if user == "+1" else (f"USER {user}",)
    )
    if user != "+1":  # A name that the image may have.
        said = _refused(engine, evil, "id", "-u")
        assert "range" in said or "no matching entries" in said
    said = _refused(engine, "-u", user, "box", "id", "-u")
    assert "range" in said or "no matching entries" in said
    with _running(engine, "box", "sleep", "100") as container:
        done = engine.docker("exec", "-u", user, container, "id", "-u")
        assert done.returncode == 126
        assert "range" in done.stdout or "no matching entries" in done.stdout


def test_cve_2024_40635_a_number_is_not_a_name(engine: Engine, image: Callable[..., str]) -> None:
    """`-u 1000` of an image in which a user of the name 1000 is root."""
    evil = image(("etc/passwd", "root:x:0:0::/:\n1000:x:0:0::/:\n"), ("etc/group", "1000:x:0:\n"))
    for user in ("1000", "1000:1000"):
        done = engine.docker("run", "--rm", "--network", "none", "-u", user, evil, "id", "-u", check=True)
        assert done.stdout == "1000\n"


def test_cve_2022_24769_27650_and_29162_nothing_is_inherited(engine: Engine) -> None:
    with _running(engine, "--cap-add", "SYS_PTRACE", "box", "sleep", "100") as container:
        for words in (("--privileged",), ("-u", "1000"), ()):
            text = engine.docker("exec", *words, container, "cat", "/proc/self/status", check=True).stdout
            assert "CapInh:\t0000000000000000" in text
            assert "CapAmb:\t0000000000000000" in text
    text = engine.docker("run", "--rm", "--network", "none", "box", "cat", "/proc/self/status", check=True).stdout
    assert "CapInh:\t0000000000000000" in text


# --- The kernel's files -------------------------------------------------------------------------------------


def test_cve_2022_0492_and_what_else_the_kernel_lets_be_written(engine: Engine) -> None:
    """By default: nothing of cgroups, no namespaces, no mounts, no kernel's parameters, no device that is not given."""
    script = """
for each in /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/devices.allow /sys/fs/cgroup/*/cgroup.procs \
  /sys/fs/cgroup/cgroup.procs /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe \
  /sys/kernel/uevent_helper /proc/irq/default_smp_affinity /proc/self/timerslack_ns_none; do
  [ -e $each ] && (echo 0 > $each) 2>/dev/null && echo "written $each"
done
busybox unshare -U true 2>/dev/null && echo unshared
busybox unshare -m true 2>/dev/null && echo unshared
mount -t cgroup -o memory cgroup /tmp 2>/dev/null && echo mounted
mount -t tmpfs tmpfs /tmp 2>/dev/null && echo mounted
mknod /tmp/disk b 8 0 2>/dev/null; cat /tmp/disk >/dev/null 2>&1 && echo read
mknod /tmp/mem c 1 1; cat /tmp/mem >/dev/null 2>&1 && echo read
busybox mkdir /sys/fs/cgroup/memory/made /sys/fs/cgroup/made 2>/dev/null && echo made
busybox find / -name kcore -size +0 2>/dev/null
echo over
"""
    done = engine.docker("run", "--rm", "--network", "none", "box", "sh", "-c", script, check=True)
    assert done.stdout == "over\n"


def test_cve_2021_41091_a_users_way_to_what_containers_have_written(engine: Engine) -> None:
    """A set-user-id program of root's in a volume or in the container's own layer, and an ordinary user of the host."""
    script = "cp /bin/busybox /v/suid; cp /bin/busybox /suid; chmod 4755 /v/suid /suid; sleep 100"
    above = pathlib.Path(engine.paths.data_root).parent
    with _running(engine, "-v", "written:/v", "box", "sh", "-c", script) as container:
        engine.docker("exec", container, "sh", "-c", "until [ -u /suid ]; do sleep 0.1; done", check=True)
        inspected = json.loads(engine.docker("inspect", container, check=True).stdout)[0]
        places = [inspected["Mounts"][0]["Source"], *inspected["GraphDriver"]["Data"].values()]
        programs = [f"{place}/suid" for place in places if os.path.exists(f"{place}/suid")]
        assert len(programs) == 3  # The volume's, and the layer's under two names.
        above.chmod(0o711)
        try:
            for program in programs:
                with pytest.raises(PermissionError):
                    subprocess.run([program, "true"], user=65534, group=65534, extra_groups=(), check=True)
        finally:
            above.chmod(0o700)
    engine.docker("volume", "rm", "written", check=True)


@pytest.mark.parametrize("way", ["run", "exec"])
def test_a_table_of_users_that_is_a_trap(engine: Engine, image: Callable[..., str], way: str) -> None:
    """/etc/passwd as a link to what never ends, or would be waited for."""
    for target in ("->/dev/zero", "->/proc/self/fd/0", "->/dev/tty", "->/proc/kmsg"):
        evil = image(("etc/passwd", target))
        done = engine.docker("run", "--rm", "--network", "none", evil, "sh", "-c", "echo $HOME", check=True)
        assert done.stdout == "/\n"
        if way == "exec":
            with _running(engine, "box", "sleep", "100") as container:
                change = f"rm /etc/passwd; busybox ln -s {target[2:]} /etc/passwd"
                engine.docker("exec", container, "sh", "-c", change, check=True)
                done = engine.docker("exec", "-u", "1000", container, "sh", "-c", "echo $HOME", check=True)
                assert done.stdout == "/\n"
                assert engine.docker("exec", "-u", "user", container, "true").returncode != 0
