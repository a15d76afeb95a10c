"""What we send must be what iproute2 sends (captured with `strace -e trace=sendmsg -e write=all ip …`)."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from sampan.linux.netlink import attributes, rtnl
from sampan.linux.netlink.socket import Request

# ip link add name smpx0 address 02:42:ac:11:00:01 mtu 1500 type bridge
ADD_BRIDGE = (
    "5000000010000506afe7046b00000000000000000000000000000000000000000a0001000242ac110001000008000400dc050000"
    "0a000300736d707830000000100012000a0001006272696467650000"
)
# ip link add name veth0 index 100 address 02:42:ac:11:00:02 mtu 1500 type veth peer name veth1 mtu 1500
ADD_VETH = (
    "7800000010000506afe7046b00000000000000006400000000000000000000000a0001000242ac110002000008000400dc050000"
    "0a00030076657468300000003800120008000100766574682c000200280001000000000000000000000000000000000008000400"
    "dc0500000a0003007665746831000000"
)
# ip link set dev smpx0 up
SET_UP = "2000000010000500afe7046b0000000000000000020000000100000001000000"
# ip link set veth1 master smpx0
SET_MASTER = "2800000010000500afe7046b000000000000000003000000000000000000000008000a0002000000"
# ip addr add 172.17.0.1/16 brd + dev smpx0
ADD_ADDRESS = "3000000014000506afe7046b00000000021000000200000008000200ac11000108000100ac11000108000400ac11ffff"
# ip route add default via 10.0.0.1 dev veth0
ADD_ROUTE = "2c00000018000506afe7046b0000000002000000fe03000100000000080005000a0000010800040064000000"

# Where attributes are nested, and how long the structure before them is: (path of types) → bytes to skip.
NESTED = {(18,): 0, (18, 2): 0, (18, 2, 1): 16}


def tree(data: bytes, path: tuple[int, ...] = ()) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for kind, value in attributes.sequence(data):
        inner = (*path, kind)
        if inner in NESTED and value:
            skip = NESTED[inner]
            found[kind] = (value[:skip], tree(value[skip:], inner))
        else:
            # Whether a string ends with a zero byte does not matter to the kernel.
            found[kind] = value.rstrip(b"\0") if inner == (18, 1) else value
    return found


@pytest.mark.parametrize(
    ("ours", "captured", "fixed"),
    [
        (rtnl.add_bridge("smpx0", mac=bytes.fromhex("0242ac110001"), mtu=1500), ADD_BRIDGE, 16),
        (
            rtnl.add_veth("veth0", index=100, mac=bytes.fromhex("0242ac110002"), mtu=1500, peer_name="veth1"),
            ADD_VETH,
            16,
        ),
        (rtnl.set_link(2, up=True), SET_UP, 16),
        (rtnl.set_link(3, master=2), SET_MASTER, 16),
        (rtnl.add_address(2, bytes((172, 17, 0, 1)), 16), ADD_ADDRESS, 8),
        (rtnl.add_route(gateway=bytes((10, 0, 0, 1)), output=100), ADD_ROUTE, 12),
    ],
)
def test_messages_are_those_of_iproute2(ours: Request, captured: str, fixed: int) -> None:
    data = bytes.fromhex(captured)
    _, kind, flags = struct.unpack_from("=IHH", data)
    assert ours.type == kind
    assert ours.flags == flags & ~0x5  # REQUEST and ACK are the socket's to add.
    body = data[16:]
    assert ours.body[:fixed] == body[:fixed]
    assert tree(ours.body[fixed:]) == tree(body[fixed:])


def test_a_pair_names_the_namespace_of_its_peer() -> None:
    request = rtnl.add_veth("eth0", mtu=1500, peer_name="veth1", peer_namespace=42)
    _, info = tree(request.body[16:])[18]
    _, data = info[2]
    _, peer = data[1]
    assert peer[28] == struct.pack("=I", 42)


def test_what_does_not_fit_is_no_attribute() -> None:
    with pytest.raises(ValueError, match="length 12 of 8"):
        attributes.parse(b"\x0c\0\1\0" + b"\0\0\0\0")
    with pytest.raises(ValueError, match="length 2"):
        attributes.parse(b"\x02\0\1\0")
    assert attributes.parse(attributes.text(3, "ab") + attributes.u8(4, 1)) == {3: b"ab\0", 4: b"\1"}
