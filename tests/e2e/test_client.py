"""The typed clients, synchronous and asynchronous, with our engine and with Docker's: the same program on each."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import tarfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest

from sampan.api.containers import CreateRequest, HostConfig, UpdateRequest
from sampan.api.exec import ExecCreateRequest
from sampan.api.networks import NetworkCreateRequest
from sampan.api.volumes import VolumeCreateRequest
from sampan.client import AsyncDocker, Docker
from sampan.client.documents import ExitedWith
from sampan.errors import Conflict, InvalidArgument, NotFound, SampanError, Unavailable
from tests.e2e.conftest import Engine
from tests.e2e.dockers import dockerd

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:busybox", "program:dockerd")


class Waiting:
    """The asynchronous client as a synchronous one: each call runs to its end, and iterators step by step."""

    def __init__(self, found: object, loop: asyncio.AbstractEventLoop) -> None:
        self._found = found
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._found, name)
        if type(value).__module__.startswith("sampan.client.asynchronous"):
            return Waiting(value, self._loop)
        return self._called(value) if callable(value) else value

    def _called(self, method: Any) -> Any:
        def call(*words: Any, **more: Any) -> Any:
            return self._settled(method(*words, **more))

        return call

    def _settled(self, result: Any) -> Any:
        if inspect.isawaitable(result):
            return self._settled(self._loop.run_until_complete(cast("Any", result)))
        if isinstance(result, AsyncIterator) and not type(result).__module__.startswith("sampan."):
            return self._steps(result)
        if type(result).__module__.startswith("sampan.client.asynchronous"):
            return Waiting(result, self._loop)
        return result

    def _steps(self, steps: AsyncIterator[Any]) -> Iterator[Any]:
        try:
            while True:
                try:
                    yield self._loop.run_until_complete(cast("Any", anext(steps)))
                except StopAsyncIteration:
                    return
        finally:
            self._loop.run_until_complete(cast("Any", steps).aclose())

    def __iter__(self) -> Iterator[Any]:
        return self._steps(cast("AsyncIterator[Any]", _Generator(self._found)))

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *ending: object) -> None:
        self._loop.run_until_complete(cast("Any", self._found).close())


class _Generator:
    """An iterator with a generator's end."""

    def __init__(self, found: Any) -> None:
        self._found = found

    def __aiter__(self) -> _Generator:
        return self

    async def __anext__(self) -> Any:
        return await self._found.__anext__()

    async def aclose(self) -> None:
        return None


@pytest.fixture(scope="module")
def docker_host() -> Iterator[str]:
    with dockerd() as host:
        yield host


@pytest.fixture(params=["ours", "dockers"])
def host(request: pytest.FixtureRequest, engine: Engine) -> str:
    return engine.host if request.param == "ours" else str(request.getfixturevalue("docker_host"))


@pytest.fixture(params=["synchronous", "asynchronous"])
def docker(request: pytest.FixtureRequest, host: str) -> Iterator[Docker]:
    if request.param == "synchronous":
        with Docker(host) as client:
            yield client
        return
    loop = asyncio.new_event_loop()
    asynchronous = AsyncDocker(host)
    yield cast("Docker", Waiting(asynchronous, loop))
    loop.run_until_complete(asynchronous.close())
    loop.close()


NONE = HostConfig(network_mode="none")


@pytest.fixture
def sleeper(docker: Docker) -> Iterator[str]:
    request = CreateRequest(image="box", cmd=("sleep", "600"), labels={"a": "b"}, host_config=NONE)
    made = docker.containers.create(request, name="typed")
    docker.containers.start(made.id)
    yield made.id
    with contextlib.suppress(NotFound):
        docker.containers.remove(made.id, force=True, volumes=True)


def test_a_program_runs(docker: Docker) -> None:
    request = CreateRequest(image="box", cmd=("sh", "-c", "cat; echo err >&2; exit 3"), host_config=NONE)
    done = docker.run(request, stdin=b"x" * 300_000)
    assert (done.exit_code, len(done.stdout), done.stderr) == (3, 300_000, b"err\n")
    with pytest.raises(ExitedWith, match="exit status 3: err"):
        done.check()
    assert docker.containers.list(all_=True) == ()


