"""What makes no sense is said before anything is made."""

from __future__ import annotations

import pytest

from sampan.linux.seccomp.profile import NEW_LISTENER, check, flag_bits
from sampan.oci.runtime import Seccomp, Syscall, SyscallArg

NOTIFY = Syscall(names=("mkdir",), action="SCMP_ACT_NOTIFY")


def rule(**changes: object) -> tuple[Syscall, ...]:
    return (Syscall(**({"names": ("mkdir",), "action": "SCMP_ACT_ERRNO"} | changes)),)  # type: ignore[arg-type]


def argument(**changes: object) -> tuple[Syscall, ...]:
    made = SyscallArg(**({"index": 0, "value": 1, "op": "SCMP_CMP_EQ"} | changes))  # type: ignore[arg-type]
    return rule(args=(made,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"default_action": "SCMP_ACT_FOO"}, "unknown action 'SCMP_ACT_FOO'"),
        ({"default_action": ""}, "unknown action ''"),
        ({"default_action": "SCMP_ACT_NOTIFY"}, "cannot be used as default action"),
        ({"default_errno_ret": 1}, "defaultErrnoRet 1 is given for SCMP_ACT_ALLOW, which takes none"),
        ({"architectures": ("SCMP_ARCH_Z80",)}, "unknown architecture 'SCMP_ARCH_Z80'"),
        ({"architectures": ("x86_64",)}, "unknown architecture"),
        ({"flags": ("SECCOMP_FILTER_FLAG_NEW_LISTENER",)}, "unknown flag 'SECCOMP_FILTER_FLAG_NEW_LISTENER'"),
        ({"flags": ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",)}, "needs a rule with SCMP_ACT_NOTIFY"),
        ({"syscalls": rule(action="ERRNO")}, "unknown action 'ERRNO'"),
        ({"syscalls": rule(names=("",))}, "name is empty"),
        ({"syscalls": rule(errno_ret=4095)}, "errnoRet 4095 is not between 0 and 4094"),
        ({"syscalls": rule(errno_ret=-1)}, "errnoRet -1"),
        ({"syscalls": rule(action="SCMP_ACT_KILL", errno_ret=1)}, "errnoRet 1 is given for SCMP_ACT_KILL"),
        ({"syscalls": argument(op="EQ")}, "unknown operator 'EQ'"),
        ({"syscalls": argument(index=6)}, "argument index 6"),
        ({"syscalls": argument(index=-1)}, "argument index -1"),
        ({"syscalls": argument(value=1 << 64)}, "does not fit into 64 bits"),
        ({"syscalls": argument(value_two=-1)}, "does not fit into 64 bits"),
        ({"syscalls": (NOTIFY,)}, "listenerPath is not set"),
        ({"syscalls": (NOTIFY,), "listener_path": "agent"}, "listenerPath 'agent' is not an absolute path"),
        ({"syscalls": (NOTIFY,), "listener_path": "/" + "x" * 107}, "at most 107 bytes"),
        (
            {"syscalls": rule(names=("read", "write"), action="SCMP_ACT_NOTIFY"), "listener_path": "/agent"},
            "SCMP_ACT_NOTIFY cannot be used for the write syscall",
        ),
    ],
)
def test_nonsense_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(Seccomp(**({"default_action": "SCMP_ACT_ALLOW"} | changes)))  # type: ignore[arg-type]


def test_sense_is_taken() -> None:
    check(Seccomp(default_action="SCMP_ACT_TRACE", default_errno_ret=0xFFFF, architectures=("SCMP_ARCH_RISCV64",)))
    check(Seccomp(default_action="SCMP_ACT_ALLOW", listener_metadata="ignored", listener_path="ignored too"))
    check(Seccomp(default_action="SCMP_ACT_ERRNO", syscalls=(NOTIFY,), listener_path="/agent"))


def test_flags() -> None:
    given = Seccomp(default_action="SCMP_ACT_ALLOW")
    assert flag_bits(given) == 4  # SPEC_ALLOW
    for flags, bits in (((), 0), (("SECCOMP_FILTER_FLAG_TSYNC",), 0), (("SECCOMP_FILTER_FLAG_LOG",) * 2, 2)):
        assert flag_bits(Seccomp(default_action="SCMP_ACT_ALLOW", flags=flags)) == bits
    asked = Seccomp(
        default_action="SCMP_ACT_ALLOW", flags=("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",), syscalls=(NOTIFY,)
    )  # fmt: skip
    assert flag_bits(asked) == NEW_LISTENER | 32
