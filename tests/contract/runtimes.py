"""The runtimes under test, and where they differ from each other.

What every runtime does alike is asserted plainly. Where runc and crun differ, the difference has a name and a reason in
`QUIRKS`, and the test that meets it asserts both behaviours. Ours does then as the better of the two.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence

QUIRKS: dict[str, dict[str, str]] = {
    "runc": {
        "wrapped-user": "a user id is taken modulo 2**32",
        "exec-rereads": "`exec` takes what it is not told from the bundle's config.json of the moment",
        "half-grouped": "a hierarchy that has no group of that name is done without",
        "negative-fds": "a negative number of descriptors to pass on is none",
        "killed-leaves": "a create that was killed leaves what delete --force does not know of",
        "late-size": "a terminal in the foreground gets the caller's size when the program runs already",
        "create-race": "of two creates of one id both can fail, or one removes what the other has made",
        "any-version": "ociVersion is not looked at",
        "poststart-early": "poststart hooks run at the end of `create`, and their failure is its",
        "copies-links": "tmpcopyup makes files of their own of hard links",
        "no-linked-root": "a root that is a link is refused",
        "any-device": "what lies where a device is to be is left there",
        "no-unbindable": "rootfsPropagation unbindable fails",
    },
    "crun": {
        "state-rootfs": "the state's rootfs is as the configuration says, not absolute",
        "no-events": "there is no `events` command",
        "unknown-signal": "a name that is not known, or not in upper case, is taken for signal 0",
        "created-holds-signals": "the init of a created container blocks signals, so that only SIGKILL ends it",
        "zombie-runs": "a process that has ended counts as running until it is reaped",
        "pause-again": "pausing a paused container and resuming a running one succeeds",
        "paused-is-created": "a created container that is paused shows as created",
        "no-keep": "`run` has no --keep",
        "keyring-name": "the session keyring's name is the id, without _ses. before it",
        "listen-pid-alone": "of LISTEN_PID and LISTEN_FDS only the first is set",
        "create-race-words": "of two creates of one id the one that fails does not say in every case why",
        "no-size": "a terminal in the foreground does not take over the caller's size",
        "missing-descriptors": "--preserve-fds counts descriptors that are not there",
        "exec-new-privileges": "`exec` forgets the container's noNewPrivileges",
        "exec-left": "the process of an `exec` that fails by its pid file runs on",
        "ps-of-pids": "`ps` prints a table of pids, and takes no options of ps(1)",
        "ps-crashes": "`ps` of a stopped container ends in a segmentation fault",
        "rootless-spec": "`spec --rootless` maps no ids and has a network namespace",
        "no-features": "there is no `features` command",
        "no-help-command": "there is --help, but no `help`",
        "plain-numbers": "`update` takes sizes without units, and no -1 for no limit",
        "update-of-nothing": "updating a stopped container succeeds and does nothing",
        "lax-types": "members of a wrong type count as absent",
        "poststart-at-once": "poststart hooks do not wait for startContainer hooks",
        "poststart-warns": "a failing poststart hook is only warned of",
        "hook-status": "hooks are told `created` while the container is being created, and `starting`",
        "hook-pid-0": "hooks in the container's namespaces are told pid 0",
        "hook-in-bundle": "createContainer hooks run in the bundle, not in its root",
        "no-poststop": "poststop hooks do not run for a create that failed",
        "hook-unheard": "what hooks write is lost",
        "version-1.0": "an ociVersion other than 1.0's is refused",
        "found-as-root": "the program is looked for before the user is changed",
        "cgroup-out": "a cgroupsPath with .. makes directories outside of the cgroups",
        "half-grouped": "what follows a null byte is cut off",
        "groups-left": "a create that fails by a cgroup or a limit leaves cgroups",
        "any-id": "ids are not checked: `~`, `a b` and `a@b` are good, and `a/b` is a directory's path",
        "unparsed-numbers": "--preserve-fds takes what is no number for 0",
        "usage-unlogged": "what is wrong with the arguments is not logged",
        "no-debug": "--debug adds no records",
        "zero-limits": "a limit of 0 is a limit",
        "killed-leaves": "a create that was killed leaves what delete --force does not know of",
        "no-additional-gids": "`exec` has no --additional-gids",
        "env-replaced": "`exec --env` replaces the container's environment",
        "cap-replaced": "`exec --cap` replaces the container's capabilities",
        "lax-user": "what follows a user's number is not looked at",
        "wrapped-user": "a user id is taken modulo 2**32",
        "no-ignore-paused": "`exec` has no --ignore-paused",
        "copies-links": "tmpcopyup makes files of their own of hard links",
        "tmpfs-mode": "a tmpfs does not have the mode of the directory that it covers",
        "any-device": "what lies where a device is to be is left there",
        "proc-at-root": "proc and sysfs go to directories of the root only",
        "kill-leaves-frozen": "a paused container that is killed dies when it is resumed",
    },
    "sampan": {
        "hook-in-bundle": "createContainer hooks run in the bundle, as crun's: no specification says where",
    },
}
"""By runtime: name and reason. Those of runc and crun are of Debian 12's versions, 1.1.5 and 1.8.1."""

