"""The engine's settings: dockerd's option names on the command line, and its daemon.json.

An option may stand on the command line or in the file, not in both, as with dockerd: nobody has to remember which wins.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
from collections.abc import Callable, Sequence
from typing import NoReturn

import msgspec

from sampan import __version__
from sampan.api.containers import LogConfig
from sampan.core.paths import DEFAULT_DATA_ROOT, DEFAULT_EXEC_ROOT, Paths
from sampan.core.remotes.endpoints import check_insecure, mirror_endpoint
from sampan.core.remotes.settings import DEFAULT_CERTS, Patience, RemoteSettings
from sampan.engine import runtimes
from sampan.engine.containers import log_options
from sampan.engine.runtimes import BUILT_IN, RuntimeSettings, parse_runtime
from sampan.errors import InvalidArgument, Unsupported
from sampan.oci.reference import DEFAULT_DOMAIN

DEFAULT_CONFIG_FILE = "/etc/sampan/daemon.json"
DEFAULT_IDLE_TIMEOUT = 60.0
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
_DEFAULT_TCP_PORT, _DEFAULT_TLS_PORT = 2375, 2376


class Host(msgspec.Struct, frozen=True):
    """Where to listen. `unix`: a path. `tcp`: an address and a port. `fd`: what systemd passed, by name or all."""

    scheme: str
    path: str = ""
    port: int = 0


_STORAGE_OPTS = ("layers=indexed", "layers=unpacked", "blobs=dropped", "blobs=kept")


class Config(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """All settings, under the keys of daemon.json. Absolute paths; times in seconds; `mtu` in bytes."""

    hosts: tuple[str, ...] = ()
    """Empty: the unix socket in the exec root."""
    data_root: str = DEFAULT_DATA_ROOT
    exec_root: str = DEFAULT_EXEC_ROOT
    pidfile: str = ""
    """Empty: in the exec root."""
    group: str = ""
    """Who may use the unix socket besides root, by name or number. Empty: `docker`, if there is such a group."""
    debug: bool = False
    log_level: str = "info"
    storage_driver: str = "overlay2"
    storage_opts: tuple[str, ...] = ()
    live_restore: bool = True
    bip: str = ""
    mtu: int = 1500
    dns: tuple[str, ...] = ()
    dns_opts: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    log_driver: str = "json-file"
    log_opts: dict[str, str] = {}
    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    """Docker Hub's."""
    mirrors: dict[str, tuple[str, ...]] = {}
    """Any registry's, by its name, `docker.io` among them: asked in turn, before the registry itself."""
    certs_dirs: tuple[str, ...] = DEFAULT_CERTS
    """Directories with HOST[:PORT]/*.crt, *.cert and *.key for TLS with registries."""
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    labels: tuple[str, ...] = ()
    cdi_spec_dirs: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")
    """Directories with descriptions of devices; the later ones win."""
    runtimes: dict[str, RuntimeSettings] = {}
    """Besides ours."""
    default_runtime: str = ""
    """Empty: ours."""
    tls: bool = False
    """On TCP; implied by `tlsverify`."""
    tlsverify: bool = False
    """Only clients with a certificate of `tlscacert` are let in."""
    tlscacert: str = ""
    tlscert: str = ""
    tlskey: str = ""
    """Empty: ca.pem, cert.pem and key.pem in DOCKER_CERT_PATH, or in ~/.docker, as with dockerd."""
    on_demand: bool = False
    """Started by a client: exit after `idle_timeout` without a request, a stream or a running container."""
    idle_timeout: float = DEFAULT_IDLE_TIMEOUT

    @property
    def paths(self) -> Paths:
        return Paths(self.data_root, self.exec_root)

    @property
    def layers(self) -> str:
        """The body of new layers; empty: as the kernel can."""
        return self._storage_opt("layers")

    @property
    def keep_blobs(self) -> bool:
        """Whether layers stay as they came, too, where their tar is kept."""
        return self._storage_opt("blobs") == "kept"

    def _storage_opt(self, name: str) -> str:
        """The last one counts."""
        return dict(each.partition("=")[::2] for each in self.storage_opts).get(name, "")

    @property
    def pid_path(self) -> str:
        return self.pidfile or self.paths.pidfile

    @property
    def listen(self) -> tuple[Host, ...]:
        """Where to listen, parsed; never empty."""
        port = _DEFAULT_TLS_PORT if self.secured else _DEFAULT_TCP_PORT
        return tuple(parse_host(host, port) for host in self.hosts) or (Host("unix", self.paths.socket),)

    @property
    def secured(self) -> bool:
        """Whether what listens on TCP speaks TLS."""
        return self.tls or self.tlsverify

    @property
    def tls_files(self) -> dict[str, str]:
        """Paths by `ca`, `cert` and `key`."""
        base = os.environ.get("DOCKER_CERT_PATH") or os.path.expanduser("~/.docker")
        given = {"ca": self.tlscacert, "cert": self.tlscert, "key": self.tlskey}
        found = {name: path or f"{base}/{name}.pem" for name, path in given.items()}
        return found if self.tlsverify or self.tlscacert else {**found, "ca": ""}

    @property
    def remotes(self) -> RemoteSettings:
        """What concerns registries."""
        hub = (*self.registry_mirrors, *self.mirrors.get(DEFAULT_DOMAIN, ()))
        return RemoteSettings(
            insecure=self.insecure_registries, mirrors={**self.mirrors, DEFAULT_DOMAIN: hub}, certs=self.certs_dirs,
            downloads=self.max_concurrent_downloads, uploads=self.max_concurrent_uploads,
            patience=Patience(attempts=self.max_download_attempts),
        )  # fmt: skip

    @property
    def level(self) -> str:
        """The level of the log: `debug` wins over `log_level`."""
        return "debug" if self.debug else self.log_level


