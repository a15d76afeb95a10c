"""Log drivers, with the docker command: what is written, where it goes, and what `docker logs` finds of it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "veth", "nftables", "program:docker", "program:busybox")

SAY = "echo out; echo err >&2; echo; head -c 20000 /dev/zero | tr '\\0' a; echo; echo -n end"


class Receiver:
    """A log service: everything that is sent to it, from the end of the test's own socket."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext | None = None) -> None:
        self.got = b""
        self._listener = listener
        self._context = context
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            if self._listener.type == socket.SOCK_DGRAM:
                while data := self._listener.recv(1 << 20):
                    self.got += data
            while True:
                connection, _ = self._listener.accept()
                with contextlib.suppress(ssl.SSLError):  # It did not believe our certificate.
                    self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        if self._context is not None:
            connection = self._context.wrap_socket(connection, server_side=True)
        with connection:
            while data := connection.recv(1 << 16):
                self.got += data

    def wait_for(self, text: bytes) -> bytes:
        deadline = time.monotonic() + 20
        while text not in self.got and time.monotonic() < deadline:
            time.sleep(0.02)
        assert text in self.got, self.got[-300:]
        return self.got

    def close(self) -> None:
        # A shutdown wakes the thread that waits in accept or recv.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextlib.contextmanager
def received(address: str | tuple[str, int], kind: int, context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    listener = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET, kind)
    if not isinstance(address, str):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    if kind == socket.SOCK_STREAM:
        listener.listen()
    receiver = Receiver(listener, context)
    try:
        yield receiver
    finally:
        receiver.close()


def free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def authority(tmp_path: pathlib.Path) -> Callable[[], ssl.SSLContext]:
    """A server's context, whose certificate `ca.pem` vouches for."""
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 2",
        "req -newkey rsa:2048 -nodes -keyout key.pem -out req.pem -subj /CN=localhost",
    ):
        subprocess.run(["openssl", *command.split()], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "san").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    sign = "x509 -req -in req.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 -extfile san"
    subprocess.run(["openssl", *sign.split()], cwd=tmp_path, check=True, capture_output=True)

    def context() -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
        return made

    return context


def options(**given: str) -> list[str]:
    return [word for name, value in given.items() for word in ("--log-opt", f"{name.replace('_', '-')}={value}")]


def run(engine: Engine, driver: str, *words: str, say: str = SAY) -> subprocess.CompletedProcess[str]:
    return engine.docker(
        "run", "--network", "none", "--name", "talker", "--log-driver", driver, *words, "box", "sh", "-c", say
    )


def read(engine: Engine, *words: str) -> tuple[str, str]:
    done = engine.docker("logs", *words, "talker", check=True)
    return done.stdout, done.stderr


def directory(engine: Engine) -> pathlib.Path:
    return pathlib.Path(engine.paths.bundle(engine.docker("inspect", "-f", "{{.Id}}", "talker").stdout.strip()))


SAID = ("out\n\n" + "a" * 20000 + "\nend", "err\n")


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_what_is_said_is_read(engine: Engine, driver: str) -> None:
    assert run(engine, driver).returncode == 0
    assert read(engine) == SAID
    assert read(engine, "--tail", "1")[0] == "end"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z end", read(engine, "-t", "-n", "1")[0])
    log_path = engine.docker("inspect", "-f", "{{.LogPath}}", "talker").stdout.strip()
    assert bool(log_path) == (driver == "json-file")


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_rotated_and_compressed(engine: Engine, driver: str) -> None:
    say = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done"
    words = options(max_size="20k", max_file="9", compress="true")
    assert run(engine, driver, *words, say=say).returncode == 0
    lines = read(engine)[0].splitlines()
    assert lines[-1] == "line 1999"
    assert lines == [f"line {number}" for number in range(2000 - len(lines), 2000)]
    assert len(lines) > 1000
    names = [path.name for path in directory(engine).rglob("*.gz")]
    assert names
    assert read(engine, "--tail", "1500")[0].splitlines() == lines[-1500:]
    assert engine.docker("rm", "talker").returncode == 0