def test_a_container_from_create_to_remove(docker: Docker, sleeper: str) -> None:
    containers = docker.containers
    assert containers.start(sleeper) is False
    (listed,) = containers.list(filters={"label": "a=b"}, size=True)
    assert (listed.id, listed.names, listed.state) == (sleeper, ("/typed",), "running")
    inspected = containers.inspect("typed", size=True)
    assert (inspected.config.cmd, inspected.config.labels) == (("sleep", "600"), {"a": "b"})
    assert (inspected.host_config.network_mode, inspected.state.running) == ("none", True)
    assert "sleep 600" in " ".join(containers.top(sleeper).processes[0])
    assert containers.stats_once(sleeper).cpu_stats.cpu_usage.total_usage > 0
    stats = containers.stats(sleeper)
    assert next(iter(stats)).pids_stats.current == 1
    cast("Any", stats).close()
    containers.pause(sleeper)
    assert containers.inspect(sleeper).state.paused
    containers.unpause(sleeper)
    containers.update(sleeper, UpdateRequest(memory=64 << 20, memory_swap=64 << 20))
    assert containers.inspect(sleeper).host_config.memory == 64 << 20
    containers.rename(sleeper, "typed2")
    containers.restart("typed2", timeout=0)
    containers.kill("typed2")
    assert containers.wait("typed2").status_code == 137
    assert containers.stop("typed2") is False
    assert sleeper in (containers.prune({"label": ["a=b"]}).containers_deleted or ())
    request = CreateRequest(image="box", cmd=("true",), host_config=NONE)
    made = containers.create(request, name="typed")
    with pytest.raises(Conflict, match="already in use"):
        containers.create(request, name="typed")
    containers.remove(made.id)
    with pytest.raises(NotFound, match="No such container"):
        containers.inspect(made.id)


def test_logs(docker: Docker) -> None:
    command = ("sh", "-c", "for i in 1 2 3; do echo out$i; sleep 0.1; echo err$i >&2; done")
    for tty, wanted in (False, b"out1\nout2\nout3\n"), (True, None):
        made = docker.containers.create(CreateRequest(image="box", cmd=command, tty=tty, host_config=NONE))
        docker.containers.start(made.id)
        pieces = list(docker.containers.logs(made.id, follow=True))
        stdout = b"".join(piece.data for piece in pieces if piece.stream == 1)
        assert stdout == wanted if wanted else b"err3" in stdout
        (last,) = docker.containers.logs(made.id, tail=1, timestamps=True)
        assert last.data[:2] == b"20"
        docker.containers.remove(made.id)


def test_attached(docker: Docker) -> None:
    request = CreateRequest(image="box", cmd=("cat",), open_stdin=True, stdin_once=True, host_config=NONE)
    made = docker.containers.create(request)
    with docker.containers.attach(made.id, stdin=True) as stream:
        docker.containers.start(made.id)
        stream.write(b"one\n")
        assert next(iter(stream)).data == b"one\n"
        stream.write(b"two\n")
        stream.end_input()
        assert stream.read() == (b"two\n", b"")
    assert docker.containers.wait(made.id).status_code == 0
    docker.containers.remove(made.id)


def test_one_more_process(docker: Docker, sleeper: str) -> None:
    done = docker.execs.run(
        sleeper, "sh", "-c", "cat; echo $X >&2; pwd; exit 4", stdin=b"in\n", env=("X=y",), working_dir="/tmp"
    )
    assert (done.exit_code, done.stdout, done.stderr) == (4, b"in\n/tmp\n", b"y\n")
    exec_id = docker.execs.create(sleeper, ExecCreateRequest(cmd=("sleep", "60"), tty=True))
    docker.execs.start_detached(exec_id, tty=True)
    docker.execs.resize(exec_id, height=10, width=20)
    assert docker.execs.inspect(exec_id).running
    exec_id = docker.execs.create(sleeper, ExecCreateRequest(cmd=("tty",), tty=True, attach_stdout=True))
    with docker.execs.start(exec_id, tty=True) as stream:
        assert stream.read()[0].startswith(b"/dev/pts/")
    with pytest.raises(NotFound):
        docker.execs.inspect("nope")


