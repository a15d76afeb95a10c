"""Programs are kept, and only one's own are trusted."""

from __future__ import annotations

import os
import pathlib

import msgspec
import pytest

from sampan.linux import seccomp
from sampan.linux.seccomp import compiler
from sampan.oci.runtime import Seccomp, Syscall

PROFILE = Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=(Syscall(names=("mkdir",), action="SCMP_ACT_ERRNO"),))
FALSE = b"\x06\0\0\0\0\0\xff\x7f"
"""A program that allows everything."""


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Seccomp]:
    """The profiles that were compiled."""
    seen: list[Seccomp] = []

    def compile_and_tell(profile: Seccomp) -> bytes:
        seen.append(profile)
        return original(profile)

    original = compiler.compile_profile
    monkeypatch.setattr(compiler, "compile_profile", compile_and_tell)
    return seen


def only_file(cache: pathlib.Path) -> pathlib.Path:
    (found,) = cache.iterdir()
    return found


def test_a_program_is_compiled_once(tmp_path: pathlib.Path, compiled: list[Seccomp]) -> None:
    cache = tmp_path / "run/cache"
    first = seccomp.program(PROFILE, str(cache))
    told = msgspec.structs.replace(PROFILE, flags=(), listener_path="/x", listener_metadata="of this container")
    assert seccomp.program(told, str(cache)) == first
    assert len(compiled) == 1
    assert cache.stat().st_mode & 0o777 == 0o700
    assert only_file(cache).stat().st_mode & 0o777 == 0o600
    other = msgspec.structs.replace(PROFILE, default_action="SCMP_ACT_LOG")
    assert seccomp.program(other, str(cache)) != first
    assert len(compiled) == 2


@pytest.mark.parametrize("spoilt", [b"", b"SC2\n", b"x" * 400])
def test_a_spoilt_file_is_replaced(tmp_path: pathlib.Path, compiled: list[Seccomp], spoilt: bytes) -> None:
    first = seccomp.program(PROFILE, str(tmp_path / "cache"))
    kept = only_file(tmp_path / "cache")
    whole = kept.read_bytes()
    for content in (spoilt, whole[:-8], whole + FALSE, b"SC1\n" + whole[4:], whole.replace(b"mkdir", b"rmdir")):
        kept.write_bytes(content)
        assert seccomp.program(PROFILE, str(tmp_path / "cache")) == first
        assert kept.read_bytes() == whole
    assert len(compiled) == 6


@pytest.mark.parametrize("mode", [0o770, 0o701, 0o777, 0o705])
def test_a_directory_that_others_reach_is_not_used(
    tmp_path: pathlib.Path, compiled: list[Seccomp], mode: int
) -> None:  # fmt: skip
    first = seccomp.program(PROFILE, str(tmp_path / "cache"))
    poisoned = only_file(tmp_path / "cache")
    poisoned.write_bytes(poisoned.read_bytes().replace(first, FALSE))
    (tmp_path / "cache").chmod(mode)
    assert seccomp.program(PROFILE, str(tmp_path / "cache")) == first
    assert len(compiled) == 2


def test_links_are_not_followed(tmp_path: pathlib.Path, compiled: list[Seccomp]) -> None:
    first = seccomp.program(PROFILE, str(tmp_path / "cache"))
    kept = only_file(tmp_path / "cache")
    kept.rename(tmp_path / "elsewhere")
    kept.symlink_to(tmp_path / "elsewhere")
    assert seccomp.program(PROFILE, str(tmp_path / "cache")) == first
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    assert seccomp.program(PROFILE, str(tmp_path / "link")) == first
    assert len(compiled) == 3
    assert not kept.is_symlink()


def test_a_fifo_does_not_hold_it_up(tmp_path: pathlib.Path, compiled: list[Seccomp]) -> None:
    seccomp.program(PROFILE, str(tmp_path / "cache"))
    kept = only_file(tmp_path / "cache")
    kept.unlink()
    os.mkfifo(kept)
    seccomp.program(PROFILE, str(tmp_path / "cache"))
    assert len(compiled) == 2


def test_what_is_kept_has_a_bound(tmp_path: pathlib.Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    for number in range(64):
        (cache / f"{number:08x}.bpf").touch()
    seccomp.program(PROFILE, str(cache))
    assert len(list(cache.iterdir())) == 1
    assert seccomp.program(PROFILE, "/dev/null/cache")  # Nowhere to keep it: compiled all the same.
