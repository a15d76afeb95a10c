"""The root: where it may lie, how it is entered; hidden and read-only paths; the console."""

from __future__ import annotations

import os
import pathlib
import stat
import subprocess

import msgspec
import pytest

from sampan.errors import InvalidArgument, SampanError
from sampan.linux import mount as m
from sampan.oci.runtime import Capabilities, Mount, Root
from sampan.runtime.container import Container, Stdio
from sampan.runtime.plan import Options
from tests.privileged.runtime.mountinfo import parse
from tests.privileged.runtime.test_container import Box
from tests.privileged.runtime.test_mounts import bind, in_user_namespace, tmpfs, with_mounts

pytestmark = pytest.mark.requires("root", "overlay", "seccomp", "program:busybox")


# --- root.path ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["rootfs", "./rootfs/.", "etc/../rootfs", "link", "absolute", "over"])
def test_where_the_root_lies(box: Box, path: str) -> None:
    (box.bundle / "link").symlink_to("rootfs")
    (box.bundle / "over").symlink_to(box.bundle / "link")
    (box.root / "here").touch()
    root = Root(path=str(box.root) if path == "absolute" else path)
    assert "here" in box.run("ls", "/", root=root)[1]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nonesuch", "no such file or directory"), ("file", "not a directory"), ("dangling", "no such file"),
        ("loop", "symbolic links"), ("/", "the host's own root"), ("to-root", "the host's own root"),
        ("", "root.path is missing"),
    ],
)  # fmt: skip
def test_where_it_cannot_lie(box: Box, path: str, message: str) -> None:
    (box.bundle / "file").touch()
    (box.bundle / "dangling").symlink_to("nonesuch")
    (box.bundle / "loop").symlink_to("loop")
    (box.bundle / "to-root").symlink_to("/")
    with pytest.raises(InvalidArgument, match=message):
        box.run("true", root=Root(path=path))


def test_a_read_only_root_and_what_is_mounted_in_it(box: Box) -> None:
    script = "touch /x; touch /etc/x; touch /t/x && echo written; cat /proc/self/mountinfo"
    root = Root(path="rootfs", readonly=True)
    _, text = box.run("sh", "-c", script, root=root, mounts=with_mounts(box, tmpfs("/t")), cwd="/made/here")
    assert text.count("Read-only file system") == 2
    assert "written" in text
    assert "ro" in parse(text)["/"].options
    assert (box.root / "made/here").is_dir()  # The working directory is made before.
    assert not os.statvfs(box.root).f_flag & os.ST_RDONLY


@pytest.mark.parametrize("kind", ["ramfs", "tmpfs"])
def test_a_root_in_memory_and_a_mount_of_its_own(box: Box, kind: str) -> None:
    inside = box.bundle / "in-memory"
    inside.mkdir()
    m.mount(kind, str(inside), kind)
    try:
        subprocess.run(["cp", "-a", f"{box.root}/.", str(inside)], check=True)
        _, text = box.run("cat", "/proc/self/mountinfo", root=Root(path=str(inside)))
        assert (parse(text)["/"].kind, parse(text)["/"].root) == (kind, "/")
    finally:
        m.umount(str(inside))


def test_what_is_mounted_below_the_root_comes_along(box: Box, tmp_path: pathlib.Path) -> None:
    below = box.root / "below"
    below.mkdir()
    m.mount("tmpfs", str(below), "tmpfs")
    try:
        (below / "mark").touch()
        assert box.run("ls", "/below")[1] == "mark\n"
    finally:
        m.umount(str(below))


# --- Entering it --------------------------------------------------------------------------------------------


def _run(box: Box, script: str, options: Options, **changes: object) -> str:
    reading, writing = os.pipe()
    spec = box.spec("sh", "-c", script, **changes)
    container = Container.create(
        box.id, str(box.bundle), box.state_root, Stdio(None, writing, writing), spec=spec, options=options
    )
    container.start()
    os.close(writing)
    with os.fdopen(reading) as output:
        text = output.read()
    os.waitpid(container.pid, 0)
    container.delete()
    return text


