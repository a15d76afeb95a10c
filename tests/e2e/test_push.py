"""Pushing to real registries, by docker, docker-py and our own command; what arrives, skopeo reads."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import pathlib
import socket
import ssl
import struct
import tarfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import docker
import docker.errors
import pytest

from sampan.client.client import Client
from tests.e2e.registries import PASSWORD, PROGRAMS, USER, Place, RegistryServer

pytestmark = [
    pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:docker", "program:skopeo", *PROGRAMS),
    pytest.mark.usefixtures("docker_config"),
]


@pytest.fixture(params=["basic", "bearer"])
def registry(request: pytest.FixtureRequest, place: Place) -> Iterator[RegistryServer]:
    """One to which nobody is logged in."""
    yield getattr(place, request.param)
    for image in place.engine.client.call("GET", "/images/json"):
        for name in image["RepoTags"]:
            if "/" in name:
                place.engine.docker("rmi", name)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize("who", ["docker", "sampan"])
def test_push_and_read_back(place: Place, registry: RegistryServer, who: str, tmp_path: pathlib.Path) -> None:
    run = getattr(place.engine, who)
    image = f"{registry.address}/{who}/pushed:v1"
    place.engine.docker("tag", "box", image, check=True)
    refused = run("push", image)
    assert refused.returncode == 1
    assert ("no basic auth credentials" if registry is place.basic else "denied: requested access") in refused.stderr
    assert place.log_in(who, registry.address).returncode == 0
    told = run("push", image, check=True).stdout
    raw = place.raw(registry, f"{who}/pushed:v1")
    assert f"v1: digest: {digest_of(raw)} size: {len(raw)}" in told
    assert f"The push refers to repository [{registry.address}/{who}/pushed]" in told
    assert ": Pushed" in told or ": Mounted from docker/pushed" in told
    # The box was imported as a plain tar: in a registry it is compressed.
    manifest = json.loads(raw)
    blob = registry.blob(manifest["layers"][0]["digest"]).read_bytes()
    config = json.loads(registry.blob(manifest["config"]["digest"]).read_bytes())
    assert digest_of(gzip.decompress(blob)) == config["rootfs"]["diff_ids"][0]
    assert ": Layer already exists" in run("push", image, check=True).stdout
    known = place.engine.client.call("GET", f"/images/{image}/json")
    assert known["RepoDigests"].count(f"{registry.address}/{who}/pushed@{digest_of(raw)}") == 1
    # skopeo verifies every digest that it copies.
    place.skopeo(
        "copy", "--insecure-policy", "--src-cert-dir", str(place.certs / registry.address),
        "--src-creds", f"{USER}:{PASSWORD}", f"docker://{image}", f"oci:{tmp_path}/copy:v1",
    )  # fmt: skip
    place.engine.docker("rmi", image, check=True)
    run("pull", image, check=True)
    ran = place.engine.docker("run", "--rm", "--network", "none", image, "cat", "/data/file", check=True)
    assert ran.stdout == "from the image\n"


def test_all_tags(place: Place, registry: RegistryServer) -> None:
    name = f"{registry.address}/many/tags"
    for tag in ("a", "b", "c"):
        place.engine.docker("tag", "box", f"{name}:{tag}", check=True)
    place.log_in("docker", registry.address)
    place.engine.docker("push", "-a", name, check=True)
    place.engine.sampan("push", "--all-tags", name, check=True)
    assert "tag can't be used with --all-tags" in place.engine.sampan("push", "-a", f"{name}:a").stderr
    for tag in ("a", "b", "c"):
        place.raw(registry, f"many/tags:{tag}")
        place.engine.docker("rmi", f"{name}:{tag}", check=True)
    missing = place.engine.docker("push", f"{name}:nonesuch")
    assert f"tag does not exist: {name}:nonesuch" in missing.stderr
    missing = place.engine.docker("push", "-a", f"{name}-not")
    assert f"An image does not exist locally with the tag: {name}-not" in missing.stderr
    for who in ("docker", "sampan"):
        getattr(place.engine, who)("pull", "-a", name, check=True)
        tags = place.engine.docker("images", "--format", "{{.Tag}}", name, check=True).stdout.split()
        assert sorted(tags) == ["a", "b", "c"]
        for tag in tags:
            place.engine.docker("rmi", f"{name}:{tag}", check=True)


def test_docker_py(place: Place, registry: RegistryServer) -> None:
    client = docker.DockerClient(base_url=place.engine.host)
    try:
        name = f"{registry.address}/py/pushed"
        client.images.get("box").tag(name, "v1")
        given = {"username": USER, "password": PASSWORD}
        messages = list(client.images.push(name, "v1", auth_config=given, stream=True, decode=True))
        assert [each for each in messages if "error" in each] == []
        raw = place.raw(registry, "py/pushed:v1")
        # The last message is for programs.
        assert messages[-1] == {
            "progressDetail": {}, "aux": {"Tag": "v1", "Digest": digest_of(raw), "Size": len(raw)}
        }  # fmt: skip
        data = client.images.get_registry_data(f"{name}:v1", auth_config=given)
        assert data.id == digest_of(raw)
        assert data.has_platform("linux/amd64") == (os.uname().machine == "x86_64")
    finally:
        client.close()


def test_somebody_elses_repository(place: Place) -> None:
    """The token server gives a token, which is not good for it."""
    image = f"{place.bearer.address}/secret/app:v1"
    place.engine.docker("tag", "box", image, check=True)
    place.log_in("docker", place.bearer.address)
    for who in ("docker", "sampan"):
        failed = getattr(place.engine, who)("push", image)
        assert failed.returncode == 1
        assert "denied: requested access to the resource is denied" in failed.stderr
    place.engine.docker("rmi", image, check=True)


def test_layers_are_mounted_from_where_they_came(place: Place, registry: RegistryServer) -> None:
    source, target = (f"{registry.address}/{name}:v1" for name in ("team/app", "team/copy"))
    place.log_in("docker", registry.address)
    place.engine.docker("pull", source, check=True)
    place.engine.docker("tag", source, target, check=True)
    assert ": Mounted from team/app" in place.engine.docker("push", target, check=True).stdout
    assert place.raw(registry, "team/copy:v1") == place.raw(registry, "team/app:v1")
    layer = json.loads(place.raw(registry, "team/app:v1"))["layers"][0]["digest"]
    lines = [line for line in registry.log().splitlines() if "team/copy/blobs/uploads" in line]
    assert any(f"mount={layer.replace(':', '%3A')}" in line and 'HTTP/1.1" 201' in line for line in lines)
    place.engine.docker("rmi", source, target, check=True)


def call(place: Place, registry: RegistryServer, method: str, path: str, body: bytes = b"", kind: str = "") -> bytes:
    """A request with the test's own hands."""
    import base64

    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    request = urllib.request.Request(f"https://{registry.address}{path}", body or None, method=method)
    request.add_header("Authorization", f"Basic {login}")
    if kind:
        request.add_header("Content-Type", kind)
    context = ssl.create_default_context(cafile=str(place.authority.certificate))
    with urllib.request.urlopen(request, context=context) as answer:
        data: bytes = answer.read()
    return data


