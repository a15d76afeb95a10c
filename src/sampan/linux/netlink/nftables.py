"""nf_tables over netlink: messages for tables, chains, rules, maps and their elements, and expressions.

A `Batch` is one transaction: all of it or nothing, and no packet ever meets half of it. Numbers are in network byte
order in this family. An expression works on registers; data of up to 16 bytes starts in `REG_1`, and a concatenation
is laid out in consecutive 32-bit registers from there on, each field padded to four bytes.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import Struct
from typing import TypeVar

from sampan.linux.netlink.attributes import attribute, be32, be64, nested, parse, sequence, text
from sampan.linux.netlink.socket import (
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Netlink,
    Request,
    pack_message,
)

FAMILY_INET, FAMILY_IPV4, FAMILY_IPV6 = 1, socket.AF_INET, socket.AF_INET6
"""`inet` has the packets of both others; it has no translation of addresses here."""
NFNLGRP_NFTABLES = 7

# Hooks of the IPv4 family (linux/netfilter.h), and the priorities that tools call raw, dstnat, filter, srcnat.
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
PRIORITY_RAW, PRIORITY_DSTNAT, PRIORITY_FILTER, PRIORITY_SRCNAT = -300, -100, 0, 100

DROP, ACCEPT, RETURN = 0, 1, -5 & 0xFFFFFFFF

REG_VERDICT, REG_1, REG_2 = 0, 1, 2
REG32_00 = 8
"""The first quarter of `REG_1`; the next numbers are the quarters that follow."""

# nft's names for types; the kernel only keeps them, for whoever lists a map.
TYPE_IPV4, TYPE_IPV6, TYPE_PROTOCOL, TYPE_SERVICE, TYPE_INTERFACE = 7, 8, 12, 13, 41

CT_STATE, CT_STATUS = 0, 2
STATE_ESTABLISHED, STATE_RELATED = 2, 4
STATUS_DNAT = 0x20

T = TypeVar("T")

_NATIVE = sys.byteorder
_SUBSYSTEM = 10 << 8
_BATCH_BEGIN, _BATCH_END = 16, 17
_NEWTABLE, _DELTABLE = _SUBSYSTEM | 0, _SUBSYSTEM | 2
_NEWCHAIN, _GETCHAIN = _SUBSYSTEM | 3, _SUBSYSTEM | 4
_NEWRULE, _GETRULE, _DELRULE = _SUBSYSTEM | 6, _SUBSYSTEM | 7, _SUBSYSTEM | 8
_NEWSET = _SUBSYSTEM | 9
_NEWELEMENT, _GETELEMENT, _DELELEMENT = _SUBSYSTEM | 12, _SUBSYSTEM | 13, _SUBSYSTEM | 14

_GETGEN = _SUBSYSTEM | 16

_SET_MAP = 0x8
_NAT_DESTINATION = 1

_NFGEN = Struct(">BBH")  # family, version, resource id
_HEAD: dict[int, bytes] = {family: _NFGEN.pack(family, 0, 0) for family in (FAMILY_INET, FAMILY_IPV4, FAMILY_IPV6)}
_BATCH_HEAD = _NFGEN.pack(socket.AF_UNSPEC, 0, 10)

# --- Expressions ----------------------------------------------------------------------------------


def _expression(name: str, *data: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *data))


def _value(kind: int, data: bytes) -> bytes:
    return nested(kind, attribute(1, data))


def meta(key: int, register: int = REG_1) -> bytes:
    """Load a property of the packet (NFT_META_*)."""
    return _expression("meta", be32(1, register), be32(2, key))


def input_name(register: int = REG_1) -> bytes:
    """Load the name of the interface that the packet came in by, 16 bytes."""
    return meta(6, register)


def output_name(register: int = REG_1) -> bytes:
    """Load the name of the interface that it goes out by."""
    return meta(7, register)


def transport_protocol(register: int = REG_1) -> bytes:
    """Load the number of the transport protocol."""
    return meta(16, register)


def _payload(base: int, offset: int, size: int, register: int) -> bytes:
    return _expression("payload", be32(1, register), be32(2, base), be32(3, offset), be32(4, size))


def source_address(size: int = 4, register: int = REG_1, *, family: int = FAMILY_IPV4) -> bytes:
    """Load the first `size` bytes of the source address."""
    return _payload(1, 12 if family == FAMILY_IPV4 else 8, size, register)


def destination_address(size: int = 4, register: int = REG_1, *, family: int = FAMILY_IPV4) -> bytes:
    """Load the first `size` bytes of the destination address."""
    return _payload(1, 16 if family == FAMILY_IPV4 else 24, size, register)


def destination_port(register: int = REG_1) -> bytes:
    """Load the transport header's destination port (TCP, UDP, SCTP alike)."""
    return _payload(2, 2, 2, register)