def _tar(name: str, text: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()


def test_files(docker: Docker, sleeper: str) -> None:
    containers = docker.containers
    containers.put_archive(sleeper, "/tmp", _tar("x", b"some text"))
    found = containers.stat(sleeper, "/tmp/x")
    assert (found.name, found.size, found.is_directory) == ("x", 9, False)
    assert containers.stat(sleeper, "/tmp").is_directory
    data = b"".join(containers.get_archive(sleeper, "/tmp/x"))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert cast("Any", archive.extractfile("x")).read() == b"some text"
    with pytest.raises(NotFound):
        containers.stat(sleeper, "/nope")
    assert ("/tmp/x", 1) in [(each.path, each.kind) for each in containers.changes(sleeper)]
    image = containers.commit(sleeper, "typed", "one", changes=["ENV A=b"], comment="by test")
    assert docker.images.inspect("typed:one").id == image
    assert docker.images.history("typed:one")[0].comment == "by test"
    exported = b"".join(containers.export(sleeper))
    with tarfile.open(fileobj=io.BytesIO(exported)) as archive:
        assert "tmp/x" in archive.getnames()
    docker.images.remove("typed:one")


def test_images(docker: Docker) -> None:
    images = docker.images
    image = images.import_(iter([_tar("file", b"y")]), "typed", "two", changes=["CMD echo"], message="made")
    assert images.inspect("typed:two").id == image
    assert ("typed:two",) in [each.repo_tags for each in images.list(filters={"reference": "typed"})]
    images.tag("typed:two", "elsewhere/typed", "three")
    saved = b"".join(images.save("typed:two", "elsewhere/typed:three"))
    assert {each.untagged for each in images.remove("typed:two")} == {"typed:two"}
    images.remove("elsewhere/typed:three")
    loaded = list(images.load([saved[:1000], saved[1000:]]))
    assert any("typed:two" in each.stream for each in loaded)
    assert images.inspect("elsewhere/typed:three").config.cmd is not None
    images.remove(image, force=True)
    images.prune()
    with pytest.raises(NotFound, match="No such image"):
        images.inspect("typed:two")
    with pytest.raises(SampanError):
        list(images.pull("127.0.0.1:9/nope"))


def test_networks_and_volumes(docker: Docker, sleeper: str) -> None:
    docker.networks.create(NetworkCreateRequest(name="typed", driver="bridge", internal=True, labels={"a": "b"}))
    assert docker.networks.inspect("typed").labels == {"a": "b"}
    assert "typed" in [each.name for each in docker.networks.list()]
    docker.networks.remove("typed")
    assert docker.networks.prune({"label": "a=b"}).networks_deleted in (None, ())
    made = docker.volumes.create(VolumeCreateRequest(name="typed", labels={"a": "b"}))
    assert docker.volumes.inspect("typed") == made
    assert "typed" in [each.name for each in docker.volumes.list({"label": "a=b"})]
    docker.volumes.remove("typed")
    anonymous = docker.volumes.create()
    assert anonymous.name in (docker.volumes.prune().volumes_deleted or ())
    with pytest.raises(NotFound):
        docker.volumes.inspect("typed")


def test_the_engine_tells_of_itself(docker: Docker, sleeper: str, host: str) -> None:
    system = docker.system
    assert system.ping()["ostype"] == "linux"
    assert system.version().os == "linux"
    assert system.info().containers_running >= 1
    usage = system.disk_usage()
    assert sleeper in [each.id for each in usage.containers or ()]
    now = str(int(time.time()) + 1)
    events = list(system.events(since=str(int(time.time()) - 300), until=now, filters={"container": sleeper}))
    assert {"create", "start"} <= {each.action for each in events}
    assert events[0].actor.attributes["name"] == "typed"
    if "smp" in host:
        assert system.explain().size > 0


def test_errors_are_of_their_kinds(docker: Docker, tmp_path: object) -> None:
    with pytest.raises(NotFound, match="No such image: nope:latest"):
        docker.containers.create(CreateRequest(image="nope", cmd=("true",)))
    with pytest.raises(InvalidArgument):
        docker.containers.create(CreateRequest(image="box", cmd=("true",)), name="/ /")
    with pytest.raises(Unavailable, match="Cannot connect"):
        Docker(f"unix://{tmp_path}/none").system.version()


def test_threads_share_a_client(engine: Engine) -> None:
    done: list[bytes] = []
    with Docker(engine.host) as docker:

        def run(number: int) -> None:
            request = CreateRequest(image="box", cmd=("echo", str(number)), host_config=NONE)
            done.append(docker.run(request).stdout)

        threads = [threading.Thread(target=run, args=[number]) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(done) == [f"{number}\n".encode() for number in range(6)]


async def test_tasks_share_a_client(engine: Engine) -> None:
    async with AsyncDocker(engine.host) as docker:

        async def run(number: int) -> bytes:
            request = CreateRequest(image="box", cmd=("echo", str(number)), host_config=NONE)
            return (await docker.run(request)).stdout

        done = await asyncio.gather(*map(run, range(6)))
    assert done == [f"{number}\n".encode() for number in range(6)]


async def test_a_task_that_is_cancelled_lets_go(engine: Engine) -> None:
    async with AsyncDocker(engine.host) as docker:
        made = await docker.containers.create(CreateRequest(image="box", cmd=("sleep", "60"), host_config=NONE))
        await docker.containers.start(made.id)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(docker.containers.wait(made.id), 0.3)
        await docker.containers.remove(made.id, force=True)
        assert await docker.containers.list() == ()
