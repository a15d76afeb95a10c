"""What an engine says no to, and in which words: one request each, with a container that runs and one that does not."""

from __future__ import annotations

from typing import Any

from tests.e2e.documents.scenes import Stage

RUNS, STOPPED = "refusal-runs", "refusal-stopped"


def _create(**members: Any) -> tuple[str, str, Any]:
    return "POST", "/containers/create", {"Image": "box", "Cmd": ["true"], **members}


def _host(**members: Any) -> tuple[str, str, Any]:
    return _create(HostConfig=members)


REQUESTS: dict[str, tuple[str, str, Any]] = {
    "inspect of none": ("GET", "/containers/nosuch/json", None),
    "no image": ("POST", "/containers/create", {"Cmd": ["true"]}),
    "nothing at all": ("POST", "/containers/create", {}),
    "unknown image": _create(Image="nosuch"),
    "unknown image by id": _create(Image="sha256:" + "0" * 64),
    "malformed image": _create(Image="Bad:Name:x"),
    "no command": ("POST", "/containers/create", {"Image": "box"}),
    "bad name": ("POST", "/containers/create?name=a%20b", {"Image": "box", "Cmd": ["true"]}),
    "short name": ("POST", "/containers/create?name=a", {"Image": "box", "Cmd": ["true"]}),
    "name in use": ("POST", f"/containers/create?name={RUNS}", {"Image": "box", "Cmd": ["true"]}),
    "no JSON": ("POST", "/containers/create", "{"),
    "not called JSON": ("POST", "/containers/create", b"{}"),
    "relative working directory": _create(WorkingDir="tmp"),
    "variable without name": _create(Env=["=b"]),
    "bad stop signal": _create(StopSignal="SIGNOPE"),
    "bad health check": _create(Healthcheck={"Test": ["NOPE"]}),
    "short health interval": _create(Healthcheck={"Test": ["CMD", "true"], "Interval": 1}),
    "long host name": _create(Hostname="a" * 64),
    "little memory": _host(Memory=1 << 20),
    "swap without memory": _host(MemorySwap=64 << 20),
    "swap below memory": _host(Memory=64 << 20, MemorySwap=32 << 20),
    "reservation above memory": _host(Memory=64 << 20, MemoryReservation=128 << 20),
    "little reservation": _host(MemoryReservation=1 << 20),
    "swappiness": _host(MemorySwappiness=101),
    "many cpus": _host(NanoCpus=10**13),
    "cpus and quota": _host(NanoCpus=10**9, CpuQuota=50000),
    "cpus and period": _host(NanoCpus=10**9, CpuPeriod=50000),
    "short period": _host(CpuPeriod=10),
    "small quota": _host(CpuQuota=10),
    "bad cpuset": _host(CpusetCpus="x"),
    "cpu that is not there": _host(CpusetCpus="4000"),
    "memory node that is not there": _host(CpusetMems="4000"),
    "weight": _host(BlkioWeight=5),
    "ulimit": _host(Ulimits=[{"Name": "nope", "Soft": 1, "Hard": 1}]),
    "ulimit above": _host(Ulimits=[{"Name": "nofile", "Soft": 2, "Hard": 1}]),
    "restart policy": _host(RestartPolicy={"Name": "sometimes"}),
    "restart count": _host(RestartPolicy={"Name": "always", "MaximumRetryCount": 3}),
    "negative restart count": _host(RestartPolicy={"Name": "on-failure", "MaximumRetryCount": -1}),
    "restart and remove": _host(RestartPolicy={"Name": "always"}, AutoRemove=True),
    "log driver": _host(LogConfig={"Type": "nope"}),
    "log option": _host(LogConfig={"Type": "json-file", "Config": {"nope": "1"}}),
    "log size": _host(LogConfig={"Type": "json-file", "Config": {"max-size": "much"}}),
    "runtime": _host(Runtime="nope"),
    "capability": _host(CapAdd=["NOPE"]),
    "extra host": _host(ExtraHosts=["nope"]),
    "security option": _host(SecurityOpt=["nope"]),
    "dns": _host(Dns=["nope"]),
    "bind of relative path": _host(Binds=["a/b:/c"]),
    "bind to relative path": _host(Binds=["/a:c"]),
    "bind to root": _host(Binds=["/opt:/"]),
    "bind mode": _host(Binds=["/opt:/c:nope"]),
    "bind twice": _host(Binds=["/opt:/c", "/opt:/c"]),
    "bind of four": _host(Binds=["/a:/b:ro:x"]),
    "volume name": _host(Binds=["a?:/c"]),
    "mount type": _host(Mounts=[{"Type": "nope", "Target": "/c"}]),
    "mount without target": _host(Mounts=[{"Type": "bind", "Source": "/opt"}]),
    "mount without source": _host(Mounts=[{"Type": "bind", "Target": "/c"}]),
    "mount of nothing": _host(Mounts=[{"Type": "bind", "Source": "/no/such", "Target": "/c"}]),
    "mount to relative path": _host(Mounts=[{"Type": "bind", "Source": "/opt", "Target": "c"}]),
    "mount of relative path": _host(Mounts=[{"Type": "bind", "Source": "opt", "Target": "/c"}]),
    "mount to root": _host(Mounts=[{"Type": "bind", "Source": "/opt", "Target": "/"}]),
    "bind modes": _host(Binds=["/opt:/c:ro,rw"]),
    "bind with two propagations": _host(Binds=["/opt:/c:rslave,rshared"]),
    "bind without copy": _host(Binds=["/opt:/c:nocopy"]),
    "volume with propagation": _host(Binds=["a1:/c:rslave"]),
    "volume driver": _host(Binds=["bad-driver:/c"], VolumeDriver="nope"),
    "mounted volume's driver": _host(
        Mounts=[
            {
                "Type": "volume",
                "Source": "bad-driver",
                "Target": "/c",
                "VolumeOptions": {"DriverConfig": {"Name": "nope"}},
            }
        ]
    ),
    "mounted volume's options": _host(
        Mounts=[
            {
                "Type": "volume",
                "Source": "bad-options",
                "Target": "/c",
                "VolumeOptions": {"DriverConfig": {"Options": {"type": "tmpfs"}}},
            }
        ]
    ),
    "absolute subpath": _host(
        Mounts=[{"Type": "volume", "Source": "a1", "Target": "/c", "VolumeOptions": {"Subpath": "/x"}}]
    ),
    "subpath outside": _host(
        Mounts=[{"Type": "volume", "Source": "a1", "Target": "/c", "VolumeOptions": {"Subpath": "x/../.."}}]
    ),
    "subpath of none": _host(Mounts=[{"Type": "volume", "Target": "/c", "VolumeOptions": {"Subpath": "x"}}]),
    "mount with another's options": _host(
        Mounts=[{"Type": "bind", "Source": "/opt", "Target": "/c", "VolumeOptions": {}}]
    ),
    "volume mount with a bind's options": _host(
        Mounts=[{"Type": "volume", "Source": "a1", "Target": "/c", "BindOptions": {}}]
    ),
    "image mount without source": _host(Mounts=[{"Type": "image", "Target": "/c"}]),
    "image mount of none": _host(Mounts=[{"Type": "image", "Source": "nosuch", "Target": "/c"}]),
    "image mount's subpath": _host(
        Mounts=[{"Type": "image", "Source": "box", "Target": "/c", "ImageOptions": {"Subpath": "../x"}}]
    ),
    "cluster mount": _host(Mounts=[{"Type": "cluster", "Source": "a1", "Target": "/c"}]),
    "tmpfs mount's option": _host(
        Mounts=[{"Type": "tmpfs", "Target": "/c", "TmpfsOptions": {"Options": [["uid", "7"]]}}]
    ),
    "tmpfs mount's options": _host(
        Mounts=[{"Type": "tmpfs", "Target": "/c", "TmpfsOptions": {"Options": [["a", "b", "c"]]}}]
    ),
    "volumes from none": _host(VolumesFrom=["nosuch"]),
    "volumes from with a bad mode": _host(VolumesFrom=[f"{STOPPED}:nope"]),
    "tmpfs with source": _host(Mounts=[{"Type": "tmpfs", "Source": "/opt", "Target": "/c"}]),
    "tmpfs option": _host(Tmpfs={"/c": "nope"}),
    "tmpfs to relative path": _host(Tmpfs={"c": ""}),
    "port": _host(PortBindings={"nope": [{"HostPort": "80"}]}),
    "port too high": _host(PortBindings={"70000/tcp": [{"HostPort": "80"}]}),
    "host port": _host(PortBindings={"80/tcp": [{"HostPort": "nope"}]}),
    "host port too high": _host(PortBindings={"80/tcp": [{"HostPort": "70000"}]}),
    "protocol": _host(PortBindings={"80/nope": [{"HostPort": "80"}]}),
    "host address": _host(PortBindings={"80/tcp": [{"HostIp": "nope", "HostPort": "80"}]}),
    "exposed port": _create(ExposedPorts={"nope": {}}),
    "network mode": _host(NetworkMode="nosuch"),
    "pid mode": _host(PidMode="nope"),
    "pid of none": _host(PidMode="container:nosuch"),
    "ipc mode": _host(IpcMode="nope"),
    "uts mode": _host(UTSMode="nope"),
    "cgroup namespace mode": _host(CgroupnsMode="nope"),
    "user namespace mode": _host(UsernsMode="nope"),
    "oom score": _host(OomScoreAdj=5000),
    "shared memory": _host(ShmSize=-1),
    "device mode": _host(Devices=[{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "x"}]),
    "host name on the host's network": _create(Hostname="x", HostConfig={"NetworkMode": "host"}),
    "host's domain name and uts": _create(Hostname="x", HostConfig={"UTSMode": "host"}),
    "links on the host's network": _host(NetworkMode="host", Links=["a:b"]),
    "mac address": _create(
        NetworkingConfig={"EndpointsConfig": {"bridge": {"MacAddress": "nope"}}}, HostConfig={"NetworkMode": "bridge"}
    ),
    "address": _create(
        NetworkingConfig={"EndpointsConfig": {"bridge": {"IPAMConfig": {"IPv4Address": "nope"}}}},
        HostConfig={"NetworkMode": "bridge"},
    ),
    "two networks": _create(
        NetworkingConfig={"EndpointsConfig": {"bridge": {}, "nosuch": {}}}, HostConfig={"NetworkMode": "bridge"}
    ),
    "start of none": ("POST", "/containers/nosuch/start", None),
    "start of a running one": ("POST", f"/containers/{RUNS}/start", None),
    "stop of none": ("POST", "/containers/nosuch/stop", None),
    "stop of a stopped one": ("POST", f"/containers/{STOPPED}/stop", None),
    "stop with a bad time": ("POST", f"/containers/{RUNS}/stop?t=x", None),
    "stop with a bad signal": ("POST", f"/containers/{RUNS}/stop?signal=NOPE", None),
    "kill of a stopped one": ("POST", f"/containers/{STOPPED}/kill", None),
    "kill with a bad signal": ("POST", f"/containers/{RUNS}/kill?signal=NOPE", None),
    "kill of none": ("POST", "/containers/nosuch/kill", None),
    "pause of a stopped one": ("POST", f"/containers/{STOPPED}/pause", None),
    "unpause of a running one": ("POST", f"/containers/{RUNS}/unpause", None),
    "unpause of a stopped one": ("POST", f"/containers/{STOPPED}/unpause", None),
    "top of a stopped one": ("GET", f"/containers/{STOPPED}/top", None),
    "logs of no stream": ("GET", f"/containers/{RUNS}/logs", None),
    "logs of none": ("GET", "/containers/nosuch/logs?stdout=1", None),
    "logs since a bad time": ("GET", f"/containers/{RUNS}/logs?stdout=1&since=x", None),
    "exec in a stopped one": ("POST", f"/containers/{STOPPED}/exec", {"Cmd": ["true"]}),
    "exec in none": ("POST", "/containers/nosuch/exec", {"Cmd": ["true"]}),
    "exec without command": ("POST", f"/containers/{RUNS}/exec", {}),
    "exec with bad keys": ("POST", f"/containers/{RUNS}/exec", {"Cmd": ["true"], "DetachKeys": "nope"}),
    "start of no exec": ("POST", "/exec/nosuch/start", {"Detach": True}),
    "inspect of no exec": ("GET", "/exec/nosuch/json", None),
    "resize of no exec": ("POST", "/exec/nosuch/resize?h=1&w=1", None),
    "resize of a stopped one": ("POST", f"/containers/{STOPPED}/resize?h=1&w=1", None),
    "resize with a bad height": ("POST", f"/containers/{RUNS}/resize?h=x&w=1", None),
    "rename to nothing": ("POST", f"/containers/{RUNS}/rename", None),
    "rename to itself": ("POST", f"/containers/{RUNS}/rename?name={RUNS}", None),
    "rename to a taken one": ("POST", f"/containers/{RUNS}/rename?name={STOPPED}", None),
    "rename to a bad one": ("POST", f"/containers/{RUNS}/rename?name=a%20b", None),
    "wait for a bad condition": ("POST", f"/containers/{RUNS}/wait?condition=nope", None),
    "wait for none": ("POST", "/containers/nosuch/wait", None),
    "remove a running one": ("DELETE", f"/containers/{RUNS}", None),
    "remove none": ("DELETE", "/containers/nosuch", None),
    "update to little memory": ("POST", f"/containers/{RUNS}/update", {"Memory": 1 << 20}),
    "update to a bad policy": ("POST", f"/containers/{RUNS}/update", {"RestartPolicy": {"Name": "nope"}}),
    "update of none": ("POST", "/containers/nosuch/update", {}),
    "attach to none": ("POST", "/containers/nosuch/attach?stream=1&stdout=1", None),
    "attach with bad keys": ("POST", f"/containers/{RUNS}/attach?stream=1&stdout=1&detachKeys=nope", None),
    "list by a bad filter": ("GET", '/containers/json?filters={"nope":["x"]}', None),
    "list by a bad status": ("GET", '/containers/json?filters={"status":["nope"]}', None),
    "list before none": ("GET", '/containers/json?filters={"before":["nosuch"]}', None),
    "list by bad exit code": ("GET", '/containers/json?filters={"exited":["x"]}', None),
    "list by no filters": ("GET", "/containers/json?filters=x", None),
    "list with a bad limit": ("GET", "/containers/json?limit=x", None),
    "prune by a bad filter": ("POST", '/containers/prune?filters={"nope":["x"]}', None),
    "image of none": ("GET", "/images/nosuch/json", None),
    "image by a malformed name": ("GET", "/images/Bad:Name:x/json", None),
    "history of none": ("GET", "/images/nosuch/history", None),
    "tag of none": ("POST", "/images/nosuch/tag?repo=a", None),
    "tag without name": ("POST", "/images/box/tag", None),
    "malformed tag": ("POST", "/images/box/tag?repo=a&tag=b%20c", None),
    "remove an image in use": ("DELETE", "/images/box", None),
    "remove no image": ("DELETE", "/images/nosuch", None),
    "images by a bad filter": ("GET", '/images/json?filters={"nope":["x"]}', None),
    "dangling maybe": ("GET", '/images/json?filters={"dangling":["maybe"]}', None),
    "volume of none": ("GET", "/volumes/nosuch", None),
    "remove no volume": ("DELETE", "/volumes/nosuch", None),
    "volume of a bad name": ("POST", "/volumes/create", {"Name": "a?"}),
    "volume of a bad driver": ("POST", "/volumes/create", {"Name": "bad-driver", "Driver": "nope"}),
    "volume without a device": ("POST", "/volumes/create", {"Name": "bad-volume", "DriverOpts": {"type": "tmpfs"}}),
    "volume without a type": ("POST", "/volumes/create", {"Name": "bad-volume", "DriverOpts": {"device": "tmpfs"}}),
    "volume with options alone": ("POST", "/volumes/create", {"Name": "bad-volume", "DriverOpts": {"o": "size=1m"}}),
    "volume's unknown option": ("POST", "/volumes/create", {"Name": "bad-volume", "DriverOpts": {"nope": "1"}}),
    "volume of a size": ("POST", "/volumes/create", {"Name": "bad-volume", "DriverOpts": {"size": "10m"}}),
    "volume of a bad size": ("POST", "/volumes/create", {"Name": "bad-volume", "DriverOpts": {"size": "much"}}),
    "volumes by another filter": ("GET", '/volumes?filters={"label!":["x"]}', None),
    "volumes dangling maybe": ("GET", '/volumes?filters={"dangling":["maybe"]}', None),
    "prune volumes by time": ("POST", '/volumes/prune?filters={"until":["1h"]}', None),
    "volumes by a bad filter": ("GET", '/volumes?filters={"nope":["x"]}', None),
    "network of none": ("GET", "/networks/nosuch", None),
    "remove the bridge": ("DELETE", "/networks/bridge", None),
    "events of a bad time": ("GET", "/events?since=x&until=1", None),
    "df of a bad type": ("GET", "/system/df?type=nope", None),
    "no such page": ("GET", "/nosuch", None),
    "wrong method": ("POST", "/containers/json", None),
}