def equal(data: bytes, register: int = REG_1) -> bytes:
    """Go on if the register holds the data."""
    return _expression("cmp", be32(1, register), be32(2, 0), _value(3, data))


def not_equal(data: bytes, register: int = REG_1) -> bytes:
    """Go on if it does not."""
    return _expression("cmp", be32(1, register), be32(2, 1), _value(3, data))


def masked(mask: bytes, register: int = REG_1) -> bytes:
    """Keep only the bits of the mask."""
    size = len(mask)
    return _expression(
        "bitwise", be32(1, register), be32(2, register), be32(3, size), _value(4, mask), _value(5, bytes(size))
    )


def in_subnet(load: Callable[[int], bytes], network: bytes, prefix: int) -> tuple[bytes, ...]:
    """Go on if an address lies in the subnet; `load` is `source_address` or `destination_address` of its family. A
    prefix of whole bytes needs no mask: only these bytes are loaded."""
    if prefix & 7 == 0 and prefix:
        return load(prefix >> 3), equal(network[: prefix >> 3])
    size = len(network)
    mask = ((1 << size * 8) - (1 << (size * 8 - prefix))).to_bytes(size, "big")
    return load(size), masked(mask), equal(network)


def connection(key: int, bits: int) -> tuple[bytes, ...]:
    """Go on if any of the bits is set in the connection's state or status (CT_STATE, CT_STATUS)."""
    load = _expression("ct", be32(2, key), be32(1, REG_1))
    return load, masked(bits.to_bytes(4, _NATIVE)), not_equal(bytes(4))


def destination_is_local(register: int = REG_1) -> tuple[bytes, ...]:
    """Go on if the destination is an address of this host (its kind in the routing tables is `local`, 2)."""
    load = _expression("fib", be32(1, register), be32(2, 3), be32(3, 2))
    return load, equal((2).to_bytes(4, _NATIVE), register)


def lookup(map_name: str, *, register: int = REG_1, result: int = REG_1) -> bytes:
    """Load what the map holds for the register's key; if nothing, the rule ends here."""
    return _expression("lookup", text(1, map_name), be32(2, register), be32(3, result))


def one_of(set_name: str, *, register: int = REG_1) -> bytes:
    """Go on if the set has the register's key."""
    return _expression("lookup", text(1, set_name), be32(2, register))


def destination_nat(family: int, address: int, port: int) -> bytes:
    """Redirect the connection to the address and port in these registers."""
    return _expression("nat", be32(1, _NAT_DESTINATION), be32(2, family), be32(3, address), be32(5, port))


def masquerade() -> bytes:
    """Replace the source by the address of the interface that the packet leaves by."""
    return _expression("masq")


def immediate(data: bytes, register: int = REG_1) -> bytes:
    """Load the data."""
    return _expression("immediate", be32(1, register), _value(2, data))


def verdict(code: int) -> bytes:
    """End with ACCEPT, DROP or RETURN."""
    return _expression("immediate", be32(1, REG_VERDICT), nested(2, nested(2, be32(1, code))))


def interface(name: str) -> bytes:
    """The name as a register holds it: padded with zeros to 16 bytes."""
    return name.encode().ljust(16, b"\0")


# --- Messages -------------------------------------------------------------------------------------


