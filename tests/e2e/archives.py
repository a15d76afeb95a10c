"""What a test of archives compares: an image's parts, whoever wrote them; and a dockerd beside our engine."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import pytest


def members(archive: bytes) -> dict[str, bytes]:
    """The files of a tar."""
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            if member.isfile():
                content = tar.extractfile(member)
                assert content is not None
                found[member.name] = content.read()
    return found


def parts(archive: bytes) -> dict[str, tuple[str, list[str]]]:
    """By the first of its names (or its id): each image's configuration's digest, and its layers' diff ids."""
    files = members(archive)
    result: dict[str, tuple[str, list[str]]] = {}
    for image in json.loads(files["manifest.json"]):
        layers = [files[name] for name in image["Layers"]]
        plain = [gzip.decompress(each) if each.startswith(b"\x1f\x8b") else each for each in layers]
        identifier = hashlib.sha256(files[image["Config"]]).hexdigest()
        name = (image["RepoTags"] or [identifier])[0]
        result[name] = identifier, [hashlib.sha256(each).hexdigest() for each in plain]
    return result


class Dockerd:
    """Docker's own engine, in a network namespace of its own, without a bridge."""

    def __init__(self) -> None:
        self._directory = tempfile.mkdtemp(prefix="smp", dir="/tmp")
        self.host = f"unix://{self._directory}/sock"
        pathlib.Path(f"{self._directory}/daemon.json").write_text("{}")
        with open(f"{self._directory}/log", "wb") as log:
            self._process = subprocess.Popen(
                ["unshare", "--net", "dockerd", "--bridge", "none", "--iptables=false",
                 "--data-root", f"{self._directory}/data", "--exec-root", f"{self._directory}/exec",
                 "--host", self.host, "--pidfile", f"{self._directory}/pid",
                 "--config-file", f"{self._directory}/daemon.json"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while self(["version"]).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"dockerd: {pathlib.Path(f'{self._directory}/log').read_text()[-2000:]}")
            time.sleep(0.1)

    def __call__(self, words: list[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        environment = {**os.environ, "DOCKER_HOST": self.host}
        return subprocess.run(["docker", *words], input=stdin, capture_output=True, env=environment, check=False)

    def must(self, *words: str, stdin: bytes = b"") -> bytes:
        done = self(list(words), stdin)
        if done.returncode:
            pytest.fail(f"dockerd: {words}: {done.stderr.decode()}")
        return done.stdout

    def inspect(self, name: str) -> Any:
        return json.loads(self.must("image", "inspect", name))[0]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        with open("/proc/self/mountinfo") as file:
            mounted = [line.split()[4] for line in file if self._directory in line]
        for path in reversed(mounted):
            subprocess.run(["umount", "-l", path], check=False)
        shutil.rmtree(self._directory, ignore_errors=True)


@pytest.fixture(scope="module")
def dockerd() -> Iterator[Dockerd]:
    running = Dockerd()
    yield running
    running.close()
