"""From resources to the files of cgroup v2, and to a program that guards devices. Pure.

Documentation/admin-guide/cgroup-v2.rst; the conversions from v1's numbers are runc's and crun's, so that one
config.json means the same everywhere.
"""

from __future__ import annotations

import struct

from sampan.linux.cgroup.write import Write
from sampan.oci.runtime import CPU, BlockIO, DeviceCgroup, LinuxResources, Memory


def writes(resources: LinuxResources) -> list[Write]:
    """What to write; devices are not here but in `device_program`."""
    result: list[Write] = []
    if resources.memory is not None:
        result += _memory(resources.memory)
    if resources.cpu is not None:
        result += _cpu(resources.cpu)
    if resources.pids is not None:
        limit = resources.pids.limit
        result.append(Write("pids", "pids.max", str(limit) if limit > 0 else "max"))
    if resources.block_io is not None:
        result += _block_io(resources.block_io)
    for page in resources.hugepage_limits:
        result.append(Write("hugetlb", f"hugetlb.{page.page_size}.max", str(page.limit)))
    for file, value in resources.unified.items():
        if "/" in file or "." not in file:
            raise ValueError(f"invalid cgroup file {file!r}")
        result.append(Write(file.partition(".")[0], file, value))
    return result


def _amount(value: int) -> str:
    return "max" if value < 0 else str(value)


def _memory(memory: Memory) -> list[Write]:
    result: list[Write] = []
    if memory.swap is not None and memory.limit is not None:
        # v1 counts memory and swap together, v2 swap alone.
        swap = memory.swap - memory.limit if memory.swap > 0 and memory.limit > 0 else memory.swap
        result.append(Write("memory", "memory.swap.max", _amount(swap), optional=True))
    if memory.limit:  # 0 says "not set", as for runc; the kernel would take it at its word.
        result.append(Write("memory", "memory.max", _amount(memory.limit)))
    if memory.reservation is not None:
        result.append(Write("memory", "memory.low", _amount(memory.reservation)))
    return result


def weight(shares: int) -> int:
    """v1's shares (2 to 262144) as v2's weight (1 to 10000)."""
    return 1 + (max(2, min(shares, 262144)) - 2) * 9999 // 262142


def _cpu(cpu: CPU) -> list[Write]:
    result: list[Write] = []
    if cpu.idle is not None:
        result.append(Write("cpu", "cpu.idle", str(cpu.idle)))
    if cpu.shares:
        result.append(Write("cpu", "cpu.weight", str(weight(cpu.shares))))
    if cpu.quota or cpu.period:
        quota = str(cpu.quota) if cpu.quota and cpu.quota > 0 else "max"
        result.append(Write("cpu", "cpu.max", f"{quota} {cpu.period or 100000}"))
    if cpu.burst:
        result.append(Write("cpu", "cpu.max.burst", str(cpu.burst)))
    if cpu.cpus:
        result.append(Write("cpuset", "cpuset.cpus", cpu.cpus))
    if cpu.mems:
        result.append(Write("cpuset", "cpuset.mems", cpu.mems))
    return result


def _block_io(io: BlockIO) -> list[Write]:
    result: list[Write] = []
    if io.weight:
        # 10 to 1000 on v1's scale, 1 to 10000 here.
        result.append(Write("io", "io.weight", f"default {1 + (io.weight - 10) * 9999 // 990}", optional=True))
    for key, throttles in (
        ("rbps", io.throttle_read_bps_device),
        ("wbps", io.throttle_write_bps_device),
        ("riops", io.throttle_read_iops_device),
        ("wiops", io.throttle_write_iops_device),
    ):
        result += [Write("io", "io.max", f"{each.major}:{each.minor} {key}={each.rate or 'max'}") for each in throttles]
    return result


# --- Devices: a BPF program of type CGROUP_DEVICE -----------------------------------------------------------

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


def device_program(rules: tuple[DeviceCgroup, ...]) -> bytes:
    """The program for a list of rules. For each of read, write and mknod the last rule on the device decides, without
    one it is refused; an access of several kinds needs them all.

    r3 holds the kinds that no rule has allowed yet, from the last rule to the first. The kernel calls it with
    `struct bpf_cgroup_dev_ctx`: access and type in one word, major, minor.
    """
    program = [
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
        for at, code in enumerate(block):
            if code[0] in (_JUMP_EQUAL, _JUMP_UNEQUAL):
                block[at] = code[:2] + struct.pack("<h", len(block) - at - 1) + code[4:]
        program += block
        if not tests:
            break  # Matches everything: what was said before it can't be reached, and the verifier refuses such code.
    else:
        program += [_instruction(_MOVE, 0, value=0), _instruction(_EXIT)]
    return b"".join(program)