class Batch:
    """A transaction on one table, built up and then sent by `commit`."""

    def __init__(self, table: str, family: int = FAMILY_IPV4) -> None:
        self.table = table
        self.family = family
        self._requests: list[Request] = []
        self._table = text(1, table)
        self.rule_count = 0

    def _add(self, kind: int, flags: int, call: str, *attributes: bytes) -> None:
        self._requests.append(Request(kind, flags, _HEAD[self.family] + b"".join(attributes), call))

    def add_table(self) -> None:
        """No error if it is there."""
        self._add(_NEWTABLE, NLM_F_CREATE, f"add table {self.table}", self._table)

    def delete_table(self) -> None:
        """With all that is in it; ENOENT if it is not there."""
        self._add(_DELTABLE, 0, f"delete table {self.table}", self._table)

    def add_chain(self, name: str) -> None:
        """A chain that only rules lead to."""
        self._add(_NEWCHAIN, NLM_F_CREATE, f"add chain {name}", self._table, text(3, name))

    def add_base_chain(self, name: str, kind: str, hook: int, priority: int) -> None:
        """A chain that the kernel enters at a hook; `kind` is `filter` or `nat`. What reaches its end is accepted."""
        hooked = nested(4, be32(1, hook), be32(2, priority))
        policy = be32(5, ACCEPT)
        self._add(
            _NEWCHAIN, NLM_F_CREATE, f"add chain {name}", self._table, text(3, name), hooked, policy, text(7, kind)
        )

    def add_rule(self, chain: str, *expressions: bytes, comment: str = "", first: bool = False) -> None:
        """At the chain's end, or at its beginning."""
        self.rule_count += 1
        flags = NLM_F_CREATE if first else NLM_F_CREATE | NLM_F_APPEND
        parts = [self._table, text(2, chain), nested(4, *expressions)]
        if comment:
            # User data as nft writes it: type, length, a string with its zero byte.
            raw = comment.encode() + b"\0"
            parts.append(attribute(7, bytes((0, len(raw))) + raw))
        self._add(_NEWRULE, flags, f"add rule to {chain}", *parts)

    def delete_rule(self, chain: str, handle: int) -> None:
        self._add(_DELRULE, 0, f"delete rule of {chain}", self._table, text(2, chain), be64(3, handle))

    def add_map(
        self, name: str, key_types: Sequence[int], key_size: int, data_types: Sequence[int], data_size: int
    ) -> None:
        """A map whose key and data are concatenations of the types; sizes in bytes, padded fields."""
        self._add(
            _NEWSET, NLM_F_CREATE, f"add map {name}", self._table, text(2, name), be32(3, _SET_MAP),
            be32(4, _concatenated(key_types)), be32(5, key_size), be32(6, _concatenated(data_types)),
            be32(7, data_size), be32(10, len(self._requests) + 1),
        )  # fmt: skip

    def add_set(self, name: str, key_types: Sequence[int], key_size: int) -> None:
        """A set whose keys are concatenations of the types; the size in bytes, of the padded fields."""
        self._add(
            _NEWSET, NLM_F_CREATE, f"add set {name}", self._table, text(2, name), be32(3, 0),
            be32(4, _concatenated(key_types)), be32(5, key_size), be32(10, len(self._requests) + 1),
        )  # fmt: skip

    def add_elements(self, name: str, elements: Iterable[tuple[bytes, bytes]]) -> None:
        """Keys with their data, which is empty in a set. EEXIST if a key is there."""
        for part in _portions(list(elements)):
            pairs = (nested(1, _value(1, key), *((_value(2, data),) if data else ())) for key, data in part)
            body = nested(3, *pairs)
            flags = NLM_F_CREATE | NLM_F_EXCL
            self._add(_NEWELEMENT, flags, f"add elements to {name}", self._table, text(2, name), body)

    def delete_elements(self, name: str, keys: Iterable[bytes]) -> None:
        """ENOENT if one is not there."""
        for part in _portions(list(keys)):
            body = nested(3, *(nested(1, _value(1, key)) for key in part))
            self._add(_DELELEMENT, 0, f"delete elements of {name}", self._table, text(2, name), body)

    def flush_elements(self, name: str) -> None:
        """All of them."""
        self._add(_DELELEMENT, 0, f"flush {name}", self._table, text(2, name))

    def pack(self, first: int) -> bytes:
        """The whole batch, its messages numbered from `first` on, the begin and end messages included. The last
        message proper asks for the acknowledgement: it comes when the transaction is committed, or never."""
        number = first
        parts = [pack_message(_BATCH_BEGIN, 0, number, _BATCH_HEAD)]
        last = len(self._requests) - 1
        for position, (kind, flags, body, _, _) in enumerate(self._requests):
            number += 1
            parts.append(pack_message(kind, flags | NLM_F_ACK if position == last else flags, number, body))
        parts.append(pack_message(_BATCH_END, 0, number + 1, _BATCH_HEAD))
        return b"".join(parts)

    def commit(self, netlink: Netlink) -> None:
        """Carry the transaction out over a NETLINK_NETFILTER socket; OSError for its first failure, and then nothing
        was changed."""
        if not self._requests:
            return
        count = len(self._requests)
        first = netlink.sequence_numbers(count + 2)
        begin = Request(_BATCH_BEGIN, 0, b"", f"commit table {self.table}")
        netlink.batch(self.pack(first), first, first + count, (begin, *self._requests))