@pytest.mark.parametrize("user", [False, True], ids=["", "user namespace"])
@pytest.mark.parametrize("pivot", [True, False], ids=["pivot", "no pivot"])
def test_the_hosts_root_is_out_of_reach(box: Box, request: pytest.FixtureRequest, pivot: bool, user: bool) -> None:
    changes = in_user_namespace(box) if user else {}
    os.chmod(box.bundle, 0o755)
    (box.root / "mark").touch()
    unreachable = box.bundle / "unreachable"
    unreachable.mkdir(mode=0o700)
    m.mount("proc", str(unreachable), "proc")
    request.addfinalizer(lambda: m.umount(str(unreachable)))
    script = "ls -d /mark /../mark /proc/1/root/mark /proc/self/cwd/mark; ls / ; cat /proc/self/mountinfo"
    text = _run(box, script, Options(pivot=pivot), **changes)
    assert set(text.split()[:4]) == {"/mark", "/../mark", "/proc/1/root/mark", "/proc/self/cwd/mark"}
    assert "boot" not in text.split()
    places = set(parse(text))
    assert {"/", "/proc", "/dev", "/sys"} <= places
    assert not any(str(box.bundle) in place for place in places)


@pytest.mark.parametrize("user", [False, True], ids=["", "user namespace"])
def test_without_a_pivot_no_whole_proc_of_the_host_is_left(box: Box, user: bool) -> None:
    """With one in its namespace, a container could mount, in a user namespace of its own, one that hides nothing."""
    script = "busybox unshare -Urmpf busybox sh -c 'echo in; busybox mount -t proc x /tmp && echo MOUNTED'"
    names = ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETFCAP")
    capabilities = Capabilities(bounding=names, effective=names, permitted=names)
    (box.root / "tmp").mkdir(mode=0o777)
    changes = in_user_namespace(box) if user else {}
    os.chmod(box.bundle, 0o755)
    for masked, mounted in ((("/proc/keys", "/proc/acpi"), False), ((), True)):
        for pivot in (True, False):
            options = Options(pivot=pivot)
            text = _run(
                box, script, options, masked_paths=masked, readonly_paths=(), capabilities=capabilities, **changes
            )
            assert text.startswith("in"), text
            assert ("MOUNTED" in text) == mounted, f"pivot {pivot}, masked {masked}: {text}"


def test_exec_without_a_pivot(box: Box) -> None:
    (box.root / "mark").touch()
    spec = box.spec("sleep", "100")
    container = Container.create(
        box.id, str(box.bundle), box.state_root, Stdio(), spec=spec, options=Options(pivot=False)
    )
    container.start()
    try:
        reading, writing = os.pipe()
        assert spec.process is not None
        run = container.exec(
            msgspec.structs.replace(spec.process, args=("sh", "-c", "ls -d /mark /boot")), Stdio(None, writing, writing)
        )
        os.close(writing)
        with os.fdopen(reading) as output:
            assert "/mark\n" in (text := output.read())
        assert "/boot: No such file" in text
        os.waitpid(run.pid, 0)
        os.close(run.pidfd)
    finally:
        container.kill(9)
        os.waitpid(container.pid, 0)
        container.delete()


# --- Hidden and read-only -------------------------------------------------------------------------------------


def test_what_is_hidden(box: Box, tmp_path: pathlib.Path) -> None:
    volume = tmp_path / "volume"
    (volume / "directory/deep").mkdir(parents=True)
    (volume / "secret").write_text("secret")
    (box.root / "etc/shadow").write_text("secret")
    (box.root / "link").symlink_to("etc/shadow")
    (box.root / "many").mkdir()
    for name in "abc":
        (box.root / "many" / name).mkdir()
        (box.root / "many" / name / "secret").write_text("secret")
    masked = (
        "/v/secret", "/v/directory", "/link", "/nonesuch", "/etc/shadow/x", "/many/a", "/many/b", "/many/c",
        "/proc/keys", "/proc/timer_list", "/sys/firmware",
    )  # fmt: skip
    script = (
        "cat /v/secret /etc/shadow /link /proc/keys; ls /v/directory /many/*; touch /many/a/x; touch /v/directory/x;"
        "touch /v/fine && echo written; cat /proc/self/mountinfo"
    )
    _, text = box.run("sh", "-c", script, mounts=with_mounts(box, bind("/v", volume)), masked_paths=masked)
    assert "secret\n" not in text.replace("secret /etc", "")
    assert text.count("Read-only file system") == 2
    assert "written" in text
    found = parse(text)
    # One tmpfs hides all directories; it holds nothing and can't be filled.
    assert {found[f"/many/{name}"].kind for name in "abc"} == {"tmpfs"}
    assert "ro" in found["/many/a"].options & found["/many/a"].own
    assert (found["/v/secret"].root, found["/etc/shadow"].root) == ("/null", "/null")