class _Option(msgspec.Struct, frozen=True):
    """One option: its key in the file, its names on the command line; `key=value` ones make a map, of runtimes
    one of objects."""

    key: str
    flags: tuple[str, ...]
    kind: str
    help: str


_OPTIONS = (
    _Option("hosts", ("-H", "--host"), "list", "where to listen: unix:///PATH, tcp://ADDRESS:PORT or fd://"),
    _Option("data-root", ("--data-root", "-g", "--graph"), "text", "directory of what is kept"),
    _Option("exec-root", ("--exec-root",), "text", "directory of what lives until the next boot"),
    _Option("pidfile", ("-p", "--pidfile"), "text", "path of the pid file"),
    _Option("group", ("-G", "--group"), "text", "group of the unix socket"),
    _Option("debug", ("-D", "--debug"), "flag", "log at level debug"),
    _Option("log-level", ("-l", "--log-level"), "text", f"one of {', '.join(LOG_LEVELS)}"),
    _Option("storage-driver", ("-s", "--storage-driver"), "text", "overlay2"),
    _Option(
        "storage-opts",
        ("--storage-opt",),
        "list",
        "layers=indexed|unpacked (else as the kernel can), blobs=dropped|kept",
    ),
    _Option("live-restore", ("--live-restore",), "flag", "containers go on without the engine; always so here"),
    _Option("bip", ("--bip",), "text", "address and prefix of the default bridge, such as 172.27.0.1/16"),
    _Option("mtu", ("--mtu",), "number", "MTU of the containers' interfaces"),
    _Option("dns", ("--dns",), "list", "name server for containers"),
    _Option("dns-opts", ("--dns-opt",), "list", "resolver option for containers"),
    _Option("dns-search", ("--dns-search",), "list", "search domain for containers"),
    _Option("log-driver", ("--log-driver",), "text", "default log driver of containers"),
    _Option("log-opts", ("--log-opt",), "map", "default log option of containers, KEY=VALUE"),
    _Option(
        "insecure-registries",
        ("--insecure-registry",),
        "list",
        "registry (or network) whose certificate is not asked for",
    ),
    _Option("registry-mirrors", ("--registry-mirror",), "list", "mirror of Docker Hub"),
    _Option("mirrors", ("--mirror",), "mirrors", "mirror of any registry, REGISTRY=URL"),
    _Option("certs-dirs", ("--certs-dir",), "list", "directory with HOST[:PORT]/*.crt, *.cert and *.key of registries"),
    _Option("max-concurrent-downloads", ("--max-concurrent-downloads",), "number", "blobs downloaded at once (3)"),
    _Option("max-concurrent-uploads", ("--max-concurrent-uploads",), "number", "blobs uploaded at once (5)"),
    _Option("max-download-attempts", ("--max-download-attempts",), "number", "tries of one blob (5)"),
    _Option("labels", ("--label",), "list", "label of the engine, KEY=VALUE"),
    _Option("cdi-spec-dirs", ("--cdi-spec-dir",), "list", "directory with descriptions of CDI devices"),
    _Option("runtimes", ("--add-runtime",), "runtimes", "another OCI runtime, NAME=PATH"),
    _Option("default-runtime", ("--default-runtime",), "text", f"runtime of containers that name none ({BUILT_IN})"),
    _Option("tls", ("--tls",), "flag", "speak TLS on TCP; implied by --tlsverify"),
    _Option("tlsverify", ("--tlsverify",), "flag", "let in clients alone that have a certificate of --tlscacert"),
    _Option(
        "tlscacert", ("--tlscacert",), "text", "certificates that clients' have to be signed by (~/.docker/ca.pem)"
    ),
    _Option("tlscert", ("--tlscert",), "text", "the engine's certificate (~/.docker/cert.pem)"),
    _Option("tlskey", ("--tlskey",), "text", "its key (~/.docker/key.pem)"),
    _Option("on-demand", ("--on-demand",), "flag", "exit when idle: how a client starts an engine"),
    _Option("idle-timeout", ("--idle-timeout",), "seconds", "seconds without use after which --on-demand exits"),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidArgument(message.replace("unrecognized arguments:", "unknown flag:"))


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "t"):
        return True
    if text.lower() in ("false", "0", "f"):
        return False
    raise InvalidArgument(f'invalid argument "{text}": not true or false')


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InvalidArgument(f"bad attribute format: {text}")
    return key, value


