from __future__ import annotations

import pytest

from sampan.errors import InvalidArgument
from sampan.network import files


def test_hosts_as_docker_writes_them() -> None:
    # What docker 28.5 shows for: docker run --hostname web --add-host db:10.0.0.5 --add-host up:host-gateway
    text = files.hosts("web", "", ["172.17.0.2"], ["db:10.0.0.5", "up:host-gateway"], "172.17.0.1")
    assert text == (
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::\tip6-localnet\n"
        "ff00::\tip6-mcastprefix\n"
        "ff02::1\tip6-allnodes\n"
        "ff02::2\tip6-allrouters\n"
        "10.0.0.5\tdb\n"
        "172.17.0.1\tup\n"
        "172.17.0.2\tweb\n"
    )
    assert files.hosts("web", "example.org", ["172.17.0.2"]).endswith("172.17.0.2\tweb.example.org web\n")
    assert "web" not in files.hosts("web")


def test_hosts_on_the_hosts_network() -> None:
    with open("/etc/hosts", encoding="utf-8") as file:
        assert files.host_hosts() == file.read()
    assert files.host_hosts(["db:10.0.0.5"]).endswith("ff02::2\tip6-allrouters\n10.0.0.5\tdb\n")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("a:1.2.3.4", ("a", "1.2.3.4")),
        ("a=1.2.3.4", ("a", "1.2.3.4")),
        ("a:::1", ("a", "::1")),
        ("a=[2001:db8::1]", ("a", "2001:db8::1")),
        ("a:host-gateway", ("a", "host-gateway")),
    ],
)
def test_extra_hosts(entry: str, expected: tuple[str, str]) -> None:
    assert files.parse_extra_host(entry) == expected


@pytest.mark.parametrize(
    "entry", ["", "a", "a:", ":1.2.3.4", "a:b", "a:1.2.3", "a b:1.2.3.4", "a\n6.6.6.6 bank:1.2.3.4"]
)
def test_bad_extra_hosts(entry: str) -> None:
    with pytest.raises(InvalidArgument):
        files.parse_extra_host(entry)


HOST = """# made by hand
domain old.example
nameserver 127.0.0.1
nameserver 192.0.2.53 # the real one
nameserver ::1
search a.example b.example
options edns0
options ndots:2
"""


def test_resolv_conf_leaves_out_what_only_the_host_reaches() -> None:
    expected = "nameserver 192.0.2.53\nsearch a.example b.example\noptions edns0 ndots:2\n"
    assert files.resolv_conf(HOST) == expected
    assert "127.0.0.1" in files.resolv_conf(HOST, filter_loopback=False)


def test_resolv_conf_falls_back_to_public_servers() -> None:
    assert files.resolv_conf("nameserver 127.0.0.53\n") == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
    assert files.resolv_conf("") == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
    assert files.resolv_conf("", filter_loopback=False) == ""


def test_each_setting_replaces_the_hosts() -> None:
    text = files.resolv_conf(HOST, ["127.0.0.1"], ["c.example"], ["timeout:1"])
    assert text == "nameserver 127.0.0.1\nsearch c.example\noptions timeout:1\n"
    assert "search" not in files.resolv_conf(HOST, search=["."])


@pytest.mark.parametrize(
    "arguments", [(["x"], (), ()), ((), ["a b"], ()), ((), (), ["a\nnameserver 6.6.6.6"]), ((), [""], ())]
)
def test_bad_settings(arguments: tuple[list[str], list[str], list[str]]) -> None:
    with pytest.raises(InvalidArgument):
        files.resolv_conf(HOST, *arguments)


def test_a_container_that_asks_the_resolver() -> None:
    text = files.resolv_conf("nameserver 127.0.0.53\nsearch a.example\noptions edns0\n", names=True)
    assert text == "nameserver 127.0.0.11\nsearch a.example\noptions edns0 ndots:0\n"
    assert files.resolv_conf("", ["1.1.1.1"], options=["ndots:3"], names=True) == (
        "nameserver 127.0.0.11\noptions ndots:3\n"
    )
    assert files.resolv_conf(HOST, options=["timeout:1"], names=True).endswith("options timeout:1 ndots:0\n")


def test_hostname() -> None:
    assert files.hostname("web") == "web\n"