def _concatenated(types: Sequence[int]) -> int:
    number = 0
    for kind in types:
        number = number << 6 | kind
    return number


def _portions(items: list[T]) -> Iterator[list[T]]:
    """An attribute's length has 16 bits; an element takes at most 64 bytes."""
    for start in range(0, len(items), 900):
        yield items[start : start + 900]


# --- Questions ------------------------------------------------------------------------------------


def chain_exists(netlink: Netlink, table: str, chain: str, family: int = FAMILY_IPV4) -> bool:
    """Whether the table and the chain in it are there."""
    body = _HEAD[family] + text(1, table) + text(3, chain)
    try:
        netlink.get(Request(_GETCHAIN, 0, body, f"get chain {chain}"))
    except FileNotFoundError:
        return False
    return True


def generation(netlink: Netlink) -> int:
    """A number that every transaction on any table of the namespace changes."""
    body = netlink.get(Request(_GETGEN, 0, _HEAD[FAMILY_IPV4], "get generation"))[1]
    return int.from_bytes(parse(body, 4).get(1, b""), "big")


def count_rules(netlink: Netlink, table: str, family: int = FAMILY_IPV4) -> int:
    """How many rules all chains of the table have; 0 if it is not there."""
    try:
        return len(netlink.dump(Request(_GETRULE, 0, _HEAD[family] + text(1, table), f"list rules of {table}")))
    except FileNotFoundError:
        return 0


def elements(netlink: Netlink, table: str, name: str, family: int = FAMILY_IPV4) -> dict[bytes, bytes]:
    """The keys of a map with their data."""
    request = Request(_GETELEMENT, 0, _HEAD[family] + text(1, table) + text(2, name), f"list {name}")
    found: dict[bytes, bytes] = {}
    for _, body in netlink.dump(request):
        for _, element in sequence(parse(body, 4).get(3, b"")):
            inner = parse(element)
            found[parse(inner.get(1, b"")).get(1, b"")] = parse(inner.get(2, b"")).get(1, b"")
    return found


def rules(netlink: Netlink, table: str, chain: str, family: int = FAMILY_IPV4) -> list[tuple[int, str]]:
    """The handle and the comment of every rule of the chain; empty if there is no such chain."""
    request = Request(_GETRULE, 0, _HEAD[family] + text(1, table) + text(2, chain), f"list {chain}")
    found: list[tuple[int, str]] = []
    try:
        answers = netlink.dump(request)
    except FileNotFoundError:
        return found
    for _, body in answers:
        inner = parse(body, 4)
        data = inner.get(7, b"")
        comment = data[2 : 2 + data[1]].rstrip(b"\0").decode(errors="replace") if len(data) > 2 and not data[0] else ""
        found.append((int.from_bytes(inner.get(3, b""), "big"), comment))
    return found
