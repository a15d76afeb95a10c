"""What the units say."""

from __future__ import annotations

import configparser
from typing import Any

import pytest

from sampan.cli.systemd import container_unit, engine_units, quoted
from sampan.errors import InvalidArgument


def parsed(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def unit(policy: str = "no", restart: str = "", timeout: int | None = None, **config: Any) -> configparser.SectionProxy:
    inspected = {"Name": "/web", "Config": config, "HostConfig": {"RestartPolicy": {"Name": policy}}}
    return parsed(container_unit(inspected, ["/usr/bin/python3", "-m", "x"], restart=restart, timeout=timeout))[
        "Service"
    ]


def test_a_container() -> None:
    service = unit()
    assert service["Type"] == "notify"
    assert service["ExecStart"] == "/usr/bin/python3 -m x start --wait web"
    assert service["ExecStop"] == "/usr/bin/python3 -m x stop --time 10 web"
    assert (service["Restart"], service["SuccessExitStatus"], service["TimeoutStopSec"]) == ("on-failure", "143", "40")


def test_its_own_ways_to_stop() -> None:
    service = unit(StopSignal="SIGINT", StopTimeout=3)
    assert (service["SuccessExitStatus"], service["TimeoutStopSec"]) == ("130", "33")
    assert unit(StopSignal="9")["SuccessExitStatus"] == "137"
    assert unit(StopTimeout=-1)["TimeoutStopSec"] == "infinity"
    assert unit(timeout=0)["ExecStop"].endswith("stop --time 0 web")


def test_only_one_starts_it_again() -> None:
    assert unit(policy="always")["Restart"] == "no"
    assert unit(policy="always", restart="always")["Restart"] == "always"


def test_command_lines() -> None:
    assert quoted(["/a b/c", "100%", "$HOME", 'say "x"', ""]) == '"/a b/c" 100%% $$HOME "say \\"x\\"" ""'
    with pytest.raises(InvalidArgument, match="can't stand in a unit"):
        quoted(["a\nExecStartPre=/bin/evil"])


def test_the_engine() -> None:
    units = engine_units("/run/x/s.sock", "people", ["--mtu", "1400"])
    assert parsed(units["sampan.socket"])["Socket"]["ListenStream"] == "/run/x/s.sock"
    assert parsed(units["sampan.socket"])["Socket"]["SocketGroup"] == "people"
    service = parsed(units["sampan.service"])["Service"]
    assert service["ExecStart"].endswith("-I -m sampan.engine -H fd:// --mtu 1400")
    assert service["KillMode"] == "process"
