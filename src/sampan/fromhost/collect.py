"""From what was asked for to the complete set of files: needs of ELF files, of scripts, and the system's few files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from sampan.errors import InvalidArgument, NotFound
from sampan.fromhost.elf import Elf, read_elf
from sampan.fromhost.libraries import CACHE, CONFIGURATION, LibraryFinder, expanded_rpath
from sampan.fromhost.python import in_standard_library, is_python, python_paths
from sampan.fromhost.tree import Tree

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_MERGED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")  # links to below /usr, where /usr is merged
_LOADED_BY_GLIBC = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2", "libgcc_s.so.1")
"""What glibc opens by name while it runs: name services, and the unwinder, for pthread_exit."""

_SHEBANG_LENGTH = 256  # BINPRM_BUF_SIZE
_FILES = {
    "/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "/etc/group": b"root:x:0:\nnogroup:x:65534:\n",
    "/etc/nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files dns\n",
    "/etc/hosts": b"127.0.0.1\tlocalhost\n::1\tlocalhost\n",
    "/etc/hostname": b"",
    "/etc/resolv.conf": b"",
}
_DIRECTORIES = {
    "/dev": 0o755, "/etc": 0o755, "/proc": 0o555, "/root": 0o700, "/run": 0o755, "/sys": 0o555, "/tmp": 0o1777,
    "/usr": 0o755, "/usr/bin": 0o755, "/usr/lib": 0o755, "/var": 0o755, "/var/tmp": 0o1777,
}  # fmt: skip


class Collector:
    """Collects into `tree`; `programs` are the commands asked for, in their order."""

    def __init__(self, finder: LibraryFinder | None = None) -> None:
        self.tree = Tree()
        self.programs: list[str] = []
        self._finder = finder or LibraryFinder()
        self._seen: set[str] = set()

    def add(self, wanted: str) -> None:
        """A program's name, or a path (with a slash in it) of a file or directory.

        Raises NotFound for what is not there, InvalidArgument for what cannot run here.
        """
        path = _looked_up(wanted)
        if os.path.isdir(path):
            self._directory(self.tree.add(path))
        else:
            self._add_file(path)

    def _add_file(self, path: str) -> None:
        """A program, or data where a path leads to it."""
        if os.access(path, os.X_OK):
            self.programs.append(self._program(path))
        else:
            self._file(self.tree.add(path), path)

    def add_system(self) -> None:
        """The files and directories that programs expect of any system. To be called last."""
        for path, mode in _DIRECTORIES.items():
            self.tree.make_directory(path, mode)
        for path in _MERGED:
            if os.path.islink(path):
                target = os.readlink(path)
                self.tree.make_link(path, target)
                self.tree.make_directory(os.path.join("/", target), 0o755)
        for path, data in _FILES.items():
            self.tree.make_file(path, data)

    @property
    def search_path(self) -> str:
        """The image's PATH: the usual one, after the directories of programs that are not on it."""
        usual = SEARCH_PATH.split(":")
        others = [os.path.dirname(program) for program in self.programs]
        return ":".join([*dict.fromkeys(each for each in others if each not in usual), *usual])

    def _program(self, path: str) -> str:
        """Take an executable and its needs; return the path by which to run it."""
        if is_python(path):
            executable, library = python_paths(path)
            # The library is found from the interpreter's place, so a path that is not itself a link to it is no use.
            name = os.path.basename(path)
            path = path if os.path.realpath(path) == executable else executable
            self._directory(self.tree.add(library), library=True)
            self._file(self.tree.add(path), path)
            # Asked for by way of a version manager's script, it is to be found by that name.
            self.tree.make_link(os.path.join(os.path.dirname(path), name), os.path.basename(path))
            return path
        self._file(self.tree.add(path), path)
        return path

    def _directory(self, path: str, *, library: bool = False) -> None:
        files = self.tree.add_directory(path, lambda each: not library or in_standard_library(each, path))
        for file in files:
            if ".so" in os.path.basename(file) or os.access(file, os.X_OK):
                self._file(file, file, optional=True)

    def _file(self, real: str, asked: str, *, optional: bool = False, rpath: tuple[str, ...] = ()) -> None:
        """What a file needs comes along. Of a file in a directory that was asked for, what can't be had is left out."""
        if real in self._seen:
            return
        self._seen.add(real)
        try:
            elf = read_elf(real)
        except InvalidArgument:
            if not optional:
                raise
            return
        if elf is None:
            self._script(real, optional)
        elif elf.runs_here:
            self._needs(elf, asked, optional, rpath)
        elif not optional:
            raise InvalidArgument(f"{asked}: is for another machine ({elf.machine.removeprefix('EM_').lower()})")

    def _needs(self, elf: Elf, asked: str, optional: bool, rpath: tuple[str, ...]) -> None:
        if elf.interpreter is not None:
            if os.path.exists(elf.interpreter):
                self._file(self.tree.add(elf.interpreter), elf.interpreter)
            elif not optional:
                raise NotFound(f"{asked}: its interpreter {elf.interpreter} does not exist")
        rpath = (*expanded_rpath(elf), *rpath)
        for name in elf.needed:
            found = self._finder.find(name, elf, rpath)
            if not found and not optional:
                raise NotFound(f"{asked}: needs {name}, which is not on this machine")
            for library in found:
                self._file(self.tree.add(library), library, optional=optional, rpath=rpath)
            if found and name.startswith("libc.so"):
                self._glibc(elf)

    def _glibc(self, elf: Elf) -> None:
        """What glibc opens by name, and its list of where libraries are: the container's linker looks there too."""
        for name in _LOADED_BY_GLIBC:
            for library in self._finder.find(name, elf):
                self._file(self.tree.add(library), library, optional=True)
        for path in (CACHE, CONFIGURATION):
            if os.path.isfile(path):
                self.tree.add(path)

    def _script(self, path: str, optional: bool) -> None:
        with open(path, "rb") as file:
            line = file.readline(_SHEBANG_LENGTH)
        if not line.startswith(b"#!"):
            return
        words = os.fsdecode(line[2:]).split()
        if not words:
            return
        # `#!/usr/bin/env -S NAME=value program`: the program is the first word that is neither option nor variable.
        run_by_env = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        programs = [words[0]]
        if os.path.basename(words[0]) == "env" and run_by_env:
            programs.append(run_by_env[0])
        for program in programs:
            try:
                self._program(_looked_up(program))
            except (NotFound, InvalidArgument):
                if not optional:
                    raise


def _looked_up(wanted: str) -> str:
    if "/" in wanted:
        if not os.path.exists(wanted):
            raise NotFound(f"{wanted}: no such file or directory")
        return os.path.abspath(wanted)
    found = shutil.which(wanted, path=f"{os.environ.get('PATH', '')}:{SEARCH_PATH}")
    if found is None:
        raise NotFound(f"{wanted}: not found on the PATH")
    return os.path.abspath(found)


def collect(wanted: Sequence[str]) -> Collector:
    """Everything that `wanted` needs."""
    collector = Collector()
    for each in wanted:
        collector.add(each)
    collector.add_system()
    return collector
