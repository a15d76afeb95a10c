"""Execs on the wire: one more process in a running container. Docker Engine API 1.24 to 1.51."""

from __future__ import annotations

import msgspec

from sampan.api.containers import APIStruct, words

__all__ = ["ExecCreateRequest", "ExecCreateResponse", "ExecInspect", "ExecProcess", "ExecStartRequest", "words"]


class ExecCreateRequest(APIStruct, frozen=True, kw_only=True):
    """`POST /containers/{id}/exec`."""

    user: str = ""
    privileged: bool = False
    tty: bool = False
    console_size: tuple[int, int] | None = None
    attach_stdin: bool = False
    attach_stderr: bool = False
    attach_stdout: bool = False
    detach: bool = False
    detach_keys: str = ""
    env: tuple[str, ...] | None = None
    working_dir: str = ""
    cmd: tuple[str, ...] | str | None = None


class ExecCreateResponse(APIStruct, frozen=True, kw_only=True):
    id: str


class ExecStartRequest(APIStruct, frozen=True, kw_only=True):
    """`POST /exec/{id}/start`. `console_size` is height and width."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[int, int] | None = None


class ExecProcess(msgspec.Struct, frozen=True, kw_only=True):
    tty: bool
    entrypoint: str
    arguments: tuple[str, ...]
    privileged: bool
    user: str | msgspec.UnsetType = msgspec.UNSET


class ExecInspect(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /exec/{id}/json`; `exit_code` is null until the process has ended."""

    id: str = msgspec.field(name="ID")
    running: bool = msgspec.field(name="Running")
    exit_code: int | None = msgspec.field(name="ExitCode")
    process_config: ExecProcess = msgspec.field(name="ProcessConfig")
    open_stdin: bool = msgspec.field(name="OpenStdin")
    open_stderr: bool = msgspec.field(name="OpenStderr")
    open_stdout: bool = msgspec.field(name="OpenStdout")
    can_remove: bool = msgspec.field(name="CanRemove")
    container_id: str = msgspec.field(name="ContainerID")
    detach_keys: bytes = msgspec.field(name="DetachKeys")
    pid: int = msgspec.field(name="Pid")
