"""Hundreds of random operations, the engine killed at random instants: in the end the data root is as a fresh one's.

`SAMPAN_TEST_SEED` plays one run again, `SAMPAN_TEST_SECONDS` makes it longer.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sampan.client.client import Client, parse_host
from sampan.errors import NotFound, SampanError
from tests.e2e.conftest import Engine, busybox_tar
from tests.e2e.test_save_load import layer

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:busybox")

_SECONDS = float(os.environ.get("SAMPAN_TEST_SECONDS", "15"))
_TAR = {"Content-Type": "application/x-tar"}
_TMPFS = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
_NAMES = ("one", "two", "three", "four")


def archive(name: str, *layers: bytes) -> bytes:
    """One image in Docker's form; images whose first layers are the same share them."""
    import hashlib

    digests = [hashlib.sha256(each).hexdigest() for each in layers]
    config = json.dumps(
        {
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["true"], "Volumes": {"/anonymous": {}}},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{each}" for each in digests]},
        }
    ).encode()  # fmt: skip
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": [f"{each}.tar" for each in digests]}]
    files = {f"{digest}.tar": content for digest, content in zip(digests, layers, strict=True)}
    return layer(**files, **{"config.json": config, "manifest.json": json.dumps(manifest).encode()})


def tree(root: str) -> dict[str, int]:
    """Every file and directory, with a file's bytes. The database's are pages that are free again, and
    the lock's are a process's number."""
    found: dict[str, int] = {}
    for at, directories, files in os.walk(root):
        for name in directories:
            found[os.path.relpath(f"{at}/{name}", root)] = 0
        for name in files:
            path = f"{at}/{name}"
            relative = os.path.relpath(path, root)
            found[relative] = 0 if relative.startswith(("state.db", "engine.lock")) else os.lstat(path).st_size
    return found


