"""What both cgroup versions plan: values to write into files."""

from __future__ import annotations

import msgspec

from sampan.oci.runtime import DeviceCgroup


class Write(msgspec.Struct, frozen=True):
    """`value` goes into `file` of the group's directory in `controller`'s hierarchy.

    `optional`: this kernel may lack the file (swap accounting, an I/O scheduler), and then it is left out. `retry`: it
    may be refused because of a limit that a later write changes, and is then tried once more at the end.
    """

    controller: str
    file: str
    value: str
    optional: bool = False
    retry: bool = False


def device_rule(rule: DeviceCgroup) -> str:
    """A rule in the words of v1's devices.allow: `c 1:3 rwm`."""
    if rule.type == "a" and rule.major is None and rule.minor is None and rule.access in ("", "rwm"):
        return "a"
    major, minor = ("*" if number is None or number < 0 else str(number) for number in (rule.major, rule.minor))
    return f"{rule.type} {major}:{minor} {rule.access or 'rwm'}"
