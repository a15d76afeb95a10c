"""docker-py's everyday work, by its own objects: what its documentation shows for containers, images and the rest."""

from __future__ import annotations

import io
import tarfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import docker
import docker.errors
import docker.types
import pytest

from tests.e2e.conftest import Engine

pytestmark = [
    pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:busybox", "module:docker"),
    # docker-py leaves the sockets of streams to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def client(engine: Engine) -> Iterator[Any]:
    made = docker.DockerClient(base_url=engine.host)
    yield made
    made.close()


@pytest.fixture
def box(client: Any) -> Iterator[Any]:
    container = client.containers.run("box", ["sleep", "600"], detach=True, name="every", labels={"kind": "day"})
    yield container
    container.remove(force=True, v=True)


def _tar(name: str, text: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()


def test_run_with_what_people_give_it(client: Any, tmp_path: Any) -> None:
    (tmp_path / "file").write_text("from the host\n")
    tmp_path.chmod(0o755)
    output = client.containers.run(
        "box", "sh -c 'cat /in/file; echo $A; id -u; pwd; hostname; cat /proc/1/limits | grep open; cat /etc/hosts'",
        remove=True, environment={"A": "b"}, volumes={str(tmp_path): {"bind": "/in", "mode": "ro"}}, user="1000",
        working_dir="/tmp", hostname="named", ulimits=[docker.types.Ulimit(name="nofile", soft=100, hard=200)],
        tmpfs={"/scratch": "size=1m"}, mem_limit="64m", cpu_shares=512, pids_limit=50, read_only=True, init=True,
        cap_drop=["ALL"], security_opt=["no-new-privileges"], extra_hosts={"far": "10.1.2.3"}, network_mode="bridge",
        stop_signal="SIGINT", shm_size="32m", log_config=docker.types.LogConfig(config={"max-size": "1m"}),
    )  # fmt: skip
    lines = output.decode().splitlines()
    assert lines[:5] == ["from the host", "b", "1000", "/tmp", "named"]
    assert "100" in lines[5].split() and "200" in lines[5].split()
    assert any(line.split() == ["10.1.2.3", "far"] for line in lines)


def test_output_as_it_comes(client: Any) -> None:
    stream = client.containers.run("box", ["sh", "-c", "echo one; sleep 0.2; echo two"], stream=True, remove=True)
    assert list(stream) == [b"one\n", b"two\n"]
    with pytest.raises(docker.errors.ContainerError) as failed:
        client.containers.run("box", ["sh", "-c", "echo why >&2; exit 5"], remove=True)
    assert (failed.value.exit_status, failed.value.stderr) == (5, b"why\n")
    with pytest.raises(docker.errors.ImageNotFound):
        client.containers.create("nosuchimage:1")
    with pytest.raises(docker.errors.APIError):
        client.containers.run("box", ["/nope"], remove=True)


def test_a_containers_object(client: Any, box: Any) -> None:
    assert (box.status, box.name, box.labels) == ("created", "every", {"kind": "day"})
    box.reload()
    assert box.status == "running"
    assert box.image.tags == ["box:latest"]
    assert [each.id for each in client.containers.list(filters={"label": "kind=day", "status": "running"})] == [box.id]
    assert client.containers.list(filters={"name": "nope"}) == []
    assert "sleep" in box.top()["Processes"][0][-1]
    box.pause()
    box.reload()
    assert box.status == "paused"
    box.unpause()
    box.rename("every2")
    assert client.containers.get("every2").id == box.id
    box.update(mem_limit="32m", memswap_limit="32m", restart_policy={"Name": "on-failure", "MaximumRetryCount": 2})
    box.reload()
    assert box.attrs["HostConfig"]["Memory"] == 32 << 20
    assert box.attrs["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    box.restart(timeout=0)
    box.kill(signal="SIGKILL")
    assert box.wait()["StatusCode"] == 137
    box.start()
    box.stop(timeout=0)
    assert box.wait(condition="not-running", timeout=10)["StatusCode"] == 137
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("every")


def test_stats_and_logs(engine: Engine, client: Any, box: Any) -> None:
    assert box.stats(stream=False)["memory_stats"]["usage"] > 0
    stream = box.stats(decode=True)
    assert next(stream)["name"] == "/every"
    stream.close()
    noisy = client.containers.run("box", ["sh", "-c", "for i in 1 2 3; do echo $i; done; echo e >&2"], detach=True)
    noisy.wait()
    assert noisy.logs(stdout=True, stderr=False) == b"1\n2\n3\n"
    assert noisy.logs(tail=1, stderr=False) == b"3\n"
    assert b"".join(noisy.logs(stream=True, follow=True, stderr=False)) == b"1\n2\n3\n"
    assert noisy.logs(timestamps=True, since=int(time.time()) - 60).count(b"Z ") == 4
    assert noisy.logs(until=int(time.time()) - 600) == b""
    # What was logged, and no more: docker-py's own call may lose what comes together with the answer's head.
    connection, first = engine.client.upgrade(f"/containers/{noisy.id}/attach", logs=True, stdout=True)
    while data := connection.recv(4096):
        first += data
    connection.close()
    assert first[8:10] + first[18:20] + first[28:] == b"1\n2\n3\n"
    noisy.remove()


def test_exec_in_each_way(client: Any, box: Any) -> None:
    assert box.exec_run("echo hi") == (0, b"hi\n")
    assert box.exec_run(["sh", "-c", "exit 4"]).exit_code == 4
    done = box.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True)
    assert done.output == (b"o\n", b"e\n")
    stream = box.exec_run(["sh", "-c", "echo 1; sleep 0.1; echo 2"], stream=True).output
    assert list(stream) == [b"1\n", b"2\n"]
    done = box.exec_run(["sh", "-c", "echo $A; pwd; id -u"], environment={"A": "b"}, workdir="/tmp", user="1000")
    assert done.output == b"b\n/tmp\n1000\n"
    assert box.exec_run(["tty"], tty=True).output.startswith(b"/dev/pts/")
    assert box.exec_run("sleep 60", detach=True).output in ("", b"")
    socket = box.exec_run(["cat"], stdin=True, socket=True).output
    socket._sock.sendall(b"typed\n")
    data = b""
    while len(data) < 14:
        data += socket._sock.recv(64)
    assert data == b"\x01\0\0\0\0\0\0\x06typed\n"
    socket._sock.close()
    assert box.exec_run("/nope").exit_code in (126, 127)


def test_files(client: Any, box: Any) -> None:
    assert box.put_archive("/tmp", _tar("note", b"text"))
    chunks, stat = box.get_archive("/tmp/note")
    assert (stat["name"], stat["size"]) == ("note", 4)
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        found = archive.extractfile("note")
        assert found is not None and found.read() == b"text"
    with pytest.raises(docker.errors.NotFound):
        box.get_archive("/nope")
    assert {"Path": "/tmp/note", "Kind": 1} in box.diff()
    with tarfile.open(fileobj=io.BytesIO(b"".join(box.export()))) as archive:
        assert "tmp/note" in archive.getnames()
    image = box.commit(repository="noted", tag="1", message="m", author="a", changes=["CMD cat /tmp/note"])
    assert client.containers.run("noted:1", remove=True) == b"text"
    assert image.history()[0]["Comment"] == "m"
    client.images.remove("noted:1")


def test_images(client: Any, tmp_path: Any) -> None:
    box = client.images.get("box")
    assert box.tag("registry.test/box", tag="2")
    assert "registry.test/box:2" in client.images.get(box.id).tags
    assert [each.id for each in client.images.list(name="registry.test/box")] == [box.id]
    assert client.images.list(filters={"reference": "nothing*"}) == []
    data = b"".join(client.images.get("registry.test/box:2").save(named="registry.test/box:2"))
    client.images.remove("registry.test/box:2")
    (loaded,) = client.images.load(data)
    assert loaded.id == box.id
    client.images.remove(image="registry.test/box:2", force=True, noprune=True)
    (tmp_path / "tree.tar").write_bytes(_tar("only", b"x"))
    client.api.import_image_from_file(str(tmp_path / "tree.tar"), repository="one", tag="file")
    assert client.images.get("one:file").attrs["Os"] == "linux"
    client.images.remove("one:file")
    assert "ImagesDeleted" in client.images.prune()
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("one:file")
    with pytest.raises(docker.errors.APIError):
        client.images.pull("127.0.0.1:9/nothing")


def test_networks(client: Any) -> None:
    pool = docker.types.IPAMPool(subnet="10.213.7.0/24", gateway="10.213.7.254")
    network = client.networks.create(
        "days", driver="bridge", ipam=docker.types.IPAMConfig(pool_configs=[pool]), labels={"a": "b"}
    )
    try:
        first = client.containers.run("box", ["sleep", "60"], detach=True, network="days", name="first")
        network.reload()
        assert [each.name for each in network.containers] == ["first"]
        second = client.containers.run("box", ["sleep", "60"], detach=True, name="second")
        network.connect(second, ipv4_address="10.213.7.77", aliases=["two"])
        second.reload()
        assert second.attrs["NetworkSettings"]["Networks"]["days"]["IPAddress"] == "10.213.7.77"
        assert second.exec_run("ip addr").output.count(b"10.213.7.77") == 1
        network.disconnect(second)
        assert [each.name for each in client.networks.list(names=["days"])] == ["days"]
        with pytest.raises(docker.errors.APIError):
            network.remove()
        first.remove(force=True)
        second.remove(force=True)
    finally:
        network.remove()
    assert "NetworksDeleted" in client.networks.prune(filters={"label": "a=b"})


def test_published_ports(client: Any) -> None:
    command = ["sh", "-c", "while true; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\nhi' | nc -l -p 80; done"]
    container = client.containers.run(
        "box", command, detach=True, ports={"80/tcp": ("127.0.0.1", None), "53/udp": None}
    )
    container.reload()
    (binding,) = container.ports["80/tcp"]
    assert (binding["HostIp"], len(container.ports["53/udp"])) == ("127.0.0.1", 1)
    deadline = time.monotonic() + 30
    body = b""
    while not body and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{binding['HostPort']}/", timeout=5) as answer:
                body = answer.read()
        except OSError:
            time.sleep(0.1)
    assert body == b"hi"
    container.remove(force=True)


def test_volumes(client: Any) -> None:
    volume = client.volumes.create(name="days", labels={"a": "b"})
    mount = docker.types.Mount("/v", "days", type="volume")
    client.containers.run("box", ["sh", "-c", "echo kept > /v/x"], mounts=[mount], remove=True)
    assert client.containers.run("box", ["cat", "/v/x"], volumes=["days:/v:ro"], remove=True) == b"kept\n"
    assert client.volumes.get("days").attrs["Labels"] == {"a": "b"}
    assert [each.name for each in client.volumes.list(filters={"label": "a=b"})] == ["days"]
    volume.remove()
    with pytest.raises(docker.errors.NotFound):
        client.volumes.get("days")
    assert "VolumesDeleted" in client.volumes.prune()


def test_a_health_check(client: Any) -> None:
    check = docker.types.Healthcheck(test=["CMD", "true"], interval=100_000_000, retries=1)
    container = client.containers.run("box", ["sleep", "60"], detach=True, healthcheck=check)
    deadline = time.monotonic() + 30
    while container.health != "healthy" and time.monotonic() < deadline:
        time.sleep(0.05)
        container.reload()
    assert container.health == "healthy"
    container.remove(force=True)


def test_events_and_the_engine(client: Any) -> None:
    begun = int(time.time()) - 1
    seen: list[str] = []
    ready = threading.Event()

    def watch() -> None:
        events = client.events(decode=True, filters={"type": "container", "label": "watched"})
        ready.set()
        for event in events:
            seen.append(event["Action"])
            if event["Action"] == "destroy":
                break
        events.close()

    thread = threading.Thread(target=watch)
    thread.start()
    ready.wait(10)
    client.containers.run("box", "true", remove=True, labels=["watched"])
    thread.join(30)
    assert [each for each in seen if each in ("create", "start", "die", "destroy")] == [
        "create",
        "start",
        "die",
        "destroy",
    ]
    past = client.events(since=begun, until=int(time.time()) + 1, decode=True, filters={"label": "watched"})
    assert "die" in [each["Action"] for each in past]
    assert client.ping()
    assert client.version()["ApiVersion"] == "1.51"
    assert client.info()["Driver"] == "overlay2"
    assert {"Images", "Containers", "Volumes"} <= set(client.df())
    with pytest.raises(docker.errors.APIError):
        client.login("nobody", "wrong", registry="127.0.0.1:9")
    assert client.containers.prune()["SpaceReclaimed"] >= 0


def test_the_low_level_api(client: Any) -> None:
    api = client.api
    config = api.create_host_config(auto_remove=False, binds=["/tmp:/host:ro"], network_mode="none", privileged=False)
    made = api.create_container(
        "box", ["sh", "-c", "read line; echo got $line"], stdin_open=True, tty=False, host_config=config
    )
    socket = api.attach_socket(made, params={"stdin": 1, "stdout": 1, "stream": 1})
    api.start(made)
    socket._sock.sendall(b"this\n")
    assert api.wait(made)["StatusCode"] == 0
    assert api.logs(made) == b"got this\n"
    socket.close()
    inspected = api.inspect_container(made)
    assert (inspected["State"]["ExitCode"], inspected["HostConfig"]["Binds"]) == (0, ["/tmp:/host:ro"])
    api.remove_container(made)
    assert api.images(quiet=True)
    assert api.containers(all=True, quiet=True) == []