def parser() -> argparse.ArgumentParser:
    """What reads the command line."""
    made = _Parser(
        prog="sampan daemon", allow_abbrev=False, usage="sampan daemon [OPTIONS]", description="The Sampan engine."
    )
    made.add_argument("-v", "--version", action="version", version=f"Sampan version {__version__}")
    made.add_argument("--config-file", metavar="PATH", help=f"daemon.json to read (default {DEFAULT_CONFIG_FILE})")
    for option in _OPTIONS:
        name = option.key.upper().replace("-", "_")
        if option.kind == "flag":
            # As Go's flags: alone or with `=false`, never with the value as the next word.
            made.add_argument(*option.flags, dest=option.key, nargs="?", const="true", metavar="BOOL", help=option.help)
        elif option.kind in ("list", "map", "runtimes", "mirrors"):
            made.add_argument(*option.flags, dest=option.key, action="append", metavar=name, help=option.help)
        else:
            made.add_argument(*option.flags, dest=option.key, metavar=name, help=option.help)
    return made


def load(arguments: Sequence[str]) -> Config:
    """The settings from the command line and the file. Raises InvalidArgument or Unsupported, in one line each."""
    given = vars(parser().parse_args(list(arguments)))
    path: str | None = given.pop("config_file")
    flags = {option.key: _flag_value(option, given[option.key]) for option in _OPTIONS if given[option.key] is not None}
    settings = _read_file(path or DEFAULT_CONFIG_FILE, required=path is not None, flags=flags)
    try:
        config = msgspec.convert({**settings, **flags}, Config)
    except msgspec.ValidationError as error:
        raise InvalidArgument(str(error)) from None
    return _checked(config)


def _flag_value(option: _Option, value: str | list[str]) -> object:
    if isinstance(value, list):
        if option.kind == "runtimes":
            return _runtimes(value)
        if option.kind == "mirrors":
            return _mirrors(value)
        return dict(_pair(each) for each in value) if option.kind == "map" else value
    convert: dict[str, Callable[[str], object]] = {"flag": _boolean, "number": int, "seconds": float}
    try:
        return convert.get(option.kind, str)(value)
    except ValueError:
        raise InvalidArgument(f'invalid argument "{value}" for {option.flags[-1]}: not a number') from None


