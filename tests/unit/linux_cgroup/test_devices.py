"""Device rules: the lines that v1 is written, and who may do what by the program for v2, run by a small emulator."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.linux.cgroup import devices
from sampan.oci.runtime import DeviceCgroup

FRESH = "a *:* rwm\n"
NOTHING = DeviceCgroup(allow=False)


def rule(text: str) -> DeviceCgroup:
    """`+ c 1:3 rw` or `- a`."""
    sign, kind, *rest = text.split()
    numbers, access = rest or ("*:*", "rwm")
    major, minor = (None if each == "*" else int(each) for each in numbers.split(":"))
    return DeviceCgroup(allow=sign == "+", type=kind, major=major, minor=minor, access=access)


def rules(*texts: str) -> tuple[DeviceCgroup, ...]:
    return tuple(rule(text) for text in texts)


def written(wanted: tuple[DeviceCgroup, ...], current: str = FRESH) -> list[str]:
    return [f"{each.file.rpartition('.')[2]} {each.value}" for each in devices.writes(wanted, current)]


@pytest.mark.parametrize(
    ("texts", "current", "expected"),
    [
        ((), FRESH, ["deny a"]),
        (("- a", "+ c 1:3 rw"), FRESH, ["deny a", "allow c 1:3 rw"]),
        (("- a", "+ c 1:3 r", "+ c 1:3 w"), FRESH, ["deny a", "allow c 1:3 rw"]),
        (("+ a",), FRESH, ["allow a"]),
        (("+ a", "- c 1:3 w"), FRESH, ["allow a", "deny c 1:3 w"]),
        (("+ a", "- c 1:3 rwm", "+ c 1:3 r"), FRESH, ["allow a", "deny c 1:3 wm"]),
        (("- a", "+ c 1:3 rwm", "- c *:* w"), FRESH, ["deny a", "allow c 1:3 rm"]),
        (("- a", "+ c 1:3 rwm", "- b 1:3 rwm"), FRESH, ["deny a", "allow c 1:3 rwm"]),
        # "All" with numbers or only some access means both kinds, which the kernel's `a` does not.
        (("- a", "+ a 1:3 r"), FRESH, ["deny a", "allow b 1:3 r", "allow c 1:3 r"]),
        (("+ a", "- a *:* w"), FRESH, ["allow a", "deny b *:* w", "deny c *:* w"]),
        # What was allowed and still is, is never taken away meanwhile.
        (("- a", "+ c 1:3 rwm"), "c 1:3 rwm\n", []),
        (("- a", "+ c 1:3 rwm", "+ c 1:5 r"), "c 1:3 rwm\nc 1:7 r\n", ["allow c 1:5 r", "deny c 1:7 r"]),
        (("- a", "+ c 1:3 r"), "c 1:3 rwm\n", ["deny c 1:3 wm"]),
        (("+ a",), "c 1:3 rwm\n", ["allow a"]),
        (("+ a", "- b *:* m"), "", ["allow a", "deny b *:* m"]),
    ],
)
def test_v1(texts: tuple[str, ...], current: str, expected: list[str]) -> None:
    assert written(rules(*texts), current) == expected


@pytest.mark.parametrize("texts", [("- a", "+ c *:* rw", "- c 1:3 w"), ("+ a", "- b *:0 r", "+ b 8:* r")])
def test_a_hole_that_v1_cannot_hold_is_refused(texts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="cannot except"):
        written(rules(*texts))


@pytest.mark.parametrize(
    "wrong",
    [
        DeviceCgroup(allow=True, type="p", access="r"),
        DeviceCgroup(allow=True, type="c", access="rx"),
        DeviceCgroup(allow=True, type="c", major=1 << 20, access="r"),
    ],
)
def test_what_is_no_rule(wrong: DeviceCgroup) -> None:
    with pytest.raises(ValueError, match="devices"):
        devices.writes((wrong,), FRESH)
    with pytest.raises(ValueError, match="devices"):
        devices.program((wrong,))


# --- What both say of one access, against the plain reading of the rules ----------------------------------------

KINDS, MAJORS, MINORS, ACCESSES = "bc", (1, 8), (0, 3), "rwm"
LETTER = {"m": 1, "r": 2, "w": 4}


def allowed(wanted: tuple[DeviceCgroup, ...], kind: str, major: int, minor: int, letter: str) -> bool:
    """The last rule that matches decides."""
    answer = False
    for each in wanted:
        matches = each.type in ("a", kind) and each.major in (None, major) and each.minor in (None, minor)
        if matches and letter in each.access:
            answer = each.allow
    return answer


def run(program: bytes, kind: str, major: int, minor: int, access: int) -> int:
    """The program's answer, by the semantics of the few instructions that it has."""
    code = [struct.unpack_from("<BBhi", program, at) for at in range(0, len(program), 8)]
    context = {0: access << 16 | {"b": 1, "c": 2}[kind], 4: major, 8: minor}
    register = [0] * 11
    at = 0
    while True:
        operation, registers, offset, value = code[at]
        target, source = registers & 15, registers >> 4
        at += 1
        match operation:
            case 0x61:
                register[target] = context[offset]
            case 0x57:
                register[target] &= value
            case 0x77:
                register[target] >>= value
            case 0xBF:
                register[target] = register[source]
            case 0xB7:
                register[target] = value
            case 0x15:
                at += offset if register[target] == value else 0
            case 0x55:
                at += offset if register[target] != value else 0
            case 0x95:
                return register[0]
            case _:
                raise AssertionError(hex(operation))


