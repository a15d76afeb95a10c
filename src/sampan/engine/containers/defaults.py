"""What a request leaves open, settled when the container is made: inspect shows it from then on, as Docker does."""

from __future__ import annotations

import os

import msgspec

from sampan.api.containers import ContainerConfig, HostConfig, LogConfig, words
from sampan.engine.config import Config
from sampan.engine.containers.spec import DEFAULT_SHM, cgroup_namespace_mode
from sampan.engine.security.confinement import MASKED_PATHS, READONLY_PATHS

DEFAULT_NETWORK = "bridge"


def settled_host(host: HostConfig, engine: Config, *, cgroup2: bool) -> HostConfig:
    """With the engine's defaults where the request says nothing."""
    log = host.log_config
    if log.type in ("", engine.log_driver):
        log = LogConfig(type=engine.log_driver, config={**engine.log_opts, **(log.config or {})})
    masked, readonly = host.masked_paths, host.readonly_paths
    if not host.privileged and "systempaths=unconfined" not in (host.security_opt or ()):
        masked = MASKED_PATHS if masked is None else masked
        readonly = READONLY_PATHS if readonly is None else readonly
    return msgspec.structs.replace(
        host,
        network_mode=DEFAULT_NETWORK if host.network_mode in ("", "default") else host.network_mode,
        log_config=log,
        restart_policy=msgspec.structs.replace(host.restart_policy, name=host.restart_policy.name or "no"),
        cgroupns_mode=cgroup_namespace_mode(host, cgroup2),
        ipc_mode=host.ipc_mode or "private",
        shm_size=host.shm_size or DEFAULT_SHM,
        security_opt=_security_options(host),
        masked_paths=masked,
        readonly_paths=readonly,
        # Without a word about swap, as much again as memory.
        memory_swap=host.memory_swap or (host.memory * 2 if host.memory else 0),
        memory_swappiness=None if host.memory_swappiness == -1 else host.memory_swappiness,
        oom_kill_disable=None if cgroup2 else bool(host.oom_kill_disable),
        pids_limit=host.pids_limit if host.pids_limit and host.pids_limit > 0 else None,
        console_size=host.console_size or (0, 0),
    )


def _security_options(host: HostConfig) -> tuple[str, ...] | None:
    """A container that is let into the host's processes or memory has no SELinux label."""
    options = host.security_opt
    labelled = any(each.partition("=")[0] == "label" for each in options or ())
    if labelled or not (host.privileged or "host" in (host.ipc_mode, host.pid_mode)):
        return options
    return (*(options or ()), "label=disable")


def settled_config(config: ContainerConfig, host: HostConfig, container_id: str) -> ContainerConfig:
    """With a host name, and a command in lists."""
    hostname = config.hostname or (os.uname().nodename if host.network_mode == "host" else container_id[:12])
    return msgspec.structs.replace(
        config, hostname=hostname, cmd=words(config.cmd) or None, entrypoint=words(config.entrypoint) or None
    )
