"""Finding shared libraries as the dynamic linker does, without running it. ld.so(8)

The order: the RPATHs of the object and of what loaded it, the object's RUNPATH, the linker's cache, the standard
directories. LD_LIBRARY_PATH is left out: it belongs to this shell, and the container will not have it.
"""

from __future__ import annotations

import functools
import glob
import os
import struct
from collections.abc import Iterator

from sampan.fromhost.elf import Elf, read_elf

CACHE = "/etc/ld.so.cache"
CONFIGURATION = "/etc/ld.so.conf"

_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_CACHE_HEADER = struct.Struct("=20sII4xI12x")  # magic, entries, length of the strings, (flags), extensions
_CACHE_ENTRY = struct.Struct("=iIIIQ")  # flags, offset of the name, offset of the path, OS version, hardware needs


class LibraryFinder:
    """Resolves the names in DT_NEEDED. `cache` and `configuration` are the linker's own files."""

    def __init__(self, cache: str = CACHE, configuration: str = CONFIGURATION) -> None:
        self._cache = _read_cache(cache)
        self._configured = tuple(_configured_directories(configuration))

    def find(self, name: str, wanted_by: Elf, inherited_rpath: tuple[str, ...] = ()) -> list[str]:
        """The library's paths, the one that the linker takes first; none if there is no such library.

        More than one only where the cache knows builds for newer processors too (glibc-hwcaps): which one
        is loaded is then for the machine to say that the container runs on.
        """
        if "/" in name:
            path = _expand(name, wanted_by)
            return [path] if _fits(path, wanted_by) else []
        # The RPATH of what loaded an object counts for that object too, unless it has a RUNPATH of its own.
        rpath = () if wanted_by.runpath else inherited_rpath
        own = wanted_by.rpath or wanted_by.runpath
        for directory in (*(_expand(each, wanted_by) for each in own), *rpath):
            path = os.path.join(directory, name)
            if _fits(path, wanted_by):
                return [path]
        cached = [path for path in self._cache.get(name, ()) if _fits(path, wanted_by)]
        if cached:
            return cached
        for directory in (*self._configured, *_standard_directories(wanted_by)):
            path = os.path.join(directory, name)
            if _fits(path, wanted_by):
                return [path]
        return []


def expanded_rpath(elf: Elf) -> tuple[str, ...]:
    return tuple(_expand(each, elf) for each in elf.rpath)


def _expand(directory: str, elf: Elf) -> str:
    origin = os.path.dirname(os.path.realpath(elf.path))
    library = "lib64" if elf.bits == 64 else "lib"
    for name, value in (("ORIGIN", origin), ("LIB", library)):
        directory = directory.replace(f"${{{name}}}", value).replace(f"${name}", value)
    return os.path.normpath(directory) if directory else directory


def _fits(path: str, wanted_by: Elf) -> bool:
    """The linker passes over files of another machine or word size, and looks on."""
    try:
        found = read_elf(path)
    except OSError:
        return False
    return found is not None and found.kind == wanted_by.kind


def _standard_directories(elf: Elf) -> Iterator[str]:
    # Debian's multiarch directories are compiled into its linker; musl has /usr/local/lib too.
    triplets = {
        ("EM_X86_64", 64): "x86_64-linux-gnu", ("EM_386", 32): "i386-linux-gnu",
        ("EM_AARCH64", 64): "aarch64-linux-gnu", ("EM_ARM", 32): "arm-linux-gnueabihf",
    }  # fmt: skip
    suffixes = ([triplets[elf.kind]] if elf.kind in triplets else []) + [""]
    for base in ("/lib", "/usr/lib", *(("/lib64", "/usr/lib64") if elf.bits == 64 else ())):
        for suffix in suffixes:
            yield os.path.join(base, suffix)
    yield "/usr/local/lib"


@functools.lru_cache(maxsize=8)
def _read_cache(path: str) -> dict[str, tuple[str, ...]]:
    """Name to paths, of the cache's present format; nothing for a cache of another format, or none.

    glibc's sysdeps/generic/dl-cache.h: offsets count from the header, which may stand behind an older format's.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return {}
    start = data.find(_CACHE_MAGIC)
    if start < 0 or len(data) < start + _CACHE_HEADER.size:
        return {}
    data = data[start:]
    _magic, count, _length, _extensions = _CACHE_HEADER.unpack_from(data)
    plain: dict[str, list[str]] = {}
    for index in range(count):
        offset = _CACHE_HEADER.size + index * _CACHE_ENTRY.size
        if offset + _CACHE_ENTRY.size > len(data):
            break
        _flags, name, value, _version, _needs = _CACHE_ENTRY.unpack_from(data, offset)
        plain.setdefault(_string(data, name), []).append(_string(data, value))
    return {name: tuple(paths) for name, paths in plain.items()}


def _string(data: bytes, offset: int) -> str:
    return os.fsdecode(data[offset : data.find(b"\0", offset)])


def _configured_directories(path: str) -> Iterator[str]:
    try:
        with open(path) as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        words = line.partition("#")[0].split()
        if not words or words[0] == "hwcap":
            continue
        if words[0] == "include":
            for pattern in words[1:]:
                for included in sorted(glob.glob(os.path.join(os.path.dirname(path), pattern))):
                    yield from _configured_directories(included)
        else:
            yield from words
