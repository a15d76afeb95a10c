"""Large images for bench/images, and the registry on loopback that has them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request

from isal import isal_zlib

IMAGES = {"wide": (1, 80_000, 2_000_000_000), "deep": (10, 30_000, 800_000_000)}
"""How many layers, and files and bytes in all of them."""
_DOCKER = "application/vnd.docker."
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Text:
    """Something that compresses to a good third, as programs do; nowhere the same for long."""

    def __init__(self) -> None:
        pick = random.Random(0)
        words = [bytes(pick.choices(b"abcdefghijklmnopqrstuvwxyz_", k=pick.randint(2, 11))) for _ in range(5000)]
        self._text = b" ".join(pick.choices(words, k=2_500_000))

    def take(self, pick: random.Random, size: int) -> bytes:
        at = pick.randrange(len(self._text) // 2)
        found = self._text[at : at + size]
        while len(found) < size:
            found += self._text[: size - len(found)]
        return found


def layer(path: pathlib.Path, number: int, files: int, size: int, root: pathlib.Path | None, text: Text) -> str:
    """A layer of files of very different sizes, forty in a directory; its digest."""
    pick = random.Random(number)
    weights = [pick.paretovariate(1.2) for _ in range(files)]
    factor = size / sum(weights)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        if root is not None:
            archive.add(root, ".")
        for each, weight in enumerate(weights):
            if each % 40 == 0:
                directory = tarfile.TarInfo(f"data/{number}/lib/package-{each // 40}")
                directory.type, directory.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(directory)
            entry = tarfile.TarInfo(f"{directory.name}/module-{each}.py")
            entry.size, entry.mtime = int(weight * factor), 1_700_000_000 + each
            archive.addfile(entry, io.BytesIO(text.take(pick, entry.size)))
    return digest_of(path)


def digest_of(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compressed(path: pathlib.Path) -> pathlib.Path:
    target = path.with_suffix(".gz")
    compressor = isal_zlib.compressobj(3, isal_zlib.DEFLATED, 31)
    with open(path, "rb") as plain, open(target, "wb") as out:
        while data := plain.read(1 << 20):
            out.write(compressor.compress(data))
        out.write(compressor.flush())
    return target


class Registry:
    """docker-registry on loopback, with a directory for its files."""

    def __init__(self, directory: pathlib.Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        directory.mkdir()
        (directory / "config.yml").write_text(
            f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
            f"storage: {{filesystem: {{rootdirectory: {directory}}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '{self.address}'}}\n"
        )
        self._log = open(directory / "log", "wb")  # noqa: SIM115 - for as long as the process
        self._process = subprocess.Popen(
            ["docker-registry", "serve", f"{directory}/config.yml"], stdout=self._log, stderr=self._log
        )
        for _ in range(100):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{self.address}/v2/"):
                return
            time.sleep(0.05)
        sys.exit(f"docker-registry did not start: {(directory / 'log').read_text()}")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()

    def _send(self, method: str, url: str, data: object = b"", kind: str = "", length: int = 0) -> str:
        request = urllib.request.Request(url, data=data, method=method)  # type: ignore[arg-type]
        request.add_header("Content-Type", kind or "application/octet-stream")
        request.add_header("Content-Length", str(length or (len(data) if isinstance(data, bytes) else 0)))
        with urllib.request.urlopen(request) as answer:
            return str(answer.headers.get("Location", ""))

    def blob(self, name: str, path: pathlib.Path) -> dict[str, object]:
        digest, size = f"sha256:{digest_of(path)}", path.stat().st_size
        at = self._send("POST", f"http://{self.address}/v2/{name}/blobs/uploads/")
        with open(path, "rb") as file:
            self._send("PUT", f"{at}{'&' if '?' in at else '?'}digest={digest}", file, length=size)
        return {"digest": digest, "size": size}

    def image(self, name: str, tag: str, config: pathlib.Path, layers: list[dict[str, object]]) -> None:
        """Give blobs that are there a name."""
        kind = _DOCKER + "distribution.manifest.v2+json"
        described = {"mediaType": _DOCKER + "container.image.v1+json", **self.blob(name, config)}
        document = {"schemaVersion": 2, "mediaType": kind, "config": described, "layers": layers}
        self._send("PUT", f"http://{self.address}/v2/{name}/manifests/{tag}", json.dumps(document).encode(), kind)


def configuration(path: pathlib.Path, digests: list[str]) -> pathlib.Path:
    config = {
        "architecture": _ARCHITECTURES[os.uname().machine], "os": "linux", "config": {"Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{each}" for each in digests]},
    }  # fmt: skip
    path.write_text(json.dumps(config))
    return path


def images(directory: pathlib.Path, registry: Registry, root: pathlib.Path, scale: float) -> dict[str, pathlib.Path]:
    """Put them into the registry, and `deep:later` with another last layer; returns archives as of `docker save`."""
    archives: dict[str, pathlib.Path] = {}
    text = Text()
    tar, config = directory / "layer.tar", directory / "config.json"
    for name, (layers, files, size) in IMAGES.items():
        archives[name] = directory / f"{name}.tar"
        digests: list[str] = []
        blobs: list[dict[str, object]] = []
        with tarfile.open(archives[name], "w") as archive:
            # One more than it has: the other last one.
            for number in range(layers + 1):
                if number == layers == 1:
                    break
                shape = (int(files * scale) // layers, int(size * scale) // layers)
                digests.append(layer(tar, number, *shape, None if number else root, text))
                packed = compressed(tar)
                blobs.append({"mediaType": _DOCKER + "image.rootfs.diff.tar.gzip", **registry.blob(name, packed)})
                if number < layers:
                    archive.add(tar, f"{digests[-1]}/layer.tar")
            archive.add(configuration(config, digests[:layers]), "config.json")
            listed = [
                {"Config": "config.json", "RepoTags": [f"{name}:latest"],
                 "Layers": [f"{each}/layer.tar" for each in digests[:layers]]}
            ]  # fmt: skip
            (directory / "manifest.json").write_text(json.dumps(listed))
            archive.add(directory / "manifest.json", "manifest.json")
        registry.image(name, "latest", config, blobs[:layers])
        if layers > 1:
            del digests[layers - 1], blobs[layers - 1]
            registry.image(name, "later", configuration(config, digests), blobs)
    return archives
