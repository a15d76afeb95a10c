"""Global options, the log, ids, and calls that are not calls."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import re

import pytest

from tests.contract.box import FOREVER, Box, Json

# --- Ids ----------------------------------------------------------------------------------------------

GOOD = ["A_+-.9", "x" * 64, "0.."]
BAD = [".", "..", "a/b", "../a", "a b", "~", "a@b", "ü", "a\n"]


@pytest.mark.parametrize("name", GOOD, ids=lambda name: name[:10])
def test_ids(box: Box, name: str) -> None:
    box.id = name
    box.configure(*FOREVER)
    box.create()
    assert box.state()["id"] == name
    box.call("delete", "--force", name).succeeded()
    assert box.nothing_left()


@pytest.mark.parametrize("name", BAD, ids=repr)
def test_ids_that_cannot_be(box: Box, name: str) -> None:
    """They name a directory, and are shown to people."""
    if box.runtime.differs("any-id"):
        return  # It makes directories of that name, one outside of its own root.
    before = os.listdir(box.directory)
    box.call("create", name).refused("invalid container", crun="")
    for command in ("state", "delete"):
        outcome = box.call(command, name)
        assert outcome.status == 1
        assert "invalid container" in outcome.message or "does not exist" in outcome.message
    assert {each for each in os.listdir(box.directory) if not each.startswith("call")} <= {*before, "state"}
    assert not box.state_root.exists() or os.listdir(box.state_root) == []


def test_an_empty_id(box: Box) -> None:
    box.call("create", "").refused("container id", crun="already exists")


@pytest.mark.parametrize("length", [256, 1024, 1025])
def test_an_id_that_is_too_long(box: Box, length: int) -> None:
    """Longer than a file's name."""
    outcome = box.call("create", "x" * length)
    assert outcome.status == 1
    assert outcome.message
    assert not box.state_root.exists() or os.listdir(box.state_root) == []


# --- Flags and arguments ------------------------------------------------------------------------------

ONE = ("create", "run", "start", "state", "delete", "pause", "resume", "update")


@pytest.mark.parametrize("command", ONE)
def test_exactly_one_id(box: Box, command: str) -> None:
    says = "1 argument"
    box.call(command).refused(says, crun="please specify a ID for the container")
    loose = command in ("pause", "resume")  # crun sees no more than the first.
    box.call(command, "a", "b").refused(says, crun="No such file" if loose else "requires a maximum of 1 arguments")
    assert not box.state_root.exists() or os.listdir(box.state_root) == []


def test_other_numbers_of_arguments(box: Box) -> None:
    box.call("kill").refused("argument", crun="please specify")
    box.call("kill", "a", "9", "x").refused("argument", crun="a maximum of 2")
    box.call("exec").refused("argument", crun="please specify")
    box.call("ps").refused("argument", crun="minimum of 1")
    box.call("list", "x").refused("0 argument", crun="")


UNKNOWN = [("--nope",), ("create", "--nope", "box"), ("kill", "--nope", "box"), ("exec", "--nope", "box", "true")]


@pytest.mark.parametrize("line", UNKNOWN, ids=lambda line: line[0])
def test_a_flag_that_nobody_knows(box: Box, line: tuple[str, ...]) -> None:
    box.call(*line).refused("flag provided but not defined: -", crun="unrecognized option", crun_status=64)


def test_a_command_that_nobody_knows(box: Box) -> None:
    outcome = box.call("nope")
    assert outcome.status in (1, 3)
    assert "nope" in outcome.message


def test_no_command(box: Box) -> None:
    outcome = box.call()
    if box.runtime.differs("no-help-command"):
        outcome.refused("", crun="please specify a command")
    else:
        assert "create" in outcome.succeeded().out  # The help.


def test_a_flag_without_its_value(box: Box) -> None:
    box.call("create", "--pid-file").refused("flag needs an argument: -", crun="requires", crun_status=64)


@pytest.mark.parametrize("line", [("create", "--preserve-fds", "x", "box"), ("run", "--preserve-fds=-1", "box")])
def test_a_number_that_is_none(box: Box, line: tuple[str, ...]) -> None:
    if box.runtime.differs("unparsed-numbers") or (line[1].endswith("-1") and box.runtime.differs("negative-fds")):
        return
    outcome = box.call(*line)
    assert outcome.status == 1
    assert "preserve-fds" in outcome.message
    assert box.nothing_left()


@pytest.mark.parametrize("command", ["checkpoint", "restore"])
def test_checkpoints_are_refused(box: Box, command: str) -> None:
    """There is no CRIU on this machine."""
    box.launch()
    outcome = box.call(command, box.id if command == "checkpoint" else "other")
    assert outcome.status != 0
    assert outcome.message


