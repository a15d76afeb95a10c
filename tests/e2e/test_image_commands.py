"""Our own commands on images and containers' files: what they print, and what they refuse."""

from __future__ import annotations

import io
import json
import pathlib
import tarfile

import pytest

from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:docker", "program:busybox")


@pytest.fixture
def changed(engine: Engine) -> None:
    """The container `it`, which has written one file, and the image `made:1` of it."""
    engine.docker("run", "--name", "it", "--network", "none", "box", "sh", "-c", "echo x >/tmp/file", check=True)
    words = ("-a", "me", "-m", "message", "-c", "LABEL kind=made", "-c", "CMD sh -c 'true'")
    engine.sampan("commit", *words, "it", "made:1", check=True)


def remove(engine: Engine) -> None:
    engine.docker("rm", "-f", "it")
    engine.docker("rmi", "-f", "made:1", check=True)


def test_files_of_a_container(engine: Engine, changed: None, short_dir: pathlib.Path) -> None:
    assert engine.sampan("diff", "it", check=True).stdout == "C /tmp\nA /tmp/file\n"
    engine.sampan("export", "-o", f"{short_dir}/it.tar", "it", check=True)
    with tarfile.open(short_dir / "it.tar") as archive:
        content = archive.extractfile("tmp/file")
        assert content is not None and content.read() == b"x\n"
    engine.sampan("container", "diff", "it", check=True)
    failed = engine.sampan("export", "-o", f"{short_dir}/none.tar", "nosuch")
    assert (failed.returncode, failed.stderr) == (1, "sampan: No such container: nosuch\n")
    assert not (short_dir / "none.tar").exists()
    remove(engine)


def test_history_and_parents(engine: Engine, changed: None) -> None:
    base = json.loads(engine.docker("image", "inspect", "box").stdout)[0]
    made = json.loads(engine.docker("image", "inspect", "made:1").stdout)[0]
    assert (made["Parent"], made["Author"], made["Comment"]) == (base["Id"], "me", "message")
    for command in (engine.docker, engine.sampan):
        template = "{{.ID}}|{{.CreatedBy}}|{{.Comment}}"
        lines = command("history", "--no-trunc", "--format", template, "made:1", check=True)
        assert lines.stdout.splitlines() == [
            f"{made['Id']}|sh -c echo x >/tmp/file|message", f"{base['Id']}||Imported from -",
        ]  # fmt: skip
    assert engine.sampan("history", "-q", "--no-trunc", "made:1").stdout.split() == [made["Id"], base["Id"]]
    assert engine.sampan("history", "-H=false", "--format", "{{.Size}}", "made:1").stdout.splitlines()[0] == "2"
    remove(engine)


def test_lists(engine: Engine, changed: None) -> None:
    for words in (
        ("--filter", "label=kind=made"), ("--filter", "reference=mad*:1"), ("--filter", "since=box"), ("made",),
    ):  # fmt: skip
        for command in (engine.docker, engine.sampan):
            listed = command("images", "--format", "{{.Repository}}:{{.Tag}} {{.Digest}}", *words, check=True).stdout
            assert listed == "made:1 <none>\n", words
    table = engine.sampan("images", "--digests", "--no-trunc", "made", check=True).stdout.splitlines()
    assert table[0].split() == ["REPOSITORY", "TAG", "DIGEST", "IMAGE", "ID", "CREATED", "SIZE"]
    assert table[1].split()[2] == "<none>" and table[1].split()[3].startswith("sha256:")
    shown = json.loads(engine.sampan("images", "--format", "json", "made", check=True).stdout)
    assert (shown["Repository"], shown["Containers"]) == ("made", "N/A")
    assert "--tree is not supported" in engine.sampan("images", "--tree").stderr
    remove(engine)


def test_prune(engine: Engine, changed: None) -> None:
    engine.docker("rm", "it", check=True)
    assert engine.sampan("image", "prune", "-f", "--filter", "label=kind=made", check=True).stdout == (
        "Total reclaimed space: 0B\n"
    )
    pruned = engine.sampan("image", "prune", "-af", "--filter", "label!=kind=made", check=True).stdout
    assert "made" not in pruned
    assert engine.docker("images", "-q", "box").stdout == ""
    # It is a parent, and has its name no more: it goes with its child.
    assert len(engine.docker("images", "-aq").stdout.split()) == 2
    lines = engine.sampan("image", "prune", "-af", "--filter", "label=kind=made", check=True).stdout.splitlines()
    assert lines[:2] == ["Deleted Images:", "untagged: made:1"]
    assert [line.partition(":")[0] for line in lines[2:-2]] == ["deleted"] * 4
    assert lines[-1].startswith("Total reclaimed space: 1.9")
    assert engine.docker("images", "-aq").stdout == ""
    engine.load_box()


def test_container_prune_filters(engine: Engine) -> None:
    for name, label in (("one", "k=v"), ("two", "k=w")):
        engine.docker("create", "--name", name, "--label", label, "box", "true", check=True)
    assert engine.sampan("container", "prune", "-f", "--filter", "until=1h", check=True).stdout == (
        "Total reclaimed space: 0B\n"
    )
    engine.sampan("container", "prune", "-f", "--filter", "label!=k=v", check=True)
    assert engine.docker("ps", "-a", "--format", "{{.Names}}").stdout == "one\n"
    engine.sampan("container", "prune", "-f", "--filter", "label=k=v", check=True)
    assert engine.docker("ps", "-aq").stdout == ""
    failed = engine.sampan("container", "prune", "-f", "--filter", "x=y")
    assert failed.stderr == "sampan: invalid filter 'x'\n"


def test_an_import_with_changes(engine: Engine) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    words = ("-c", 'HEALTHCHECK --interval=3s CMD ["x"]', "-c", "CMD x", "-m", "why", "-", "imported:1")
    engine.sampan("import", *words, stdin=buffer.getvalue(), check=True)
    made = json.loads(engine.docker("image", "inspect", "imported:1").stdout)[0]
    assert made["Comment"] == "why"
    assert made["Config"]["Healthcheck"] == {"Test": ["CMD", "x"], "Interval": 3_000_000_000}
    refused = engine.sampan("import", "http://localhost/x.tar")
    assert "not supported" in refused.stderr
    engine.docker("rmi", "imported:1", check=True)
