"""Engine, spawner or shim killed at random instants and at every named stage: what a next engine finds.

    python -m tests.e2e.survival 1000 [SEED]        kill so many times, and tell at the end what was done

Some containers are witnesses, and must come through everything: one counts in its log, one has ended, one has a volume.
Each round does one thing with a container of its own while somebody is killed, and then looks: the engine answers, the
witnesses are as they were, the container is as it was or as was asked, and when it is removed nothing of it is left.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from sampan.client.client import Client, parse_host
from sampan.errors import SampanError
from sampan.faults import VARIABLE
from tests.e2e.conftest import Engine
from tests.e2e.test_save_load import layer

_BROKEN = (SampanError, ConnectionError, OSError)
_GROUPS = pathlib.Path("/sys/fs/cgroup")
_PATIENCE = 20.0
_REST = 4.0
_SLEEPS = ("sh", "-c", "echo first; sleep 600")
_ENDS = ("sh", "-c", "echo first; sleep 0.1; echo last; exit 9")


class Registry:
    """Just enough of one: every name is an image of random layers."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._manifests: dict[str, bytes] = {}
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                kind, _, reference = self.path.rpartition("/")
                where = registry._manifests if kind.endswith("/manifests") else registry._blobs
                body = where.get(reference, b"")
                found = bool(body) or self.path == "/v2/"
                self.send_response(200 if found else 404)
                if kind.endswith("/manifests"):
                    self.send_header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
                    self.send_header("Docker-Content-Digest", registry._digest(body))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # The engine was killed.
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @staticmethod
    def _digest(data: bytes) -> str:
        return f"sha256:{hashlib.sha256(data).hexdigest()}"

    def _blob(self, data: bytes, kind: str) -> dict[str, object]:
        self._blobs[self._digest(data)] = data
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": self._digest(data), "size": len(data)}

    def image(self, tag: str) -> None:
        self._blobs.clear()
        self._manifests.clear()
        tars = [layer(**{f"file{number}": os.urandom(100_000)}) for number in range(3)]
        config = {
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["true"]},
            "rootfs": {"type": "layers", "diff_ids": [self._digest(each) for each in tars]},
        }  # fmt: skip
        manifest = {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self._blob(json.dumps(config).encode(), "config.v1+json"),
            "layers": [self._blob(each, "layer.v1.tar") for each in tars],
        }  # fmt: skip
        data = json.dumps(manifest).encode()
        self._manifests |= {tag: data, self._digest(data): data}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Broken(AssertionError):
    """What was not as it should be."""


def _check(condition: object, what: str) -> None:
    if not condition:
        raise Broken(what)


