"""Real registries for the tests: Debian's docker-registry, plain or with TLS, with passwords or tokens."""

from __future__ import annotations

import base64
import http.server
import json
import pathlib
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
from typing import Any

import pytest

from tests.e2e.conftest import Engine

PROGRAMS = ("program:docker-registry", "program:openssl", "program:perl")
USER, PASSWORD = "alice", "a secret: with a colon"


def _openssl(*words: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *words], input=stdin, capture_output=True, check=True).stdout


def bcrypt(password: str) -> str:
    """What htpasswd -B would write: perl asks the C library."""
    program = 'print crypt($ARGV[0], "\\$2y\\$05\\$abcdefghijklmnopqrstuu")'
    return subprocess.run(["perl", "-e", program, password], capture_output=True, check=True, text=True).stdout


class Authority:
    """Certificates: a server's for loopback, a client's, and whoever signed them."""

    def __init__(self, directory: pathlib.Path, name: str = "Test Authority") -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self.certificate = directory / "ca.pem"
        self._key = directory / "ca.key"
        _openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-keyout", str(self._key), "-out", str(self.certificate),
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign",
        )  # fmt: skip

    def issue(self, name: str, *alternatives: str) -> tuple[pathlib.Path, pathlib.Path]:
        """A certificate and its key."""
        base = self.directory / name
        certificate, key, request, more = (base.with_suffix(each) for each in (".pem", ".key", ".csr", ".ext"))
        _openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}",
            "-keyout", str(key), "-out", str(request),
        )  # fmt: skip
        more.write_text(f"subjectAltName={','.join(alternatives)}\n" if alternatives else "keyUsage=digitalSignature\n")
        _openssl(
            "x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key), "-days", "2",
            "-CAcreateserial", "-out", str(certificate), "-extfile", str(more),
        )  # fmt: skip
        return certificate, key


class TokenServer:
    """A token server as distribution's specs "token" and "oauth" have it. Signs with a key of its own (RS256, the
    certificate in the token's head). Nobody may pull `public/…`; who is logged in may do everything but in `secret/…`.
    """

    SERVICE, ISSUER = "the test's registry", "the test"

    def __init__(self, directory: pathlib.Path) -> None:
        directory.mkdir(parents=True)
        self._key, self.certificate = directory / "token.key", directory / "token.pem"
        _openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=token", "-keyout",
            str(self._key), "-out", str(self.certificate),
        )  # fmt: skip
        self._der = base64.b64encode(_openssl("x509", "-in", str(self.certificate), "-outform", "DER")).decode()
        self.lifetime = 60
        self.seen: list[dict[str, Any]] = []
        self.identities: dict[str, str] = {}
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                header = self.headers.get("Authorization", "")
                given = base64.b64decode(header.removeprefix("Basic ")).decode() if header else ""
                self._reply(*server.answer("GET", query, given))

            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self._reply(*server.answer("POST", urllib.parse.parse_qs(form), ""))

            def _reply(self, status: int, document: dict[str, Any]) -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.realm = f"http://127.0.0.1:{self._http.server_address[1]}/token"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, method: str, query: dict[str, list[str]], given: str) -> tuple[int, dict[str, Any]]:
        scopes = [each for value in query.get("scope", []) for each in value.split(" ")]
        self.seen.append({"method": method, "scopes": scopes, "user": given.partition(":")[0]})
        user = ""
        if method == "POST":
            user = self.identities.get(query.get("refresh_token", [""])[0], "")
            if not user and query.get("grant_type") == ["password"]:
                given = f"{query['username'][0]}:{query['password'][0]}"
        if given:
            if given != f"{USER}:{PASSWORD}":
                return 401, {"details": "incorrect username or password"}
            user = USER
        if method == "POST" and not user:
            return 401, {"details": "unknown identity"}
        document: dict[str, Any] = {"access_token": self._token(user, scopes), "expires_in": self.lifetime}
        document["token"] = document["access_token"]
        if user and query.get("offline_token"):
            identity = f"identity-{len(self.identities)}"
            self.identities[identity] = user
            document["refresh_token"] = identity
        return 200, document

    def _token(self, user: str, scopes: list[str]) -> str:
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed = {"pull", "push"} if user and not name.startswith("secret/") else set()
            allowed |= {"pull"} if name.startswith("public/") else set()
            access.append({"type": kind, "name": name, "actions": sorted(allowed & set(actions.split(",")))})
        now = int(time.time())
        claims = {
            "iss": self.ISSUER, "sub": user, "aud": self.SERVICE, "iat": now - 5, "nbf": now - 5,
            "exp": now + self.lifetime, "jti": str(time.monotonic_ns()), "access": access,
        }  # fmt: skip
        head = {"typ": "JWT", "alg": "RS256", "x5c": [self._der]}
        signed = ".".join(_base64url(json.dumps(each).encode()) for each in (head, claims))
        signature = _openssl("dgst", "-sha256", "-sign", str(self._key), stdin=signed.encode())
        return f"{signed}.{_base64url(signature)}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class RegistryServer:
    """A docker-registry. `tls`: whose certificate it has; `clients`: whose it wants to see; `auth`: "basic", or a token
    server."""

    def __init__(
        self, directory: pathlib.Path, *, tls: Authority | None = None, clients: Authority | None = None,
        auth: TokenServer | str = "", address: str = "127.0.0.1", proxy: str = "",
    ) -> None:  # fmt: skip
        directory.mkdir(parents=True, exist_ok=True)
        self.data = directory / "data"
        with socket.socket() as probe:
            probe.bind((address, 0))
            self.port = probe.getsockname()[1]
        self.address = f"{address}:{self.port}"
        self.requests = directory / "log"
        settings: dict[str, Any] = {
            "version": 0.1, "storage": {"filesystem": {"rootdirectory": str(self.data)}, "delete": {"enabled": True}},
            "http": {"addr": self.address}, "log": {"accesslog": {"disabled": False}},
        }  # fmt: skip
        if tls is not None:
            certificate, key = tls.issue(f"server-{self.port}", f"IP:{address}", "DNS:localhost")
            settings["http"]["tls"] = {"certificate": str(certificate), "key": str(key)}
            if clients is not None:
                settings["http"]["tls"]["clientcas"] = [str(clients.certificate)]
        if isinstance(auth, TokenServer):
            settings["auth"] = {"token": {
                "realm": auth.realm, "service": auth.SERVICE, "issuer": auth.ISSUER,
                "rootcertbundle": str(auth.certificate),
            }}  # fmt: skip
        elif auth:
            passwords = directory / "htpasswd"
            passwords.write_text(f"{USER}:{bcrypt(PASSWORD)}\n")
            settings["auth"] = {"htpasswd": {"realm": "test", "path": str(passwords)}}
        if proxy:
            settings["proxy"] = {"remoteurl": proxy}
        configuration = directory / "config.yml"
        configuration.write_text(json.dumps(settings))  # JSON is YAML.
        with self.requests.open("wb") as log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(configuration)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        self._wait(address)

    def _wait(self, address: str) -> None:
        for _ in range(400):
            with socket.socket() as probe:
                if probe.connect_ex((address, self.port)) == 0:
                    return
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        pytest.fail(f"the registry did not start: {self.requests.read_text()[-2000:]}")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    def log(self) -> str:
        """Its access log among others: `"PUT /v2/… HTTP/1.1" 201`."""
        return self.requests.read_text()

    def blob(self, digest: str) -> pathlib.Path:
        """The file that a blob lies in."""
        name = digest.removeprefix("sha256:")
        return self.data / "docker/registry/v2/blobs/sha256" / name[:2] / name / "data"


