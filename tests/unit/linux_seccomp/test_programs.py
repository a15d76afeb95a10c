"""What a profile is compiled to, asked call by call."""

from __future__ import annotations

import errno
import platform

import pytest

from sampan.engine.security.seccomp import default_profile
from sampan.linux.seccomp.compiler import compile_profile
from sampan.linux.seccomp.profile import check
from sampan.oci.runtime import Seccomp, Syscall, SyscallArg
from tests.unit.linux_seccomp.machine import AARCH64, ALLOW, ARM, ERRNO, I386, KILL, X32_BIT, X86_64, answer

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are x86_64's")

EPERM, ENOSYS = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS
MKDIR, KILL_CALL, READ, CLOSE_RANGE, LANDLOCK = 83, 62, 0, 436, 444
THREE = ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")


def profile(*rules: Syscall, default: str = "SCMP_ACT_ALLOW", **more: object) -> Seccomp:
    made = Seccomp(default_action=default, syscalls=rules, **more)  # type: ignore[arg-type]
    check(made)
    return made


def rule(name: str, action: str = "SCMP_ACT_ERRNO", value: int | None = None, *args: SyscallArg) -> Syscall:
    return Syscall(names=(name,), action=action, errno_ret=value, args=args)


def compared(op: str, value: int, second: int = 0, index: int = 0) -> SyscallArg:
    return SyscallArg(index=index, value=value, value_two=second, op=f"SCMP_CMP_{op}")


@pytest.mark.parametrize(
    ("action", "value", "returned"),
    [
        ("KILL", None, 0), ("KILL_THREAD", None, 0), ("KILL_PROCESS", None, 0x80000000), ("TRAP", None, 0x30000),
        ("ERRNO", None, EPERM), ("ERRNO", 0, ERRNO), ("ERRNO", 4094, ERRNO | 4094), ("TRACE", None, 0x7FF00001),
        ("TRACE", 0xFFFF, 0x7FF0FFFF), ("LOG", None, 0x7FFC0000),
    ],
)  # fmt: skip
def test_every_action(action: str, value: int | None, returned: int) -> None:
    program = compile_profile(profile(rule("mkdir", f"SCMP_ACT_{action}", value)))
    assert answer(program, X86_64, MKDIR) == returned
    assert answer(program, X86_64, READ) == ALLOW


def test_an_agent_is_asked() -> None:
    program = compile_profile(profile(rule("mkdir", "SCMP_ACT_NOTIFY"), listener_path="/agent"))
    assert answer(program, X86_64, MKDIR) == 0x7FC00000


@pytest.mark.parametrize(
    ("op", "matching", "others"),
    [
        ("NE", (6, 1 << 40), (7,)), ("LT", (0, 6), (7, 8, 1 << 32)), ("LE", (6, 7), (8, 1 << 32)),
        ("EQ", (7,), (6, 7 | 1 << 32)),
        ("GE", (7, 8, 1 << 63), (6,)), ("GT", (8, 1 << 32), (6, 7)),
    ],
)  # fmt: skip
def test_every_comparison(op: str, matching: tuple[int, ...], others: tuple[int, ...]) -> None:
    program = compile_profile(profile(rule("kill", "SCMP_ACT_ERRNO", None, compared(op, 7, index=1))))
    assert {answer(program, X86_64, KILL_CALL, 99, each) for each in matching} == {EPERM}
    assert {answer(program, X86_64, KILL_CALL, 7, each) for each in others} == {ALLOW}


def test_comparison_of_some_bits() -> None:
    # `value` is the mask here, and `valueTwo` what is left of a match.
    program = compile_profile(profile(rule("kill", "SCMP_ACT_ERRNO", None, compared("MASKED_EQ", 0xF0, 0x10))))
    assert answer(program, X86_64, KILL_CALL, 0xF0F) == ALLOW
    assert answer(program, X86_64, KILL_CALL, 0xF1F) == EPERM


def test_conditions_on_different_arguments_all_hold() -> None:
    both = rule("kill", "SCMP_ACT_ERRNO", None, compared("EQ", 1), compared("EQ", 9, index=1))
    program = compile_profile(profile(both))
    assert answer(program, X86_64, KILL_CALL, 1, 9) == EPERM
    assert {answer(program, X86_64, KILL_CALL, *each) for each in ((1, 8), (2, 9))} == {ALLOW}


def test_conditions_on_one_argument_are_alternatives() -> None:
    either = rule("kill", "SCMP_ACT_ERRNO", None, compared("EQ", 1), compared("EQ", 9, index=1), compared("EQ", 2))
    program = compile_profile(profile(either))
    assert {answer(program, X86_64, KILL_CALL, *each) for each in ((1, 8), (2, 8), (5, 9))} == {EPERM}
    assert answer(program, X86_64, KILL_CALL, 5, 8) == ALLOW


def test_three_architectures_at_once() -> None:
    program = compile_profile(profile(rule("mkdir"), rule("socketcall"), architectures=THREE))
    assert answer(program, X86_64, MKDIR) == EPERM
    assert answer(program, X86_64, MKDIR | X32_BIT) == EPERM
    assert answer(program, I386, 39) == EPERM  # mkdir's number there
    assert answer(program, I386, 102) == EPERM  # socketcall, which the others do not have
    assert answer(program, I386, MKDIR) == answer(program, X86_64, 102) == ALLOW
    assert answer(program, AARCH64, MKDIR) == KILL


