"""docker-py 7, unmodified, against our engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import docker
import docker.types
import pytest

from tests.e2e.conftest import Engine, busybox_tar

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:busybox")


@pytest.fixture
def client(engine: Engine) -> Iterator[Any]:
    made = docker.DockerClient(base_url=engine.host)
    yield made
    made.close()


def test_run_and_errors(client: Any) -> None:
    assert client.ping()
    assert client.containers.run("box", ["echo", "hi"], remove=True) == b"hi\n"
    with pytest.raises(docker.errors.ContainerError) as failed:
        client.containers.run("box", ["false"], remove=True)
    assert failed.value.exit_status == 1
    with pytest.raises(docker.errors.ImageNotFound):
        client.containers.create("nosuch")


def test_the_life_of_a_container(client: Any) -> None:
    container = client.containers.run(
        "box", ["sh", "-c", "echo up; exec sleep 600"], detach=True, name="py", labels={"a": "b"}, mem_limit="64m"
    )
    try:
        assert [each.name for each in client.containers.list(filters={"label": "a=b"})] == ["py"]
        assert container.exec_run(["sh", "-c", "echo x; exit 3"]) == (3, b"x\n")
        assert container.exec_run(["cat", "/data/file"], demux=True).output == (b"from the image\n", None)
        assert container.logs() == b"up\n"
        assert container.top()["Processes"][0][-1] == "sleep 600"
        container.reload()
        assert container.status == "running"
        container.pause()
        container.unpause()
        container.rename("py2")
        container.restart(timeout=0)
        container.stop(timeout=0)
        assert container.wait()["StatusCode"] == 137
    finally:
        container.remove(force=True)


def test_attached_socket(client: Any) -> None:
    container = client.containers.create("box", ["cat"], stdin_open=True)
    stream = client.api.attach_socket(container.id, {"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    stream._sock.sendall(b"ping\n")
    seen = b""
    while len(seen) < 13:
        seen += stream._sock.recv(100)
    assert seen == b"\x01\0\0\0\0\0\0\x05ping\n"
    stream._sock.close()
    stream.close()
    container.remove(force=True)


def test_images_volumes_and_the_rest(client: Any) -> None:
    assert client.images.get("box").tags == ["box:latest"]
    client.images.get("box").tag("py", "1")
    client.images.remove("py:1")
    with pytest.raises(docker.errors.APIError):
        client.images.load(b"no archive")
    client.api.import_image_from_data(busybox_tar(), repository="imported")
    client.images.remove("imported")
    _volumes(client)
    assert {each.name for each in client.networks.list()} == {"bridge", "host", "none"}
    assert client.info()["Driver"] == "overlay2"
    assert client.version()["ApiVersion"] == "1.51"
    assert client.df()["Images"]


@pytest.mark.parametrize("privileged", [False, True])
def test_the_cgroup_namespace_goes_by_the_version(client: Any, privileged: bool) -> None:
    info = client.info()
    private = info["CgroupVersion"] == "2"
    assert info["CgroupDriver"] == "cgroupfs"
    container = client.containers.create(
        "box", ["cat", "/proc/self/cgroup"], privileged=privileged, mem_limit="64m", cpu_period=100000, cpu_quota=50000
    )
    try:
        container.start()
        assert container.wait()["StatusCode"] == 0
        container.reload()
        assert container.attrs["HostConfig"]["CgroupnsMode"] == ("private" if private else "host")
        assert (container.id in container.logs().decode()) != private
    finally:
        container.remove(force=True)


def _volumes(client: Any) -> None:
    made = client.volumes.create("pyvol", driver_opts={"type": "tmpfs", "device": "tmpfs"}, labels={"of": "test"})
    assert made.attrs["Options"] == {"type": "tmpfs", "device": "tmpfs"}
    assert [each.name for each in client.volumes.list(filters={"label": "of=test"})] == ["pyvol"]
    plain = client.volumes.create("pyplain")
    seen = client.containers.run(
        "box", ["sh", "-c", "echo hi > /plain/file; touch /ro/x; grep /tmpfs /proc/mounts"], remove=True, stderr=True,
        network_mode="none", volumes={"pyvol": {"bind": "/tmpfs", "mode": "rw"}},
        mounts=[
            docker.types.Mount("/plain", "pyplain"), docker.types.Mount("/ro", "/tmp", type="bind", read_only=True),
        ],
    )  # fmt: skip
    assert b"/ro/x: Read-only file system" in seen and b"tmpfs /tmpfs tmpfs" in seen
    part = docker.types.Mount("/part", "pyplain", subpath="file")
    assert client.containers.run("box", ["cat", "/part"], remove=True, network_mode="none", mounts=[part]) == b"hi\n"
    borrowed = client.containers.create("box", "true", volumes=["pyplain:/data"])
    taker = client.containers.create("box", "true", volumes_from=[f"{borrowed.name}:ro"])
    assert [(each["Name"], each["RW"]) for each in client.api.inspect_container(taker.id)["Mounts"]] == [
        ("pyplain", False)
    ]
    with pytest.raises(docker.errors.APIError, match="volume is in use"):
        plain.remove()
    taker.remove()
    borrowed.remove()
    assert client.volumes.prune(filters={"all": "true", "label!": "of=test"})["VolumesDeleted"] == ["pyplain"]
    made.remove()
    with pytest.raises(docker.errors.NotFound, match="no such volume"):
        client.volumes.get("pyvol")
