"""Images as clients see them: documents, filters, moments, and the changes of an import."""

from __future__ import annotations

import io
import pathlib
import tarfile
import time
from collections.abc import Iterator

import msgspec
import pytest

from sampan.core.images import Image
from sampan.core.paths import Paths
from sampan.core.service import Core
from sampan.engine import image_documents as documents
from sampan.engine.changes import apply_changes
from sampan.engine.timestamps import parse_moment, parse_timestamp, rfc3339, unix_seconds
from sampan.errors import InvalidArgument, NotFound
from sampan.oci.image import Healthcheck, RunConfig
from sampan.oci.reference import parse_reference

pytestmark = pytest.mark.requires("root", "overlay")


def _tar(name: str, size: int) -> io.BytesIO:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = size
        archive.addfile(entry, io.BytesIO(b"x" * size))
    output.seek(0)
    return output


@pytest.fixture
def core(short_dir: pathlib.Path) -> Iterator[Core]:
    core = Core(Paths(str(short_dir / "data"), str(short_dir / "run")))
    yield core
    core.close()


def _add(core: Core, name: str, size: int = 3, **config: object) -> Image:
    reference = parse_reference(name) if name else None
    run = msgspec.convert(config, RunConfig)
    return core.import_file_system(_tar(f"{name or 'none'}-{size}", size), reference, run, message="made here")


def test_inspect_has_dockers_members(core: Core) -> None:
    image = _add(core, "a/b:1", 10, Cmd=["sh"], Labels={"k": "v"}, ExposedPorts={"80/tcp": {}})
    shown = msgspec.json.decode(msgspec.json.encode(documents.inspect(core, image, (1, 51))))
    assert shown["Id"] == image.id
    assert (shown["RepoTags"], shown["RepoDigests"], shown["Size"]) == (["a/b:1"], [], 10)
    assert (shown["Comment"], shown["Os"], shown["Parent"]) == ("made here", "linux", "")
    assert shown["RootFS"] == {"Type": "layers", "Layers": list(image.config.rootfs.diff_ids)}
    assert shown["Config"] == {
        "Cmd": ["sh"], "Entrypoint": None, "Env": None, "Labels": {"k": "v"}, "OnBuild": None, "User": "",
        "Volumes": None, "WorkingDir": "", "ExposedPorts": {"80/tcp": {}},
    }  # fmt: skip
    # One layer has nothing below it.
    directories = shown["GraphDriver"]["Data"]
    assert set(directories) == {"MergedDir", "UpperDir", "WorkDir"}
    assert pathlib.Path(directories["UpperDir"]).is_dir()
    assert not {"Variant", "OsVersion", "VirtualSize"} & shown.keys()
    assert documents.inspect(core, image, (1, 43)).virtual_size == 10


def test_summary_and_history(core: Core) -> None:
    image = _add(core, "a:1", 5)
    [line] = documents.history(core, image)
    assert (line.id, line.tags, line.size, line.comment) == (image.id, ("a:1",), 5, "made here")
    assert abs(line.created - time.time()) < 5
    shown = msgspec.json.decode(msgspec.json.encode(documents.summary(image)))
    assert set(shown) == {
        "Containers", "Created", "Id", "Labels", "ParentId", "RepoDigests", "RepoTags", "SharedSize", "Size",
    }  # fmt: skip


