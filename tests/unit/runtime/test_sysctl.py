"""Kernel parameters that are the container's own, and those that are not."""

from __future__ import annotations

import pytest

from sampan.errors import InvalidArgument
from sampan.runtime.sysctl import checked


@pytest.mark.parametrize(
    ("name", "kind", "path"),
    [
        ("net.ipv4.ip_forward", "network", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.1/forwarding", "network", "net/ipv4/conf/eth0.1/forwarding"),
        ("net.ipv4.conf.eth0/1.forwarding", "network", "net/ipv4/conf/eth0.1/forwarding"),
        ("kernel.sem", "ipc", "kernel/sem"),
        ("fs.mqueue.msg_max", "ipc", "fs/mqueue/msg_max"),
    ],
)
def test_a_parameter_needs_its_namespace(name: str, kind: str, path: str) -> None:
    assert checked({name: "1"}, {kind}) == ((path, "1"),)
    with pytest.raises(InvalidArgument, match="the host's"):
        checked({name: "1"}, {"mount"})


@pytest.mark.parametrize("name", ["kernel.core_pattern", "vm.swappiness", "net/../kernel/core_pattern", "", "net..x"])
def test_the_hosts_parameters_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="sysctl"):
        checked({name: "1"}, {"network", "ipc", "uts", "mount"})
