"""Which devices a group may use: for v1 the lines of its files, for v2 a BPF program of type CGROUP_DEVICE. Pure.

In both, the last rule on a device decides, for each of read, write and mknod alone; without one it is refused.
Documentation/admin-guide/cgroup-v1/devices.rst, cgroup-v2.rst "Device controller"
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

from sampan.linux.cgroup.write import Write
from sampan.oci.runtime import DeviceCgroup

_LETTERS = "rwm"
_TYPES = ("b", "c")
_ANY = -1
_NUMBERS = 1 << 20
"""More than the kernel's majors (12 bits), and as many as its minors."""


def check(rules: Sequence[DeviceCgroup]) -> None:
    """Raises ValueError for what is no rule."""
    for rule in rules:
        if rule.type not in ("", "a", *_TYPES):
            raise ValueError(f"devices: invalid type {rule.type!r}")
        if set(rule.access) - set(_LETTERS):
            raise ValueError(f"devices: invalid access {rule.access!r}")
        for number in (rule.major, rule.minor):
            if number is not None and number >= _NUMBERS:
                raise ValueError(f"devices: invalid number {number}")


def _number(value: int | None) -> int:
    return _ANY if value is None or value < 0 else value


# --- Version 1 -----------------------------------------------------------------------------------------------


class _Devices(msgspec.Struct, frozen=True):
    """Some devices. `_ANY`: every number."""

    kind: str
    major: int
    minor: int

    def _numbers(self, other: _Devices) -> tuple[tuple[int, int], tuple[int, int]]:
        return (self.major, other.major), (self.minor, other.minor)

    def meets(self, other: _Devices) -> bool:
        """Whether some device is among both."""
        same = all(_ANY in pair or pair[0] == pair[1] for pair in self._numbers(other))
        return self.kind == other.kind and same

    def holds(self, other: _Devices) -> bool:
        """Whether all of the other's are among these."""
        return self.kind == other.kind and all(own in (_ANY, its) for own, its in self._numbers(other))

    def __str__(self) -> str:
        major, minor = ("*" if each == _ANY else str(each) for each in (self.major, self.minor))
        return f"{self.kind} {major}:{minor}"


class _Lists:
    """What v1 can hold: all or nothing, with exceptions."""

    def __init__(self, allows: bool = False) -> None:
        self.allows = allows
        self.exceptions: dict[_Devices, set[str]] = {}

    def apply(self, rule: DeviceCgroup) -> None:
        access = set(rule.access or _LETTERS)
        major, minor = _number(rule.major), _number(rule.minor)
        if rule.type in ("", "a") and (major, minor) == (_ANY, _ANY) and len(access) == len(_LETTERS):
            self.allows, self.exceptions = rule.allow, {}
            return
        for kind in _TYPES if rule.type in ("", "a") else (rule.type,):
            devices = _Devices(kind, major, minor)
            if rule.allow == self.allows:
                self._no_exception(devices, access)
            else:
                self.exceptions.setdefault(devices, set()).update(access)

    def _no_exception(self, devices: _Devices, access: set[str]) -> None:
        for each, letters in list(self.exceptions.items()):
            if not letters & access or not devices.meets(each):
                continue
            if not devices.holds(each):
                # The kernel would say nothing and leave the wider one whole.
                raise ValueError(
                    f"devices: cgroup v1 cannot except {devices} {_text(access)} from {each} {_text(letters)}"
                )
            letters -= access
            if not letters:
                del self.exceptions[each]


def _text(access: set[str]) -> str:
    return "".join(letter for letter in _LETTERS if letter in access)


def _current(text: str) -> _Lists:
    """devices.list. Where all is allowed it does not tell the exceptions."""
    found = _Lists()
    for line in text.splitlines():
        kind, numbers, access = line.split()
        if kind == "a":
            return _Lists(allows=True)
        major, minor = (_ANY if each == "*" else int(each) for each in numbers.split(":"))
        found.exceptions[_Devices(kind, major, minor)] = set(access)
    return found