def test_filters(core: Core) -> None:
    first = _add(core, "reg.example:5000/one/app:1", 1, Labels={"k": "v"})
    core.images.tag(first.id, parse_reference("app:2"))
    dangling = _add(core, "", 2)

    def ids(**filters: list[str]) -> set[str]:
        return {
            image.id for image in documents.chosen(core, {name.rstrip("_"): each for name, each in filters.items()})
        }

    assert ids() == {first.id, dangling.id}
    assert ids(dangling=["true"]) == {dangling.id}
    assert ids(dangling=["0"]) == {first.id}
    assert ids(label=["k=v"]) == {first.id}
    assert ids(**{"label!": ["k"]}) == {dangling.id}
    assert ids(reference=["nothing*"]) == set()
    assert ids(until=["1h"]) == set()
    [image] = documents.chosen(core, {"reference": ["ap*"]})
    # Only the names that match are shown, and a star does not cross a slash.
    assert image.repo_tags == ("app:2",)
    [image] = documents.chosen(core, {}, name="reg.example:5000/*/app")
    assert image.repo_tags == ("reg.example:5000/one/app:1",)


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"zz": ["1"]}, "invalid filter 'zz'"),
        ({"dangling": ["maybe"]}, r"invalid filter 'dangling=\[maybe\]'"),
    ],
)
def test_filters_that_are_none(core: Core, filters: dict[str, list[str]], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        documents.chosen(core, filters)


def test_before_and_since_name_images(core: Core) -> None:
    image = _add(core, "a:1")
    assert documents.chosen(core, {"before": ["a:1"]}) == []
    assert documents.chosen(core, {"since": [image.id[:20]]}) == []
    with pytest.raises(NotFound, match="No such image: b:1"):
        documents.chosen(core, {"since": ["b:1"]})


def test_changes() -> None:
    run = apply_changes(
        RunConfig(env=("PATH=/bin", "A=1")),
        ['CMD ["sh", "-c", "x"]', "entrypoint run it", "ENV A=2 B='two words'", "ENV C rest of line",
         "EXPOSE 80 53/udp", "LABEL a=b", 'VOLUME ["/v"]', "WORKDIR /w\nWORKDIR sub", "USER me",
         "STOPSIGNAL SIGINT", "ONBUILD RUN x"],
    )  # fmt: skip
    assert run.cmd == ("sh", "-c", "x")
    assert run.entrypoint == ("/bin/sh", "-c", "run it")
    assert run.env == ("PATH=/bin", "A=2", "B=two words", "C=rest of line")
    assert set(run.exposed_ports or ()) == {"80/tcp", "53/udp"}
    assert (set(run.volumes or ()), run.labels, run.working_dir) == ({"/v"}, {"a": "b"}, "/w/sub")
    check = apply_changes(run, ["HEALTHCHECK --interval=1m30s --start-period=300ms --retries=2 CMD curl x"]).healthcheck
    assert check == Healthcheck(
        test=("CMD-SHELL", "curl x"), interval=90 * 10**9, start_period=300 * 10**6, retries=2
    )  # fmt: skip
    check = apply_changes(run, ['HEALTHCHECK CMD ["a", "b"]']).healthcheck
    assert check == Healthcheck(test=("CMD", "a", "b"))
    assert apply_changes(run, ["HEALTHCHECK NONE"]).healthcheck == Healthcheck(test=("NONE",))
    assert (run.user, run.stop_signal, run.on_build) == ("me", "SIGINT", ("RUN x",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("RUN x", "RUN is not a valid change command"),
        ("NOPE x", "unknown instruction: NOPE"),
        ("HEALTHCHECK true", 'Unknown type "true" in HEALTHCHECK'),
        ("HEALTHCHECK --interval=x CMD true", 'time: invalid duration "x"'),
        ("HEALTHCHECK --often=1s CMD true", "unknown flag: --often"),
        ("HEALTHCHECK --retries=0 CMD true", "--retries must be at least 1"),
        ("CMD", "CMD requires at least one argument"),
        ("LABEL a=b c", "can't find = in 'c'"),
        ("EXPOSE 99999", "invalid containerPort: 99999"),
        ("EXPOSE 80/x", "invalid proto: x"),
        ("ENV 'a", "no closing quotation"),
    ],
)
def test_changes_that_are_none(change: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        apply_changes(RunConfig(), [change])


def test_moments() -> None:
    assert rfc3339(1_795_510_448_082_029_980) == "2026-11-24T08:54:08.08202998Z"
    assert unix_seconds("2026-11-24T09:54:08.5+01:00") == 1_795_510_448
    assert unix_seconds("2026-11-24T08:54:08Z") == 1_795_510_448
    assert (unix_seconds(None), unix_seconds("2026-99-24T08:54:08Z")) == (0, 0)
    assert parse_timestamp("1795510448.5") == 1_795_510_448_500_000_000
    assert parse_moment("2026-11-24") == 1_795_478_400 * 10**9
    assert abs(parse_moment("1h30m") - (time.time_ns() - 5400 * 10**9)) < 10**9
    with pytest.raises(InvalidArgument, match='parsing "zz": invalid syntax'):
        parse_moment("zz")
