"""The docker command, unmodified, against our engine."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import socket
import subprocess
import time
import urllib.request

import pytest

from sampan.linux import mount
from tests.e2e.conftest import Engine

_DEFAULT_CAPABILITIES = 0xA80425FB
_MKNOD = 1 << 27

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:docker", "program:busybox")


def test_an_attached_run_gives_output_and_status(engine: Engine) -> None:
    done = engine.docker("run", "--rm", "box", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("nope",), 127, "executable file not found in $PATH"),
        (("/data",), 126, "is a directory"),
        (("/data/file",), 126, "permission denied"),
    ],
)
def test_a_program_that_cannot_run_says_why(engine: Engine, words: tuple[str, ...], status: int, message: str) -> None:
    done = engine.docker("run", "--rm", "box", *words)
    assert done.returncode == status
    assert message in done.stderr
    assert engine.docker("ps", "-aq").stdout == ""


def test_input_reaches_the_process(engine: Engine) -> None:
    text = b"line\n" * 50_000
    done = engine.docker("run", "--rm", "-i", "box", "cat", stdin=text)
    assert done.stdout.encode() == text


def test_an_interactive_terminal(engine: Engine) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        ["docker", "run", "--rm", "-it", "box", "sh"], stdin=slave, stdout=slave, stderr=slave, env=engine.environment,
        start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    os.write(master, b"tty; echo $((6*7)); exit 5\n")
    seen = b""
    while True:
        try:
            data = os.read(master, 4096)
        except OSError:
            break
        if not data:
            break
        seen += data
    assert process.wait(20) == 5
    assert b"/dev/pts/0" in seen
    assert b"42" in seen
    os.close(master)


def test_the_life_of_a_detached_container(engine: Engine) -> None:
    docker = engine.docker
    docker("run", "-d", "--name", "life", "-e", "A=b", "box", "sh", "-c", "echo up; exec sleep 600", check=True)
    assert docker("ps", "--format", "{{.Names}} {{.State}}").stdout == "life running\n"
    assert docker("exec", "life", "sh", "-c", "echo $A; exit 4").returncode == 4
    assert "executable file not found" in docker("exec", "life", "nope").stdout
    assert docker("logs", "life").stdout == "up\n"
    assert "sleep 600" in docker("top", "life").stdout
    state = json.loads(docker("inspect", "life").stdout)[0]
    assert state["State"]["Running"]
    assert os.path.ismount(state["GraphDriver"]["Data"]["MergedDir"])
    assert docker("pause", "life").returncode == 0
    assert docker("inspect", "-f", "{{.State.Status}}", "life").stdout == "paused\n"
    assert docker("unpause", "life").returncode == 0
    assert docker("rename", "life", "life2").returncode == 0
    assert docker("rm", "life2").returncode == 1
    assert docker("stop", "-t", "1", "life2").returncode == 0
    assert docker("inspect", "-f", "{{.State.ExitCode}}", "life2").stdout == "137\n"
    assert docker("start", "life2").returncode == 0
    assert docker("restart", "-t", "0", "life2").returncode == 0
    assert docker("kill", "-s", "KILL", "life2").returncode == 0
    assert docker("wait", "life2").stdout == "137\n"
    assert docker("rm", "life2").returncode == 0
    assert engine.left_over() == []


def test_a_port_a_volume_and_a_bind_mount(engine: Engine, tmp_path: object) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    host = os.fspath(str(tmp_path))
    with open(f"{host}/here", "w") as file:
        file.write("bound\n")
    serve = "while true; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\nhello' | nc -l -p 80; done"
    engine.docker(
        "run", "-d", "--name", "web", "-p", f"{port}:80", "-v", "pages:/data", "-v", f"{host}:/host:ro", "box", "sh",
        "-c", serve, check=True,
    )  # fmt: skip
    try:
        for _ in range(50):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as answer:
                    assert answer.read() == b"hello"
                    break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail("nobody answers")
        # An empty volume is filled from the image; a bind mount is read-only as asked.
        assert engine.docker("exec", "web", "cat", "/data/file", "/host/here").stdout == "from the image\nbound\n"
        assert "Read-only" in engine.docker("exec", "web", "touch", "/host/x").stderr
        taken = engine.docker("run", "--rm", "--name", "other", "-p", f"{port}:80", "box", "true")
        assert taken.returncode == 125
        assert "port is already allocated" in taken.stderr
        assert engine.docker("volume", "rm", "pages").returncode == 1
    finally:
        engine.docker("rm", "-f", "web")
    assert engine.docker("volume", "rm", "pages").returncode == 0
    assert engine.left_over() == []


def test_confinement(engine: Engine) -> None:
    script = (
        "id -u; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; touch /x || echo ro;"
        " mknod /tmp/k b 8 0 || echo dev; mount -t tmpfs t /tmp || echo mount; cat /proc/keys | head -c1"
    )
    done = engine.docker(
        "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--security-opt", "no-new-privileges", "--cap-drop", "MKNOD",
        "box", "sh", "-c", script,
    )  # fmt: skip
    assert done.stdout.split() == [
        "0", "CapEff:", f"{_DEFAULT_CAPABILITIES & ~_MKNOD:016x}", "NoNewPrivs:", "1", "Seccomp:", "2",
        "ro", "dev", "mount",
    ]  # fmt: skip
    user = engine.docker("run", "--rm", "-u", "user", "-w", "/tmp", "box", "sh", "-c", "id; pwd; env")
    assert "uid=1000(user) gid=1000(user) groups=1000(user),2000(extra)" in user.stdout
    assert "HOME=/tmp" in user.stdout


def test_limits_reach_the_kernel(engine: Engine) -> None:
    cid = engine.docker(
        "run", "-d", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "50", "--ulimit", "nofile=100:200", "box",
        "sleep", "600", check=True,
    ).stdout.strip()  # fmt: skip
    try:
        root = "/sys/fs/cgroup"
        if os.path.exists(f"{root}/cgroup.controllers"):
            files = {f"{root}/sampan/{cid}/memory.max": str(64 << 20), f"{root}/sampan/{cid}/pids.max": "50"}
        else:
            files = {
                f"{root}/memory/sampan/{cid}/memory.limit_in_bytes": str(64 << 20),
                f"{root}/pids/sampan/{cid}/pids.max": "50",
                f"{root}/cpu/sampan/{cid}/cpu.cfs_quota_us": "50000",
            }
        for path, value in files.items():
            with open(path) as file:
                assert file.read().strip() == value
        assert engine.docker("exec", cid, "sh", "-c", "ulimit -n").stdout.strip() in (
            "100",
            "1024",
            "1048576",
            "524288",
        )
    finally:
        engine.docker("rm", "-f", cid)


def test_images_come_and_go(engine: Engine, tmp_path: object) -> None:
    archive = f"{tmp_path}/box.tar"
    docker = engine.docker
    assert docker("tag", "box", "other/name:v1").returncode == 0
    assert docker("save", "-o", archive, "other/name:v1").returncode == 0
    assert "Untagged: other/name:v1" in docker("rmi", "other/name:v1").stdout
    assert docker("load", "-i", archive).stdout == "Loaded image: other/name:v1\n"
    assert docker("run", "--rm", "other/name:v1", "echo", "loaded").stdout == "loaded\n"
    assert docker("rmi", "other/name:v1").returncode == 0
    with open(archive, "rb") as file:
        imported = docker("import", "-c", 'CMD ["echo", "hi"]', "-", "raw", stdin=file.read())
    assert imported.stdout.startswith("sha256:")
    docker("rmi", "raw")
    assert "overlay2" in docker("info", "-f", "{{.Driver}} {{.DockerRootDir}}").stdout


def test_bad_input_leaves_nothing(engine: Engine) -> None:
    docker = engine.docker
    before = sorted(os.listdir(engine.paths.overlay2))
    assert docker("create", "--name", "taken", "box", "true").returncode == 0
    again = docker("create", "--name", "taken", "box", "true")
    assert again.returncode == 1
    assert 'The container name "/taken" is already in use by container' in again.stderr
    docker("rm", "taken")
    unknown = docker("run", "--pull", "never", "nosuch", "true")
    assert unknown.returncode == 125
    assert "No such image: nosuch:latest" in unknown.stderr
    assert "invalid reference format" in docker("run", "Bad:Name:x").stderr
    gone = docker("run", "--mount", "type=bind,source=/no/such/path,target=/x", "box", "true")
    assert gone.returncode == 125
    assert "bind source path does not exist: /no/such/path" in gone.stderr
    assert "Minimum memory limit allowed is 6MB" in docker("run", "--memory", "1m", "box", "true").stderr
    assert docker("import", "-", "broken", stdin=b"no tar at all" * 100).returncode == 1
    assert sorted(os.listdir(engine.paths.overlay2)) == before
    assert docker("ps", "-aq").stdout == ""
    assert engine.left_over() == []


def test_events_tell_what_happened(engine: Engine) -> None:
    began = time.time()
    engine.docker("run", "--rm", "--name", "told", "box", "true", check=True)
    told = engine.docker(
        "events", "--since", f"{began:.6f}", "--until", f"{time.time() + 0.5:.6f}", "--filter", "container=told",
        "--format", "{{.Action}}",
    ).stdout.split()  # fmt: skip
    assert [each for each in told if each in ("create", "attach", "start", "die", "destroy")] == [
        "create", "attach", "start", "die", "destroy",
    ]  # fmt: skip


@pytest.mark.parametrize("version", ["1.24", "1.40", "1.51"])
def test_old_api_versions_are_served(engine: Engine, version: str) -> None:
    done = subprocess.run(
        ["docker", "ps", "-a"], env={**engine.environment, "DOCKER_API_VERSION": version}, capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_input_without_a_terminal_has_no_detach_keys(engine: Engine) -> None:
    words = ("run", "-i", "--rm", "--network", "none", "box", "cat")
    assert engine.docker(*words, stdin=b"before\x10\x11after\n", check=True).stdout == "before\x10\x11after\n"


def test_an_init_is_called_as_dockers(engine: Engine) -> None:
    docker = engine.docker
    docker("run", "-d", "--init", "--name", "reaps", "--network", "none", "box", "sleep", "600", check=True)
    assert docker("exec", "reaps", "cat", "/proc/1/cmdline").stdout == "/sbin/docker-init -- sleep 600\0"
    assert docker("exec", "reaps", "cat", "/proc/1/comm").stdout == "docker-init\n"
    commands = [line.split(maxsplit=7)[7] for line in docker("top", "reaps").stdout.splitlines()[1:]]
    assert commands == ["/sbin/docker-init -- sleep 600", "sleep 600"]
    docker("rm", "-f", "reaps", check=True)


def test_a_volume_that_shares_with_the_host(engine: Engine, tmp_path: pathlib.Path) -> None:
    volume = tmp_path / "volume"
    (volume / "of-host").mkdir(parents=True)
    mount.mount(str(volume), str(volume), flags=mount.MS_BIND)
    try:
        mount.mount("", str(volume), flags=mount.MS_PRIVATE)
        bad = engine.docker("run", "--rm", "-v", f"{volume}:/v:rshared", "box", "true")
        assert f"path {volume} is mounted on {volume} but it is not a shared mount" in bad.stderr
        assert engine.docker("ps", "-aq").stdout == ""
        mount.mount("", str(volume), flags=mount.MS_SHARED)
        run = ("run", "-d", "--name", "sharing", "--cap-add", "SYS_ADMIN", "-v", f"{volume}:/v:rshared", "box")
        assert engine.docker(*run, "sleep", "100").returncode == 0
        mount.mount("tmpfs", str(volume / "of-host"), "tmpfs")
        (volume / "of-host/seen").touch()
        assert engine.docker("exec", "sharing", "ls", "/v/of-host").stdout == "seen\n"
        engine.docker("exec", "sharing", "sh", "-c", "mkdir /v/of-container && mount -t tmpfs x /v/of-container")
        assert mount.is_mounted(str(volume / "of-container"))
        assert engine.docker("rm", "-f", "sharing").returncode == 0
    finally:
        mount.umount(str(volume), mount.MNT_DETACH)


def test_a_volume_keeps_the_flags_of_its_source(engine: Engine, tmp_path: pathlib.Path) -> None:
    """As with dockerd: a writable one is as its source is."""
    volume = tmp_path / "volume"
    volume.mkdir()
    mount.mount("tmpfs", str(volume), "tmpfs", mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC)
    try:
        done = engine.docker("run", "--rm", "-v", f"{volume}:/v", "box", "grep", " /v ", "/proc/self/mountinfo")
        assert " /v rw,nosuid,nodev,noexec,relatime " in done.stdout
    finally:
        mount.umount(str(volume))


def test_only_what_is_removed_at_its_end_is_never_synced(engine: Engine) -> None:
    def options(name: str) -> str:
        merged = engine.docker("inspect", "-f", "{{.GraphDriver.Data.MergedDir}}", name, check=True).stdout.strip()
        return next(line for line in pathlib.Path("/proc/mounts").read_text().splitlines() if f" {merged} " in line)

    engine.docker("run", "-d", "--rm", "--name", "passing", "box", "sleep", "60", check=True)
    engine.docker("run", "-d", "--name", "staying", "box", "sleep", "60", check=True)
    assert "volatile" in options("passing")
    assert "volatile" not in options("staying")
    engine.docker("rm", "-f", "passing", "staying", check=True)
    assert engine.left_over() == []


def test_what_goes_with_each_line_of_a_log(engine: Engine) -> None:
    engine.docker(
        "run", "--name", "told", "--label", "tier=front end", "-e", "STAGE=test", "--log-opt", "labels=tier",
        "--log-opt", "env=STAGE,NONE", "--log-opt", "tag={{.Name}}", "box", "echo", "hello", check=True,
    )  # fmt: skip
    expected = "STAGE=test,tag=told,tier=front+end hello\n"
    for words in (engine.docker, engine.sampan):
        assert words("logs", "--details", "told", check=True).stdout == expected
        assert words("logs", "told", check=True).stdout == "hello\n"
    shown = engine.docker("logs", "--details", "-t", "told", check=True).stdout
    assert shown.endswith(f"Z {expected}")
    path = engine.docker("inspect", "-f", "{{.LogPath}}", "told", check=True).stdout.strip()
    assert '"stream":"stdout","attrs":{' in pathlib.Path(path).read_text()


def test_a_log_is_rotated_by_itself(engine: Engine) -> None:
    """Twenty megabytes, five of them; what is left is whole lines, and the last."""
    script = "yes | head -n 1500000; echo the last"
    engine.docker("run", "--name", "told", "--network", "none", "box", "sh", "-c", script, timeout=120)
    path = pathlib.Path(engine.docker("inspect", "-f", "{{.LogPath}}", "told", check=True).stdout.strip())
    files = sorted(path.parent.glob(f"{path.name}*"))
    assert len(files) == 5
    assert all(each.stat().st_size <= 20 << 20 for each in files)
    assert engine.docker("logs", "--tail", "2", "told", check=True).stdout == "y\nthe last\n"
