"""Engines elsewhere: by TLS, by ssh and by contexts."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Engine
from tests.e2e.registries import Authority

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:busybox", "program:openssl")

Files = dict[str, str]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_NOT_KEPT = ("DOCKER_", "SAMPAN_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


class Guarded:
    """An engine that listens on TCP for whoever has a certificate of its authority."""

    def __init__(self, directory: pathlib.Path) -> None:
        authority = Authority(directory / "authority")
        own, key = authority.issue("engine", "DNS:localhost", "IP:127.0.0.1")
        client, client_key = authority.issue("client")
        self.certificates = directory / "client"
        self.certificates.mkdir()
        for name, path in (("ca", authority.certificate), ("cert", client), ("key", client_key)):
            shutil.copy(path, self.certificates / f"{name}.pem")
        self.host = f"tcp://127.0.0.1:{_free_port()}"
        self.engine = Engine(
            directory, "-H", self.host, "--tlsverify", "--tlscacert", str(authority.certificate), "--tlscert", str(own),
            "--tlskey", str(key), "--bip", "172.31.251.1/24",
        )  # fmt: skip
        self.engine.start()
        self.engine.load_box()

    @property
    def environment(self) -> Files:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_KEPT)}
        return {
            **kept, "DOCKER_HOST": self.host, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(self.certificates)
        }  # fmt: skip

    def run(self, command: list[str], stdin: bytes = b"", **more: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command, input=stdin, env={**self.environment, **more}, capture_output=True, check=False, timeout=60
        )  # fmt: skip

    def sampan(self, *words: str, stdin: bytes = b"", **more: str) -> subprocess.CompletedProcess[bytes]:
        return self.run([sys.executable, "-m", "sampan.cli.__main__", *words], stdin, **more)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    directory = pathlib.Path(tempfile.mkdtemp(prefix="smp", dir="/tmp"))
    made = Guarded(directory)
    try:
        yield made
        made.engine.remove_containers()
        assert made.engine.left_over() == []
    finally:
        made.engine.stop()
        made.engine.take_down()
        shutil.rmtree(directory)


@pytest.fixture(params=["sampan", "docker"])
def command(request: pytest.FixtureRequest) -> list[str]:
    """Ours, and Docker's with our engine."""
    if request.param == "sampan":
        return [sys.executable, "-m", "sampan.cli.__main__"]
    if shutil.which("docker") is None:
        pytest.skip("no docker command")
    return ["docker"]


def test_all_goes_through_tls(guarded: Guarded, command: list[str]) -> None:
    assert guarded.run([*command, "run", "--rm", "box", "sh", "-c", "echo out; echo err >&2; exit 3"]).returncode == 3
    # The end of the input is told while the output goes on.
    big = os.urandom(3 << 20)
    done = guarded.run([*command, "run", "--rm", "-i", "box", "sh", "-c", "cat; echo end"], big)
    assert done.stdout == big + b"end\n"
    assert guarded.run([*command, "run", "-d", "--name", "far", "box", "sleep", "60"]).returncode == 0
    assert guarded.run([*command, "exec", "-i", "far", "wc", "-c"], b"four").stdout == b"4\n"
    assert guarded.run([*command, "ps", "-q"]).stdout.count(b"\n") == 1
    assert guarded.run([*command, "rm", "-f", "far"]).returncode == 0


@pytest.mark.requires("module:docker")
def test_docker_py_by_tls(guarded: Guarded) -> None:
    program = "import docker; print(docker.from_env().containers.run('box', 'echo hi', remove=True).decode(), end='')"
    done = guarded.run([sys.executable, "-c", program])
    assert done.stdout == b"hi\n", done.stderr


