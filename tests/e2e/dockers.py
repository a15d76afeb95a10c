"""Real dockerd, without networks of its own, for what is to work with both engines."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sampan.client.client import Client, parse_host
from sampan.errors import SampanError
from tests.e2e.conftest import busybox_tar


@contextmanager
def dockerd() -> Iterator[str]:
    """Its address, with the image `box`. Nothing of it is left."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="dkd", dir="/tmp"))
    host = f"unix://{directory}/docker.sock"
    with open(directory / "log", "ab") as log:
        process = subprocess.Popen(
            ["dockerd", "--data-root", f"{directory}/data", "--exec-root", f"{directory}/run", "-p", f"{directory}/pid",
             "-H", host, "--bridge", "none", "--iptables=false", "--ip6tables=false"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        _wait_for(process, host, directory / "log")
        client = Client(parse_host(host))
        tar = {"Content-Type": "application/x-tar"}
        list(
            client.messages(
                "POST", "/images/create?fromSrc=-", body=busybox_tar(), headers=tar, repo="box", tag="latest"
            )
        )
        yield host
        for each in client.call("GET", "/containers/json", all=True):
            client.call("DELETE", f"/containers/{each['Id']}", force=True, v=True)
        client.close()
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(directory, ignore_errors=True)


def _wait_for(process: subprocess.Popen[bytes], host: str, log: pathlib.Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        client = Client(parse_host(host))
        try:
            client.call("GET", "/version")
            return
        except SampanError:
            time.sleep(0.1)
        finally:
            client.close()
        if process.poll() is not None:
            break
    pytest.fail(f"dockerd did not start: {log.read_text()[-2000:]}")
