"""The commands that only look: state, list, ps, events, features, spec. Documents as runc writes them."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time

import msgspec

from sampan.errors import Conflict, Internal, InvalidArgument, NotFound, SampanError
from sampan.oci.runtime import OCI_VERSION, OCIStruct
from sampan.runtime import state
from sampan.runtime.container import Container
from sampan.runtime.options import Words

_LOOK = 0.5
"""Seconds between two looks for processes that were killed for want of memory."""


class Shown(OCIStruct, frozen=True, kw_only=True, omit_defaults=False):
    """A container as `state` and `list` show it: the specification's state, and more that engines read."""

    oci_version: str = OCI_VERSION
    id: str
    pid: int
    status: str
    bundle: str
    rootfs: str
    created: str
    annotations: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    owner: str = ""


def carry_out(name: str, root: str, given: Words) -> int:
    """The exit status."""
    match name:
        case "state":
            _print(msgspec.json.format(msgspec.json.encode(shown(Container.load(given.arguments[0], root)))))
        case "list":
            _list(root, _format(given), given.on("quiet"))
        case "ps":
            _ps(Container.load(given.arguments[0], root), _format(given), given.arguments[1:])
        case "events":
            _events(Container.load(given.arguments[0], root), given.on("stats"), seconds(given.text("interval", "5s")))
        case "features":
            from sampan.runtime.features import features

            _print(msgspec.json.format(msgspec.json.encode(features()), indent=4))
        case "spec":
            _write_spec(given.text("bundle") or ".", given.on("rootless"))
    return 0


def _print(document: bytes) -> None:
    sys.stdout.buffer.write(document + b"\n")
    sys.stdout.flush()


def _format(given: Words) -> str:
    form = given.text("format", "table")
    if form not in ("table", "json"):
        raise InvalidArgument(f"invalid format option: {form}")
    return form


def shown(container: Container) -> Shown:
    """The container as it is now."""
    status = container.status
    record = container.record
    seconds, nanoseconds = divmod(record.created, 10**9)
    return Shown(
        id=container.id,
        pid=0 if status == "stopped" else container.pid,
        status=status,
        bundle=container.bundle,
        rootfs=record.rootfs,
        created=time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z",
        annotations=container.annotations or msgspec.UNSET,
    )


def _list(root: str, form: str, quiet: bool) -> None:
    found: list[Shown] = []
    for container_id in state.ids(root):
        # One that is being made or removed at this moment.
        with contextlib.suppress(SampanError, OSError):
            each = shown(Container.load(container_id, root))
            owner = _user_name(os.stat(f"{root}/{container_id}").st_uid)
            found.append(msgspec.structs.replace(each, owner=owner))
    if quiet:
        for each in found:
            print(each.id)
    elif form == "json":
        _print(msgspec.json.encode(found))
    else:
        rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
        rows += [(each.id, str(each.pid), each.status, each.bundle, each.created, each.owner) for each in found]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def _ps(container: Container, form: str, options: list[str]) -> None:
    pids = container.pids()
    if form == "json":
        _print(msgspec.json.encode(pids))
        return
    import subprocess

    try:
        done = subprocess.run(["ps", *(options or ["-ef"])], capture_output=True, check=False)
    except FileNotFoundError:
        raise NotFound("ps: the program ps is not installed; --format json needs none") from None
    if done.returncode:
        raise InvalidArgument(f"ps: {done.stderr.decode(errors='replace').strip().splitlines()[:1] or done.returncode}")
    head, *lines = done.stdout.decode(errors="replace").splitlines()
    if "PID" not in head.split():
        raise Internal("couldn't find PID field in ps output")
    column = head.split().index("PID")
    print(head)
    wanted = {str(pid) for pid in pids}
    for line in lines:
        words = line.split()
        if len(words) > column and words[column] in wanted:
            print(line)


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """A duration such as `1m30s`, as Go writes them. Raises InvalidArgument."""
    parts = re.findall(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h)", text)
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or total <= 0:
        raise InvalidArgument(f"invalid duration {text!r}: expected one such as 5s or 1m30s")
    return total


def _events(container: Container, once: bool, interval: float) -> None:
    """A line of counters each interval, and one when the kernel kills for want of memory, until the container ends."""
    from sampan.runtime import events

    if not container.alive:
        raise Conflict(f"container {container.id} is not running")
    if once:
        _print(events.stats_document(container.id, container.stats()))
        return
    killed, due = container.oom_count(), 0.0
    while container.alive:
        now = time.monotonic()
        if now >= due:
            due = now + interval
            _print(events.stats_document(container.id, container.stats()))
        time.sleep(min(_LOOK, max(0.0, due - time.monotonic())))
        before, killed = killed, container.oom_count()
        if killed > before:
            _print(events.oom_document(container.id))


def _write_spec(bundle: str, rootless: bool) -> None:
    from sampan.runtime.example import example

    try:
        with open(os.path.join(bundle, "config.json"), "xb") as file:
            document = msgspec.json.encode(example(rootless, os.geteuid(), os.getegid()))
            file.write(msgspec.json.format(document, indent=4) + b"\n")
    except FileExistsError:
        raise InvalidArgument("file config.json exists. Remove it first") from None
