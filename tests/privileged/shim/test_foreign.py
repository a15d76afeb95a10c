"""A runtime that is driven by its command: what it is told, and what comes of one that misbehaves.

The runtimes here are scripts; the real ones are in tests/e2e/test_runtimes.py.
"""

from __future__ import annotations

import os
import pathlib
import signal
import time
from collections.abc import Iterator

import msgspec
import pytest

from sampan.errors import CommandNotFound, Internal, NotFound, SampanError
from sampan.linux import process
from sampan.oci.runtime import Capabilities, LinuxResources, Memory, Process, Root, Spec
from sampan.runtime.container import Stdio
from sampan.shim import foreign
from sampan.shim.foreign import ForeignContainer
from sampan.shimapi.messages import CleanUp, Create

pytestmark = pytest.mark.requires("root")

_CAPABILITIES = Capabilities(bounding=("CAP_CHOWN",))
_SCRIPT = """#!/bin/sh
# Notes its words and its standard input in DIR/words, and does what the test gives for the verb.
dir=%s
{ echo "$@"; cat; } >> $dir/words
verb= pids= log=
previous=
for word in "$@"; do
  case $previous in --log) log=$word;; --pid-file) pids=$word;; --process) cp $word $dir/process;; esac
  case $word in create|start|exec|kill|ps|update|delete) verb=${verb:-$word};; esac
  previous=$word
done
case $verb in
%s
esac
"""
_BEAR = 'sleep 60 >/dev/null 2>&1 & printf %s $! > "$pids"'


@pytest.fixture
def subreaper() -> Iterator[None]:
    """The test in the shim's place. What it leaves is ended."""
    before = _children()
    process.become_subreaper()
    yield
    process.prctl(process.PR_SET_CHILD_SUBREAPER, 0)
    for pid in _children() - before:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _children() -> set[int]:
    return set(map(int, pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


class Lab:
    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        (directory / "bundle").mkdir()
        spec = Spec(oci_version="1.0.2", root=Root(path="/"), process=Process(cwd="/", capabilities=_CAPABILITIES))
        (directory / "bundle/config.json").write_bytes(msgspec.json.encode(spec))

    def create(self, terminal: bool = False, **verbs: str) -> ForeignContainer:
        """`verbs`: a line of shell for each."""
        script = self.directory / "runtime"
        script.write_text(_SCRIPT % (self.directory, "\n".join(f"{verb}) {line};;" for verb, line in verbs.items())))
        script.chmod(0o755)
        create = Create(
            id="box", bundle=f"{self.directory}/bundle", state_root=f"{self.directory}/root",
            run_dir=str(self.directory), exit_path="/nowhere", runtime=(str(script), "--first"), terminal=terminal,
        )  # fmt: skip
        return ForeignContainer.create(create, Stdio(), (80, 25))

    @property
    def words(self) -> list[str]:
        """The runs of the command, without what comes before the verb, and what it read."""
        before = f"--first --root {self.directory}/root --log {self.directory}/runtime.log --log-format json "
        return [line.replace(before, "") for line in (self.directory / "words").read_text().splitlines()]


@pytest.fixture
def lab(short_dir: pathlib.Path) -> Lab:
    return Lab(short_dir)


@pytest.mark.usefixtures("subreaper")
def test_what_the_command_is_told(lab: Lab) -> None:
    at = lab.directory
    container = lab.create(create=_BEAR, exec=_BEAR, ps="echo '[1, 2]'")
    assert os.stat(f"{at}/root").st_mode & 0o777 == 0o700
    container.start()
    executed = container.exec(Process(cwd="/tmp", args=("true",)), Stdio())
    assert msgspec.json.decode((at / "process").read_bytes(), type=Process).capabilities == _CAPABILITIES
    container.kill(signal.SIGTERM)
    container.kill(signal.SIGKILL, all=True)
    assert container.pids() == [1, 2]
    container.update(LinuxResources(memory=Memory(limit=5)))
    container.delete()
    container.delete(force=True)
    assert lab.words == [
        f"create --bundle {at}/bundle --pid-file {at}/runtime.pid box", "start box",
        f"exec --process {at}/exec.json --detach --pid-file {at}/runtime.pid box", "kill box 15", "kill --all box 9",
        "ps --format json box", "update --resources - box", '{"memory":{"limit":5}}delete box', "delete --force box",
    ]  # fmt: skip
    assert container.pid != executed.pid
    os.close(executed.pidfd)
    for pid in (container.pid, executed.pid):
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[0] == pid
    assert sorted(os.listdir(at)) == ["bundle", "process", "root", "runtime", "words"]


@pytest.mark.usefixtures("subreaper")
def test_the_command_ignores_no_signal(lab: Lab) -> None:
    ignored = "grep -q '^SigIgn:.0000000000000000$' /proc/self/status && echo '[]'"
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        container = lab.create(create=_BEAR, ps=ignored)
        assert container.pids() == []
    finally:
        signal.signal(signal.SIGTERM, previous)


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        (
            """echo '{"level":"error","msg":"first"}\n{"level":"error","msg":"exec: \\"x\\": executable file not """
            """found in $PATH"}\n{"level":"warning","msg":"last"}\nno json' > "$log"; exit 1""",
            CommandNotFound, 'exec: "x": executable file not found in $PATH',
        ),
        ("echo one >&2; echo two >&2; exit 1", Internal, "two"),
        ("exit 7", Internal, "the runtime failed without a word: exit status 7"),
        ("kill -9 $$", Internal, "the runtime failed without a word: killed by signal 9"),
        ("exit 0", Internal, "the runtime wrote no pid file"),
        ('echo x > "$pids"', Internal, "the runtime wrote no pid file"),
    ],
)  # fmt: skip
def test_a_create_that_fails(lab: Lab, line: str, kind: type[SampanError], message: str) -> None:
    with pytest.raises(kind) as caught:
        lab.create(create=line)
    assert caught.value.message.startswith(message)
    # Whatever the runtime has made by then, it is told to forget.
    assert lab.words[-1] == "delete --force box"
    assert not (lab.directory / "runtime.pid").exists()