class Player:
    """Does one thing after the other, and does not mind that it fails: the engine may be dead."""

    def __init__(self, engine: Engine, chance: random.Random) -> None:
        self.engine = engine
        self.chance = chance
        base, *tops = busybox_tar(), *(layer(**{name: os.urandom(200_000), "file": name.encode()}) for name in _NAMES)
        self._archives = [archive(f"{name}:1", base, *tops[: at + 1]) for at, name in enumerate(_NAMES)]
        self._archives.append(archive("alone:1", layer(alone=os.urandom(50_000))))
        self.client = self.connect()
        self.done: dict[str, int] = {}

    def connect(self) -> Client:
        return Client(parse_host(self.engine.host))

    def act(self) -> None:
        operations: tuple[tuple[int, Callable[[], object]], ...] = (
            (4, self.load), (2, self.load_broken_off), (1, self.save_broken_off), (2, self.import_), (2, self.tag),
            (4, self.remove_image), (5, self.run), (3, self.create), (2, self.commit), (4, self.remove_container),
            (2, self.volume), (2, self.remove_volume), (2, self.prune), (1, self.export_broken_off),
            (2, self.import_volume),
        )  # fmt: skip
        [operation] = self.chance.choices([each for _, each in operations], [weight for weight, _ in operations])
        with contextlib.suppress(SampanError, OSError, IndexError, ValueError, TypeError):  # Nothing there, or cut off.
            operation()
            self.done[operation.__name__] = self.done.get(operation.__name__, 0) + 1

    def _images(self) -> list[str]:
        found = self.client.call("GET", "/images/json", all=True)
        return [name for each in found for name in (each["Id"], *each["RepoTags"])]

    def _containers(self) -> list[str]:
        return [each["Id"] for each in self.client.call("GET", "/containers/json", all=True)]

    def load(self) -> None:
        list(self.client.messages("POST", "/images/load", body=self.chance.choice(self._archives), headers=_TAR))

    def _raw(self, request: bytes, size: int) -> None:
        """Send, read as much, and go."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(self.engine.paths.socket)
            connection.sendall(request)
            while size > 0 and (data := connection.recv(min(size, 65536))):
                size -= len(data)

    def load_broken_off(self) -> None:
        data = self.chance.choice(self._archives)
        head = (
            f"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-tar\r\nContent-Length: {len(data)}"
        )
        self._raw(f"{head}\r\n\r\n".encode() + data[: self.chance.randrange(len(data))], 0)

    def save_broken_off(self) -> None:
        self._raw(f"GET /images/{self.chance.choice(self._images())}/get HTTP/1.1\r\nHost: d\r\n\r\n".encode(), 100_000)

    def export_broken_off(self) -> None:
        container = self.chance.choice(self._containers())
        self._raw(f"GET /containers/{container}/export HTTP/1.1\r\nHost: d\r\n\r\n".encode(), 100_000)

    def import_(self) -> None:
        list(
            self.client.messages(
                "POST", "/images/create?fromSrc=-", body=layer(x=os.urandom(1000)), headers=_TAR,
                repo=self.chance.choice(("", "imported")),
            )
        )  # fmt: skip

    def tag(self) -> None:
        repository = self.chance.choice(_NAMES)
        self.client.call("POST", f"/images/{self.chance.choice(self._images())}/tag", repo=repository, tag="2")

    def remove_image(self) -> None:
        self.client.call("DELETE", f"/images/{self.chance.choice(self._images())}", force=self.chance.random() < 0.5)

    def create(self, *command: str) -> str:
        body = {
            "Image": self.chance.choice(self._images()), "Cmd": list(command) or None,
            "HostConfig": {
                "NetworkMode": "none", "Binds": [f"{self.chance.choice(_NAMES)}:/named"],
                "Mounts": self._mounts(), "AutoRemove": self.chance.random() < 0.3,
            },
        }  # fmt: skip
        return str(self.client.call("POST", "/containers/create", body)["Id"])

    def _mounts(self) -> list[dict[str, Any]]:
        """What is mounted on the host, too, while a container runs."""
        part = {"Type": "volume", "Source": self.chance.choice(_NAMES), "VolumeOptions": {"Subpath": "."}}
        tmpfs = {"Type": "volume", "Source": "tmpfs", "VolumeOptions": {"DriverConfig": {"Options": _TMPFS}}}
        image = {"Type": "image", "Source": self.chance.choice((*self._images(), "none"))}
        wanted = self.chance.choices((part, tmpfs, image), k=self.chance.randrange(3))
        return [{**each, "Target": f"/mount{number}"} for number, each in enumerate(wanted)]

    def import_volume(self) -> None:
        name = self.chance.choice(_NAMES)
        data = layer(**{name: os.urandom(200_000)})
        if self.chance.random() < 0.5:
            head = f"POST /volumes/{name}/import HTTP/1.1\r\nHost: d\r\nContent-Length: {len(data)}\r\n\r\n"
            self._raw(head.encode() + data[: self.chance.randrange(len(data))], 0)
        else:
            self.client.call("POST", f"/volumes/{name}/import", body=data, headers=_TAR)

    def run(self) -> None:
        script = "echo x >/tmp/x; rm /file; dd if=/dev/zero of=/tmp/big bs=1000 count=100; echo output; sleep "
        container = self.create("sh", "-c", script + self.chance.choice(("0", "0.3", "600")))
        self.client.call("POST", f"/containers/{container}/start")

    def commit(self) -> None:
        container = self.chance.choice(self._containers())
        self.client.call("POST", "/commit", container=container, repo=self.chance.choice(("", "made")))

    def remove_container(self) -> None:
        container = self.chance.choice(self._containers())
        self.client.call("DELETE", f"/containers/{container}", force=True, v=self.chance.random() < 0.5)

    def volume(self) -> None:
        self.client.call("POST", "/volumes/create", {"Name": self.chance.choice((*_NAMES, ""))})

    def remove_volume(self) -> None:
        self.client.call("DELETE", f"/volumes/{self.chance.choice(_NAMES)}")

    def prune(self) -> None:
        kind = self.chance.choice(("containers", "images", "volumes"))
        filters = {"images": {"dangling": ["false"]}, "volumes": {"all": ["1"]}}.get(kind, {})
        self.client.call("POST", f"/{kind}/prune", filters=filters)

    def clear(self) -> None:
        """Take everything away, as a user would."""
        for container in self._containers():
            with contextlib.suppress(SampanError):  # Some remove themselves.
                self.client.call("DELETE", f"/containers/{container}", force=True, v=True)
        deadline = time.monotonic() + 10
        while self._containers() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.client.call("POST", "/volumes/prune", filters={"all": ["1"]})
        with contextlib.suppress(NotFound):  # None with options is pruned.
            self.client.call("DELETE", "/volumes/tmpfs")
        self.client.call("POST", "/images/prune", filters={"dangling": ["false"]})


@pytest.fixture(params=["", "unpacked"], ids=["as the kernel can", "unpacked"])
def fresh(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """With each body that layers have."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="smp", dir="/tmp"))
    running = Engine(directory, *(("--storage-opt", f"layers={request.param}") if request.param else ()))
    try:
        running.start()
        yield running
    finally:
        with contextlib.suppress(AssertionError, OSError, ProcessLookupError):
            running.stop()
        with contextlib.suppress(Exception):
            running.take_down()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Connections to a killed engine.
