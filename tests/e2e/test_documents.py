"""Our documents beside those of Docker's engine: every member, its kind, and its value where no machine is in it.

`documents/docker-28.5.json` is what dockerd answered; `documents/record.py` says how it was taken.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Engine
from tests.e2e.documents import answers, others, refusals, volumes
from tests.e2e.documents.scenes import SCENES, Api, Scene, Stage

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:busybox")

MACHINE = (
    # The answers were taken with cgroup v1.
    "* HostConfig CgroupnsMode", "* HostConfig OomKillDisable",
)  # fmt: skip
DELIBERATE = (
    # No IPv6: ports are published on IPv4 addresses.
    "ports/inspect running: NetworkSettings Ports * ?1? *", "ports/list running: ?0? Ports *",
    # No sandbox is made where the host's network is used.
    "host/inspect running: NetworkSettings Sandbox*",
    # Docker fills this in when a container is renamed, on a network that has no names.
    "plain/inspect ended: NetworkSettings Networks bridge DNSNames*",
    # A list says where every volume lies; Docker's says it of some.
    "*list*: ?0? Mounts * Source", "others/df: Containers ?0? Mounts * Source",
    # The network is kept while a container restarts, and a start that fails tells nothing of it.
    "on failure/other events: *", "no program/other events: *", "always/other events: *",
    # What is not Docker's.
    "others/*image inspect*: DockerVersion", "others/info: Containerd",
)  # fmt: skip
REFUSED = {
    # Docker's status for a client's mistake is 500 here and there.
    "bind mode": 400, "bind modes": 400, "bind of four": 400, "bind to relative path": 400, "bind to root": 400,
    "bind with two propagations": 400, "bind without copy": 400, "volume with propagation": 400,
    "events of a bad time": 400, "security option": 400, "stop with a bad signal": 400, "unpause of a running one": 409,
    "unpause of a stopped one": 409,
}  # fmt: skip
REFUSED_IN_OTHER_WORDS: dict[str, tuple[int, str]] = {
    "attach to none": (404, "No such container: nosuch"),
    "attach with bad keys": (400, "Invalid detach keys (nope) provided"),
    "address": (
        400,
        "invalid config for network bridge: invalid endpoint settings: user specified IP address is supported on "
        "user defined networks only; invalid IPv4 address: nope",
    ),
    "exec with bad keys": (400, "Invalid detach keys (nope) provided"),
    "list with a bad limit": (400, "invalid value 'x' for limit: not a whole number"),
    "logs since a bad time": (400, 'invalid value for "since": parsing time "x"'),
    "no JSON": (400, "invalid JSON: Input data was truncated"),
    "stop with a bad time": (400, "invalid value 'x' for t: not a whole number"),
    # Docker refuses these at the start, or not at all.
    "bad health check": (400, 'unknown type "NOPE" in Healthcheck'),
    "device mode": (400, "invalid device mode: x"),
    "dns": (400, "bad nameserver address nope: not an IP address"),
    "host address": (400, "invalid host address: nope"),
    "log size": (400, "invalid size: 'much'"),
    "long host name": (400, "invalid hostname: <id>"),
    "network mode": (400, "network nosuch not found"),
    "no image": (400, "invalid reference format"),
    "protocol": (400, "invalid protocol: nope"),
    "tag without name": (400, "invalid reference format"),
    "tmpfs option": (400, 'invalid tmpfs option "nope"'),
    "two networks": (400, "network nosuch not found"),
    "ulimit": (400, "invalid ulimit type: nope"),
    "ulimit above": (400, "ulimit soft limit must be less than or equal to hard limit: 2 > 1"),
    "user namespace mode": (400, "invalid user namespace mode: nope"),
    "weight": (400, "Range of blkio weight is from 10 to 1000"),
}


@pytest.fixture(scope="module")
def recorded() -> dict[str, dict[str, answers.Flat]]:
    return answers.read()


@pytest.fixture(scope="module")
def stage(engine: Engine) -> Iterator[Stage]:
    """Our engine, with the image `full` besides `box`."""
    made = Stage(Api(engine.paths.socket))
    made.import_images()
    yield made
    made.api.must("DELETE", "/images/full")


def differences(scene: str, ours: dict[str, Any], dockers: dict[str, answers.Flat]) -> list[str]:
    """What is not as Docker has it, and not on purpose."""
    assert set(ours) == dockers.keys() - {"request"}
    found: list[str] = []
    for name, document in ours.items():
        leaves = answers.flat(document)
        for path in sorted(leaves.keys() | dockers[name].keys()):
            called = f"{scene}/{name}: {path}"
            own, theirs = (json.dumps(each[path]) if path in each else "nothing" for each in (leaves, dockers[name]))
            if own != theirs and not any(fnmatch.fnmatchcase(called, each) for each in (*MACHINE, *DELIBERATE)):
                found.append(f"{called}: {own}, Docker: {theirs}")
    return found


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_the_life_of_a_container(stage: Stage, recorded: dict[str, dict[str, answers.Flat]], scene: Scene) -> None:
    dockers = recorded[scene.name]
    found = differences(scene.name, stage.play(scene, answers.nested(dockers["request"])), dockers)
    assert not found, "\n".join(found)


def test_the_other_documents(stage: Stage, recorded: dict[str, dict[str, answers.Flat]]) -> None:
    found = differences("others", others.play(stage), recorded["others"])
    assert not found, "\n".join(found)


def test_volumes_and_mounts_of_every_kind(stage: Stage, recorded: dict[str, dict[str, answers.Flat]]) -> None:
    found = differences("kinds of volumes", volumes.play(stage), recorded["kinds of volumes"])
    assert not found, "\n".join(found)


def test_what_is_refused(stage: Stage, recorded: dict[str, dict[str, answers.Flat]]) -> None:
    ours: dict[str, Any] = refusals.play(stage)
    expected: dict[str, Any] = {name: answers.nested(answer) for name, answer in recorded["refusals"].items()}
    for name, status in REFUSED.items():
        expected[name][0] = status
    for name, (status, message) in REFUSED_IN_OTHER_WORDS.items():
        expected[name] = [status, {"message": message}]
    found = [
        f"{name}: {each}, expected: {expected.get(name)}" for name, each in ours.items() if each != expected.get(name)
    ]
    assert not found, "\n".join(found)
    assert set(ours) == set(expected)