class Place:
    """An authority, a registry for each kind of auth, and an engine that believes what lies in `certs`."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.authority = Authority(directory / "authority")
        self.tokens = TokenServer(directory / "tokens")
        self.certs = directory / "certs"
        self.basic = RegistryServer(directory / "basic", tls=self.authority, auth="basic")
        self.bearer = RegistryServer(directory / "bearer", tls=self.authority, auth=self.tokens)
        for each in (self.basic, self.bearer):
            self.believe(each.address, self.authority)
        self.engine = Engine(directory, "--certs-dir", str(self.certs))
        self.engine.start()
        self.engine.load_box()
        self.archive = directory / "box.tar"
        self.engine.docker("save", "-o", str(self.archive), "box", check=True)
        self.fill(self.basic, "team/app:v1")
        self.fill(self.bearer, "team/app:v1", "public/app:v1")

    def believe(self, address: str, authority: Authority) -> None:
        (self.certs / address).mkdir(parents=True)
        shutil.copy(authority.certificate, self.certs / address / "ca.crt")

    def fill(self, registry: RegistryServer, *names: str) -> None:
        for name in names:
            subprocess.run(
                ["skopeo", "copy", "--insecure-policy", "--dest-cert-dir", str(self.certs / registry.address),
                 "--dest-creds", f"{USER}:{PASSWORD}", f"docker-archive:{self.archive}",
                 f"docker://{registry.address}/{name}"],
                check=True, capture_output=True,
            )  # fmt: skip

    def raw(self, registry: RegistryServer, name: str) -> bytes:
        """A manifest, as skopeo sees it."""
        return self.skopeo(
            "inspect", "--raw", "--cert-dir", str(self.certs / registry.address), "--creds", f"{USER}:{PASSWORD}",
            f"docker://{registry.address}/{name}",
        )  # fmt: skip

    @staticmethod
    def skopeo(*words: str) -> bytes:
        done = subprocess.run(["skopeo", *words], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def log_in(self, who: str, server: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
        """By `docker` or `sampan`."""
        run = getattr(self.engine, who)
        done: subprocess.CompletedProcess[str] = run(
            "login", "-u", USER, "--password-stdin", server, stdin=password.encode()
        )
        return done

    def close(self) -> None:
        self.engine.stop()
        self.engine.take_down()
        for each in (self.basic, self.bearer, self.tokens):
            each.stop()
