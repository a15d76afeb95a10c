"""Whom plain HTTP will do for, and what lies in certs.d."""

from __future__ import annotations

import pathlib
import ssl

import pytest

from sampan.core.remotes.endpoints import check_insecure, mirror_endpoint, registry_host
from sampan.core.remotes.trust import Trust, is_insecure, is_loopback, split_host
from sampan.errors import InvalidArgument


@pytest.mark.parametrize(
    ("host", "name", "port"),
    [
        ("a.example", "a.example", None), ("a.example:5000", "a.example", 5000), ("[::1]:5000", "::1", 5000),
        ("[::1]", "::1", None), ("::1", "::1", None), ("fe80::5000", "fe80::5000", None), ("10.0.0.1:1", "10.0.0.1", 1),
    ],
)  # fmt: skip
def test_hosts(host: str, name: str, port: int | None) -> None:
    assert split_host(host) == (name, port)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:5000", "127.0.0.1", "127.9.9.9:5000", "[::1]:5000", "::1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    assert Trust((), ()).unverified(host)


@pytest.mark.parametrize(
    "host", ["localhost.example", "127.0.0.1.example:5000", "10.0.0.1", "r.example", "[2001:db8::1]:5000", "0.0.0.0"]
)
def test_others_want_tls_and_certificates(host: str) -> None:
    trust = Trust(("other.example", "192.0.2.0/24"), ())
    assert not is_loopback(host)
    assert not trust.unverified(host)
    context = trust.context(host)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize(
    ("host", "insecure"),
    [
        ("r.example", ("r.example",)), ("r.example:5000", ("r.example:5000",)), ("r.example:5000", ("r.example",)),
        ("192.0.2.7:5000", ("192.0.2.0/24",)), ("[2001:db8::7]", ("2001:db8::/32",)),
    ],
)  # fmt: skip
def test_configured_insecure(host: str, insecure: tuple[str, ...]) -> None:
    assert is_insecure(host, insecure)
    context = Trust(insecure, ()).context(host)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)


def test_insecure_is_not_for_others() -> None:
    assert not is_insecure("r.example:5001", ("r.example:5000",))
    assert not is_insecure("192.0.3.7", ("192.0.2.0/24",))
    assert not is_insecure("xr.example", ("r.example",))


def test_a_loopback_registry_with_an_authority_is_held_to_it(tmp_path: pathlib.Path) -> None:
    (tmp_path / "localhost:5000").mkdir()
    (tmp_path / "localhost:5000/ca.crt").write_text("nothing")
    trust = Trust((), (str(tmp_path),))
    assert not trust.unverified("localhost:5000")
    assert trust.unverified("localhost:5001")
    assert Trust(("localhost:5000",), (str(tmp_path),)).unverified("localhost:5000")
    with pytest.raises(InvalidArgument, match=r"certificate .*/ca\.crt: "):
        trust.context("localhost:5000")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("client.cert",), "missing key client.key for client certificate client.cert"),
        (("client.key",), "missing client certificate client.cert for key client.key"),
        (("client.cert", "client.key"), "certificate .*client.cert"),
    ],
)
def test_files_that_are_not_what_they_should_be(tmp_path: pathlib.Path, names: tuple[str, ...], said: str) -> None:
    (tmp_path / "r.example").mkdir()
    for name in names:
        (tmp_path / "r.example" / name).write_text("nothing")
    with pytest.raises(InvalidArgument, match=said):
        Trust((), (str(tmp_path), "/nonesuch")).context("r.example")


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("", "registry-1.docker.io"), ("https://index.docker.io/v1/", "registry-1.docker.io"),
        ("docker.io", "registry-1.docker.io"), ("r.example:5000", "r.example:5000"),
        ("https://r.example/v2/", "r.example"), ("http://[::1]:5000", "[::1]:5000"),
    ],
)  # fmt: skip
def test_addresses_of_a_login(address: str, host: str) -> None:
    assert registry_host(address) == host


@pytest.mark.parametrize("url", ["m", "ftp://m", "https://", "https://a:b@m", "https://m?x=1", "https://m#x"])
def test_mirrors_that_are_none(url: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^invalid mirror: "):
        mirror_endpoint(url)


def test_mirrors() -> None:
    assert mirror_endpoint("https://m:5000/").base == "https://m:5000/v2"
    assert mirror_endpoint("http://m/some/path/").base == "http://m/some/path/v2"


@pytest.mark.parametrize("registry", ["http://r", "", "10.0.0.0/33", "r/x", "-r"])
def test_insecure_registries_that_are_none(registry: str) -> None:
    with pytest.raises(InvalidArgument, match="insecure registry"):
        check_insecure(registry)