def test_a_terminal_that_does_not_come(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "_TERMINAL_PATIENCE", 0.2)
    with pytest.raises(Internal, match="sent no terminal"):
        lab.create(terminal=True, create="true")
    assert lab.words[-1] == "delete --force box"
    assert not (lab.directory / "pty.sock").exists()


def test_a_command_that_hangs_is_killed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "_PATIENCE", 0.3)
    began = time.monotonic()
    with pytest.raises(Internal, match=r"did not end within 0.3 seconds"):
        lab.create(create="exec sleep 3210")
    assert time.monotonic() - began < 5
    lines = [path.read_bytes() for path in pathlib.Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert b"sleep\x003210\x00" not in lines


@pytest.mark.usefixtures("subreaper")
def test_a_process_that_cannot_be_started_does_not_stay(lab: Lab) -> None:
    container = lab.create(create=_BEAR, start='echo \'{"level":"error","msg":"no"}\' > "$log"; exit 1')
    with pytest.raises(Internal, match="no"):
        container.start()
    assert os.waitstatus_to_exitcode(os.waitpid(container.pid, 0)[1]) == -signal.SIGKILL


@pytest.mark.usefixtures("subreaper")
def test_who_is_gone_is_not_found(lab: Lab) -> None:
    container = lab.create(create=_BEAR, kill="echo 'container not running' >&2; exit 1")
    with pytest.raises(NotFound):
        container.kill(signal.SIGTERM)


def test_a_program_that_is_not_there(lab: Lab) -> None:
    with pytest.raises(Internal, match="runtime /nowhere: no such file or directory"):
        foreign.clean_up(
            CleanUp(id="box", runtime=("/nowhere",), state_root="/nowhere", run_dir=str(lab.directory))
        )  # fmt: skip