def test_who_has_no_certificate_is_told_so(guarded: Guarded, tmp_path: pathlib.Path) -> None:
    stranger = Authority(tmp_path / "stranger")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    shutil.copy(guarded.certificates / "ca.pem", mixed)
    certificate, key = stranger.issue("client")
    nobody = guarded.sampan("ps", DOCKER_CERT_PATH=str(mixed))
    shutil.copy(certificate, mixed / "cert.pem")
    shutil.copy(key, mixed / "key.pem")
    strange = guarded.sampan("ps", DOCKER_CERT_PATH=str(mixed))
    unknown = guarded.sampan("--tlscacert", str(stranger.certificate), "ps")
    plain = guarded.sampan("ps", DOCKER_TLS_VERIFY="")
    for done in (nobody, strange, unknown, plain):
        assert done.returncode == 1
        assert done.stderr.count(b"\n") == 1, done.stderr
        assert b"engine" in done.stderr
    assert b"verify failed" in unknown.stderr or b"unable to get" in unknown.stderr or b"self" in unknown.stderr
    assert guarded.sampan("ps", "-q").returncode == 0


def test_a_client_that_says_nothing_keeps_nobody_waiting(guarded: Guarded) -> None:
    address, port = guarded.host.removeprefix("tcp://").split(":")
    with socket.create_connection((address, int(port))), socket.create_connection((address, int(port))) as other:
        other.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert guarded.sampan("ps", "-q").returncode == 0


def test_a_context_has_it_all(guarded: Guarded, tmp_path: pathlib.Path) -> None:
    config = str(tmp_path / "config")
    files = ",".join(f"{name}={guarded.certificates}/{name}.pem" for name in ("ca", "cert", "key"))
    plain = {"DOCKER_HOST": "", "DOCKER_TLS_VERIFY": "", "DOCKER_CERT_PATH": "", "DOCKER_CONFIG": config}

    def sampan(*words: str, stdin: bytes = b"", **more: str) -> subprocess.CompletedProcess[bytes]:
        return guarded.sampan(*words, stdin=stdin, **{**plain, **more})

    made = sampan("context", "create", "far", "--description", "over there", "--docker", f"host={guarded.host},{files}")
    assert made.stdout == b"far\n", made.stderr
    assert sampan("context", "create", "far", "--docker", "host=tcp://x").returncode == 1
    assert sampan("-c", "far", "version", "--format", "{{.Client.Context}} {{.Server.Os}}").stdout == b"far linux\n"
    assert sampan("version", "--format", "{{.Server.Os}}", DOCKER_CONTEXT="far").stdout == b"linux\n"
    assert sampan("context", "use", "far").stdout == b"far\n"
    assert sampan("context", "show").stdout == b"far\n"
    assert sampan("run", "--rm", "-i", "box", "cat", stdin=b"by context").stdout == b"by context"
    shown = json.loads(sampan("context", "inspect", "far").stdout)[0]
    assert shown["Endpoints"]["docker"] == {"Host": guarded.host, "SkipTLSVerify": False}
    assert shown["TLSMaterial"] == {"docker": ["ca.pem", "cert.pem", "key.pem"]}
    # Docker's command reads what ours wrote, and the other way round.
    if shutil.which("docker"):
        assert guarded.run(["docker", "info", "-f", "{{.OSType}}"], b"", **plain).stdout == b"linux\n"
        guarded.run(["docker", "context", "export", "far", f"{tmp_path}/far.tar"], b"", **plain)
    else:
        sampan("context", "export", "far", f"{tmp_path}/far.tar")
    assert sampan("context", "import", "near", f"{tmp_path}/far.tar").stdout == b"near\n"
    assert sampan("-c", "near", "ps", "-q").returncode == 0
    assert sampan("context", "ls", "--format", "{{.Name}}{{if .Current}}*{{end}}").stdout == b"default\nfar*\nnear\n"
    assert sampan("context", "rm", "far").returncode == 1
    assert sampan("context", "rm", "-f", "far", "near").stdout == b"far\nnear\n"
    assert sampan("context", "show").stdout == b"default\n"
    assert list(pathlib.Path(config, "contexts").rglob("*.pem")) == []


