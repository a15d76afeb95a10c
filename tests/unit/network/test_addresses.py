from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import Forbidden, InvalidArgument, ResourceExhausted
from sampan.network import pools
from sampan.network.addresses import AddressPool, mac_address

SUBNET = IPv4Network("10.1.2.0/28")
GATEWAY = int(SUBNET.network_address) + 1
HOSTS = {int(host) for host in SUBNET.hosts()} - {GATEWAY}


@given(st.lists(st.one_of(st.none(), st.integers(min_value=0, max_value=20)), max_size=80), st.integers(0, 2**32 - 1))
def test_no_address_is_given_out_twice(steps: list[int | None], last: int) -> None:
    pool = AddressPool(SUBNET, [GATEWAY], last)
    held: list[int] = []
    for step in steps:
        if step is not None and held:
            pool.release(held.pop(step % len(held)))
        elif len(held) < len(HOSTS):
            number = pool.allocate()
            assert number in HOSTS
            assert number not in held
            held.append(number)
        else:
            with pytest.raises(ResourceExhausted):
                pool.allocate()
    assert len(pool) == len(held) + 1


@given(st.integers(min_value=1, max_value=len(HOSTS)))
def test_a_freed_address_comes_back_last(count: int) -> None:
    pool = AddressPool(SUBNET, [GATEWAY])
    given_out = [pool.allocate() for _ in range(count)]
    for number in given_out:
        pool.release(number)
    rest = [pool.allocate() for _ in range(len(HOSTS) - count)]
    assert not set(rest) & set(given_out)
    assert {pool.allocate() for _ in range(count)} == set(given_out)


def test_the_round_goes_on_after_a_restart() -> None:
    first = AddressPool(SUBNET, [GATEWAY])
    last = [first.allocate() for _ in range(3)][-1]
    assert AddressPool(SUBNET, [GATEWAY], last).allocate() == last + 1


def test_one_in_particular() -> None:
    pool = AddressPool(SUBNET, [GATEWAY])
    pool.take(GATEWAY + 1)
    with pytest.raises(Forbidden):
        pool.take(GATEWAY + 1)
    with pytest.raises(Forbidden):
        pool.take(int(SUBNET.broadcast_address))
    assert pool.allocate() == GATEWAY + 2


def test_the_hardware_address_follows_from_the_address() -> None:
    assert mac_address(0xAC110002).hex(":") == "02:42:ac:11:00:02"


def test_pools_are_tried_in_order_past_what_the_host_uses() -> None:
    assert str(pools.choose([])) == "172.17.0.0/16"
    used = [IPv4Network("0.0.0.0/0"), IPv4Network("172.16.0.0/14")]
    assert str(pools.choose(used)) == "172.20.0.0/16"
    assert str(pools.choose([IPv4Network("172.16.0.0/12"), IPv4Network("192.168.1.1/32")])) == "192.168.16.0/20"


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(8, 32)), max_size=30))
def test_the_chosen_subnet_overlaps_nothing(raw: list[tuple[int, int]]) -> None:
    used = [IPv4Network((number, prefix), strict=False) for number, prefix in raw]
    try:
        chosen = pools.choose(used)
    except ResourceExhausted:
        return
    assert not any(chosen.overlaps(each) for each in used)


def test_pools_run_out() -> None:
    with pytest.raises(ResourceExhausted, match="fully subnetted"):
        pools.choose([IPv4Network("172.16.0.0/12"), IPv4Network("192.168.0.0/16"), IPv4Network("10.0.0.0/8")])


def test_there_is_room_for_hundreds() -> None:
    used: list[IPv4Network] = []
    for _ in range(31 + 256 + 50):
        used.append(pools.choose(used))
    assert [str(used[at]) for at in (30, 31, -1)] == ["192.168.240.0/20", "172.16.0.0/24", "10.192.49.0/24"]


def test_addresses_are_given_out_of_a_part() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/24"), [int(IPv4Address("10.0.0.5"))], 0, IPv4Network("10.0.0.4/30"))
    assert [str(IPv4Address(pool.allocate())) for _ in range(3)] == ["10.0.0.4", "10.0.0.6", "10.0.0.7"]
    with pytest.raises(ResourceExhausted):
        pool.allocate()
    pool.take(int(IPv4Address("10.0.0.9")))
    pool.release(int(IPv4Address("10.0.0.6")))
    assert str(IPv4Address(pool.allocate())) == "10.0.0.6"


@pytest.mark.parametrize(
    "text", ["", "172.17.0.1", "172.17.0.0/16", "172.17.255.255/16", "10.0.0.1/31", "x/16", "::1/64"]
)
def test_a_bridge_address_is_a_hosts(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid bridge address"):
        pools.bridge_address(text)
    assert str(pools.bridge_address("172.27.0.1/16").network) == "172.27.0.0/16"