_HYBRID = "/sys/fs/cgroup/unified"


class Runtime:
    """An implementation of the command line: how it is called, and where it differs."""

    def __init__(self, name: str, *program: str, mounts: int | None = None) -> None:
        """`mounts`: a process whose mount namespace it runs in."""
        self.name = name
        self.program = program
        self.mounts = mounts
        self._quirks = QUIRKS[name]

    def __repr__(self) -> str:
        return self.name

    def argv(self, directory: str) -> list[str]:
        """What stands before the runtime's own arguments, to run it in `directory`."""
        if self.mounts is None:
            return [*self.program]
        # A directory that was opened before the namespace is entered belongs to the namespace that is left.
        return ["nsenter", f"--mount=/proc/{self.mounts}/ns/mnt", f"--wdns={directory}", *self.program]

    def differs(self, name: str) -> bool:
        """Whether it has the quirk, which one of the runtimes must have."""
        assert any(name in quirks for quirks in QUIRKS.values()), f"{name!r} is not in QUIRKS"
        return name in self._quirks

    def namespace(self, kind: str) -> str:
        """The namespace that the runtime itself runs in, as readlink(1) shows it."""
        return os.readlink(f"/proc/{self.mounts if kind == 'mnt' and self.mounts else 'self'}/ns/{kind}")

    def mountinfo(self) -> str:
        """The mounts that the runtime itself sees."""
        return pathlib.Path(f"/proc/{self.mounts or 'self'}/mountinfo").read_text()


@contextlib.contextmanager
def opened(name: str) -> Iterator[Runtime]:
    """The runtime of that name, ready to be called."""
    if name == "sampan":
        script = pathlib.Path(sys.executable).with_name("sampan-runtime")
        yield Runtime(name, str(script)) if script.exists() else Runtime(name, sys.executable, "-m", "sampan.runtime")
        return
    program = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    assert program is not None, f"{name} is not installed"
    if name != "crun" or not os.path.ismount(_HYBRID):
        yield Runtime(name, program)
        return
    # crun 1.8 refuses a machine with both cgroup versions: it gets a mount namespace without the second. The process
    # that holds it ends with its standard input, so with these tests, however they end.
    holder = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f"umount {_HYBRID} && echo ready && exec cat"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        yield Runtime(name, program, mounts=holder.pid)


def children() -> list[int]:
    """This process's children, orphans that it inherited as a subreaper included."""
    found = pathlib.Path("/proc/self/task").glob("*/children")
    return [int(pid) for each in found for pid in each.read_text().split()]


def reap_all(but: Sequence[int] = ()) -> None:
    """Collect what has ended."""
    for pid in children():
        if pid not in but:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