class Harness:
    """An engine, its witnesses, and one operation with one kill after the other."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="smp", dir="/tmp"))
        self.fault = self.directory / "fault"
        os.environ[VARIABLE] = str(self.fault)
        self.engine = Engine(self.directory)
        self.registry = Registry()
        self.done: Counter[str] = Counter()
        self.kills = 0
        self.engine.start()
        self.engine.load_box()
        self.engine.client.call("POST", "/volumes/create", {"Name": "kept"})
        self.counts = self._run("counts", "sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.1; done")
        self.over = self._run("over", "sh", "-c", "echo said; exit 7")
        self.holds = self._run("holds", "sh", "-c", "echo kept >/kept/file; exec sleep 100000", binds=["kept:/kept"])
        self._call("POST", f"/containers/{self.over}/wait")
        # Something of everything has been done once: what is kept from then on is what is always kept.
        self.round("end", lambda: None)
        self.round("exec", lambda: None)
        self.pids = {name: self._inspect(name)["State"]["Pid"] for name in (self.counts, self.holds)}
        self.before = self._at_rest()

    def close(self) -> None:
        os.environ.pop(VARIABLE, None)
        with contextlib.suppress(*_BROKEN):
            self.engine.remove_containers()
            for each in self._call("GET", "/containers/json", all=True):
                self._call("DELETE", f"/containers/{each['Id']}", force=True)
        with contextlib.suppress(Exception):
            self.engine.stop()
        self.engine.take_down()
        self.registry.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    # --- Asking the engine -------------------------------------------------------------------------

    def _call(self, method: str, path: str, body: object = None, **query: object) -> Any:
        return self.engine.client.call(method, path, body, **query)  # type: ignore[arg-type]

    def _run(self, name: str, *command: str, binds: list[str] | None = None) -> str:
        container = self._create(name, *command, Binds=binds)
        self._call("POST", f"/containers/{container}/start")
        return container

    def _create(self, name: str, *command: str, **host: Any) -> str:
        body = {"Image": "box", "Cmd": list(command), "HostConfig": {"NetworkMode": "none", **host}}
        return str(self._call("POST", "/containers/create", body, name=name)["Id"])

    def _inspect(self, name: str) -> Any:
        try:
            return self._call("GET", f"/containers/{name}/json")
        except SampanError:
            return None

    def _log(self, name: str) -> list[str]:
        with contextlib.closing(self.engine.client.stream("GET", f"/containers/{name}/logs?stdout=1")) as answer:
            data = b"".join(answer.chunks())
        lines = []
        while data:
            size = int.from_bytes(data[4:8], "big")
            lines.append(data[8 : 8 + size].decode().rstrip("\n"))
            data = data[8 + size :]
        return lines

    # --- What there is -----------------------------------------------------------------------------

    def _processes(self) -> dict[int, str]:
        """Engine, spawner, shims and what is forked ahead, by pid: they alone have this in their environment."""
        mark = f"{VARIABLE}={self.fault}".encode()
        found = {}
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                    if state not in "ZX":
                        found[int(entry.name)] = (entry / "comm").read_text().strip()
        found.pop(os.getpid(), None)
        return found

    def _held(self) -> dict[str, object]:
        """All that could leak, as counts and names; but for what a witness has."""
        root = str(self.directory)
        with open("/proc/self/mountinfo") as table:
            mounts = sorted(line.split()[4] for line in table if root in line)
        processes = Counter(self._processes().values())
        suffix = self.engine.paths.bridge
        rules = subprocess.run(
            ["nft", "list", "table", "ip", self.engine.paths.table], capture_output=True, text=True, check=False
        )  # fmt: skip
        links = [each for each in os.listdir("/sys/class/net") if each.startswith(suffix)]
        groups = {
            str(path.relative_to(_GROUPS)): 1
            for parent in _GROUPS.glob("*/sampan")
            for path in parent.iterdir()
            if path.is_dir() and path.name in self._known()
        }
        return {
            "mounts": len(mounts), "pins": len(os.listdir(self.engine.paths.netns)),
            "processes": {name: number for name, number in processes.items() if name.startswith("sampan")},
            "links": len(links), "rules": len(rules.stdout.splitlines()), "groups": len(groups),
            "shims": sorted(os.listdir(self.engine.paths.shims)),
            "runtime": sorted(os.listdir(self.engine.paths.runtime)),
            "containers": sorted(os.listdir(self.engine.paths.containers)),
            "layers": len(os.listdir(self.engine.paths.overlay2)), "blobs": self._files("content"),
            "volumes": sorted(os.listdir(self.engine.paths.volumes)),
            "descriptors": {
                name: len(os.listdir(f"/proc/{pid}/fd"))
                for pid, name in self._processes().items() if name == "sampan-spawner"
            },
        }  # fmt: skip

    def _at_rest(self) -> dict[str, object]:
        """When nothing has changed for a while."""
        held, since = self._held(), time.monotonic()
        while time.monotonic() - since < _REST:
            time.sleep(0.1)
            if (now := self._held()) != held:
                held, since = now, time.monotonic()
        return held

    def _files(self, name: str) -> int:
        return sum(len(files) for _, _, files in os.walk(f"{self.engine.paths.data_root}/{name}"))

    def _known(self) -> set[str]:
        """Every container that this engine has had."""
        return self._seen | {self.counts, self.over, self.holds}

    _seen: set[str] = set()  # noqa: RUF012 - one harness a process

    def _is_less(self) -> bool:
        """Whether processes are gone that were there, for a moment at least."""
        for _ in range(10):
            now, before = Counter(self._processes().values()), self.before["processes"]
            assert isinstance(before, dict)
            if all(now[name] >= number for name, number in before.items()):
                return False
            time.sleep(0.03)
        return True

    def settle(self, what: str) -> None:
        """Wait for what goes on in the background, and say what is left then."""
        deadline = time.monotonic() + _PATIENCE
        while (held := self._held()) != self.before:
            if time.monotonic() > deadline:
                different = {name: (self.before[name], held[name]) for name in held if held[name] != self.before[name]}
                raise Broken(f"{what}: left over: {different}")
            time.sleep(0.05)

    # --- One round ---------------------------------------------------------------------------------

    def round(self, operation: str, kill: Callable[[], str | None], stage: str = "") -> None:
        """Do it while `kill` kills somebody (it says whom), then look, and remove what was made. `stage`: who comes by
        that dies."""
        prepare, act, judge = OPERATIONS[operation]
        self.container = prepare(self)
        if self.container:
            self._seen.add(self.container)
        if stage:
            self.fault.write_text(stage)
        acting = threading.Thread(target=self._act, args=(act,))
        acting.start()
        victim = kill()
        acting.join(_PATIENCE)
        _check(not acting.is_alive(), f"{operation}: the client still waits for its answer")
        if victim is not None:
            self.kills += 1
        self.revive(victim)
        self.done[f"{operation}, {victim}"] += 1
        what = f"{operation}, {victim} killed"
        self.witnesses(what)
        judge(self, victim, what)
        self.clear(what)

    def _act(self, act: Callable[[Harness, Client], object]) -> None:
        client = Client(parse_host(self.engine.host))
        try:
            act(self, client)
        except _BROKEN:
            pass
        finally:
            client.close()

    def revive(self, victim: str | None) -> None:
        """A next engine, if that one is dead."""
        process = self.engine._process
        assert process is not None
        if victim is not None and not victim.startswith(("shim", "spawner", "maker")):
            process.wait(_PATIENCE)
            if self.engine._client is not None:
                self.engine._client.close()
                self.engine._client = None
            self.engine.start()

    @property
    def fault_struck(self) -> bool:
        return not self.fault.exists()

    def witnesses(self, what: str) -> None:
        for name, pid in getattr(self, "pids", {}).items():
            state = self._inspect(name)["State"]
            _check(state["Running"] and state["Pid"] == pid, f"{what}: a witness is {state}")
        state = self._inspect(self.over)["State"]
        _check((state["Status"], state["ExitCode"]) == ("exited", 7), f"{what}: what had ended is {state}")

    def thorough(self) -> None:
        """What takes longer to look at."""
        self.settle("in the end")
        lines = self._log(self.counts)
        _check(lines == [str(number) for number in range(len(lines))] and lines, "a line of the log is lost")
        _check(self._log(self.over) == ["said"], "the log of what had ended is another one")
        kept = self._call("GET", "/volumes/kept")["Mountpoint"]
        _check(pathlib.Path(kept, "file").read_text() == "kept\n", "a file of the volume's is lost")

    def clear(self, what: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.fault.unlink()
        for each in self._call("GET", "/containers/json", all=True):
            if each["Id"] not in (self.counts, self.over, self.holds):
                self._seen.add(each["Id"])
                begun = time.monotonic()
                with contextlib.suppress(SampanError):  # It may be removing itself.
                    self._call("DELETE", f"/containers/{each['Id']}", force=True, v=True)
                _check(time.monotonic() - begun < 10, f"{what}: to remove it takes {time.monotonic() - begun:.1f} s")
        for image in self._call("GET", "/images/json"):
            if not any(tag.startswith("box") for tag in image["RepoTags"] or ()):
                self._call("DELETE", f"/images/{image['Id']}", force=True)
        if hasattr(self, "before") and self._is_less():
            # A spawner, or what it had forked ahead: the next start brings it back.
            again = self._run("again", "true")
            self._call("POST", f"/containers/{again}/wait")
            self._call("DELETE", f"/containers/{again}", force=True)
        if hasattr(self, "before"):
            self.settle(what)

    # --- Killing -----------------------------------------------------------------------------------

    def victims(self, kind: str) -> list[int]:
        if kind == "engine":
            return [self.engine.pid]
        processes = self._processes()
        kept = {self._parent(pid) for pid in getattr(self, "pids", {}).values()}
        return [pid for pid, name in processes.items() if name == f"sampan-{kind}" and pid not in kept]

    @staticmethod
    def _parent(pid: int) -> int:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

    def at_random(self) -> str | None:
        """After a random moment, one of the processes."""
        kind = self.chance.choice(("engine", "engine", "spawner", "shim"))
        time.sleep(self.chance.uniform(0, 0.12))
        with contextlib.suppress(OSError, IndexError):
            os.kill(self.chance.choice(self.victims(kind)), signal.SIGKILL)
            return kind
        return None

    def at_stage(self, stage: str) -> str | None:
        deadline = time.monotonic() + 3
        while not self.fault_struck and time.monotonic() < deadline:
            time.sleep(0.005)
        return stage if self.fault_struck else None


# --- The operations: what is there before, what is done, and how it may be then --------------------------


def _status(harness: Harness) -> Any:
    found = harness._inspect(harness.container)
    return found["State"] if found else None


def _expect(harness: Harness, what: str, *allowed: str) -> Any:
    """`absent`, or one of Docker's states. One that runs must be usable."""
    state = _status(harness)
    status = state["Status"] if state else "absent"
    _check(status in allowed, f"{what}: it is {status}, not {allowed}: {state}")
    if status == "running":
        _usable(harness, what)
    return state


