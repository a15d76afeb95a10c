"""Lives of containers, told by the documents that an engine gives of them.

A scene is a line of the docker command. The request that Docker 28.5 makes of it is kept with the answers, so that a
scene is played by the Engine API alone, against any engine, and no version of the command makes a difference.
What depends on the machine or the moment is replaced by what kind of thing it is (`<id>`, `<time>`).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shlex
import socket
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.e2e.conftest import busybox_tar

VERSION = "v1.51"
IMAGE_CHANGES = (
    'ENV PATH=/bin FROM=image', 'CMD ["sleep", "600"]', "EXPOSE 7000/tcp", "VOLUME /vol", "LABEL of=image",
    "WORKDIR /tmp", "USER user", "STOPSIGNAL SIGINT",
)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """`line`: what follows `docker create`; without one, the request itself is given. `until`: how the run ends:
    `kill`, `stop`, `exit` by itself, `fail` to start, `never` started, `restart` again and again; a paused one is
    paused in the middle."""

    name: str
    line: str
    until: str = "kill"
    paused: bool = False
    request: dict[str, Any] | None = None

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line)


SCENES = (
    Scene("plain", "box sleep 600"),
    Scene("default command", "full"),
    Scene("more variables", "-e A=b -e FROM=user -l a=b full true", "exit"),
    Scene("addressed", "--mac-address 02:42:ac:11:00:33 --network bridge box sleep 600"),
    Scene("bare", "", request={"Image": "box", "Cmd": ["sleep", "600"]}),
    Scene("terminal", "-it box sh"),
    Scene("input", "-i box cat"),
    Scene("never started", "-p 9000 box true", "never"),
    Scene("status", 'box sh -c "exit 3"', "exit"),
    Scene("no program", "box nope", "fail"),
    Scene("removes itself", "--rm box true", "exit"),
    Scene("ports", "-p 127.0.0.1:28080:80 -p 28081:81/udp -P --expose 90 --expose 95-96/udp box sleep 600"),
    Scene(
        "volumes",
        "-v named:/named -v /opt:/host:ro -v /tmp:/holds-the-data-root -v /anonymous "
        "--mount type=volume,source=other,target=/other,readonly "
        "--mount type=bind,source=/tmp,target=/bound --mount type=tmpfs,target=/scratch,tmpfs-size=1m "
        "--tmpfs /more:size=64k box sleep 600",
    ),
    Scene(
        "limits",
        "--memory 64m --memory-reservation 32m --memory-swap 128m --cpus 0.5 --pids-limit 50 --ulimit nofile=100:200 "
        "--cpuset-cpus 0 --oom-score-adj 100 --shm-size 32m box sleep 600",
    ),
    Scene("shares", "--cpu-shares 512 --cpu-period 50000 --cpu-quota 25000 --pids-limit -1 --memory 64m box sleep 600"),
    Scene(
        "environment",
        "-e A=b -e EMPTY= --label a=b --label c --hostname host --domainname d.example -w /tmp -u user "
        "--group-add extra --add-host foo:192.0.2.4 --dns 192.0.2.9 --dns-search x.example --dns-option ndots:2 "
        "--stop-signal INT --stop-timeout 1 --entrypoint sleep --sysctl net.ipv4.ip_forward=0 --annotation a=b "
        "box 600",
        "stop",
    ),
    Scene(
        "security",
        "--cap-drop ALL --cap-add NET_ADMIN --cap-add cap_kill --security-opt no-new-privileges "
        "--security-opt seccomp=unconfined --read-only --init --device /dev/null:/dev/x:r box sleep 600",
    ),
    Scene("privileged", "--privileged box sleep 600"),
    Scene("host", "--network host --pid host --ipc host --uts host --cgroupns host box sleep 600"),
    Scene("no network", "--network none --ipc none --no-healthcheck box sleep 600", paused=True),
    Scene("log options", "--log-driver json-file --log-opt max-size=1m --log-opt max-file=2 box sleep 600"),
    Scene("no log", "--log-driver none box true", "exit"),
    Scene("always", "--restart always box sh -c 'exit 4'", "restart"),
    Scene("on failure", "--restart on-failure:1 box false", "exit"),
    Scene("unless stopped", "--restart unless-stopped box sleep 600", "stop"),
)


class Api:
    """The Engine API on a unix socket."""

    def __init__(self, path: str, version: str = VERSION) -> None:
        self._path = path
        self._version = version

    def at(self, version: str) -> Api:
        """The same engine, as clients of that version see it."""
        return Api(self._path, version)

    def _connection(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("docker", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self._path)
        return connection

    def call(self, method: str, path: str, body: object = None, **query: str | int | list[str]) -> tuple[int, Any]:
        """Status and document; text where it is none, a list where there are several."""
        data = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else None
        if data is None and body is not None:
            data = json.dumps(body).encode()
        kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
        with contextlib.closing(self._connection()) as connection:
            target = f"/{self._version}{path}" + (f"?{urllib.parse.urlencode(query, doseq=True)}" if query else "")
            connection.request(method, target, data, {"Content-Type": kind} if data is not None else {})
            answer = connection.getresponse()
            return answer.status, _documents(answer.read().decode())

    def must(self, method: str, path: str, body: object = None, **query: str | int | list[str]) -> Any:
        status, document = self.call(method, path, body, **query)
        if status >= 400:
            raise RuntimeError(f"{method} {path}: {status} {document}")
        return document

    def attach(self, container: str) -> socket.socket:
        """An attached client that only listens."""
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(60)
        stream.connect(self._path)
        path = f"/{self._version}/containers/{container}/attach?stream=1&stdout=1&stderr=1"
        stream.sendall(f"POST {path} HTTP/1.1\r\nHost: d\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += stream.recv(1)
        return stream


def _documents(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        with contextlib.suppress(ValueError):
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        return text


# --- What depends on the machine -----------------------------------------------------------------------


_ANY_TIME = ("exec_die", "stop")
"""Events that come before or after others as chance has it."""
_EPHEMERAL = 32768
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
_KINDS = (
    (re.compile(r"\b[0-9a-f]{64}\b"), "<id>"),
    (re.compile(r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b"), "<mac>"),
    (re.compile(r"\b172\.\d+\.\d+\.\d+(/\d+)?\b"), "<ip>"),
    (re.compile(r"\b(About a|Less than a|\d+) (second|minute)s?\b"), "<duration>"),
)
_NUMBERS = frozenset({
    "Created", "Pid", "SizeRw", "SizeRootFs", "Size", "LayersSize", "SharedSize", "time", "timeNano", "execDuration",
    "SpaceReclaimed", "VirtualSize", "IPPrefixLen",
})  # fmt: skip
"""Members that are counts of bytes, seconds or processes: their being positive is kept, and their type."""


class Masks:
    """Replaces what one machine has, by names that all have in common."""

    def __init__(self, data_root: str, exec_root: str, ids: tuple[str, ...] = ()) -> None:
        self._roots = ((data_root, "<data>"), (exec_root, "<exec>"))
        self._short = tuple(each.removeprefix("sha256:")[:12] for each in ids)

    def mask(self, value: Any, member: str = "") -> Any:
        if isinstance(value, dict):
            masked = {self._text(key): self.mask(each, key) for key, each in value.items()}
            return {key: masked[key] for key in sorted(masked)}
        if isinstance(value, list):
            return [self.mask(each, member) for each in value]
        if isinstance(value, str):
            if member == "Runtime" and value:
                return "<default>"
            if member == "HostPort" and value.isdigit() and int(value) >= _EPHEMERAL:
                return "<port>"
            if member in _NUMBERS and value.isdigit():
                return "<digits>"
            return self._path(member, self._text(value))
        if member in _NUMBERS and isinstance(value, int) and value > 0:
            return "<number>"
        if member == "PublicPort" and value >= _EPHEMERAL:
            return "<port>"
        return value

    def _text(self, text: str) -> str:
        for root, name in self._roots:
            text = text.replace(root, name)
        for pattern, kind in _KINDS:
            text = pattern.sub(kind, text)
        for short in self._short:
            text = text.replace(short, "<short>")
        # Go's zero time is a value, not a moment.
        return text if text.startswith("0001-") else _TIME.sub("<time>", text)

    @staticmethod
    def _path(member: str, text: str) -> str:
        """Where the engines keep their things differs; that they say so does not."""
        if member == "LowerDir":
            return "<path>" if text else ""
        if member in ("SandboxKey",) and text:
            return "<path>"
        return re.sub(r"<data>/overlay2/[0-9a-z-]+/", "<data>/overlay2/<id>/", text)


# --- Playing --------------------------------------------------------------------------------------------


class Stage:
    """An engine with the images `box` and `full`, where scenes are played."""

    def __init__(self, api: Api) -> None:
        self.api = api
        info = api.must("GET", "/info")
        root = info["DockerRootDir"]
        self._roots = (root, root.removesuffix("data") + "run")

    def import_images(self) -> None:
        """Those that are not there."""
        for name, changes in (("box", ()), ("full", IMAGE_CHANGES)):
            if self.api.call("GET", f"/images/{name}/json")[0] == 404:
                self.api.must("POST", "/images/create", busybox_tar(), fromSrc="-", repo=name, changes=list(changes))

    def masks(self, *ids: str) -> Masks:
        return Masks(*self._roots, ids)

    def play(self, scene: Scene, request: dict[str, Any]) -> dict[str, Any]:
        """The documents of one life, by what they are, masked."""
        name = "scene-" + scene.name.replace(" ", "-")
        self._reap(name)
        began = time.time()
        told: dict[str, Any] = {}
        status, told["create"] = self.api.call("POST", "/containers/create", request, name=name)
        if status != 201:
            return {"create": [status, told["create"]]}
        container = told["create"]["Id"]
        try:
            self._live(scene, container, told)
        finally:
            self._reap(container)
        masked: dict[str, Any] = self.masks(container).mask(told)
        masked.update(self._told(container, began, whole=scene.name == "plain"))
        return masked

    def _told(self, container: str, began: float, *, whole: bool) -> dict[str, Any]:
        """The events; one of them whole."""
        own = self.masks(container).mask(self.events({"container": [container]}, began))
        other = self.masks(container).mask(
            [
                each
                for each in self.events({"type": ["network", "volume"]}, began)
                if each["Actor"]["Attributes"].get("container") == container
            ]
        )
        told: dict[str, Any] = {
            "order of events": [each["Action"] for each in own if each["Action"] not in _ANY_TIME],
            "events": sorted(([each["Action"], each["Actor"]["Attributes"]] for each in own), key=json.dumps),
            "other events": sorted(([each["Type"], each["Action"], each["Actor"]] for each in other), key=json.dumps),
        }
        return {**told, "an event": own[0]} if whole else told

    def _live(self, scene: Scene, container: str, told: dict[str, Any]) -> None:
        path = f"/containers/{container}"
        self._look(container, "created", told)
        if scene.until == "never":
            told["wait"] = self.api.must("POST", f"{path}/wait")
            return
        stream = self.api.attach(container)
        with stream, contextlib.ExitStack() as waiting:
            removal = waiting.enter_context(self._waiting(container, "removed")) if "--rm" in scene.words else None
            answer = self.api.call("POST", f"{path}/start")
            told["start"] = list(answer)
            if scene.until in ("kill", "stop"):
                self._while_running(scene, container, told)
            if scene.until == "restart":
                # Each wait is twice as long as the one before: the fifth is long enough to look into it.
                self._until(container, lambda state: state["RestartCount"] == 5 and state["State"]["Restarting"])
                told["inspect restarting"] = self._inspect(container)["State"]
                self.api.must("POST", f"{path}/kill")
            if removal is not None:
                told["wait"] = json.loads(removal.getresponse().read())
                return
            if scene.until != "fail":
                told["wait"] = self.api.must("POST", f"{path}/wait")
            self._until(container, lambda state: not state["State"]["Running"])
            self._look(container, "ended", told, size=1)
        told["kill ended"] = list(self.api.call("POST", f"{path}/kill"))
        told["stop ended"] = list(self.api.call("POST", f"{path}/stop"))

    def _while_running(self, scene: Scene, container: str, told: dict[str, Any]) -> None:
        path = f"/containers/{container}"
        self._until(container, lambda state: state["State"]["Running"])
        if scene.paused:
            self.api.must("POST", f"{path}/pause")
            self._look(container, "paused", told)
            told["pause paused"] = list(self.api.call("POST", f"{path}/pause"))
            told["exec paused"] = list(self.api.call("POST", f"{path}/exec", {"Cmd": ["true"]}))
            self.api.must("POST", f"{path}/unpause")
        self._look(container, "running", told, size=1)
        if scene.name == "plain":
            told["start running"] = list(self.api.call("POST", f"{path}/start"))
            told["remove running"] = list(self.api.call("DELETE", path))
            told["top"] = self._top(path)
            told["update"] = self.api.must("POST", f"{path}/update", {"RestartPolicy": {"Name": "no"}})
            self.api.must("POST", f"{path}/rename", name="renamed")
        if scene.name in ("plain", "environment", "terminal"):
            self._exec(container, told)
        if scene.until == "kill":
            self.api.must("POST", f"{path}/kill", signal="SIGKILL")
        else:
            self.api.must("POST", f"{path}/stop", t=1)

    def _top(self, path: str) -> Any:
        document = self.api.must("GET", f"{path}/top")
        for row in document["Processes"]:
            row[1:7] = ["<any>" for _ in row[1:7]]
        return document

    def _exec(self, container: str, told: dict[str, Any]) -> None:
        path = f"/containers/{container}/exec"
        request = {
            "AttachStdout": True, "AttachStderr": True, "Cmd": ["sh", "-c", "exit 7"], "Env": ["X=y"], "User": "user",
            "WorkingDir": "/tmp", "DetachKeys": "ctrl-a",
        }  # fmt: skip
        made = self.api.must("POST", path, request)
        told["exec create"] = made
        told["exec created"] = self.api.must("GET", f"/exec/{made['Id']}/json")
        told["exec start"] = list(self.api.call("POST", f"/exec/{made['Id']}/start", {"Detach": True}))
        for _ in range(100):
            if not self.api.must("GET", f"/exec/{made['Id']}/json")["Running"]:
                break
            time.sleep(0.05)
        told["exec ended"] = self.api.must("GET", f"/exec/{made['Id']}/json")
        told["exec started again"] = list(self.api.call("POST", f"/exec/{made['Id']}/start", {"Detach": True}))
        missing = self.api.must("POST", path, {"Cmd": ["nope"]})["Id"]
        told["exec of nothing"] = list(self.api.call("POST", f"/exec/{missing}/start", {"Detach": True}))
        told["exec of nothing ended"] = self.api.must("GET", f"/exec/{missing}/json")
        second = self.api.must("POST", path, {"Cmd": ["sleep", "600"], "Tty": True, "Privileged": True})
        self.api.must("POST", f"/exec/{second['Id']}/start", {"Detach": True, "Tty": True})
        told["exec running"] = self.api.must("GET", f"/exec/{second['Id']}/json")
        told["inspect with an exec"] = {"ExecIDs": self._inspect(container)["ExecIDs"]}

    def _inspect(self, container: str) -> Any:
        return self.api.must("GET", f"/containers/{container}/json")

    def _look(self, container: str, moment: str, told: dict[str, Any], **size: int) -> None:
        told[f"inspect {moment}"] = self.api.must("GET", f"/containers/{container}/json", **size)
        filters = json.dumps({"id": [container]})
        told[f"list {moment}"] = self.api.must("GET", "/containers/json", all=1, filters=filters, **size)
        for document in told[f"list {moment}"]:
            document["Ports"].sort(key=json.dumps)
            document["Mounts"].sort(key=_destination)
        told[f"inspect {moment}"]["Mounts"].sort(key=_destination)

    def _until(self, container: str, reached: Any) -> None:
        for _ in range(200):
            if reached(self._inspect(container)):
                return
            time.sleep(0.05)
        raise RuntimeError(f"{container}: {self._inspect(container)['State']}")

    @contextlib.contextmanager
    def _waiting(self, container: str, condition: str) -> Iterator[http.client.HTTPConnection]:
        connection = self.api._connection()
        with contextlib.closing(connection):
            connection.request("POST", f"/{VERSION}/containers/{container}/wait?condition={condition}")
            time.sleep(0.3)
            yield connection

    def _reap(self, container: str) -> None:
        self.api.call("DELETE", f"/containers/{container}", force=1, v=1)

    def events(self, filters: dict[str, list[str]], began: float) -> list[Any]:
        told = self.api.must(
            "GET", "/events", since=f"{began:.6f}", until=f"{time.time() + 0.2:.6f}", filters=json.dumps(filters)
        )  # fmt: skip
        return told if isinstance(told, list) else [told] if told else []


def _destination(mount: dict[str, str]) -> str:
    return mount["Destination"]