def play(stage: Stage) -> dict[str, Any]:
    """Status and document of each refusal."""
    api = stage.api
    for name in (RUNS, STOPPED):
        api.call("DELETE", f"/containers/{name}", force=1)
    runs = api.must("POST", "/containers/create", {"Image": "box", "Cmd": ["sleep", "600"]}, name=RUNS)["Id"]
    stopped = api.must("POST", "/containers/create", {"Image": "box", "Cmd": ["true"]}, name=STOPPED)["Id"]
    told: dict[str, Any] = {}
    try:
        api.must("POST", f"/containers/{RUNS}/start")
        for name, (method, path, body) in REQUESTS.items():
            status, document = api.call(method, path, body)
            if isinstance(document, dict) and "Id" in document and status == 201:
                # What is taken here is refused at the start, or not at all.
                made = document["Id"]
                status, document = api.call("POST", f"/containers/{made}/start")
                api.call("POST", f"/containers/{made}/wait")
                api.must("DELETE", f"/containers/{made}", force=1)
                told[name] = ["start", status, document]
                continue
            told[name] = [status, document]
    finally:
        for name in (RUNS, STOPPED):
            api.call("DELETE", f"/containers/{name}", force=1)
    images = [str(api.must("GET", f"/images/{name}/json")["Id"]) for name in ("box", "full")]
    masked: dict[str, Any] = stage.masks(runs, stopped, *images).mask(told)
    return masked