def _usable(harness: Harness, what: str) -> None:
    """An exec works in it. Its shim may have been killed this very moment: then it is seen not to run."""
    try:
        made = harness._call("POST", f"/containers/{harness.container}/exec", {"Cmd": ["true"]})["Id"]
        harness._call("POST", f"/exec/{made}/start", {"Detach": True})
        deadline = time.monotonic() + _PATIENCE
        while (found := harness._call("GET", f"/exec/{made}/json"))["ExitCode"] is None:
            _check(time.monotonic() < deadline, f"{what}: an exec does not end")
            time.sleep(0.01)
        _check(found["ExitCode"] == 0, f"{what}: an exec ends with {found['ExitCode']}")
    except SampanError as error:
        state = _status(harness)
        _check(state and state["Status"] != "running", f"{what}: it runs, and an exec is refused: {error.message}")


def _made(command: tuple[str, ...], **host: Any) -> Callable[[Harness], str]:
    return lambda harness: harness._create("", *command, **host)


def _running(command: tuple[str, ...] = _SLEEPS, **host: Any) -> Callable[[Harness], str]:
    def prepare(harness: Harness) -> str:
        container = harness._create("", *command, **host)
        harness._call("POST", f"/containers/{container}/start")
        return container

    return prepare


def _post(path: str, **query: object) -> Callable[[Harness, Client], object]:
    return lambda harness, client: client.call("POST", f"/containers/{harness.container}/{path}", **query)  # type: ignore[arg-type]


