"""The filters of the list, and the columns of top, held against the real ps."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import time

import pytest

from sampan.engine.containers.top import top
from sampan.errors import InvalidArgument, SampanError, Unsupported
from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:docker", "program:busybox")


def _named(engine: Engine, *filters: str) -> set[str]:
    words = [word for each in filters for word in ("--filter", each)]
    return set(engine.docker("ps", "-a", "--format", "{{.Names}}", *words, check=True).stdout.split())


def test_filters(engine: Engine) -> None:
    docker = engine.docker
    docker(
        "run", "-d", "--name", "web", "-p", "127.0.0.1:0:80", "--expose", "90/udp", "box", "sleep", "600", check=True
    )
    docker("run", "--name", "ended", "--network", "none", "-l", "a=b", "-v", "vol:/v", "box", "sh", "-c", "exit 3")
    docker("create", "--name", "new", "--network", "none", "-l", "a=c", "box", "true", check=True)
    public = docker("port", "web", "80").stdout.strip().rpartition(":")[2]
    for filters, names in (
        (("expose=80",), {"web"}), (("expose=70-85/tcp",), {"web"}), (("expose=90/udp",), {"web"}),
        (("expose=90",), set()), ((f"publish={public}",), {"web"}), (("publish=80",), set()),
        (("is-task=true",), set()), (("is-task=false",), {"web", "ended", "new"}), (("exited=3",), {"ended"}),
        (("status=created",), {"new"}), (("status=created", "status=exited"), {"new", "ended"}), (("label=a",),
        {"ended", "new"}), (("label=a=b",), {"ended"}), (("before=ended",), {"web"}),
        (("since=web",), {"ended", "new"}), (("name=e[nw]",), {"ended", "new"}),
        (("since=web", "before=new"), {"ended"}), (("volume=vol",), {"ended"}), (("volume=/v",), {"ended"}),
        (("network=none",), {"ended", "new"}), (("ancestor=box",), {"web", "ended", "new"}),
        (("name=^new$",), {"new"}), (("health=none", "label=a=c"), {"new"}),
    ):  # fmt: skip
        assert _named(engine, *filters) == names, filters
    listed = engine.client.call("GET", "/containers/json", limit=2, size=True)
    assert [each["Names"] for each in listed] == [["/new"], ["/ended"]] and "SizeRootFs" in listed[0]
    for wrong, message in (
        ({"publish": ["x"]}, "error while looking up for publish x"), ({"expose": ["9-8"]}, "for expose 9-8"),
        ({"is-task": ["x"]}, "invalid filter 'is-task=[x]'"), ({"nope": ["x"]}, "invalid filter 'nope'"),
        ({"before": ["nosuch"]}, "No such container: nosuch"), ({"health": ["x"]}, "invalid value for health (x)"),
        ({"status": ["x"]}, "invalid value for state (x)"),
    ):  # fmt: skip
        with pytest.raises(SampanError) as refusal:
            engine.client.call("GET", "/containers/json", filters=wrong)
        assert message in refusal.value.message
    docker("rm", "-fv", "web", "ended", "new", check=True)
    docker("volume", "rm", "vol", check=True)


@pytest.mark.requires("program:ps")
@pytest.mark.parametrize(
    "arguments",
    ["-ef", "aux", "x", "-eFww", "-el", "-ej", "-e", "-eo pid,cmd", "-o pid,ppid -o comm", "-eo pid,user=WHO",
     "-eo pid,ppid,user,uid,group,comm,stat,s,time,tty,lstart,ni,pri,nlwp,pgid,sid,egid,ruser,args"],
)  # fmt: skip
def test_the_columns_of_ps(arguments: str) -> None:
    busybox = shutil.which("busybox")
    assert busybox
    with subprocess.Popen([busybox, "sleep", "600"], start_new_session=True) as process:
        try:
            deadline = time.monotonic() + 20
            # It sleeps, and is not on its way there.
            while " (busybox) S " not in pathlib.Path(f"/proc/{process.pid}/stat").read_text():
                assert time.monotonic() < deadline
            found = top([process.pid], arguments)
            real = subprocess.run(
                ["ps", *arguments.split()],
                capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "1000"},
            ).stdout.splitlines()  # fmt: skip
            titles = list(found.titles)
            assert titles == real[0].split()
            at = titles.index("PID")
            # What goes on meanwhile is another number a moment later.
            volatile = {"C", "%CPU", "%MEM", "RSS", "PSR", "WCHAN", "SZ", "VSZ"}
            rows = [line.split() for line in real[1:]]
            theirs = [row for row in rows if len(row) > at and row[at] == str(process.pid)]
            if theirs:  # Without -e or x it shows those of its own terminal alone.
                ours = " ".join(found.processes[0]).split()
                assert len(ours) == len(theirs[0])
                assert {
                    (title, mine, other)
                    for title, mine, other in zip(titles, ours, theirs[0], strict=False)
                    if mine != other and title not in volatile
                } == set()
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ("-o user", InvalidArgument, "Couldn't find PID field in ps output"),
        ("-o pid aux", InvalidArgument, "conflicting format options"),
        ("-o nope", InvalidArgument, 'unknown user-defined format specifier "nope"'),
        ("-o", InvalidArgument, "format specification must follow -o"),
        ("--sort=pid", Unsupported, "'--sort=pid' is not supported"),
        ("-Z", Unsupported, "'-Z' is not supported"),
    ],
)
def test_arguments_that_are_refused(arguments: str, error: type[SampanError], message: str) -> None:
    with pytest.raises(error) as refusal:
        top([os.getpid()], arguments)
    assert message in refusal.value.message