def test_an_architecture_that_is_not_named_ends_the_caller() -> None:
    program = compile_profile(profile(rule("mkdir")))
    assert answer(program, I386, 39) == answer(program, X86_64, MKDIR | X32_BIT) == KILL


def test_another_machines_architectures() -> None:
    names = ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM")
    program = compile_profile(profile(rule("mkdirat", "SCMP_ACT_ALLOW"), default="SCMP_ACT_ERRNO", architectures=names))
    assert answer(program, AARCH64, 34) == answer(program, ARM, 323) == answer(program, X86_64, 258) == ALLOW
    assert answer(program, AARCH64, 35) == answer(program, ARM, 324) == answer(program, X86_64, 259) == ENOSYS
    assert answer(program, AARCH64, 33) == answer(program, ARM, 322) == answer(program, X86_64, 257) == EPERM


def test_unknown_calls_are_left_out() -> None:
    program = compile_profile(profile(rule("no_such_call"), rule("mkdir\0x"), rule("schließen"), rule("mkdir")))
    assert answer(program, X86_64, MKDIR) == EPERM


def test_a_redundant_rule_is_left_out() -> None:
    program = compile_profile(profile(rule("mkdir", "SCMP_ACT_ERRNO", 1), default="SCMP_ACT_ERRNO"))
    assert answer(program, X86_64, MKDIR) == EPERM


@pytest.mark.parametrize("default", ["KILL", "KILL_PROCESS", "TRAP", "ERRNO"])
def test_calls_newer_than_the_profile_do_not_exist(default: str) -> None:
    rules = (rule("close_range", "SCMP_ACT_ALLOW"), rule("futex_time64", "SCMP_ACT_ALLOW"))  # The latter for 32 bits.
    program = compile_profile(profile(*rules, default=f"SCMP_ACT_{default}", architectures=THREE))
    for architecture, bit in ((X86_64, 0), (X86_64, X32_BIT), (I386, 0)):
        assert answer(program, architecture, CLOSE_RANGE | bit) == ALLOW
        assert answer(program, architecture, LANDLOCK | bit) == ENOSYS
        assert answer(program, architecture, bit) not in (ALLOW, ENOSYS)  # Old, and not on the list.


@pytest.mark.parametrize("default", ["ALLOW", "LOG", "TRACE"])
def test_a_permissive_profile_permits_new_calls_too(default: str) -> None:
    program = compile_profile(profile(rule("mkdir", "SCMP_ACT_KILL"), default=f"SCMP_ACT_{default}"))
    assert answer(program, X86_64, LANDLOCK) not in (ENOSYS, KILL)


@pytest.mark.parametrize("named", [("SCMP_ARCH_X86_64",), ("SCMP_ARCH_X86",), ("SCMP_ARCH_X32",)])
def test_each_architecture_has_its_own_newest_call(named: tuple[str, ...]) -> None:
    # `mkdir` is the last that the profile knows: 83, or 39 on i386. x32 has a bit of its own.
    rules = (rule("mkdir", "SCMP_ACT_ALLOW"),)
    program = compile_profile(profile(*rules, default="SCMP_ACT_ERRNO", architectures=named))
    assert answer(program, X86_64, MKDIR) == ALLOW
    assert answer(program, X86_64, MKDIR + 1) == ENOSYS
    assert answer(program, I386, 40) == (ENOSYS if named == ("SCMP_ARCH_X86",) else KILL)
    assert answer(program, X86_64, X32_BIT | MKDIR + 1) == (ENOSYS if named == ("SCMP_ARCH_X32",) else KILL)


def test_a_profile_that_names_nothing_has_no_newest_call() -> None:
    program = compile_profile(profile(default="SCMP_ACT_ERRNO"))
    assert answer(program, X86_64, LANDLOCK) == EPERM


def test_the_default_profile_call_by_call() -> None:
    made = default_profile(())
    program = compile_profile(made)
    allowed, refused = {"mkdir": 83, "read": 0, "execve": 59, "openat2": 437}, {"mount": 165, "bpf": 321, "reboot": 169}
    assert {answer(program, X86_64, number) for number in allowed.values()} == {ALLOW}
    assert {answer(program, X86_64, number) for number in refused.values()} == {EPERM}
    assert answer(program, X86_64, 435) == ENOSYS  # clone3
    assert answer(program, X86_64, 56, 0x11) == ALLOW  # clone
    assert answer(program, X86_64, 56, 0x10000000) == EPERM  # …with CLONE_NEWUSER
    assert answer(program, X86_64, 135, 0x0008) == ALLOW  # personality
    assert answer(program, X86_64, 135, 0x0040000) == EPERM
    assert answer(program, X86_64, 41, 2) == ALLOW  # socket
    assert answer(program, X86_64, 41, 40) == EPERM  # …AF_VSOCK
    assert answer(program, X86_64, 9999) == ENOSYS


def test_too_much_is_refused() -> None:
    rules = [rule("kill", "SCMP_ACT_ERRNO", None, compared("EQ", each << 32 | each)) for each in range(2000)]
    with pytest.raises(ValueError, match="instructions: the kernel takes 4096"):
        compile_profile(profile(*rules))


def test_another_byte_order_is_refused() -> None:
    with pytest.raises(ValueError, match="SCMP_ARCH_MIPS: its byte order is not this machine's"):
        compile_profile(profile(rule("mkdir"), architectures=("SCMP_ARCH_MIPS",)))