@pytest.mark.parametrize("form", ["", "rfc3164", "rfc5424", "rfc5424micro"])
@pytest.mark.parametrize("network", ["unix", "unixgram", "udp", "tcp"])
def test_syslog(engine: Engine, short_dir: pathlib.Path, network: str, form: str) -> None:
    kind = socket.SOCK_DGRAM if network in ("unixgram", "udp") else socket.SOCK_STREAM
    address: str | tuple[str, int] = f"{short_dir}/syslog"
    url = f"{network}://{address}"
    if not network.startswith("unix"):
        port = free_port(kind)
        address, url = ("127.0.0.1", port), f"{network}://127.0.0.1:{port}"
    with received(address, kind) as service:
        words = options(syslog_address=url, syslog_format=form, syslog_facility="local1", tag="{{.Name}}")
        assert run(engine, "syslog", *words).returncode == 0
        service.wait_for(b": end\n" if not form.startswith("rfc5424") else b" - end\n")
        lines = service.got.decode().splitlines()
    assert read(engine) == SAID
    head = {
        "": r"<(\d+)>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d talker\[\d+\]: ",
        "rfc3164": r"<(\d+)>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d %s talker\[\d+\]: ",
        "rfc5424": r"<(\d+)>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d) %s talker \d+ talker - ",
        "rfc5424micro": r"<(\d+)>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(?:Z|[+-]\d\d:\d\d) %s talker \d+ talker - ",
    }[form]
    head = head.replace("%s", re.escape(os.uname().nodename))
    parsed = [re.fullmatch(f"{head}(.*)", line) for line in lines]
    # As with dockerd: a long line in pieces, and an empty one left out.
    local1 = 17 << 3
    assert sorted((int(each[1]), each[2]) for each in parsed if each) == sorted(
        [
            (local1 | 3, "err"),
            (local1 | 6, "out"),
            (local1 | 6, "a" * 16384),
            (local1 | 6, "a" * 3616),
            (local1 | 6, "end"),
        ]
    )
    assert len(lines) == 5


@pytest.mark.parametrize("form", ["", "rfc5424"])
def test_syslog_over_tls(
    engine: Engine, tmp_path: pathlib.Path, authority: Callable[[], ssl.SSLContext], form: str
) -> None:
    port = free_port(socket.SOCK_STREAM)
    url = f"tcp+tls://localhost:{port}"
    with received(("127.0.0.1", port), socket.SOCK_STREAM, authority()) as service:
        done = run(engine, "syslog", *options(syslog_address=url))
        assert done.returncode == 125
        assert "failed to initialize logging driver: " in done.stderr
        engine.docker("rm", "-f", "talker")
        words = options(syslog_address=url, syslog_format=form, syslog_tls_ca_cert=f"{tmp_path}/ca.pem")
        assert run(engine, "syslog", *words).returncode == 0
        got = service.wait_for(b" - end\n" if form else b": end\n")
    if form:  # RFC 5425: each message behind its length.
        while got:
            size, _, got = got.partition(b" ")
            message, got = got[: int(size)], got[int(size) :]
            assert message.startswith(b"<")
            assert message.endswith(b"\n")
    assert read(engine) == SAID


def test_a_service_that_is_not_there(engine: Engine) -> None:
    port = free_port(socket.SOCK_STREAM)
    done = run(engine, "syslog", *options(syslog_address=f"tcp://127.0.0.1:{port}"))
    assert done.returncode == 125
    assert (
        "failed to create task for container: failed to initialize logging driver: "
        f"dial tcp 127.0.0.1:{port}: connect: connection refused" in done.stderr
    )
    assert engine.docker("inspect", "-f", "{{.State.Status}}", "talker").stdout.strip() == "created"


