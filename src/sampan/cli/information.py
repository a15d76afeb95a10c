"""`info` in Docker's layout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sampan.cli.table import size
from sampan.client.client import Document


def lines(info: Document) -> Iterator[str]:
    """What the engine tells of itself, a blank before what belongs to the line above."""
    for title, key in (
        ("Containers", "Containers"), (" Running", "ContainersRunning"), (" Paused", "ContainersPaused"),
        (" Stopped", "ContainersStopped"), ("Images", "Images"), ("Server Version", "ServerVersion"),
        ("Storage Driver", "Driver"),
    ):  # fmt: skip
        yield f"{title}: {info.get(key, '')}"
    yield from (f" {title}: {text}" for title, text in info.get("DriverStatus") or ())
    for title, key in (
        ("Logging Driver", "LoggingDriver"), ("Cgroup Driver", "CgroupDriver"), ("Cgroup Version", "CgroupVersion"),
    ):  # fmt: skip
        yield f"{title}: {info.get(key, '')}"
    plugins = info.get("Plugins") or {}
    yield "Plugins:"
    for title in ("Volume", "Network", "Authorization", "Log"):
        if plugins.get(title):
            yield f" {title}: {' '.join(plugins[title])}"
    if info.get("CDISpecDirs"):
        yield "CDI spec directories:"
        yield from (f" {each}" for each in info["CDISpecDirs"])
    yield f"Swarm: {(info.get('Swarm') or {}).get('LocalNodeState', 'inactive')}"
    yield f"Runtimes: {' '.join(sorted(info.get('Runtimes') or ()))}"
    yield f"Default Runtime: {info.get('DefaultRuntime', '')}"
    yield f"Init Binary: {info.get('InitBinary', '')}"
    for name, key in (("containerd", "ContainerdCommit"), ("runc", "RuncCommit"), ("init", "InitCommit")):
        yield f"{name} version: {(info.get(key) or {}).get('ID', '')}"
    yield from _security(info.get("SecurityOptions") or ())
    for title, key in (
        ("Kernel Version", "KernelVersion"), ("Operating System", "OperatingSystem"), ("OSType", "OSType"),
        ("Architecture", "Architecture"), ("CPUs", "NCPU"),
    ):  # fmt: skip
        yield f"{title}: {info.get(key, '')}"
    yield f"Total Memory: {size(info.get('MemTotal', 0), 4, 1024)}"
    yield f"Name: {info.get('Name', '')}"
    yield f"ID: {info.get('ID', '')}"
    yield f"Docker Root Dir: {info.get('DockerRootDir', '')}"
    yield from _debugging(info)
    for title, key in (("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy")):
        if info.get(key):
            yield f"{title}: {info[key]}"
    if info.get("Labels"):
        yield "Labels:"
        yield from (f" {each}" for each in info["Labels"])
    yield f"Experimental: {_truth(info.get('ExperimentalBuild'))}"
    yield from _registries(info.get("RegistryConfig") or {})
    yield f"Live Restore Enabled: {_truth(info.get('LiveRestoreEnabled'))}"
    if info.get("ProductLicense"):
        yield f"Product License: {info['ProductLicense']}"


def _security(options: Iterable[str]) -> Iterator[str]:
    if options:
        yield "Security Options:"
    for option in options:
        pairs = dict(pair.partition("=")[::2] for pair in option.split(","))
        yield f" {pairs.pop('name', option)}"
        yield from (f"  {key.capitalize()}: {value}" for key, value in pairs.items())


def _debugging(info: Document) -> Iterator[str]:
    yield f"Debug Mode: {_truth(info.get('Debug'))}"
    if info.get("Debug"):
        for title, key in (
            ("File Descriptors", "NFd"), ("Goroutines", "NGoroutines"), ("System Time", "SystemTime"),
            ("EventsListeners", "NEventsListener"),
        ):  # fmt: skip
            yield f" {title}: {info.get(key, '')}"


def _registries(config: Document) -> Iterator[str]:
    indexes = config.get("IndexConfigs") or {}
    insecure = [name for name, each in sorted(indexes.items()) if not each.get("Secure")]
    insecure += config.get("InsecureRegistryCIDRs") or []
    if insecure:
        yield "Insecure Registries:"
        yield from (f" {each}" for each in insecure)
    if config.get("Mirrors"):
        yield "Registry Mirrors:"
        yield from (f" {each}" for each in config["Mirrors"])


def _truth(value: object) -> str:
    return "true" if value else "false"
