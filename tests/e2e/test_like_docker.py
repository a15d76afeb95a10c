"""Our command and Docker's 28 beside it, on the same engine: the same words give the same output and status."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:busybox", "program:docker")

LISTS = r"""
ps
ps -a
ps -as
ps --no-trunc
ps -aq
ps -aq --no-trunc
ps -n 1
ps -n=1
ps -l
ps -f status=created
ps --filter name=lk --filter label=a=b
ps --format json
ps -a --format '{{json .}}'
ps --format raw
ps -as --format raw
ps -a --format 'table {{.ID}}\t{{.Names}}\t{{.Ports}}\t{{.Label "a"}}\t{{.Networks}}\t{{.Mounts}}\t{{.LocalVolumes}}'
ps -a --format '{{.Names}}: {{if .Ports}}{{.Ports}}{{else}}none{{end}}\n'
ps -a --format '{{range split .Labels ","}}[{{.}}]{{end}}'
ps -a --format '{{.Size}} {{.State}} {{upper .Image}} {{.Command}}'
container ls -a
container list
container ps
images
images -q
images --digests
images --no-trunc
images --format json
images --format raw
images --digests --format raw
images --format 'table {{.Repository}}\t{{.Tag}}\t{{.Size}}'
images --format '{{.Repository}}:{{.Tag}} {{.VirtualSize}} {{.CreatedAt}}'
image ls box
images nope
history box
history --no-trunc box
history -q box
history --human=false box
history --format json box
history -H=false --format '{{.CreatedSince}} {{.Size}}' box
network ls
network ls -q
network ls --no-trunc
network ls --format json
network ls --format raw
network ls --format '{{.Name}}: {{.CreatedAt}} {{.Internal}} {{.IPv6}}'
network ls -f driver=bridge
volume ls
volume ls -q
volume ls --format json
volume ls --format raw
volume ls --format 'table {{.Name}}\t{{.Mountpoint}}\t{{.Label "x"}}'
system df
system df --format json
system df --format '{{.Type}}: {{.TotalCount}}'
context ls
context ls -q
context show
context ls --format json
context inspect -f '{{.Endpoints.docker.Host}}'
"""

INSPECTIONS = r"""
inspect lk-one
inspect lk-one lk-two box bridge lk-vol
inspect -s lk-two
inspect nope
inspect lk-one nope
inspect --type container box
inspect --format=json lk-one
inspect -f '{{.Name}} {{.State.Status}} {{.State.Running}} {{.RestartCount}}' lk-one
inspect -f '{{json .Config.Labels}} {{json .Config.Cmd}} {{json .HostConfig.CapAdd}}' lk-one
inspect -f '{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}' lk-one
inspect -f '{{range .Mounts}}{{.Type}}:{{.Destination}} {{end}}' lk-one
inspect -f '{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}' lk-one
inspect -f '{{range $p, $c := .NetworkSettings.Ports}}{{$p}} -> {{(index $c 0).HostPort}}{{end}}' lk-one
inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.Gateway}}{{end}}' lk-one
inspect -f '{{.NetworkSettings.Networks.bridge.IPAddress}}' lk-one
inspect -f '{{index .Config.Labels "a"}}-{{index .Config.Labels "nope"}}-' lk-one
inspect -f '{{.State.Health}} {{if .State.Health}}h{{else}}none{{end}}' lk-one
inspect -f '{{.Config.Cmd}} {{.Config.Entrypoint}} {{.HostConfig.Binds}} {{.HostConfig.CapAdd}}' lk-one
inspect -f '{{.Config.Volumes}} {{.Config.Healthcheck}} {{.HostConfig.PidsLimit}} {{.HostConfig.Init}}' lk-one
inspect -f '{{join .Config.Cmd ","}} {{upper .Name}} {{title "ab cd"}} {{len .Mounts}} {{lower "AB"}}' lk-one
inspect -f '{{printf "%s|%5d|%-6s|%q|%v|%t" .Name 3 "x" .Driver .RestartCount .State.Running}}' lk-one
inspect -f '{{with .HostConfig}}{{.NetworkMode}}{{end}}{{- " x" -}}  y' lk-one
inspect -f '{{$x := .Name}}{{if and (eq $x "/lk-one") (ne .State.Pid 0) (not .State.Dead)}}ok{{end}}' lk-one
inspect -f '{{range $i, $e := .Config.Env}}{{if $i}}, {{end}}{{$e}}{{end}}' lk-one
inspect -f '{{println .Name}}{{print 1 2 "x" 3}}{{html "<a>"}}{{urlquery "a b&c"}}{{slice "abcdef" 1 3}}' lk-one
inspect -f '{{pad "x" 1 2}}|{{truncate "abcdef" 3}}|{{1e6}} {{1.5}} {{123456789.0}} {{0x10}}\n' lk-one
inspect -f '{{.SizeRw}}' lk-one
inspect -sf '{{.SizeRw}}' lk-two
inspect --size --format '{{.SizeRw}} {{.SizeRootFs}}' lk-two
container inspect nope
image inspect box
image inspect nope
image inspect -f '{{.RepoTags}} {{.Config.Labels}} {{.Size}} {{.RootFS.Layers}}' box
network inspect bridge
network inspect nope
network inspect -f '{{range .IPAM.Config}}{{.Subnet}}{{end}} {{.Options}} {{.Labels}}' bridge
volume inspect lk-vol
volume inspect nope
volume inspect -f '{{.Mountpoint}} {{.Labels}} {{.Options}}' lk-vol
top lk-one
port lk-one
port lk-one 80
port lk-one 80/tcp
port lk-one 81
events --since 10m --until 0s
events --since 10m --until 0s --format json
events --since 10m --until 0s --format '{{.Type}} {{.Action}} {{.Actor.Attributes.name}}' -f container=lk-one
info --format '{{.Driver}} {{.NCPU}} {{.ServerVersion}}'
system info -f '{{json .SecurityOptions}}'
version --format '{{.Server.Version}} {{.Server.Os}}/{{.Server.Arch}}'
stats --no-stream --format '{{.Name}} {{.Container}} {{.PIDs}}' lk-one
logs lk-one
logs -n=1 lk-one
logs --tail -1 lk-one
diff lk-one
"""

MISTAKES = r"""
ps --nonsense
ps x
ps -n x
ps -f x
rm
rm lk-nope
stop lk-nope
exec lk-one
inspect
nosuch
container nosuch
images --nope
-H foo://x ps
-c nope ps
--nope ps
ps --format '{{'
ps --format '{{nope}}'
ps --format '{{.Nope}}'
context inspect nope
context rm default
"""

RUNS = r"""
run --rm=true box echo one
run --rm --tty=false box -- echo
run --rm box echo --rm -- -it
run --rm --entrypoint echo box -n x
run --rm -e A=b -e=C=d --env E=f box sh -c 'echo $A$C$E; exit 3'
exec lk-one echo --help
exec -it=false lk-one echo x
exec -e A=b -w /tmp lk-one sh -c 'echo $A; pwd'
"""


def _words(text: str) -> list[str]:
    return text.strip().splitlines()


@pytest.fixture(scope="module")
def things(engine: Engine) -> Iterator[Engine]:
    engine.sampan(
        "run", "-d", "--name", "lk-one", "-p", "8097:80", "-v", "lk-vol:/data", "-v", "/tmp:/host:ro", "-l", "a=b",
        "-l", "c=d", "box", "sh", "-c", "echo one; echo two; sleep 600", check=True,
    )  # fmt: skip
    engine.sampan("create", "--name", "lk-two", "box", "echo", "hi", check=True)
    yield engine
    engine.sampan("rm", "-fv", "lk-one", "lk-two", check=True)
    engine.sampan("volume", "rm", "lk-vol", check=True)


@pytest.fixture(autouse=True)
def _no_containers() -> None:
    """The containers here are the module's, and not to be removed after each test."""


