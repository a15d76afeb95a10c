"""What every command needs: the engine, which is started if there is none."""

from __future__ import annotations

import os
import sys
import time
from functools import cached_property

from sampan.client.client import Client, parse_host
from sampan.errors import InvalidArgument, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.client.http import Host

DEFAULT_SOCKET = "/run/sampan/sampan.sock"
_START_TIMEOUT = 20.0
_OFF = ("", "0", "false")


class Options:
    """What stands before a command. `tls`: paths by `ca`, `cert` and `key`. None for `verify`: not said."""

    def __init__(
        self, host: str = "", context: str = "", tls: dict[str, str] | None = None, verify: bool | None = None
    ) -> None:
        self.host = host
        self.context = context
        self.tls = tls or {}
        self.verify = verify


class Context:
    """`host`: what -H says, or the environment; empty: the default socket, with an engine behind it on demand."""

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()
        self._settings: dict[str, Any] | None = None

    @cached_property
    def name(self) -> str:
        """Which of Docker's contexts is in force: --context, else the environment's, else the current one."""
        from sampan.cli import contexts

        if self.options.context and self.options.host:
            raise InvalidArgument("conflicting options: cannot specify both --host and --context")
        if self.options.context:
            return self.options.context
        return contexts.DEFAULT if self.options.host else contexts.current()

    @property
    def host(self) -> str:
        """Where the engine is, as a person writes it; empty: the default socket."""
        given = self.options.host or (
            "" if self.options.context else os.environ.get("SAMPAN_HOST", "") or os.environ.get("DOCKER_HOST", "")
        )
        if given or self.name == "default":
            return given
        from sampan.cli.contexts import endpoint

        return endpoint(self.name).host

    @cached_property
    def endpoint(self) -> Host:
        """Raises InvalidArgument, Unsupported, NotFound."""
        name = self.name
        if name != "default":
            from sampan.cli.contexts import endpoint

            kept = endpoint(name)
            host = parse_host(kept.host or f"unix://{DEFAULT_SOCKET}")
            return host.with_tls(kept.files, verify=not kept.skip_verify) if kept.files and host.tcp else host
        host = parse_host(self.host or f"unix://{DEFAULT_SOCKET}")
        wanted = self._tls() if host.tcp else None
        return host if wanted is None else host.with_tls(wanted[0], verify=wanted[1])

    def _tls(self) -> tuple[dict[str, str], bool] | None:
        """The files for TLS, and whether the engine has to prove who it is; None: no TLS."""
        options, environment = self.options, os.environ
        verify = options.verify
        if verify is None and environment.get("DOCKER_TLS_VERIFY", "") not in _OFF:
            verify = True
        if verify is None and (options.tls or environment.get("DOCKER_TLS", "") not in _OFF):
            verify = False
        if verify is None:
            return None
        from sampan.cli.contexts import directory

        base = environment.get("DOCKER_CERT_PATH") or directory()
        files = {each: f"{base}/{each}.pem" for each in ("ca", "cert", "key") if os.path.exists(f"{base}/{each}.pem")}
        return {**files, **options.tls}, verify

    @cached_property
    def client(self) -> Client:
        """Raises Unavailable when there is no engine, and none can be started."""
        client = Client(self.endpoint)
        if not self.host:
            try:
                client.host.connect().close()
            except Unavailable:
                _start_engine(client)
        return client

    def setting(self, name: str) -> str:
        """A text of Docker's `config.json`, such as `psFormat`; empty where there is none."""
        if self._settings is None:
            from sampan.cli.contexts import settings

            self._settings = settings()
        value = self._settings.get(name)
        return value if isinstance(value, str) else ""


def _start_engine(client: Client) -> None:
    """Start an engine that goes again when it is idle, and wait until it answers."""
    import subprocess

    directory = os.path.dirname(DEFAULT_SOCKET)
    log_path = f"{directory}/engine.log"
    try:
        os.makedirs(directory, mode=0o711, exist_ok=True)
        log = open(log_path, "ab")  # noqa: SIM115 - handed over to the engine
    except OSError as error:
        raise Unavailable(
            f"Cannot connect to the engine at {client.host}, nor start one: {error.filename}: "
            f"{(error.strerror or '').lower()}"
        ) from error
    with log:
        engine = subprocess.Popen(
            [sys.executable, "-I", "-m", "sampan.engine", "--on-demand"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
        )  # fmt: skip
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline:
        try:
            client.host.connect().close()
        except Unavailable:
            if engine.poll() is not None and engine.returncode != 0:
                raise Unavailable(f"the engine did not start: {_last_line(log_path)}") from None
            time.sleep(0.01)
        else:
            return
    raise Unavailable(f"the engine did not answer within {_START_TIMEOUT:.0f} s; see {log_path}")


def _last_line(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    return lines[-1] if lines else f"see {path}"
