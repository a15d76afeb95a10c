"""A laboratory: a thread in network and mount namespaces of its own plays the host, so that nothing of the real one is
touched and everything is gone when it ends. Namespaces made in it play containers and the outside world.

Threads may each have their own network namespace, and a socket stays in the one that it was made in: so servers and
clients in different "machines" are all served from one process.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from sampan.core.metadata import Metadata
from sampan.network.controller import NetworkController, NetworkSettings
from sampan.network.endpoints import Endpoint, Published
from sampan.network.ports import request

P = ParamSpec("P")
R = TypeVar("R")

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS, _CLONE_NEWNET = 0x20000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_OWN_NAMESPACE = "/proc/thread-self/ns/net"


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def in_thread(function: Callable[[], R]) -> R:
    """The function's result, from a thread of its own: what it does to the thread's namespaces ends with it."""
    results: list[R] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def enter_host() -> None:
    """Give the calling thread an empty network and private mounts."""
    _check(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET))
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    run("ip", "link", "set", "lo", "up")


def on_own_host(test: Callable[P, None]) -> Callable[P, None]:
    """Run the test in a thread that is a host of its own."""

    @functools.wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        def body() -> None:
            enter_host()
            test(*args, **kwargs)

        in_thread(body)

    return wrapper


def run(*command: str) -> str:
    """Run a program in the calling thread's namespaces."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def inside(path: str, function: Callable[[], R]) -> R:
    """Run the function in the network namespace pinned at the path."""

    def body() -> R:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(fd, _CLONE_NEWNET))
        finally:
            os.close(fd)
        return function()

    return in_thread(body)


def open_netns(path: str) -> int:
    """What the spawner does: make a namespace, pin it, and open a netlink socket in it."""

    def body() -> int:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o444))
        _check(_libc.unshare(_CLONE_NEWNET))
        _check(_libc.mount(_OWN_NAMESPACE.encode(), path.encode(), None, _MS_BIND, None))
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0).detach()

    return in_thread(body)


def host_state() -> tuple[list[str], str]:
    """The names of the host's links, whose states change by themselves, and its rules."""
    return [line.split()[0] for line in run("ip", "-br", "link").splitlines()], run("nft", "list", "ruleset")


class Server:
    """Answers every connection (or datagram) with its name and whom it sees, until closed."""

    def __init__(self, name: str, bound: socket.socket) -> None:
        self._name = name
        self._socket = bound
        bound.settimeout(0.1)
        self._end = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._end:
            try:
                if self._socket.type == socket.SOCK_STREAM:
                    connection, peer = self._socket.accept()
                    with connection:
                        connection.sendall(f"{self._name} {peer[0]}".encode())
                else:
                    _, peer = self._socket.recvfrom(100)
                    self._socket.sendto(f"{self._name} {peer[0]}".encode(), peer)
            except TimeoutError:
                continue
            except OSError:
                return

    def close(self) -> None:
        self._end = True
        self._thread.join()
        self._socket.close()


def client(
    path: str | None, kind: socket.SocketKind = socket.SOCK_STREAM, family: socket.AddressFamily = socket.AF_INET
) -> socket.socket:
    """A socket in the namespace; None: in the host's, which is the calling thread's."""

    def make() -> socket.socket:
        made = socket.socket(family, kind)
        made.settimeout(1)
        return made

    return make() if path is None else inside(path, make)