@pytest.mark.parametrize("line", _words(LISTS) + _words(INSPECTIONS))
def test_the_same_output(things: Engine, line: str) -> None:
    words = shlex.split(line)
    for _ in range(5):
        theirs, ours = things.docker(*words), things.sampan(*words)
        if ours.stdout == theirs.stdout:
            break  # Else a second may have passed between the two.
    assert ours.stdout.strip("\n") == theirs.stdout.strip("\n")
    assert ours.returncode == theirs.returncode
    assert bool(ours.stderr) == bool(theirs.stderr)


@pytest.mark.parametrize("line", _words(RUNS))
def test_the_same_command_runs(things: Engine, line: str) -> None:
    words = shlex.split(line)
    theirs, ours = things.docker(*words), things.sampan(*words)
    assert (ours.stdout, ours.returncode) == (theirs.stdout, theirs.returncode)


@pytest.mark.parametrize("line", _words(MISTAKES))
def test_a_mistake_ends_with_the_same_status(things: Engine, line: str) -> None:
    words = shlex.split(line)
    theirs, ours = things.docker(*words), things.sampan(*words)
    assert ours.returncode == theirs.returncode
    assert ours.stdout.strip() == theirs.stdout.strip()
    assert ours.stderr
    assert "Traceback" not in ours.stderr
