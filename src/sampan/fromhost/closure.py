"""What a set of programs needs to run somewhere else: libraries, interpreters, and the links on the way to them."""

from __future__ import annotations

import glob
import os
import shutil
import stat
from collections.abc import Iterable, Iterator

from sampan.errors import InvalidArgument
from sampan.fromhost.elf import Elf, read_elf

_DEFAULT_DIRECTORIES = ("/lib", "/usr/lib", "/lib64", "/usr/lib64")
_NAME_SERVICES = ("libnss_files.so.2", "libnss_dns.so.2")
"""What the C library opens by itself to look up users and hosts."""
_SKIPPED_DIRECTORIES = frozenset({"__pycache__"})
_MAX_LINKS = 40


class Closure:
    """`files`: every path to pack, as it is called on this machine."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self._directories = list(_linker_directories())

    def add_program(self, name: str) -> str:
        """A program by its name on the PATH, or any path; returns where it is. Raises InvalidArgument."""
        path = os.path.abspath(name) if "/" in name else shutil.which(name)
        if path is None:
            raise InvalidArgument(f"{name}: no such program on the PATH")
        if not os.path.lexists(path):
            raise InvalidArgument(f"{name}: no such file or directory")
        self._add(path, required=True)
        return path

    def add_top_links(self) -> None:
        """`/bin` and its like, where they are links into /usr: programs are called by both names."""
        for name in ("bin", "sbin", "lib", "lib64"):
            target = os.path.realpath(f"/{name}") + "/"
            if os.path.islink(f"/{name}") and any(path.startswith(target) for path in self.files):
                self.files.add(f"/{name}")

    def _add(self, path: str, *, required: bool = False) -> None:
        real = self._add_links(path)
        if real in self.files and not os.path.isdir(real):
            return
        try:
            mode = os.stat(real).st_mode
        except OSError as error:
            raise InvalidArgument(f"{path}: {(error.strerror or '').lower()}") from None
        self.files.add(real)
        if stat.S_ISDIR(mode):
            self._add_tree(real)
        elif stat.S_ISREG(mode):
            self._add_needs(real, required)
        else:
            raise InvalidArgument(f"{path}: neither a file nor a directory")

    def _add_links(self, path: str) -> str:
        """Take every symbolic link on the way along, as itself; returns where it ends."""
        for _ in range(_MAX_LINKS):
            at = ""
            for part in path.strip("/").split("/"):
                at += "/" + part
                if os.path.islink(at):
                    self.files.add(at)
                    target = os.path.join(os.path.dirname(at), os.readlink(at))
                    path = os.path.normpath(target + path[len(at) :])
                    break
            else:
                return path
        raise InvalidArgument(f"{path}: too many levels of symbolic links")

    def _add_tree(self, directory: str) -> None:
        for at, directories, names in os.walk(directory):
            directories[:] = sorted(each for each in directories if each not in _SKIPPED_DIRECTORIES)
            for name in (*directories, *names):
                path = f"{at}/{name}"
                if os.path.islink(path):
                    # One that leads nowhere is packed as it is; one that leads out of the tree brings its target.
                    self.files.add(path)
                    if os.path.exists(path) and not os.path.realpath(path).startswith(directory + "/"):
                        self._add(path)
                elif os.path.isfile(path) or os.path.isdir(path):
                    self.files.add(path)
                    if os.path.isfile(path):
                        self._add_needs(path, required=False)

    def _add_needs(self, path: str, required: bool) -> None:
        """Libraries of an ELF file, the interpreter of a script. `required`: a foreign machine's file is an error."""
        elf = read_elf(path)
        if elf is None:
            self._add_script(path)
            return
        if not elf.runs_here:
            if required:
                raise InvalidArgument(f"{path}: it is for another machine ({elf.machine})")
            return
        if elf.interpreter:
            self._add(elf.interpreter)
        for name in (*elf.needed, *(_NAME_SERVICES if "libc.so.6" in elf.needed else ())):
            library = self._find(elf, name)
            if library is not None:
                self._add(library)
            elif required and name not in _NAME_SERVICES:
                raise InvalidArgument(f"{path}: it needs {name}, which is not there")

    def _add_script(self, path: str) -> None:
        if not os.access(path, os.X_OK):
            return
        with open(path, "rb") as file:
            line = file.readline(256)
        if line.startswith(b"#!"):
            words = line[2:].split()
            program = os.fsdecode(words[0]) if words else ""
            if os.path.isfile(program) and program not in self.files:
                self._add(program)

    def _find(self, elf: Elf, name: str) -> str | None:
        if "/" in name:
            return name if os.path.exists(name) else None
        origin = os.path.dirname(os.path.realpath(elf.path))
        own = (
            each.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)
            for each in (*elf.rpath, *elf.runpath) if each
        )  # fmt: skip
        for directory in (*own, *self._directories):
            path = os.path.normpath(f"{directory}/{name}")
            if os.path.isfile(path):
                candidate = read_elf(path)
                # A library of another word size beside it is not the one.
                if candidate is not None and candidate.kind == elf.kind:
                    return path
        return None


def _linker_directories() -> Iterator[str]:
    """Where the dynamic linker looks: /etc/ld.so.conf and its like, then what is built in."""
    yield from _configured("/etc/ld.so.conf", 0)
    yield from _DEFAULT_DIRECTORIES


def _configured(path: str, depth: int) -> Iterable[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.partition("#")[0].split() for line in file]
    except OSError:
        return
    for words in lines:
        if words[:1] == ["include"] and depth < 5:
            for pattern in words[1:]:
                for included in sorted(glob.glob(os.path.join("/etc", pattern))):
                    yield from _configured(included, depth + 1)
        elif words and words[0].startswith("/"):
            yield words[0]
