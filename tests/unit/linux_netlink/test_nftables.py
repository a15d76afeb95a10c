"""What we send must be what nft sends: `ruleset.hex` is the one datagram that nft 1.0.6 wrote for `ruleset.nft`
(`strace -e trace=sendmsg -e write=all nft -f ruleset.nft`)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import Any

from sampan.linux.netlink import nftables as nft
from sampan.linux.netlink.socket import Netlink, Request
from sampan.network.firewall import Firewall, Forward, Segment

HERE = os.path.dirname(__file__)
NEWCHAIN, NEWRULE, NEWSET, NEWELEMENT = 0xA03, 0xA06, 0xA09, 0xA0C
# Not compared: a map's id and comment are the sender's own business, and so is how an element names its map's id.
PRIVATE = {NEWSET: {10, 13}, NEWELEMENT: {4}}


class Recorder(Netlink):
    """A socket that keeps what is written to it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def sequence_numbers(self, count: int) -> int:
        return 1

    def batch(self, packed: bytes, first: int, last: int, calls: object) -> None:
        self.written.append(packed)

    def get(self, request: Request) -> tuple[int, bytes]:
        raise FileNotFoundError(2, "no such table")

    def dump(self, request: Request) -> list[tuple[int, bytes]]:
        return []


def tree(data: bytes) -> list[Any]:
    """Attributes as [type, value or subtree]; those of different types in the order of the types, as theirs has no
    meaning, and those of one type (a list) as they stand."""
    found: list[Any] = []
    while data:
        size, kind = struct.unpack_from("=HH", data)
        value = data[4:size]
        found.append((kind & 0x3FFF, tree(value) if kind & 0x8000 else value))
        data = data[(size + 3) & ~3 :]
    if found and all(isinstance(each, list) and each and isinstance(each[0][1], list) for _, each in found):
        found = [(1, each) for _, each in found]  # nft numbers the elements of a list, which the kernel ignores.
    if found and found[0] == (1, b"lookup\0"):
        # A map made in the same transaction may be named by its id too.
        found[1] = (2, [each for each in found[1][1] if each[0] != 4])
    return sorted(found, key=lambda each: int(each[0]))


def messages(data: bytes) -> Iterator[tuple[int, list[Any]]]:
    while data:
        size, kind = struct.unpack_from("=IH", data)
        yield kind, [each for each in tree(data[20:size]) if each[0] not in PRIVATE.get(kind, ())]
        data = data[size:]


def of_kind(data: bytes, kind: int) -> list[list[Any]]:
    return [attributes for each, attributes in messages(data) if each == kind]


def test_the_ruleset_is_byte_for_byte_what_nft_sends() -> None:
    with open(f"{HERE}/ruleset.hex") as file:
        theirs = bytes.fromhex(file.read())
    recorder = Recorder()
    segments = (
        Segment("smp0", IPv4Network("172.28.0.0/16")),
        Segment("smp1", IPv4Network("172.29.0.0/20"), talking=False, internal=True),
    )
    Firewall(recorder, "smptest", segments).replace(
        [
            Forward("tcp", "0.0.0.0", 8080, "172.28.0.2", 80),
            Forward("udp", "192.0.2.1", 5353, "172.28.0.3", 53),
        ]
    )
    (ours,) = recorder.written
    for kind in (NEWCHAIN, NEWSET, NEWELEMENT, NEWRULE):
        expected = of_kind(theirs, kind)
        assert expected
        assert of_kind(ours, kind) == expected


def test_a_batch_acknowledges_its_last_message_alone() -> None:
    batch = nft.Batch("t")
    batch.add_table()
    batch.add_chain("c")
    flags = []
    data = batch.pack(7)
    numbers = []
    while data:
        size, _, flag, number = struct.unpack_from("=IHHI", data)
        flags.append(bool(flag & 4))
        numbers.append(number)
        data = data[size:]
    assert flags == [False, False, True, False]
    assert numbers == [7, 8, 9, 10]


def test_a_subnet_that_ends_within_a_byte_is_masked() -> None:
    load, mask, compare = nft.in_subnet(nft.source_address, bytes((192, 168, 16, 0)), 20)
    assert bytes((255, 255, 240, 0)) in mask
    assert bytes((192, 168, 16, 0)) in compare
    assert len(nft.in_subnet(nft.source_address, bytes((10, 0, 0, 0)), 8)) == 2
    assert load == nft.source_address(4)


def test_many_elements_are_split_where_an_attribute_ends() -> None:
    batch = nft.Batch("t")
    keys = [(number.to_bytes(8, "big"), bytes(8)) for number in range(2000)]
    batch.add_elements("m", keys)
    found = of_kind(batch.pack(1), NEWELEMENT)
    listed = [element for message in found for kind, elements in message if kind == 3 for element in elements]
    assert [dict(dict(element)[1])[1] for _, element in listed] == [key for key, _ in keys]
    assert len(found) > 1
