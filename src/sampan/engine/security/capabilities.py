"""Which capabilities a container has: Docker's fourteen by default, what was added, less what was dropped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

from sampan.errors import InvalidArgument
from sampan.linux import capabilities

DEFAULT = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
    "CAP_AUDIT_WRITE",
)  # fmt: skip

ALL = (
    *DEFAULT,
    "CAP_DAC_READ_SEARCH", "CAP_LINUX_IMMUTABLE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_IPC_LOCK",
    "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_LEASE",
    "CAP_AUDIT_CONTROL", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip


@cache
def available() -> tuple[str, ...]:
    """Those of `ALL` that this process can hand on: a runtime fails at one that it has not itself."""
    bounding = capabilities.bounding()
    return tuple(name for name in ALL if capabilities.mask([name]) & bounding)


def normalised(names: Iterable[str], member: str) -> list[str]:
    """In the kernel's spelling; `ALL` stays. Raises InvalidArgument for an unknown one, in the request's `member`,
    and for one that is not available."""
    result: list[str] = []
    for name in names:
        upper = name.strip().upper()
        if upper != "ALL":
            upper = upper if upper.startswith("CAP_") else f"CAP_{upper}"
            if upper not in ALL:
                raise InvalidArgument(f'invalid {member}: unknown capability: "{upper}"')
            if upper not in available():
                raise InvalidArgument(
                    f"invalid {member}: capability not supported by your kernel or not available in the current "
                    f'environment: "{upper}"'
                )
        result.append(upper)
    return result


def effective(add: Sequence[str], drop: Sequence[str], *, privileged: bool) -> tuple[str, ...]:
    """What the container gets, of what is available. Raises InvalidArgument."""
    added, dropped = normalised(add, "CapAdd"), normalised(drop, "CapDrop")
    if privileged:
        return available()
    if "ALL" in added:
        chosen = set(ALL) - set(dropped)
    elif "ALL" in dropped:
        chosen = set(added)
    else:
        chosen = (set(DEFAULT) - set(dropped)) | set(added)
    return tuple(name for name in available() if name in chosen)
