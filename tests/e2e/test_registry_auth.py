"""Registries with TLS and with both kinds of auth, from docker, docker-py and our own command."""

from __future__ import annotations

import json
import os
import pathlib
import shutil

import docker
import docker.errors
import pytest

from tests.e2e.registries import PASSWORD, PROGRAMS, USER, Authority, Place, RegistryServer

pytestmark = [
    pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:docker", "program:skopeo", *PROGRAMS),
    pytest.mark.usefixtures("docker_config"),
]


def address(place: Place, auth: str) -> str:
    return (place.basic if auth == "basic" else place.bearer).address


@pytest.mark.parametrize("auth", ["basic", "bearer"])
@pytest.mark.parametrize("who", ["docker", "sampan"])
def test_log_in_pull_log_out(place: Place, docker_config: pathlib.Path, who: str, auth: str) -> None:
    run = getattr(place.engine, who)
    server = address(place, auth)
    image = f"{server}/team/app:v1"
    refused = run("pull", image)
    assert refused.returncode == 1
    assert ("no basic auth credentials" if auth == "basic" else "pull access denied") in refused.stderr
    wrong = place.log_in(who, server, "wrong")
    assert wrong.returncode == 1
    said = "failed with status: 401 Unauthorized" if auth == "basic" else "unauthorized: incorrect username or password"
    assert said in wrong.stderr
    done = place.log_in(who, server)
    assert (done.returncode, done.stdout.strip().splitlines()[-1]) == (0, "Login Succeeded")
    kept = json.loads(docker_config.read_text())["auths"][server]
    # An identity is kept instead of the password where the registry gives one.
    assert ("identitytoken" in kept) == (auth == "bearer")
    assert docker_config.stat().st_mode & 0o777 == 0o600
    run("pull", image, check=True)
    place.engine.docker("rmi", image, check=True)
    run("logout", server, check=True)
    assert server not in json.loads(docker_config.read_text()).get("auths", {})
    assert run("pull", image).returncode == 1


def test_each_command_reads_the_others_login(place: Place) -> None:
    image = f"{place.basic.address}/team/app:v1"
    for one, another in (("docker", "sampan"), ("sampan", "docker")):
        place.log_in(one, place.basic.address)
        getattr(place.engine, another)("pull", image, check=True)
        place.engine.docker("rmi", image, check=True)
        getattr(place.engine, another)("logout", place.basic.address, check=True)


def test_anybody_may_pull_what_is_public(place: Place) -> None:
    image = f"{place.bearer.address}/public/app:v1"
    place.engine.docker("pull", image, check=True)
    place.engine.docker("rmi", image, check=True)
    assert place.tokens.seen[-1] == {"method": "GET", "scopes": ["repository:public/app:pull"], "user": ""}


def test_docker_py(place: Place) -> None:
    client = docker.DockerClient(base_url=place.engine.host)
    try:
        for registry in (place.basic, place.bearer):
            with pytest.raises(docker.errors.APIError):
                client.images.pull(f"{registry.address}/team/app", tag="v1")
            given = {"username": USER, "password": PASSWORD}
            image = client.images.pull(f"{registry.address}/team/app", tag="v1", auth_config=given)
            assert f"{registry.address}/team/app:v1" in image.tags
            client.images.remove(f"{registry.address}/team/app:v1")
            assert client.login(registry=registry.address, **given)["Status"] == "Login Succeeded"
            client.images.pull(f"{registry.address}/team/app", tag="v1")
            client.images.remove(f"{registry.address}/team/app:v1")
            with pytest.raises(docker.errors.APIError, match=r"(?i)unauthorized"):
                client.login(registry=registry.address, username=USER, password="wrong", reauth=True)
    finally:
        client.close()


def test_a_credential_helper(
    place: Place, docker_config: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real program on the PATH, which keeps what it is told in a file."""
    kept = tmp_path / "kept.json"
    program = tmp_path / "bin/docker-credential-test"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        f'case $1 in\nstore) cat > "{kept}";;\nerase) rm -f "{kept}";;\n'
        f'get) cat "{kept}" 2>/dev/null || {{ echo "credentials not found in native keychain"; exit 1; }};;\nesac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    docker_config.parent.mkdir()
    docker_config.write_text(json.dumps({"credHelpers": {place.basic.address: "test"}, "detachKeys": "ctrl-e,e"}))
    image = f"{place.basic.address}/team/app:v1"
    assert place.engine.sampan("pull", image).returncode == 1
    assert place.log_in("sampan", place.basic.address).returncode == 0
    assert json.loads(kept.read_text()) == {
        "ServerURL": place.basic.address, "Username": USER, "Secret": PASSWORD
    }  # fmt: skip
    written = json.loads(docker_config.read_text())
    assert PASSWORD not in docker_config.read_text()
    assert written["detachKeys"] == "ctrl-e,e"  # What we do not know stays.
    for who in ("sampan", "docker"):
        getattr(place.engine, who)("pull", image, check=True)
        place.engine.docker("rmi", image, check=True)
    place.engine.sampan("logout", place.basic.address, check=True)
    assert not kept.exists()


def test_a_certificate_of_an_authority_that_is_not_believed(place: Place, tmp_path: pathlib.Path) -> None:
    stranger = Authority(tmp_path / "stranger", "A Stranger")
    registry = RegistryServer(tmp_path / "registry", tls=stranger)
    place.believe(registry.address, place.authority)
    try:
        failed = place.engine.docker("pull", f"{registry.address}/app:v1")
        assert failed.returncode == 1
        assert "x509: certificate signed by unknown authority" in failed.stderr
        assert len(failed.stderr.splitlines()) == 1
        assert "/v2/app/" not in registry.log()
        # Without any authority of its own, loopback counts as insecure, as with Docker: anybody will do.
        shutil.rmtree(place.certs / registry.address)
        assert "manifest unknown" in place.engine.docker("pull", f"{registry.address}/app:v1").stderr
    finally:
        registry.stop()


def test_a_clients_certificate(place: Place, tmp_path: pathlib.Path) -> None:
    registry = RegistryServer(tmp_path / "registry", tls=place.authority, clients=place.authority)
    directory = place.certs / registry.address
    try:
        place.believe(registry.address, place.authority)
        image = f"{registry.address}/app:v1"
        failed = place.engine.docker("pull", image)
        assert failed.returncode == 1
        assert "certificate required" in failed.stderr.lower() or "bad certificate" in failed.stderr.lower()
        certificate, key = place.authority.issue("client")
        shutil.copy(certificate, directory / "client.cert")
        failed = place.engine.docker("pull", image)
        assert "missing key client.key for client certificate client.cert" in failed.stderr
        shutil.copy(key, directory / "client.key")
        assert "manifest unknown" in place.engine.docker("pull", image).stderr
        (directory / "broken.crt").write_text("no certificate")
        assert "broken.crt" in place.engine.docker("pull", image).stderr
    finally:
        registry.stop()
        shutil.rmtree(directory, ignore_errors=True)