def test_tls_that_cannot_be_is_refused_at_the_start(tmp_path: pathlib.Path) -> None:
    engine = [
        sys.executable,
        "-I",
        "-m",
        "sampan.engine",
        "--data-root",
        f"{tmp_path}/d",
        "--exec-root",
        f"{tmp_path}/r",
    ]
    for words in (["--tlsverify", "--tlscacert", "/nope", "--tlscert", "/nope", "--tlskey", "/nope"], ["--tls"]):
        done = subprocess.run(
            [*engine, "-H", "tcp://127.0.0.1:0", *words], capture_output=True, check=False, timeout=60
        )
        assert done.returncode == 1
        assert b"not usable for TLS" in done.stderr.splitlines()[-1], done.stderr


_SSH = """#!/bin/sh
# ssh's part of the protocol: options, a host, and a command for the shell over there.
while [ "$1" != -- ]; do echo "$1" >> "$SSH_LOG"; shift; done
echo "$2" >> "$SSH_LOG"
[ "$2" = lost ] && { echo "ssh: connect to host lost port 22: No route to host" >&2; exit 255; }
unset DOCKER_HOST
export SAMPAN_HOST="$SSH_THERE"
shift 2
exec sh -c "$*"
"""


@pytest.fixture
def by_ssh(engine: Engine, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A program `ssh` for which this machine is the other one, and `sampan` on the PATH there."""
    places = tmp_path / "bin"
    places.mkdir()
    for name, text in (("ssh", _SSH), ("sampan", f'#!/bin/sh\nexec {sys.executable} -m sampan.cli.__main__ "$@"\n')):
        (places / name).write_text(text)
        (places / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{places}:{os.environ['PATH']}")
    monkeypatch.setenv("SSH_LOG", f"{tmp_path}/log")
    monkeypatch.setenv("SSH_THERE", engine.host)
    return tmp_path / "log"


def test_an_engine_behind_ssh(engine: Engine, by_ssh: pathlib.Path) -> None:
    def far(*words: str, stdin: bytes = b"") -> str:
        return engine.sampan("-H", "ssh://me@there:2222", *words, stdin=stdin, check=True).stdout

    assert far("run", "--rm", "-i", "box", "sh", "-c", "cat; echo end", stdin=b"in\n") == "in\nend\n"
    assert by_ssh.read_text().split()[:8] == ["-o", "ConnectTimeout=30", "-T", "-l", "me", "-p", "2222", "there"]
    far("run", "-d", "--name", "far", "box", "sleep", "60")
    assert far("exec", "far", "echo", "x") == "x\n"
    assert far("cp", "far:/data/file", "-")[:4] == "file"
    far("rm", "-f", "far")
    path = engine.host.removeprefix("unix://")
    assert engine.sampan("-H", f"ssh://there{path}", "ps", "-q").returncode == 0


@pytest.mark.requires("program:docker")
def test_dockers_command_reaches_ours_by_ssh(
    engine: Engine, by_ssh: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """It runs `docker system dial-stdio` over there: here, that is ours."""
    (by_ssh.parent / "bin/docker").write_text('#!/bin/sh\nexec sampan "$@"\n')
    (by_ssh.parent / "bin/docker").chmod(0o755)
    docker = shutil.which("docker", path=os.environ["PATH"].partition(":")[2]) or ""
    environment = {**os.environ, "DOCKER_HOST": "ssh://there"}
    words = [docker, "run", "--rm", "-i", "box", "sh", "-c", "cat; echo end"]
    done = subprocess.run(words, input=b"in\n", env=environment, capture_output=True, check=False, timeout=60)
    assert done.stdout == b"in\nend\n", done.stderr


def test_a_machine_that_ssh_does_not_reach(engine: Engine, by_ssh: pathlib.Path) -> None:
    done = engine.sampan("-H", "ssh://lost", "ps")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].endswith("No route to host")
    assert len(done.stderr.splitlines()) == 2