COUNT = f"i=0; while [ $i -lt 60000 ]; do echo line $i {'x' * 64}; i=$((i+1)); done"


def test_a_service_that_is_slow_and_breaks(engine: Engine) -> None:
    """It takes its time, and goes away twice in the middle of it."""
    numbers: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 13)
        listener.settimeout(30)
        url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        words = ["run", "-d", "--network", "none", "--name", "talker", "--log-driver", "syslog"]
        engine.docker(*words, *options(syslog_address=url), "box", "sh", "-c", COUNT, check=True)
        for turn in range(3):
            connection, _ = listener.accept()
            data = b""
            connection.settimeout(30)
            time.sleep(0.2)
            while turn == 2 or len(data) < 300_000:
                more = connection.recv(1 << 14)
                if not more:
                    break
                data += more
                if b"line 59999" in data:
                    break
            numbers += [int(each) for each in re.findall(rb"line (\d+) x+\n", data)]
            connection.close()
    # What the kernel had taken when the connection broke is lost, and nothing else; what was cut comes again.
    assert numbers[-1] == 59999
    assert numbers == sorted(set(numbers))
    assert read(engine)[0].count("\n") == 60000


def test_a_service_that_takes_nothing(engine: Engine) -> None:
    """The container waits for it, unless it was told not to; it can be stopped in any case."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        words = ["run", "-d", "--network", "none", "--log-driver", "syslog", *options(syslog_address=url)]
        say = f"yes {'x' * 70} | head -n 400000; touch /tmp/done"
        lossy = options(mode="non-blocking", max_buffer_size="10k")
        engine.docker(*words, "--name", "waiting", "box", "sh", "-c", f"{say}; sleep 600", check=True)
        engine.docker(*words, *lossy, "--name", "free", "box", "sh", "-c", f"{say}; sleep 600", check=True)
        deadline = time.monotonic() + 60
        while engine.docker("exec", "free", "ls", "/tmp/done").returncode and time.monotonic() < deadline:
            time.sleep(0.1)
        assert engine.docker("exec", "free", "ls", "/tmp/done").returncode == 0
        assert engine.docker("exec", "waiting", "ls", "/tmp/done").returncode != 0
        assert engine.docker("rm", "-f", "waiting", "free").returncode == 0


def test_journald(engine: Engine) -> None:
    """The real one is asked in tests/privileged/systemd; here stands a socket in its place."""
    path = pathlib.Path("/run/systemd/journal/socket")
    if path.exists():
        pytest.skip("a journal's socket is there, and not ours")
    made = [each for each in (path.parent, path.parent.parent) if not each.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with received(str(path), socket.SOCK_DGRAM) as service:
            words = [*options(labels="a.b,_x", env="X_Y"), "--label", "a.b=c", "-e", "X_Y=one\ntwo"]
            assert run(engine, "journald", *words).returncode == 0
            got = service.wait_for(b"MESSAGE=end\n")
    finally:
        path.unlink(missing_ok=True)
        for each in made:
            each.rmdir()
    assert read(engine) == SAID
    container = engine.docker("inspect", "-f", "{{.Id}}", "talker").stdout.strip()
    messages = [f"PRIORITY{each}" for each in got.decode().split("PRIORITY")[1:]]
    out = next(each for each in messages if "MESSAGE=out\n" in each)
    for line in (
        "PRIORITY=6", f"CONTAINER_ID={container[:12]}", f"CONTAINER_ID_FULL={container}", "CONTAINER_NAME=talker",
        f"CONTAINER_TAG={container[:12]}", f"SYSLOG_IDENTIFIER={container[:12]}", "IMAGE_NAME=box", "A_B=c",
        "CONTAINER_LOG_ORDINAL=1",
    ):  # fmt: skip
        assert f"{line}\n" in out
    assert b"X_Y\n" + (7).to_bytes(8, "little") + b"one\ntwo\n" in got
    assert "PRIORITY=3\n" in next(each for each in messages if "MESSAGE=err\n" in each)
    first, second = (next(each for each in messages if f"MESSAGE={'a' * size}\n" in each) for size in (16384, 3616))
    assert "CONTAINER_PARTIAL_MESSAGE=true\n" in first
    assert "CONTAINER_PARTIAL_LAST=false\n" in first
    assert "CONTAINER_PARTIAL_MESSAGE" not in second
    assert "CONTAINER_PARTIAL_LAST=true\n" in second
    assert len(messages) == 6


def test_no_journald(engine: Engine) -> None:
    if os.path.exists("/run/systemd/journal/socket"):
        pytest.skip("journald is there")
    done = run(engine, "journald")
    assert done.returncode == 125
    assert "failed to initialize logging driver: journald is not enabled on this host" in done.stderr


@pytest.mark.parametrize(("driver", "words"), [("none", []), ("syslog", options(cache_disabled="true"))])
def test_logs_that_nobody_keeps(engine: Engine, short_dir: pathlib.Path, driver: str, words: list[str]) -> None:
    with received(f"{short_dir}/s", socket.SOCK_DGRAM) as service:
        given = [*words, *options(syslog_address=f"unixgram://{short_dir}/s")] if words else []
        assert run(engine, driver, *given).returncode == 0
        if words:
            service.wait_for(b": end\n")
    done = engine.docker("logs", "talker")
    assert done.returncode == 1
    assert "configured logging driver does not support reading" in done.stderr
    assert not list(directory(engine).glob("*cached*"))


def test_what_is_refused(engine: Engine) -> None:
    done = run(engine, "local", *options(labels="a"))
    assert done.returncode == 125
    assert "Error response from daemon: unknown log opt 'labels' for log driver local" in done.stderr


def test_defaults_of_the_engine(tmp_path: pathlib.Path, short_dir: pathlib.Path) -> None:
    settings = tmp_path / "daemon.json"
    settings.write_text(json.dumps({"log-driver": "local", "log-opts": {"max-size": "3m", "max-file": "2"}}))
    engine = Engine(short_dir, "--config-file", str(settings))
    engine.start()
    try:
        engine.load_box()
        assert engine.docker("info", "-f", "{{.LoggingDriver}}").stdout.strip() == "local"
        engine.docker("create", "--name", "aa", *options(max_file="4"), "box", "true", check=True)
        engine.docker("create", "--name", "bb", "--log-driver", "json-file", "box", "true", check=True)
        shown = engine.docker("inspect", "-f", "{{json .HostConfig.LogConfig}}", "aa", "bb").stdout.splitlines()
        assert json.loads(shown[0]) == {"Type": "local", "Config": {"max-size": "3m", "max-file": "4"}}
        assert json.loads(shown[1]) == {"Type": "json-file", "Config": {}}
        done = engine.docker("create", *options(labels="a"), "box", "true")
        assert "unknown log opt 'labels' for log driver local" in done.stderr
        engine.remove_containers()
    finally:
        engine.stop()
        engine.take_down()


def test_the_log_goes_on_with_no_engine(engine: Engine, short_dir: pathlib.Path) -> None:
    """Also where it goes to a service that comes back meanwhile."""
    path = f"{short_dir}/s"
    say = "while :; do echo tick; sleep 0.1; done"
    with received(path, socket.SOCK_DGRAM):
        engine.docker(
            "run", "-d", "--network", "none", "--name", "talker", "--log-driver", "syslog",
            *options(syslog_address=f"unixgram://{path}"), "box", "sh", "-c", say, check=True,
        )  # fmt: skip
    engine.stop(signal.SIGKILL)
    os.unlink(path)
    try:
        with received(path, socket.SOCK_DGRAM) as service:
            service.wait_for(b"tick")
    finally:
        engine.start()
    assert "tick" in read(engine, "--tail", "1")[0]
