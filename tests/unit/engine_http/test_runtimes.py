"""The settings for runtimes, in dockerd's words."""

from __future__ import annotations

import pathlib

import msgspec
import pytest

from sampan.engine import runtimes
from sampan.engine.config import Config, load
from sampan.engine.runtimes import RuntimeSettings
from sampan.errors import Internal, InvalidArgument, SampanError, Unsupported


def _load(directory: pathlib.Path, document: object, *flags: str) -> Config:
    path = directory / "daemon.json"
    path.write_bytes(msgspec.json.encode(document))
    return load(["--config-file", str(path), *flags])


def test_the_file_and_the_flags(tmp_path: pathlib.Path) -> None:
    path = f"{tmp_path}/kata"
    config = _load(tmp_path, {"runtimes": {"x": {"path": path, "runtimeArgs": ["-d"]}}, "default-runtime": "x"})
    assert runtimes.resolve(config, "") == "x"
    assert runtimes.command(config, "x") == (path, "-d")
    assert (runtimes.command(config, "runc"), runtimes.command(config, "sampan")) == ((), ())
    config = _load(tmp_path, {}, "--add-runtime", "Runc=/a", "--add-runtime=b=sh", "--default-runtime=runc")
    assert runtimes.command(config, "") == ("/a",)
    assert runtimes.command(config, "b")[0].endswith("bin/sh")


def test_what_is_there_without_settings() -> None:
    config = Config()
    assert runtimes.resolve(config, "") == "sampan"
    for name in ("sampan", "runc", "io.containerd.runc.v2"):
        assert runtimes.resolve(config, name) == name
        assert runtimes.command(config, name) == ()
        assert not runtimes.is_foreign(config, name)
    with pytest.raises(InvalidArgument, match="unknown or invalid runtime name: crun"):
        runtimes.resolve(config, "crun")


def test_a_program_that_path_does_not_know() -> None:
    config = Config(runtimes={"x": RuntimeSettings(path="no-such-runtime")})
    with pytest.raises(Internal, match=r'exec: "no-such-runtime": executable file not found in \$PATH'):
        runtimes.command(config, "x")


@pytest.mark.parametrize(
    ("document", "flags", "kind", "message"),
    [
        ({"x": {}}, [], InvalidArgument, "runtime x: either a runtimeType or a path must be configured"),
        (
            {"x": {"path": "/a", "runtimeType": "io.containerd.runc.v2"}}, [], InvalidArgument,
            "runtime x: cannot configure both path and runtimeType for the same runtime",
        ),
        ({"x": {"runtimeType": "t"}}, [], Unsupported, "runtime x: runtimeType is not supported, a path is"),
        (
            {"x": {"path": "/a", "options": {"a": 1}}}, [], InvalidArgument,
            "runtime x: options cannot be used with a path runtime",
        ),
        ({"sampan": {"path": "/a"}}, [], InvalidArgument, "runtime name 'sampan' is reserved"),
        ({"../x": {"path": "/a"}}, [], InvalidArgument, "invalid runtime name: '../x'"),
        ({}, ["--default-runtime", "y"], InvalidArgument, "specified default runtime 'y' does not exist"),
        ({}, ["--add-runtime", "y"], InvalidArgument, "invalid runtime argument: y"),
        ({}, ["--add-runtime", "y="], InvalidArgument, "invalid runtime argument: y="),
        (
            {}, ["--add-runtime", "y=/a", "--add-runtime", "y=/b"], InvalidArgument, "runtime 'y' was already defined",
        ),
    ],
)  # fmt: skip
def test_nonsense(
    tmp_path: pathlib.Path, document: object, flags: list[str], kind: type[SampanError], message: str
) -> None:
    with pytest.raises(kind) as caught:
        _load(tmp_path, {"runtimes": document} if document else {}, *flags)
    assert caught.value.message == message