def test_what_is_read_only(box: Box, tmp_path: pathlib.Path) -> None:
    volume = tmp_path / "volume"
    (volume / "kept").mkdir(parents=True)
    (box.root / "link").symlink_to("etc")
    readonly = ("/proc/sys", "/v/kept", "/link", "/nonesuch", "/bin/busybox/x")
    script = (
        "touch /v/kept/x; touch /etc/x; touch /v/fine && echo written; echo > /proc/sys/kernel/domainname;"
        "cat /proc/self/mountinfo"
    )
    mounts = with_mounts(box, bind("/v", volume, "rbind", "nosuid", "nodev"))
    _, text = box.run("sh", "-c", script, mounts=mounts, readonly_paths=readonly)
    assert text.count("Read-only file system") == 3, text
    assert "written" in text
    found = parse(text)
    assert found["/v/kept"].options == {"ro", "nosuid", "nodev", "relatime"}  # What its mount is, it is too.
    assert found["/proc/sys"].options >= {"ro", "nosuid", "nodev", "noexec"}
    assert "rw" in found["/v"].options
    assert not (volume / "kept/x").exists()


def test_hidden_and_read_only_in_a_user_namespace(box: Box) -> None:
    changes = in_user_namespace(box)
    os.chmod(box.bundle, 0o755)
    _, text = box.run("sh", "-c", "cat /proc/keys; echo x > /proc/sys/kernel/domainname; ls /sys/firmware", **changes)
    assert text.count("Read-only") == 1, text


# --- The console ----------------------------------------------------------------------------------------------


def _console(box: Box, script: str, **changes: object) -> str:
    spec = box.spec("sh", "-c", script, terminal=True, **changes)
    container = Container.create(box.id, str(box.bundle), box.state_root, Stdio(), spec=spec)
    assert container.master is not None
    container.start()
    text = b""
    os.waitpid(container.pid, 0)
    try:
        while chunk := os.read(container.master, 4096):
            text += chunk
    except OSError:
        pass  # EIO: the slave is closed.
    os.close(container.master)
    container.delete()
    return text.decode()


def test_the_console_is_the_terminal(box: Box) -> None:
    text = _console(
        box, "tty; echo there > /dev/console; busybox stat -c '%t %T' /dev/console; cat /proc/self/mountinfo"
    )
    assert text.split()[:3] == ["/dev/pts/0", "there", "88"]
    assert parse(text.replace("\r", ""))["/dev/console"].root == "/0"


def test_a_console_that_is_there(box: Box) -> None:
    """An image's own /dev, with no mount over it, and a node of another kind."""
    mounts = tuple(each for each in box.spec("true").mounts if each.destination != "/dev")
    (box.root / "dev").mkdir()
    os.mknod(box.root / "dev/console", stat.S_IFCHR | 0o600, os.makedev(5, 1))
    assert "there" in _console(box, "echo there > /dev/console", mounts=mounts)
    assert os.stat(box.root / "dev/console").st_rdev == os.makedev(5, 1)


@pytest.mark.parametrize("target", ["/proc/sysrq-trigger", "/etc/passwd", "nonesuch", "pts/ptmx"])
def test_cve_2025_52565_a_console_that_is_a_link(box: Box, target: str) -> None:
    mounts = tuple(each for each in box.spec("true").mounts if each.destination != "/dev")
    (box.root / "dev").mkdir()
    (box.root / "dev/console").symlink_to(target)
    (box.root / "etc/passwd").touch()
    with pytest.raises(SampanError, match="symbolic links"):
        _console(box, "true", mounts=mounts)
    assert sorted(os.listdir(box.root / "etc")) == ["passwd"]


def test_cve_2025_52565_a_devpts_that_is_none(box: Box, tmp_path: pathlib.Path) -> None:
    """A volume in its place, with a name in it that leads to something of the host's."""
    fake = tmp_path / "fake"
    fake.mkdir()
    (fake / "ptmx").symlink_to("/dev/null")
    mounts = tuple(
        Mount(destination="/dev/pts", type="bind", source=str(fake), options=("rbind",))
        if each.destination == "/dev/pts" else each for each in box.spec("true").mounts
    )  # fmt: skip
    with pytest.raises(SampanError, match="terminal"):
        _console(box, "true", mounts=mounts)
