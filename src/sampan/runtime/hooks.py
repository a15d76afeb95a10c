"""The hooks of config.json (runtime-spec config.md): programs of the engine's that run at six points of a container's
life.

Where each runs, and which container state it reads on its standard input::

    prestart, createRuntime   the runtime's process and namespaces   creating   mounts are made, the root is not changed
    createContainer           the container's namespaces             creating   the host's root still
    startContainer            the container's process                created    just before its program
    poststart                 the runtime's                          running
    poststop                  the runtime's                          stopped    after the removal; a failure only warns

`run` is called in the container's process too: it imports nothing.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Sequence
from typing import Literal

import msgspec

from sampan.errors import Internal, InvalidArgument, SampanError
from sampan.oci.runtime import OCI_VERSION, Hook, Hooks, State
from sampan.runtime import log

_MOST_OUTPUT = 4096
_STOPPED = (signal.SIGPIPE, signal.SIGXFSZ)
"""What Python ignores and a program expects at its default."""

Point = Literal["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
Status = Literal["creating", "created", "running", "stopped", "paused"]


class Subject(msgspec.Struct, frozen=True):
    """The container that the state tells of."""

    id: str
    bundle: str
    annotations: dict[str, str]

    def described(self, status: Status, pid: int) -> State:
        """`pid`: in the reader's namespace."""
        return State(
            oci_version=OCI_VERSION, id=self.id, status=status, pid=pid, bundle=self.bundle,
            annotations=self.annotations,
        )  # fmt: skip

    def state(self, status: Status, pid: int) -> bytes:
        """The same as a document."""
        return msgspec.json.encode(self.described(status, pid))


def check(hooks: Hooks | None) -> Hooks | None:
    """The hooks, if they can be run; None if there are none. Raises InvalidArgument."""
    if hooks is None:
        return None
    for name in hooks.__struct_fields__:
        for number, hook in enumerate(getattr(hooks, name)):
            if not hook.path.startswith("/"):
                raise InvalidArgument(f"hooks.{name}[{number}].path {hook.path!r} is not an absolute path")
            if hook.timeout is not None and hook.timeout <= 0:
                raise InvalidArgument(f"hooks.{name}[{number}].timeout must be greater than zero")
            if any("\0" in word for word in (hook.path, *hook.args, *hook.env)):
                raise InvalidArgument(f"hooks.{name}[{number}]: embedded null byte")
    return hooks if any(getattr(hooks, name) for name in hooks.__struct_fields__) else None


def at_creation(hooks: Hooks) -> bool:
    """Whether there are some to be run before the change of root."""
    return bool(hooks.prestart or hooks.create_runtime or hooks.create_container)


def run(point: Point, hooks: Sequence[Hook], state: bytes) -> None:
    """One after the other, each with the state on its standard input. Raises Internal at the first that fails."""
    for number, hook in enumerate(hooks):
        reason = _run(hook, state)
        if reason:
            raise Internal(f"error running {point} hook #{number}: {reason}")


def run_all(point: Point, hooks: Sequence[Hook], state: bytes) -> None:
    """All of them: one that fails is only warned of."""
    for hook in hooks:
        try:
            run(point, (hook,), state)
        except SampanError as error:
            log.warning(error.message)


def _run(hook: Hook, state: bytes) -> str:
    """Why it failed; empty if it did not."""
    # Files in memory, not pipes: nothing can block, and what the hook's own children keep open does not matter.
    streams = [os.memfd_create(f"hook-{name}", os.MFD_CLOEXEC) for name in ("state", "stdout", "stderr")]
    try:
        os.pwrite(streams[0], state, 0)
        actions = [(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(streams)]
        env = dict(entry.partition("=")[::2] for entry in hook.env)
        try:
            pid = os.posix_spawn(
                hook.path, hook.args or (hook.path,), env, file_actions=actions, setpgroup=0, setsigdef=_STOPPED,
                setsigmask=(),
            )  # fmt: skip
        except (OSError, ValueError) as error:
            return f"{hook.path}: {(getattr(error, 'strerror', None) or str(error)).lower()}"
        code = _wait(pid, hook.timeout)
        if code is None:
            return f"{hook.path}: timed out after {hook.timeout} s"
        if code == 0:
            return ""
        ended = f"exit status {code}" if code > 0 else f"signal {-code}"
        out, err = (os.pread(each, _MOST_OUTPUT, 0).decode("utf-8", "replace").strip() for each in streams[1:])
        return f"{ended}, stdout: {out}, stderr: {err}".replace("\n", "\\n")
    finally:
        for descriptor in streams:
            os.close(descriptor)


def _wait(pid: int, timeout: int | None) -> int | None:
    """The exit code, negative for a signal; None when the time was over and the hook was killed."""
    late = False
    if timeout is not None:
        pidfd = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        late = not poll.poll(timeout * 1000)
        os.close(pidfd)
        if late:
            os.killpg(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return None if late else code