def test_the_data_root_is_as_small_as_a_fresh_one(fresh: Engine) -> None:
    seed = int(os.environ.get("SAMPAN_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
    print(f"SAMPAN_TEST_SEED={seed}")
    chance = random.Random(seed)
    fresh.stop()
    empty = tree(fresh.paths.data_root)
    fresh.start()
    player = Player(fresh, chance)
    end = time.monotonic() + _SECONDS
    kills = 0
    while time.monotonic() < end or kills < 4:  # A busy machine takes longer.
        # Others act at the same time, and the engine dies in the midst of it.
        stop = threading.Event()

        def act(number: int, stop: threading.Event = stop) -> None:
            other = Player.__new__(Player)
            other.__dict__.update(player.__dict__)
            other.chance, other.client = random.Random(number), player.connect()
            while not stop.is_set():
                other.act()

        threads = [threading.Thread(target=act, args=(chance.randrange(1 << 31),)) for _ in range(3)]
        for each in threads:
            each.start()
        time.sleep(chance.uniform(0.2, 2.5))
        fresh.stop(signal.SIGKILL)
        kills += 1
        stop.set()
        for each in threads:
            each.join(30)
        fresh.start()
        player.client = player.connect()
    print(kills, player.done)
    assert kills > 3 and sum(player.done.values()) > 50, (kills, player.done)
    player.clear()
    assert fresh.left_over() == []
    fresh.stop()
    left = tree(fresh.paths.data_root)
    assert left == empty
    database = sum(os.stat(each).st_size for each in pathlib.Path(fresh.paths.data_root).glob("state.db*"))
    assert database < 8 << 20
    assert os.listdir(fresh.paths.mounts) == []
    with open("/proc/self/mountinfo") as file:
        assert os.path.dirname(fresh.paths.data_root) not in file.read()


def test_what_an_engine_finds_when_it_starts(fresh: Engine) -> None:
    """Leftovers of every kind go, and what is not ours to know stays."""
    fresh.stop()
    root = pathlib.Path(fresh.paths.data_root)
    empty = tree(str(root))
    for path in (
        "content/blobs/sha256/" + "a" * 64, "content/ingest/half", "tmp/upload", f"overlay2/{'b' * 64}/diff/file",
        f"containers/{'c' * 64}/log", "volumes/.removed-x/_data/file",
    ):  # fmt: skip
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("left")
    os.symlink("../nowhere/diff", root / "overlay2/l/SHORT")
    deep = root / "overlay2/deep"
    deep.mkdir()
    descriptor = os.open(deep, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    (root / "mine").write_text("somebody's")
    fresh.start()
    fresh.stop()
    assert tree(str(root)) == {**empty, "mine": 10}
    (root / "mine").unlink()
    fresh.start()


def test_a_container_may_nest_its_directories(fresh: Engine) -> None:
    fresh.load_box()
    fresh.docker("volume", "create", "deep", check=True)
    script = "i=0; while [ $i -lt 1100 ]; do mkdir d && cd d; i=$((i+1)); done"
    for place in ("/tmp", "/v"):
        fresh.docker("run", "--name", "deep", "--network", "none", "-v", "deep:/v", "-w", place, "box", "sh", "-c",
                     script, check=True)  # fmt: skip
        fresh.docker("system", "df", "-v", check=True)
        fresh.docker("rm", "deep", check=True)
    fresh.docker("volume", "rm", "deep", check=True)
    assert fresh.left_over() == []
    assert os.listdir(fresh.paths.volumes) == []