def _do_create(harness: Harness, client: Client) -> None:
    body = {"Image": "box", "Cmd": list(_SLEEPS), "HostConfig": {"Binds": ["/anonymous"]}}
    harness.container = "made"
    client.call("POST", "/containers/create", body, name="made")


def _do_exec(harness: Harness, client: Client) -> None:
    made = client.call("POST", f"/containers/{harness.container}/exec", {"Cmd": ["true"]})["Id"]
    client.call("POST", f"/exec/{made}/start", {"Detach": True})


def _do_attach(harness: Harness, client: Client) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        connection.connect(harness.engine.paths.socket)
        head = f"POST /containers/{harness.container}/attach?stream=1&stdout=1&stdin=1 HTTP/1.1\r\n"
        connection.sendall(f"{head}Host: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode())
        connection.recv(1000)
        connection.sendall(b"word\n")
        with contextlib.suppress(TimeoutError):
            while b"got word" not in connection.recv(1000):
                pass


def _do_pull(harness: Harness, client: Client) -> None:
    harness.registry.image("1")
    for message in client.messages("POST", "/images/create", fromImage=f"{harness.registry.address}/pulled", tag="1"):
        _check("error" not in message, f"pull: {message}")


def _is_created(harness: Harness, victim: str | None, what: str) -> None:
    _expect(harness, what, "created") if victim is None else _expect(harness, what, "absent", "created")


def _is_started(harness: Harness, victim: str | None, what: str) -> None:
    if victim is None:
        _expect(harness, what, "running")
        return
    state = _expect(harness, what, "created", "running", "exited")
    if state["Status"] == "exited":
        _check(state["ExitCode"] in (137, 255), f"{what}: {state}")


def _goes_on(harness: Harness, victim: str | None, what: str) -> None:
    """Unless its own shim was killed, and then the end is known."""
    if victim is not None and victim.startswith("shim"):
        state = _expect(harness, what, "running", "exited")
        if state["Status"] == "exited":
            _check((state["ExitCode"], state["Error"]) == (137, "the shim has died"), f"{what}: {state}")
        return
    _expect(harness, what, "running")


def _is_over(harness: Harness, victim: str | None, what: str) -> None:
    """It runs to its end, whoever is killed, and what it said and how it ended is known."""
    by_shim = victim is not None and victim.startswith(("shim", "spawner", "maker"))
    deadline = time.monotonic() + _PATIENCE
    while (state := _status(harness)) and state["Status"] == "running" and time.monotonic() < deadline:
        time.sleep(0.02)
    _check(state is not None, f"{what}: it is not there")
    if state["Status"] == "created":
        _check(victim is not None, f"{what}: it was not started")
        return
    _check(state["Status"] == "exited", f"{what}: {state}")
    if state["ExitCode"] == 9:
        _check(harness._log(harness.container) == ["first", "last"], f"{what}: its log is cut")
    else:
        _check(by_shim and state["ExitCode"] in (137, 255), f"{what}: {state}")


def _is_stopped(harness: Harness, victim: str | None, what: str) -> None:
    state = _expect(harness, what, "exited") if victim is None else _expect(harness, what, "running", "exited")
    if state["Status"] == "exited":
        _check(state["ExitCode"] in (137, 143, 255), f"{what}: {state}")


def _is_gone(harness: Harness, victim: str | None, what: str) -> None:
    if victim is None:
        _expect(harness, what, "absent")
        return
    _expect(harness, what, "absent", "running", "exited")


def _removes_itself(harness: Harness, victim: str | None, what: str) -> None:
    """If it was started at all."""
    deadline = time.monotonic() + _PATIENCE
    while (state := _status(harness)) and state["Status"] != "created" and time.monotonic() < deadline:
        time.sleep(0.02)
    _expect(harness, what, "absent") if victim is None else _expect(harness, what, "absent", "created")


def _is_restarted(harness: Harness, victim: str | None, what: str) -> None:
    _expect(harness, what, "running") if victim is None else _expect(harness, what, "running", "exited")


def _comes_again(harness: Harness, victim: str | None, what: str) -> None:
    """Restart policy `always`, whatever was killed: it runs again, soon."""
    deadline = time.monotonic() + _PATIENCE
    before = _status(harness)["StartedAt"]
    while (state := _status(harness))["StartedAt"] == before and time.monotonic() < deadline:
        time.sleep(0.05)
    _check(state["StartedAt"] != before, f"{what}: it is not started again: {state}")


def _is_pulled(harness: Harness, victim: str | None, what: str) -> None:
    """Whatever is there is whole: pulled once more, it comes to the same."""
    images = harness._call("GET", "/images/json")
    _check(victim is not None or len(images) == 2, f"{what}: {images}")
    list(
        harness.engine.client.messages(
            "POST", "/images/create", fromImage=f"{harness.registry.address}/pulled", tag="1"
        )
    )  # fmt: skip
    container = harness._create("", "true")
    harness._call("DELETE", f"/containers/{container}")
    _check(len(harness._call("GET", "/images/json")) == 2, f"{what}: pulled again, it is not there")


Step = tuple[
    Callable[[Harness], str], Callable[[Harness, Client], object], Callable[[Harness, "str | None", str], None]
]
_READS = ("sh", "-c", "while read word; do echo got $word; done; sleep 600")
OPERATIONS: dict[str, Step] = {
    "create": (lambda _: "", _do_create, _is_created),
    "start": (_made(_SLEEPS, NetworkMode="bridge"), _post("start"), _is_started),
    "end": (_made(_ENDS), _post("start"), _is_over),
    "end, --rm": (_made(_ENDS, AutoRemove=True), _post("start"), _removes_itself),
    "exec": (_running(), _do_exec, _goes_on),
    "attach": (_running(_READS), _do_attach, _goes_on),
    "stop": (_running(NetworkMode="bridge"), _post("stop", t=0), _is_stopped),
    "restart": (_running(), _post("restart", t=0), _is_restarted),
    "remove": (
        _running(NetworkMode="bridge"),
        lambda harness, client: client.call("DELETE", f"/containers/{harness.container}", force=True), _is_gone,
    ),
    "comes again": (
        _running(("sh", "-c", "sleep 0.2"), RestartPolicy={"Name": "always"}), lambda harness, client: None,
        _comes_again,
    ),
    "pull": (lambda _: "", _do_pull, _is_pulled),
}  # fmt: skip

STAGES = {
    "create": ("create.layer", "create.bundle", "create.filled", "create.recorded"),
    "start": (
        "spawner.unshared", "start.network", "start.ports", "start.files", "start.spawned", "start.known",
        "spawner.asked", "spawner.handed", "maker.made", "shim.asked", "shim.created", "shim.started", "shim.answered",
    ),
    "end": ("start.spawned", "shim.ended", "shim.recorded", "shim.told", "end.heard", "end.given-back"),
    "end, --rm": ("shim.recorded", "end.heard", "end.given-back", "remove.forgotten", "remove.row"),
    "exec": ("exec.asked", "exec.started", "shim.exec"),
    "attach": ("attach.taken", "shim.attach"),
    "stop": ("stop.signalled", "shim.ended", "shim.recorded", "end.heard"),
    "restart": ("stop.signalled", "restart.stopped", "start.spawned", "shim.created"),
    "remove": (
        "stop.signalled", "remove.stopped", "remove.released", "remove.forgotten", "remove.files", "remove.row",
        "remove.discarding",
    ),
    "comes again": ("shim.ended", "shim.recorded", "shim.told", "shim.restarting", "shim.created", "shim.started"),
    "pull": ("pull.announced", "pull.unpacked", "pull.named"),
}  # fmt: skip
"""Every stage, and an operation that comes by it."""
_SELDOM = frozenset({"shim.created", "shim.started", "spawner.unshared"})
"""Where it depends on what is forked ahead who comes by."""


def at(harness: Harness, operation: str, stage: str) -> None:
    """Kill whoever comes by the stage. Raises Broken if nobody does."""
    kills = harness.kills
    harness.round(operation, functools.partial(harness.at_stage, stage), stage)
    _check(harness.kills > kills or stage in _SELDOM, f"{operation} does not come by {stage}")


def staged(harness: Harness) -> Iterator[str]:
    """Kill at each stage once; yields what was done."""
    for operation, stages in STAGES.items():
        for stage in stages:
            at(harness, operation, stage)
            yield f"{operation}, {stage}"


def at_random(harness: Harness, kills: int) -> Iterator[str]:
    names = list(OPERATIONS)
    while harness.kills < kills:
        operation = harness.chance.choice(names)
        harness.round(operation, harness.at_random)
        yield operation


def main(kills: int, seed: int) -> None:
    print(f"seed {seed}")
    begun = time.monotonic()
    harness = Harness(seed)
    try:
        for number, _ in enumerate(staged(harness)):
            if number % 10 == 0:
                print(f"{harness.kills} kills, {time.monotonic() - begun:.0f} s", flush=True)
        harness.thorough()
        for number, _ in enumerate(at_random(harness, kills)):
            if number % 50 == 0:
                harness.thorough()
                print(f"{harness.kills} kills, {time.monotonic() - begun:.0f} s", flush=True)
        harness.thorough()
        print(f"{harness.kills} kills in {time.monotonic() - begun:.0f} s:")
        for what, number in sorted(harness.done.items()):
            print(f"  {number:4} {what}")
    except BaseException:
        print("\n".join(harness.engine.log().splitlines()[-40:]))
        raise
    finally:
        harness.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1 << 31))