def test_options_that_engines_give_always(box: Box) -> None:
    for options in (("--rootless", "false"), ("--rootless=true",), ("--rootless=auto",), ("--debug",)):
        assert box.call("list", "-q", options=options).succeeded().out == ""
    assert box.call("list", options=("--rootless", "maybe")).status in (0, 1)


# --- The state root -----------------------------------------------------------------------------------


def test_roots_do_not_know_of_each_other(box: Box) -> None:
    other = box.directory / "deep/other"
    box.create()
    second = box.configuration(*FOREVER)
    second["linux"]["cgroupsPath"] += "-2"
    box.write(second)
    roots = ("--root", str(other))
    box.call("create", box.id, options=roots).succeeded()
    pids = {box.pid, json.loads(box.call("state", box.id, options=roots).succeeded().out)["pid"]}
    assert len(pids) == 2
    box.call("delete", "--force", box.id, options=roots).succeeded()
    assert box.status == "created"
    assert [each for each in os.listdir(other) if not each.startswith(".")] == []


def test_a_root_that_cannot_be(box: Box) -> None:
    (box.directory / "file").write_text("")
    outcome = box.call("create", box.id, options=("--root", str(box.directory / "file")))
    assert outcome.status == 1, outcome
    assert outcome.message
    assert box.nothing_left()


# --- The log ------------------------------------------------------------------------------------------


def records(path: pathlib.Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def logged(box: Box, *args: str, form: str = "json") -> tuple[int, str, pathlib.Path]:
    """Status, standard error and the log's path."""
    path = box.directory / "log"
    outcome = box.call(*args, options=("--log", str(path), "--log-format", form))
    return outcome.status, outcome.err, path


def test_the_log_as_json(box: Box) -> None:
    """What containerd and dockerd show to users is the last record whose level is error."""
    box.configure("nope")
    status, shown, path = logged(box, "create", box.id)
    found = records(path)
    assert status == 1
    assert {"level", "msg", "time"} <= found[-1].keys()
    assert found[-1]["level"] == "error"
    says = 'unable to start container process: exec: "nope": executable file not found in $PATH'
    assert (says if box.runtime.name != "crun" else "executable file `nope` not found in $PATH") in found[-1]["msg"]
    when = datetime.datetime.fromisoformat(found[-1]["time"].replace("Z", "+00:00"))
    assert abs((datetime.datetime.now(datetime.UTC) - when).total_seconds()) < 60
    # Standard error has the sentence, without a record's other members.
    assert shown.endswith(found[-1]["msg"] + "\n")
    assert len(shown.splitlines()) == 1


def test_the_log_is_added_to(box: Box) -> None:
    for name in ("one", "two"):
        status, _, path = logged(box, "state", name)
        assert status == 1
    assert [each["level"] for each in records(path)] == ["error", "error"]
    assert box.runtime.name == "crun" or all("does not exist" in each["msg"] for each in records(path))


def test_the_log_as_text(box: Box) -> None:
    _, _, path = logged(box, "state", "nope", form="text")
    (line,) = path.read_text().splitlines()
    if box.runtime.name == "crun":
        assert line.startswith("error opening file")
    else:
        assert line.startswith('time="')
        assert re.search(r'Z" level=error msg="container .*does not exist"$', line)


@pytest.mark.parametrize("line", [("create", "--nope", "box"), ("create",), ("nope",)], ids=" ".join)
def test_what_is_not_a_call_is_logged_too(box: Box, line: tuple[str, ...]) -> None:
    """An engine that is newer than its runtime must be able to say so."""
    _, _, path = logged(box, *line)
    if not box.runtime.differs("usage-unlogged"):
        assert records(path)[-1]["level"] == "error"


def test_the_log_is_quiet_about_what_went_well(box: Box) -> None:
    status, shown, path = logged(box, "create", box.id)
    assert (status, shown) == (0, "")
    assert not path.exists() or not [each for each in records(path) if each["level"] in ("error", "fatal")]


def test_debug_says_more(box: Box) -> None:
    path = box.directory / "log"
    options = ("--debug", "--log", str(path), "--log-format", "json")
    box.call("create", box.id, options=options).succeeded()
    assert box.runtime.differs("no-debug") or any(each["level"] == "debug" for each in records(path))


def test_a_log_that_cannot_be(box: Box) -> None:
    box.call("list", options=("--log-format", "xml")).refused("invalid log-format: xml", crun="unknown log format type")
    outcome = box.call("list", options=("--log", "/nope/log"))
    outcome.refused("/nope/log: no such file or directory", crun="No such file or directory")