@pytest.mark.parametrize("kind", ["oci", "v2s2"])
def test_what_was_pulled_is_pushed_byte_by_byte(place: Place, kind: str) -> None:
    """With members that we do not know, in another's order and spacing."""
    registry = place.basic
    place.skopeo(
        "copy", "--insecure-policy", "--dest-cert-dir", str(place.certs / registry.address), "--format", kind,
        "--dest-creds", f"{USER}:{PASSWORD}", f"docker-archive:{place.archive}", f"docker://{registry.address}/a/{kind}:v1",
    )  # fmt: skip
    document = json.loads(place.raw(registry, f"a/{kind}:v1"))
    if kind == "oci":
        document |= {
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": "application/x-test",
            "annotations": {"b": "2", "a": "1"}, "org.example.unknown": [None, 1.50],
            "subject": {
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 7, "digest": digest_of(b"subject"),
            },
        }  # fmt: skip
    raw = json.dumps(document, indent=7).encode() + b"\n\n"
    call(place, registry, "PUT", f"/v2/a/{kind}/manifests/odd", raw, document["mediaType"])
    place.log_in("docker", registry.address)
    by_digest = f"{registry.address}/a/{kind}@{digest_of(raw)}"
    place.engine.docker("pull", by_digest, check=True)
    copy = f"{registry.address}/b/{kind}:v1"
    place.engine.docker("tag", by_digest, copy, check=True)
    place.engine.docker("push", copy, check=True)
    assert place.raw(registry, f"b/{kind}:v1") == raw
    place.engine.docker("rmi", "-f", copy, by_digest)


