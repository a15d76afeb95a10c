"""Where the disk has gone: every byte has a name, what grows is told, and a prune gives it back."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import Any

import pytest

from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:docker", "program:busybox")


def explained(engine: Engine, *words: str) -> Any:
    return json.loads(engine.sampan("system", "explain", "--format", "json", *words, check=True).stdout)


def test_every_byte_has_a_name(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "busy", "--network", "none", "-v", "data:/data", "box", "sh", "-c",
                  "echo log; dd if=/dev/zero of=/data/file bs=100000 count=3;"
                  "dd if=/dev/zero of=/big bs=100000 count=2; ln /big /again; sleep 600", check=True)  # fmt: skip
    while "log" not in engine.docker("logs", "busy").stdout or engine.docker("exec", "busy", "ls", "/again").returncode:
        time.sleep(0.1)
    for _ in range(5):  # The database may be written at any moment.
        found = explained(engine, "--interval", "0")
        du = subprocess.run(["du", "-sx", "-B1", engine.paths.data_root], check=True, capture_output=True, text=True)
        if int(du.stdout.split()[0]) == found["Size"]:
            break
    assert found["Size"] == int(du.stdout.split()[0]) == sum(each["Size"] for each in found["Parts"])
    assert found["DataRoot"] == engine.paths.data_root
    parts = {(each["Kind"], *each["Images"], *each["Containers"]): each for each in found["Parts"]}
    assert parts["layer", "box:latest", "busy"]["Size"] > 1_900_000
    assert 200_000 <= parts["writable", "busy"]["Size"] < 300_000
    assert parts["volume", "busy"]["Name"] == "data"
    assert parts["volume", "busy"]["Size"] >= 300_000
    assert parts["log", "busy"]["Files"] == 1
    assert {each["Kind"] for each in found["Parts"]} <= {
        "content", "layer", "writable", "volume", "log", "container", "database", "engine",
    }  # fmt: skip
    assert all(each["Images"] for each in found["Parts"] if each["Kind"] in ("content", "layer"))
    with open(f"{engine.paths.data_root}/somebodys", "w") as file:
        file.write("x" * 5000)
    found = explained(engine, "--interval", "0")
    os.unlink(f"{engine.paths.data_root}/somebodys")
    assert [(each["Name"], each["Size"]) for each in found["Parts"] if each["Kind"] == "other"] == [("somebodys", 8192)]
    verbose = engine.sampan("system", "df", "-v", check=True).stdout
    for words in (
        "Images space usage:", "Containers space usage:", "Local Volumes space usage:", "Build cache usage: 0B",
        f"Data root space usage: {engine.paths.data_root}", "volumes/data", "box:latest; containers busy",
    ):  # fmt: skip
        assert words in verbose
    document = json.loads(engine.sampan("system", "df", "-v", "--format", "json", check=True).stdout)
    assert sum(each["Size"] for each in document["Parts"]) == document["Size"]
    engine.docker("rm", "-f", "busy", check=True)
    engine.docker("volume", "rm", "data", check=True)


def test_what_grows_and_the_volume_that_would_take_it(engine: Engine) -> None:
    script = (
        "mkdir -p /var/lib/db /var/log; dd if=/dev/zero of=/var/lib/db/old bs=1000 count=3000; echo x >/file;"
        " while true; do dd if=/dev/zero bs=1000 count=50 2>/dev/null >>/var/lib/db/wal; sleep 0.1; done"
    )
    engine.docker("run", "-d", "--name", "db", "--network", "none", "box", "sh", "-c", script, check=True)
    while engine.docker("exec", "db", "ls", "/var/lib/db/wal").returncode:
        time.sleep(0.1)
    [growth] = explained(engine, "--interval", "1")["Growth"]
    first, second, *_ = growth["Files"]
    assert (growth["Container"], first["Path"], second["Path"]) == ("db", "/var/lib/db/wal", "/var/lib/db/old")
    assert first["Grown"] >= 50_000 and 20_000 < first["BytesPerSecond"] < 2_000_000
    assert (second["Grown"], second["Size"]) == (0, 3_002_368)
    assert growth["Advice"][0]["Option"] == "-v db-db:/var/lib/db"
    text = engine.sampan("system", "explain", check=True).stdout
    assert "Container db has" in text and "/var/lib/db/wal" in text and "  -v db-db:/var/lib/db  (" in text
    assert "SHARED BY" in text and "images box:latest; containers db" in text
    engine.docker("rm", "-f", "db", check=True)
    # As advised.
    engine.docker("run", "-d", "--name", "db", "--network", "none", *growth["Advice"][0]["Option"].split(), "box", "sh",
                  "-c", script, check=True)  # fmt: skip
    while engine.docker("exec", "db", "ls", "/var/lib/db/wal").returncode:
        time.sleep(0.1)
    [growth] = explained(engine, "--interval", "0.2")["Growth"]
    assert [each["Path"] for each in growth["Files"]] == ["/file"]
    engine.docker("rm", "-f", "db", check=True)
    engine.docker("volume", "rm", "db-db", check=True)


def test_no_container_and_bad_words(engine: Engine) -> None:
    assert explained(engine, "--interval", "0")["Growth"] == []
    for interval in ("-1", "61", "nan"):
        failed = engine.sampan("system", "explain", "--interval", interval)
        assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
        assert "interval: 0 to 60 seconds" in failed.stderr
    failed = engine.sampan("system", "df", "-v", "--format", "{{.Type}}")
    assert "has no template" in failed.stderr


@pytest.mark.parametrize("who", ["docker", "sampan"])
def test_system_prune(engine: Engine, who: str) -> None:
    command = engine.docker if who == "docker" else engine.sampan
    engine.docker("system", "prune", "-af", "--volumes", check=True)
    engine.load_box()
    engine.docker("run", "--name", "ended", "--network", "none", "-v", "/anonymous", "-v", "kept:/v", "box", "sh", "-c",
                  "dd if=/dev/zero of=/file bs=1000 count=50", check=True)  # fmt: skip
    engine.docker("run", "-d", "--name", "runs", "--network", "none", "box", "sleep", "600", check=True)
    engine.docker("commit", "ended", check=True)
    engine.docker("tag", "box", "second", check=True)
    lines = command("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}", check=True).stdout.splitlines()
    assert lines == ["Images 2 1", "Containers 2 1", "Local Volumes 2 2", "Build Cache 0 0"]
    assert command("system", "df", check=True).stdout.splitlines()[0].split() == [
        "TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE",
    ]  # fmt: skip
    ours = engine.sampan("system", "df", check=True).stdout
    assert ours == engine.docker("system", "df", check=True).stdout
    for words in (("--filter", "until=1h"), ("--filter", "label=nothing")):
        assert command("system", "prune", "-f", *words, check=True).stdout == "Total reclaimed space: 0B\n"
    pruned = command("system", "prune", "-f", "--volumes", check=True).stdout
    for title in ("Deleted Containers:\n", "Deleted Volumes:\n", "Deleted Images:\ndeleted: sha256:"):
        assert title in pruned
    assert "Total reclaimed space: 100" in pruned  # The file in the container, and in the image of it.
    assert engine.docker("ps", "-a", "--format", "{{.Names}}").stdout == "runs\n"
    assert engine.docker("volume", "ls", "-q").stdout == "kept\n"
    assert engine.docker("images", "-aq").stdout.count("\n") == 2
    engine.docker("rm", "-f", "runs", check=True)
    command("volume", "prune", "-af", check=True)
    command("system", "prune", "-af", check=True)
    assert engine.docker("images", "-aq").stdout == ""
    engine.load_box()
