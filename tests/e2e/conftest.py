"""An engine for the tests of real clients, with an image of busybox; at the end nothing of it may be left."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from sampan.client.client import Client, parse_host
from sampan.core.paths import Paths
from sampan.errors import NotFound, SampanError

if TYPE_CHECKING:
    from tests.e2e.registries import Place

_NAMES = (
    "sh ls cat echo true false sleep id hostname mount ps touch env pwd mkdir mknod stat nc kill head tty grep rm"
    " dd ip nslookup readlink stty unshare wc yes"
)
APPLETS = tuple(_NAMES.split())


def busybox_tar() -> bytes:
    """A root file system with one program and many names."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("data", 0o755)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        archive.add(shutil.which("busybox") or "/bin/busybox", "bin/busybox")
        for name in APPLETS:
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
        for name, text in (
            ("etc/passwd", "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n"),
            ("etc/group", "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n"),
            ("data/file", "from the image\n"),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


class Engine:
    """A running engine. `docker(...)` runs the docker command against it, `sampan(...)` our own.

    `options` are the daemon's."""

    def __init__(self, directory: pathlib.Path, *options: str) -> None:
        self._options = options
        self.paths = Paths(f"{directory}/data", f"{directory}/run")
        self.host = f"unix://{self.paths.socket}"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._client: Client | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with open(self._directory / "log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-I", "-m", "sampan.engine", "-D", "-H", self.host, "--data-root",
                    self.paths.data_root, "--exec-root", self.paths.exec_root, *self._options,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 120  # In an emulated machine it takes half of that.
        while time.monotonic() < deadline:
            with contextlib.suppress(SampanError):
                self.client.call("GET", "/_ping")
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        self.stop(signal.SIGKILL)
        pytest.fail(f"the engine did not start: {self.log()[-2000:]}")

    def load_box(self) -> None:
        """The image `box`."""
        list(
            self.client.messages(
                "POST", "/images/create?fromSrc=-", body=busybox_tar(), headers={"Content-Type": "application/x-tar"},
                repo="box", tag="latest",
            )
        )  # fmt: skip

    def remove_containers(self) -> None:
        for container in self.client.call("GET", "/containers/json", all=True):
            self.client.call("DELETE", f"/containers/{container['Id']}", force=True, v=True)

    def stop(self, number: int = signal.SIGTERM) -> None:
        assert self._process is not None
        if self._client is not None:
            self._client.close()
            self._client = None
        self._process.send_signal(number)
        self._process.wait(20)

    def take_down(self) -> None:
        """The default bridge and the rules outlive the engine; a test's must not."""
        take_down(self.paths)

    def log(self) -> str:
        return (self._directory / "log").read_text()

    @property
    def client(self) -> Client:
        """A new one for each engine: the connection is kept alive."""
        if self._client is None:
            self._client = Client(parse_host(self.host))
        return self._client

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DOCKER_HOST": self.host, "SAMPAN_HOST": self.host}

    def docker(
        self, *words: str, stdin: bytes = b"", timeout: float = 60, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        return self._run(["docker", *words], stdin, timeout, check)

    def sampan(
        self, *words: str, stdin: bytes = b"", timeout: float = 60, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        return self._run([sys.executable, "-m", "sampan.cli.__main__", *words], stdin, timeout, check)

    def _run(self, command: list[str], stdin: bytes, timeout: float, check: bool) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, input=stdin, capture_output=True, timeout=timeout, env=self.environment, check=False
        )  # fmt: skip
        result = subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())
        if check and result.returncode:
            pytest.fail(f"{command}: {result.returncode}: {result.stderr}")
        return result

    def left_over(self) -> list[str]:
        """What there is of containers when what goes on in the background has had its time."""
        deadline = time.monotonic() + 5
        while (found := self._left_over()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return found

    def _inspected(self) -> list[Any]:
        listed = self.client.call("GET", "/containers/json", all=True)
        found: list[Any] = []
        for each in listed:
            with contextlib.suppress(NotFound):  # It is just being removed.
                found.append(self.client.call("GET", f"/containers/{each['Id']}/json"))
        return found

    def _left_over(self) -> list[str]:
        found = [line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if "/merged " in line]
        found = [line.split()[4] for line in found if str(self._directory) in line]
        known = {each["GraphDriver"]["Data"]["UpperDir"].split("/")[-2] for each in self._inspected()}
        layers = {each.parent for each in pathlib.Path(self.paths.overlay2).glob("*/work")}
        found += [str(each) for each in layers if each.name not in known]
        found += os.listdir(self.paths.shims)
        found += [entry for entry in os.listdir(self.paths.runtime) if not entry.startswith(".")]
        found += map(str, pathlib.Path(f"{self.paths.exec_root}/runtimes").glob("*/[!.]*"))
        return found


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    directory = pathlib.Path(tempfile.mkdtemp(prefix="smp", dir="/tmp"))
    running = Engine(directory)
    running.start()
    try:
        running.load_box()
        yield running
        running.remove_containers()
        assert running.left_over() == []
    finally:
        running.stop()
        running.take_down()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Registries with TLS and both kinds of auth, and an engine that believes their authority."""
    from tests.e2e.registries import Place

    directory = pathlib.Path(tempfile.mkdtemp(prefix="smp", dir="/tmp"))
    made = Place(directory)
    yield made
    made.close()
    shutil.rmtree(directory)


@pytest.fixture
def docker_config(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A `config.json` of the test's own, which is not there yet."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "docker/config.json"


@pytest.fixture(autouse=True)
def _own_rubbish(request: pytest.FixtureRequest) -> Iterator[None]:
    """Who may leave sockets to the collector has to have it come: later it would be another test's fault."""
    yield
    allowed = (str(each) for mark in request.node.iter_markers("filterwarnings") for each in mark.args)
    if any("PytestUnraisableExceptionWarning" in each for each in allowed):
        gc.collect()


@pytest.fixture(autouse=True)
def _no_containers(engine: Engine) -> Iterator[None]:
    """What a test that failed has left must not fail the next one."""
    yield
    with contextlib.suppress(SampanError):
        engine.remove_containers()


def take_down(paths: Paths, address: str = "") -> None:
    """Remove the bridge and the rules of an engine that has ended."""
    from sampan.core.metadata import Metadata
    from sampan.network.controller import NetworkController, NetworkSettings

    metadata = Metadata(paths.database)
    settings = NetworkSettings(bridge=paths.bridge, table=paths.table, netns_dir=paths.netns, bridge_address=address)
    controller = NetworkController(metadata, settings)
    controller.setup()
    controller.teardown()
    controller.close()
    metadata.close()