@pytest.mark.requires("erofs")
def test_a_layer_whose_blob_is_not_kept(place: Place, tmp_path: pathlib.Path) -> None:
    """The registry that it came from has it still; for another one it is compressed again, from its tar."""
    source, target = f"{place.basic.address}/team/app:v1", f"{place.basic.address}/team/later:v1"
    other = RegistryServer(tmp_path / "other")
    elsewhere = f"{other.address}/app:v1"
    place.log_in("docker", place.basic.address)
    place.engine.docker("pull", source, check=True)
    for name in (target, elsewhere):
        place.engine.docker("tag", source, name, check=True)
    manifest = json.loads(place.raw(place.basic, "team/app:v1"))
    digest = manifest["layers"][0]["digest"]
    try:
        # The layer stands already, of the image `box`: the pull did not even fetch it.
        blob = pathlib.Path(f"{place.engine.paths.content}/blobs/sha256/{digest.removeprefix('sha256:')}")
        assert not blob.exists()
        assert ": Mounted from team/app" in place.engine.docker("push", target, check=True).stdout
        assert place.raw(place.basic, "team/later:v1") == place.raw(place.basic, "team/app:v1")
        assert ": Layer already exists" in place.engine.docker("push", target, check=True).stdout
        assert ": Pushed" in place.engine.docker("push", elsewhere, check=True).stdout
        raw = place.skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{elsewhere}")
        made = json.loads(raw)
        assert made["config"] == manifest["config"]
        plain = [gzip.decompress(registry.blob(each["layers"][0]["digest"]).read_bytes())
                 for registry, each in ((place.basic, manifest), (other, made))]  # fmt: skip
        assert plain[0] == plain[1]
        # Once more: the same bytes, and nothing to send.
        assert ": Layer already exists" in place.engine.docker("push", elsewhere, check=True).stdout
        assert place.skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{elsewhere}") == raw
        # The image is still what the first registry has.
        place.engine.docker("push", target, check=True)
        assert place.raw(place.basic, "team/later:v1") == place.raw(place.basic, "team/app:v1")
    finally:
        place.engine.docker("rmi", source, target, elsewhere)
        other.stop()


class BreakingProxy:
    """TCP to a registry; the first connection that has sent `limit` bytes is cut."""

    def __init__(self, port: int, limit: int) -> None:
        self._target = port
        self.limit = limit
        self.cut = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._start(self._serve)

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments)
        thread.start()
        self._threads.append(thread)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                self._start(self._copy, client, server, True)
                self._start(self._copy, server, client, False)

    def _copy(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
                sent += len(data)
                if counted and sent >= self.limit and not self.cut:
                    self.cut = sent
                    # A reset: a mere end would leave what is still sent unanswered, until the client is tired of it.
                    source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    source.close()
                    break
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()


def imported(client: Client, name: str, size: int) -> None:
    """An image with a file that does not compress."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("file")
        entry.size = size
        archive.addfile(entry, io.BytesIO(os.urandom(size)))
    headers = {"Content-Type": "application/x-tar"}
    messages: list[Any] = list(
        client.messages("POST", "/images/create?fromSrc=-", body=buffer.getvalue(), headers=headers, repo=name)
    )
    assert "error" not in messages[-1]


def test_a_connection_that_breaks(place: Place, tmp_path: pathlib.Path) -> None:
    """docker-registry does not take up what broke off in the middle of a request: it gets it anew."""
    registry = RegistryServer(tmp_path / "registry")
    proxy = BreakingProxy(registry.port, 5_000_000)
    try:
        image = f"{proxy.address}/large:latest"
        imported(place.engine.client, image, 12_000_000)
        place.engine.docker("push", image, check=True)
        assert proxy.cut
        place.engine.docker("rmi", image, check=True)
        place.engine.docker("pull", image, check=True)
        place.engine.docker("rmi", image, check=True)
    finally:
        proxy.close()
        registry.stop()


def test_a_registry_that_goes_in_the_middle(place: Place, tmp_path: pathlib.Path) -> None:
    registry = RegistryServer(tmp_path / "registry")
    image = f"{registry.address}/app:v1"
    place.engine.docker("tag", "box", image, check=True)
    registry.stop()
    failed = place.engine.docker("push", image)
    assert failed.returncode == 1
    assert "connection refused" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    place.engine.docker("rmi", image, check=True)