def kernel_v1(lines: list[str], kind: str, major: int, minor: int, letter: str) -> bool:
    """devices.allow and devices.deny as the kernel reads them: exact exceptions to a default."""
    default, exceptions = True, dict[str, set[str]]()
    for line in lines:
        file, what = line.split(" ", 1)
        if what == "a":
            default, exceptions = file == "allow", {}
            continue
        name, _, access = what.rpartition(" ")
        if (file == "allow") == default:
            exceptions.setdefault(name, set()).difference_update(access)
        else:
            exceptions.setdefault(name, set()).update(access)
    names = {f"{kind} {x}:{y}" for x in (major, "*") for y in (minor, "*")}
    return default != any(letter in access for name, access in exceptions.items() if name in names)


some_rules = st.lists(
    st.builds(
        DeviceCgroup, allow=st.booleans(), type=st.sampled_from("abc"), major=st.sampled_from([None, *MAJORS]),
        minor=st.sampled_from([None, *MINORS]),
        access=st.sampled_from(["".join(each) for n in (1, 2, 3) for each in itertools.combinations(ACCESSES, n)]),
    ),
    max_size=6,
).map(tuple)  # fmt: skip


@given(wanted=some_rules)
def test_the_program_says_what_the_rules_say(wanted: tuple[DeviceCgroup, ...]) -> None:
    program = devices.program(wanted)
    for kind, major, minor in itertools.product(KINDS, MAJORS, MINORS):
        for letters in ("r", "w", "m", "rw", "rwm"):
            expected = all(allowed(wanted, kind, major, minor, letter) for letter in letters)
            access = sum(LETTER[letter] for letter in letters)
            assert run(program, kind, major, minor, access) == int(expected), (kind, major, minor, letters)


@given(wanted=some_rules)
def test_v1s_lines_say_what_the_rules_say(wanted: tuple[DeviceCgroup, ...]) -> None:
    try:
        lines = written(wanted)
    except ValueError:
        return  # A hole.
    for kind, major, minor, letter in itertools.product(KINDS, MAJORS, MINORS, ACCESSES):
        assert kernel_v1(lines, kind, major, minor, letter) == allowed(wanted, kind, major, minor, letter)
