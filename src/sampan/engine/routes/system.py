"""The engine about itself: `/_ping`, `/version`, `/info`, `/auth`."""

from __future__ import annotations

import os
import platform
import socket

import msgspec
from aiohttp import web

from sampan import __version__
from sampan.api import system as api
from sampan.api.images import RegistryAuth
from sampan.core.remotes.login import login
from sampan.engine import host, runtimes
from sampan.engine.blocking import run_blocking
from sampan.engine.config import Config
from sampan.engine.containers.log_options import DRIVERS
from sampan.engine.http.request import Request, json_response
from sampan.engine.http.router import API_VERSION, MIN_API_VERSION, RouteDef
from sampan.engine.registries import from_document
from sampan.engine.services import Engine
from sampan.engine.timestamps import rfc3339_now

_NO_CACHE = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}


async def ping(request: Request) -> web.Response:
    """What a client learns the API's version from."""
    headers = {**_NO_CACHE, "Builder-Version": "", "Swarm": "inactive"}
    if request.method == "HEAD":
        # The head of an empty answer, as Docker's engine gives it.
        return web.Response(headers={**headers, "Content-Length": "0"}, content_type="text/plain", charset="utf-8")
    return web.Response(text="OK", headers=headers)


async def version(request: Request) -> web.Response:
    """`docker version`'s lower half."""
    kernel, machine = host.kernel_version(), host.go_architecture()
    implementation = f"{platform.python_implementation()} {platform.python_version()}"
    details = {
        "ApiVersion": _dotted(API_VERSION), "Arch": machine, "BuildTime": "", "Experimental": "false", "GitCommit": "",
        "GoVersion": implementation, "KernelVersion": kernel, "MinAPIVersion": _dotted(MIN_API_VERSION), "Os": "linux",
    }  # fmt: skip
    return json_response(
        api.Version(
            platform=api.Platform(name="Sampan"),
            components=(
                api.Component(name="Engine", version=__version__, details=details),
                api.Component(name="sampan-runtime", version=__version__, details={"GitCommit": ""}),
            ),
            version=__version__, api_version=_dotted(API_VERSION), min_api_version=_dotted(MIN_API_VERSION),
            go_version=implementation, arch=machine, kernel_version=kernel,
        )
    )  # fmt: skip


def _dotted(number: tuple[int, int]) -> str:
    return f"{number[0]}.{number[1]}"


class SystemRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def info(self, request: Request) -> web.Response:
        """`docker info`'s lower half."""
        return json_response(await run_blocking(self._info))

    def _info(self) -> api.Info:
        engine, config = self._engine, self._engine.config
        counts = engine.containers.counts()
        system, system_version = host.operating_system()
        has = host.cgroup_has
        return api.Info(
            id=engine.id,
            containers=counts.total, containers_running=counts.running, containers_paused=counts.paused,
            containers_stopped=counts.stopped, images=len(engine.core.images.all()),
            driver_status=_driver_status(config.data_root),
            plugins=api.Plugins(log=tuple(each for each in DRIVERS if each != "none")),
            memory_limit=has("memory", ""), swap_limit=has("memory", "memory.memsw.limit_in_bytes"),
            cpu_cfs_period=has("cpu", "cpu.cfs_period_us"), cpu_cfs_quota=has("cpu", "cpu.cfs_quota_us"),
            cpu_shares=has("cpu", "cpu.shares"), cpu_set=has("cpuset", ""), pids_limit=has("pids", ""),
            ipv4_forwarding=host.flag("/proc/sys/net/ipv4/ip_forward"), debug=config.level == "debug",
            n_fd=host.open_descriptors(),
            oom_kill_disable=host.cgroup_version() == "1" and has("memory", "memory.oom_control"),
            # A goroutine is what Go counts; here it is the threads.
            n_goroutines=len(os.listdir("/proc/self/task")), system_time=rfc3339_now(),
            logging_driver=config.log_driver, cgroup_version=host.cgroup_version(),
            n_events_listener=engine.events.listeners, kernel_version=host.kernel_version(), operating_system=system,
            os_version=system_version, architecture=platform.machine(),
            registry_config=_registries(config.insecure_registries, config.registry_mirrors),
            ncpu=len(os.sched_getaffinity(0)), mem_total=host.memory_total(), docker_root_dir=config.data_root,
            http_proxy=_proxy("http_proxy"), https_proxy=_proxy("https_proxy"), no_proxy=_proxy("no_proxy"),
            name=socket.gethostname(), labels=config.labels, server_version=__version__,
            runtimes=_runtimes(config), default_runtime=runtimes.resolve(config, ""), init_binary=runtimes.BUILT_IN,
            security_options=host.security_options(), cdi_spec_dirs=config.cdi_spec_dirs,
            kernel_memory_tcp=host.cgroup_version() == "1" and has("memory", "memory.kmem.tcp.limit_in_bytes"),
        )  # fmt: skip

    async def auth(self, request: Request) -> web.Response:
        """Ask the registry whether it takes the credentials."""
        given = await request.document(api.AuthRequest)
        known = from_document(msgspec.convert(given, RegistryAuth, from_attributes=True))
        identity = await login(given.serveraddress, known, self._engine.config.remotes, run_blocking)
        return json_response(api.AuthResponse(identity_token=identity))


def _runtimes(config: Config) -> dict[str, api.Runtime]:
    """Every name that a container may ask for."""
    ours = api.Runtime(path="sampan-runtime")
    return dict.fromkeys((runtimes.BUILT_IN, *runtimes.ALIASES), ours) | {
        name: api.Runtime(path=each.path, runtime_args=each.runtime_args or msgspec.UNSET)
        for name, each in config.runtimes.items()
    }


def _driver_status(data_root: str) -> tuple[tuple[str, str], ...]:
    return (
        ("Backing Filesystem", host.backing_filesystem(data_root)), ("Supports d_type", "true"),
        ("Using metacopy", "false"), ("Native Overlay Diff", "true"), ("userxattr", "false"),
    )  # fmt: skip


def _registries(insecure: tuple[str, ...], mirrors: tuple[str, ...]) -> api.RegistryConfig:
    networks = tuple(each for each in insecure if "/" in each)
    indexes = {"docker.io": api.IndexConfig(name="docker.io", official=True, mirrors=mirrors)}
    indexes |= {each: api.IndexConfig(name=each, secure=False) for each in insecure if each not in networks}
    return api.RegistryConfig(
        index_configs=indexes, insecure_registry_cidrs=("::1/128", "127.0.0.0/8", *networks), mirrors=mirrors or None
    )


def _proxy(name: str) -> str:
    return os.environ.get(name.upper(), "") or os.environ.get(name, "")


def routes(engine: Engine) -> list[RouteDef]:
    on = SystemRoutes(engine)
    return [
        RouteDef("GET", "/_ping", ping),
        RouteDef("HEAD", "/_ping", ping),
        RouteDef("GET", "/version", version),
        RouteDef("GET", "/info", on.info),
        RouteDef("POST", "/auth", on.auth),
    ]