def ask(path: str | None, address: str, port: int, *, udp: bool = False, timeout: float = 4) -> str:
    """What the server there answers; `refused` or `silent` if it does not. A packet that is sent in the moment when a
    link comes up is lost, and sent again after a second: hence the time."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with client(path, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM, family) as asking:
        asking.settimeout(timeout)
        try:
            asking.connect((address, port))
            if udp:
                asking.send(b"?")
            return asking.recv(100).decode()
        except TimeoutError:
            return "silent"
        except ConnectionRefusedError:
            return "refused"
        except OSError as error:
            if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
                return "unreachable"
            raise


class Lab:
    """A controller on this thread's host, with an outside world behind a router's distance."""

    HOST, OUTSIDE = "192.0.2.1", "192.0.2.99"
    HOST_6, OUTSIDE_6 = "2001:db8::1", "2001:db8::99"

    def __init__(self, tmp: str, **settings: Any) -> None:
        self.tmp = tmp
        self.settings = self.settings_for(tmp, **settings)
        self.servers: list[Server] = []
        self.sockets: list[int] = []
        self.controller = self.open_controller()
        self.controller.setup()
        self.controller.adopt(())

    @staticmethod
    def settings_for(tmp: str, **settings: Any) -> NetworkSettings:
        return NetworkSettings(bridge="smplab0", table="smplab", netns_dir=f"{tmp}/netns", **settings)

    def open_controller(self) -> NetworkController:
        return NetworkController(Metadata(f"{self.tmp}/state.db"), self.settings)

    def add_outside(self) -> str:
        """A machine on the host's outer network, which routes the containers' subnet by way of the host."""
        path = f"{self.tmp}/outside"
        os.close(open_netns(path))
        run("ip", "link", "add", "outer0", "type", "veth", "peer", "name", "eth0")
        # A name for the namespace that ip understands: a process' id would need a process there.
        inside(path, lambda: run("ip", "link", "set", "lo", "up"))
        run("ip", "addr", "add", f"{self.HOST}/24", "dev", "outer0")
        run("ip", "addr", "add", f"{self.HOST_6}/64", "dev", "outer0", "nodad")
        run("ip", "link", "set", "outer0", "up")
        os.makedirs("/run/netns", exist_ok=True)
        name = f"lab{os.path.basename(self.tmp)[-8:]}{threading.get_native_id()}"
        pinned = f"/run/netns/{name}"
        os.close(os.open(pinned, os.O_CREAT | os.O_RDONLY))
        try:
            _check(_libc.mount(path.encode(), pinned.encode(), None, _MS_BIND, None))
            run("ip", "link", "set", "eth0", "netns", name)
            _check(_libc.umount2(pinned.encode(), 0))
        finally:
            os.unlink(pinned)

        def configure() -> None:
            run("ip", "addr", "add", f"{self.OUTSIDE}/24", "dev", "eth0")
            run("ip", "addr", "add", f"{self.OUTSIDE_6}/64", "dev", "eth0", "nodad")
            run("ip", "link", "set", "eth0", "up")
            run("ip", "route", "add", "172.16.0.0/12", "via", self.HOST)
            run("ip", "route", "add", "fd00::/8", "via", self.HOST_6)

        inside(path, configure)
        return path

    def container(self, container_id: str, *published: str, network: str = "bridge") -> Endpoint:
        """An endpoint with a TCP and a UDP server on ports 80 and 81; `published` as `[ip:][port:]80[/udp]`."""
        endpoint = self.controller.allocate(network, container_id)
        fd = open_netns(endpoint.path)
        try:
            self.controller.attach(endpoint, fd)
        finally:
            os.close(fd)
        for port in (80, 81):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                self.serve(container_id, endpoint.path, port, kind)
                if endpoint.ip6:
                    self.serve(container_id, endpoint.path, port, kind, "::")
        if published:
            self.publish(endpoint, *published)
        return endpoint

    def publish(self, endpoint: Endpoint, *ports: str) -> Published:
        requests = []
        for text in ports:
            host, _, container = text.rpartition(":")
            host_ip, _, port = host.rpartition(":")
            requests.append(request(container, host_ip.strip("[]"), port))
        published = self.controller.publish(endpoint, requests, endpoint.container_id)
        self.sockets += published.sockets
        return published

    def serve(self, name: str, path: str | None, port: int, kind: socket.SocketKind, address: str = "") -> None:
        def bind() -> socket.socket:
            bound = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
            if ":" in address:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((address, port))
            if kind == socket.SOCK_STREAM:
                bound.listen()
            return bound

        self.servers.append(Server(name, bind() if path is None else inside(path, bind)))

    def close(self) -> None:
        for server in self.servers:
            server.close()
        for fd in self.sockets:
            os.close(fd)
        self.controller.close()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def churn(tmp: str) -> None:
    """What an engine does all day, until it is killed: for a process of its own on the same host."""
    lab = object.__new__(Lab)
    lab.tmp = tmp
    lab.settings = Lab.settings_for(tmp)
    controller = lab.open_controller()
    controller.setup()
    print("ready", flush=True)
    number = 0
    while True:
        number += 1
        endpoint = controller.allocate("bridge")
        fd = open_netns(endpoint.path)
        controller.attach(endpoint, fd)
        os.close(fd)
        endpoint = controller.claim(endpoint, f"c{number}")
        for reserved in controller.publish(endpoint, [request("80/tcp"), request("53/udp")]).sockets:
            os.close(reserved)
        if number > 3:
            controller.release(f"c{number - 3}")