def _runtimes(values: list[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for name, path in map(parse_runtime, values):
        if name in found:
            raise InvalidArgument(f"runtime '{name}' was already defined")
        found[name] = {"path": path}
    return found


def _mirrors(values: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for registry, url in map(_pair, values):
        found.setdefault(registry, []).append(url)
    return found


def _read_file(path: str, *, required: bool, flags: dict[str, object]) -> dict[str, object]:
    unable = f"unable to configure the engine with file {path}: "
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        if required:
            raise InvalidArgument(f"{unable}no such file or directory") from None
        return {}
    except OSError as error:
        raise InvalidArgument(f"{unable}{(error.strerror or '').lower()}") from None
    try:
        settings = msgspec.json.decode(content or b"{}", type=dict[str, object])
        known = {option.key for option in _OPTIONS}
        unknown = sorted(settings.keys() - known)
        if unknown:
            raise InvalidArgument(
                f"{unable}the following directives don't match any configuration option: {', '.join(unknown)}"
            )
        msgspec.convert(settings, Config)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise InvalidArgument(f"{unable}{error}") from None
    twice = [
        f"{key}: (from flag: {_shown(flags[key])}, from file: {_shown(settings[key])})"
        for key in settings
        if key in flags
    ]
    if twice:
        raise InvalidArgument(
            f"{unable}the following directives are specified both as a flag and in the configuration file: "
            + ", ".join(twice)
        )
    return settings


def _shown(value: object) -> str:
    if isinstance(value, list):
        return f"[{' '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse_host(text: str, port: int = _DEFAULT_TCP_PORT) -> Host:
    """One --host. `port`: TCP's where none is said.

    Raises InvalidArgument, or Unsupported for a scheme of Docker's that is not here.
    """
    scheme, separator, rest = text.strip().partition("://")
    if not separator:
        # dockerd takes a bare path for a unix socket and anything else for an address.
        scheme, rest = ("unix", scheme) if scheme.startswith("/") else ("tcp", scheme)
    if scheme == "unix":
        if not rest.startswith("/"):
            raise InvalidArgument(f"invalid bind address {text}: the path of a unix socket must be absolute")
        if len(rest.encode()) > 107:
            raise InvalidArgument(f"invalid bind address {text}: longer than 107 bytes")
        return Host("unix", rest)
    if scheme == "tcp":
        match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:/\[\]]*)(?::(\d{1,5}))?/?", rest)
        if match is None or int(match[2] or 0) > 65535:
            raise InvalidArgument(f"invalid bind address format: {text}")
        return Host("tcp", match[1].strip("[]") or "127.0.0.1", int(match[2] or port))
    if scheme == "fd":
        return Host("fd", "" if rest == "*" else rest)
    if scheme in ("ssh", "npipe", "vsock"):
        raise Unsupported(f"listening on {scheme}:// is not supported: {text}")
    raise InvalidArgument(f"invalid bind address format: {text}")


def _checked(config: Config) -> Config:
    """The values' own sense; what only the machine can tell is found out when it is used."""
    for name in ("data_root", "exec_root"):
        if not os.path.isabs(getattr(config, name)):
            raise InvalidArgument(f"{name.replace('_', '-')} must be an absolute path: {getattr(config, name)!r}")
    if config.log_level not in LOG_LEVELS:
        raise InvalidArgument(f"invalid logging level: {config.log_level}")
    try:
        log_options.check(LogConfig(type=config.log_driver, config=config.log_opts))
    except InvalidArgument as error:
        raise InvalidArgument(f"failed to set log opts: {error.message}") from None
    if config.storage_driver not in ("", "overlay2"):
        raise Unsupported(f"storage driver {config.storage_driver} is not supported: overlay2 is")
    for option in config.storage_opts:
        if option not in _STORAGE_OPTS:
            raise Unsupported(f"storage option {option} is not supported: {', '.join(_STORAGE_OPTS)} are")
    if not config.live_restore:
        raise Unsupported("live-restore=false is not supported: containers never depend on the engine")
    if not 68 <= config.mtu <= 65535:
        raise InvalidArgument(f"invalid MTU {config.mtu}: 68 to 65535")
    if config.idle_timeout <= 0:
        raise InvalidArgument(f"invalid idle-timeout {config.idle_timeout}: more than 0 seconds")
    if config.bip:
        try:
            if "/" not in config.bip:
                raise ValueError
            ipaddress.IPv4Interface(config.bip)
        except ValueError:
            raise InvalidArgument(f"invalid CIDR address: {config.bip}") from None
    for server in config.dns:
        try:
            ipaddress.ip_address(server)
        except ValueError:
            raise InvalidArgument(f"{server} is not an ip address") from None
    for label in config.labels:
        _pair(label)
    for url in (*config.registry_mirrors, *(url for urls in config.mirrors.values() for url in urls)):
        mirror_endpoint(url)
    for registry in config.insecure_registries:
        check_insecure(registry)
    for name in ("max_concurrent_downloads", "max_concurrent_uploads", "max_download_attempts"):
        if getattr(config, name) < 1:
            raise InvalidArgument(f"invalid {name.replace('_', ' ')}: {getattr(config, name)}")
    runtimes.check(config.runtimes, config.default_runtime)
    config.listen  # noqa: B018 - parses every host
    root = os.path.normpath(config.data_root), os.path.normpath(config.exec_root)
    return msgspec.structs.replace(config, data_root=root[0], exec_root=root[1])
