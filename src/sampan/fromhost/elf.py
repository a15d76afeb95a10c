"""What an ELF file asks of the dynamic linker: its interpreter, the libraries it needs and where to look for them.
System V ABI, chapter 5; ld.so(8)"""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass
from typing import Any, BinaryIO

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from sampan.errors import InvalidArgument

MAGIC = b"\x7fELF"

_RUNNABLE = {
    "x86_64": {("EM_X86_64", 64), ("EM_386", 32)},
    "aarch64": {("EM_AARCH64", 64)},
    "armv7l": {("EM_ARM", 32)},
    "i686": {("EM_386", 32)},
    "ppc64le": {("EM_PPC64", 64)},
    "riscv64": {("EM_RISCV", 64)},
    "s390x": {("EM_S390", 64)},
}
"""The (machine, word size) pairs that each kernel's machine runs."""


@dataclass(frozen=True)
class Elf:
    """An ELF file's dynamic section. `rpath` is empty where there is a RUNPATH, as the linker has it."""

    path: str
    machine: str
    bits: int
    interpreter: str | None
    soname: str | None
    needed: tuple[str, ...]
    rpath: tuple[str, ...]
    runpath: tuple[str, ...]

    @property
    def kind(self) -> tuple[str, int]:
        """What two files must share for the linker to join them."""
        return self.machine, self.bits

    @property
    def runs_here(self) -> bool:
        return self.kind in _RUNNABLE.get(platform.machine(), {self.kind})


@functools.lru_cache(maxsize=4096)
def read_elf(path: str) -> Elf | None:
    """The file's needs; None if it is no ELF file. Raises OSError, and InvalidArgument for a damaged one."""
    with open(path, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return None
        file.seek(0)
        return _parse(path, file)


def _parse(path: str, file: BinaryIO) -> Elf:
    interpreter: str | None = None
    tags: dict[str, list[str]] = {"DT_NEEDED": [], "DT_RPATH": [], "DT_RUNPATH": [], "DT_SONAME": []}
    attributes = {"DT_NEEDED": "needed", "DT_RPATH": "rpath", "DT_RUNPATH": "runpath", "DT_SONAME": "soname"}
    try:
        elf = ELFFile(file)
        segments: Any = elf.iter_segments()
        for segment in segments:
            if segment["p_type"] == "PT_INTERP":
                interpreter = segment.get_interp_name()
            elif segment["p_type"] == "PT_DYNAMIC":
                for tag in segment.iter_tags():
                    name = tag.entry.d_tag
                    if name in tags:
                        tags[name].append(getattr(tag, attributes[name]))
        machine, bits = str(elf["e_machine"]), int(elf.elfclass)
    except (ELFError, UnicodeDecodeError, OverflowError) as error:
        raise InvalidArgument(f"{path}: damaged ELF file: {error}") from error
    runpath = _split(tags["DT_RUNPATH"])
    return Elf(
        path=path, machine=machine, bits=bits, interpreter=interpreter,
        soname=tags["DT_SONAME"][0] if tags["DT_SONAME"] else None,
        needed=tuple(tags["DT_NEEDED"]),
        rpath=() if runpath else _split(tags["DT_RPATH"]),
        runpath=runpath,
    )  # fmt: skip


def _split(values: list[str]) -> tuple[str, ...]:
    return tuple(directory for value in values for directory in value.split(":") if directory)
