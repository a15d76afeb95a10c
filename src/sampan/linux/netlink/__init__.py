"""Netlink (netlink(7)), spoken directly: our own small typed messages, the standard library's sockets, no ctypes.

`attributes` encodes and decodes the type-length-value pairs, `socket` carries requests and dumps, `rtnl` has the
messages of rtnetlink(7) that a container's network needs, `nftables` those of nf_tables, `conntrack` those of the
connection tracking table. Failures are OSError with the kernel's own explanation where it gives one.
"""
