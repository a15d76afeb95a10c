"""testcontainers' everyday work, as its documentation shows it: ports, networks, waits, files and commands."""

from __future__ import annotations

import pathlib
import urllib.request
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Engine

pytestmark = [
    pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:busybox", "module:testcontainers"),
    # Both libraries leave sockets to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

SERVER = "while true; do printf 'HTTP/1.0 200 OK\r\n\r\nhello' | nc -l -p 8000; done"


@pytest.fixture(autouse=True)
def here(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """testcontainers finds the engine by the environment; Ryuk's image is a registry's."""
    from testcontainers.core.config import testcontainers_config

    monkeypatch.setenv("DOCKER_HOST", engine.host)
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)
    yield
    assert engine.docker("ps", "-aq").stdout == ""


def test_a_service_with_a_port() -> None:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    container = (
        DockerContainer("box")
        .with_command(["sh", "-c", f"echo up; {SERVER}"])
        .with_exposed_ports(8000)
        .with_name("tc-service")
        .with_env("A", "b")
        .with_envs(C="d")
        .waiting_for(LogMessageWaitStrategy("up"))
    )
    with container:
        address = f"{container.get_container_host_ip()}:{container.get_exposed_port(8000)}"
        with urllib.request.urlopen(f"http://{address}/", timeout=10) as answer:
            assert answer.read() == b"hello"
        assert container.exec(["sh", "-c", "echo $A$C"]) == (0, b"bd\n")
        assert container.exec("false").exit_code == 1
        assert container.get_logs()[0].startswith(b"up\n")
        assert container.get_wrapped_container().name == "tc-service"
        assert container.get_wrapped_container().labels["org.testcontainers"] == "true"


def test_two_on_a_network() -> None:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.network import Network

    with Network() as network:
        server = DockerContainer("box").with_command(["sh", "-c", SERVER]).with_network(network)
        asker = DockerContainer("box").with_command(["sleep", "60"]).with_network(network)
        with server.with_network_aliases("server"), asker:
            ask = "for i in 1 2 3 4 5 6 7 8 9; do nc server 8000 </dev/null && break; sleep 0.3; done"
            done = asker.exec(["sh", "-c", ask])
            assert done.exit_code == 0
            assert b"hello" in done.output


def test_files_limits_and_how_it_ends(tmp_path: pathlib.Path) -> None:
    from testcontainers.core.container import DockerContainer

    (tmp_path / "note").write_text("kept")
    container = (
        DockerContainer("box")
        .with_command(["sleep", "60"])
        .with_volume_mapping(str(tmp_path), "/in", "ro")
        .with_bind_ports("8001/tcp", 18731)
        .with_tmpfs_mount("/scratch")
        .with_copy_into_container(b"copied", "/tmp/copied")
        .with_kwargs(mem_limit="64m", user="0", working_dir="/in", hostname="tc")
    )
    with container:
        assert container.exec(["sh", "-c", "cat note; hostname; pwd"]) == (0, b"kepttc\n/in\n")
        assert container.exec(["sh", "-c", "echo x > /in/note"]).exit_code != 0
        assert container.exec(["sh", "-c", "cat /tmp/copied; mount | grep -c /scratch"]) == (0, b"copied1\n")
        container.copy_from_container("/in/note", tmp_path / "back")
        assert (tmp_path / "back").read_text() == "kept"
        assert container.get_exposed_port(8001) == 18731
        inspected = container.get_wrapped_container().attrs
        assert inspected["HostConfig"]["Memory"] == 64 << 20


def test_each_way_to_wait() -> None:
    import docker.types
    from testcontainers.core import wait_strategies as ways
    from testcontainers.core.container import DockerContainer

    check = docker.types.Healthcheck(test=["CMD", "true"], interval=100_000_000)
    for way in (
        ways.HealthcheckWaitStrategy(), ways.ContainerStatusWaitStrategy(), ways.PortWaitStrategy(8000),
        ways.ExecWaitStrategy(["true"]), ways.LogMessageWaitStrategy("up"),
    ):  # fmt: skip
        container = DockerContainer("box").with_command(["sh", "-c", f"echo up; {SERVER}"]).with_exposed_ports(8000)
        with container.with_kwargs(healthcheck=check).waiting_for(way.with_startup_timeout(30)):
            assert container.exec("true").exit_code == 0


def test_a_wait_that_ends(engine: Engine) -> None:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    never = LogMessageWaitStrategy("never").with_startup_timeout(1)
    container = DockerContainer("box").with_command(["sleep", "60"]).waiting_for(never)
    with pytest.raises(TimeoutError), container:
        pass
    engine.remove_containers()


def test_a_body_that_raises_leaves_nothing() -> None:
    from testcontainers.core.container import DockerContainer

    with pytest.raises(ZeroDivisionError), DockerContainer("box").with_command(["sleep", "60"]):
        raise ZeroDivisionError