def writes(rules: Sequence[DeviceCgroup], current: str) -> list[Write]:
    """From what devices.list says to what the rules ask for: what is allowed before and after stays so in between.

    Raises ValueError for rules that v1 cannot hold.
    """
    check(rules)
    wanted, now = _Lists(), _current(current)
    for rule in rules:
        wanted.apply(rule)
    result: list[Write] = []
    if now.allows or now.allows != wanted.allows:
        result.append(_write(wanted.allows, "a"))
        now = _Lists(wanted.allows)
    for devices, access in wanted.exceptions.items():
        if more := access - now.exceptions.get(devices, set()):
            result.append(_write(not wanted.allows, f"{devices} {_text(more)}"))
    for devices, access in now.exceptions.items():
        if fewer := access - wanted.exceptions.get(devices, set()):
            result.append(_write(wanted.allows, f"{devices} {_text(fewer)}"))
    return result


def _write(allow: bool, value: str) -> Write:
    return Write("devices", "devices.allow" if allow else "devices.deny", value)


# --- Version 2 -----------------------------------------------------------------------------------------------

_ACCESS = {"m": 1, "r": 2, "w": 4}
_ALL_ACCESS = 7
_TYPE = {"b": 1, "c": 2}
_LOAD_WORD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_AND = 0x57  # BPF_ALU64 | BPF_AND | BPF_K
_SHIFT_RIGHT = 0x77
_MOVE_REGISTER = 0xBF
_MOVE = 0xB7
_JUMP_EQUAL = 0x15
_JUMP_UNEQUAL = 0x55
_EXIT = 0x95


def _instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | target, offset, value)


def program(rules: Sequence[DeviceCgroup]) -> bytes:
    """The program for a list of rules. An access of several kinds needs them all. Raises ValueError.

    r3 holds the kinds that no rule has allowed yet, from the last rule to the first. The kernel calls it with
    `struct bpf_cgroup_dev_ctx`: access and type in one word, major, minor.
    """
    check(rules)
    code = [
        _instruction(_LOAD_WORD, 2, 1, 0), _instruction(_AND, 2, value=0xFFFF),  # r2: type
        _instruction(_LOAD_WORD, 3, 1, 0), _instruction(_SHIFT_RIGHT, 3, value=16),  # r3: access
        _instruction(_LOAD_WORD, 4, 1, 4), _instruction(_LOAD_WORD, 5, 1, 8),  # r4: major, r5: minor
    ]  # fmt: skip
    for rule in reversed(rules):
        access = sum({_ACCESS[letter] for letter in rule.access or "rwm"})
        tests: list[bytes] = []
        if rule.type in _TYPE:
            tests.append(_instruction(_JUMP_UNEQUAL, 2, value=_TYPE[rule.type]))
        if rule.major is not None and rule.major >= 0:
            tests.append(_instruction(_JUMP_UNEQUAL, 4, value=rule.major))
        if rule.minor is not None and rule.minor >= 0:
            tests.append(_instruction(_JUMP_UNEQUAL, 5, value=rule.minor))
        if access != _ALL_ACCESS and rule.allow:
            tests += [_instruction(_AND, 3, value=~access), _instruction(_JUMP_UNEQUAL, 3, value=0)]
        elif access != _ALL_ACCESS:
            tests += [
                _instruction(_MOVE_REGISTER, 1, 3), _instruction(_AND, 1, value=access),
                _instruction(_JUMP_EQUAL, 1, value=0),
            ]  # fmt: skip
        block = [*tests, _instruction(_MOVE, 0, value=int(rule.allow)), _instruction(_EXIT)]
        for at, each in enumerate(block):
            if each[0] in (_JUMP_EQUAL, _JUMP_UNEQUAL):
                block[at] = each[:2] + struct.pack("<h", len(block) - at - 1) + each[4:]
        code += block
        if not tests:
            break  # Matches everything: what was said before it can't be reached, and the verifier refuses such code.
    else:
        code += [_instruction(_MOVE, 0, value=0), _instruction(_EXIT)]
    return b"".join(code)
