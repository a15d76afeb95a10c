"""What a shell is offered, by the parsers; and the scripts, by the shells that are here."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from sampan.cli import completion
from sampan.cli.__main__ import COMMANDS
from sampan.cli.completion import FILES, SCRIPTS, candidates, parser_of
from sampan.cli.context import Context

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """Names are the engine's, and a test has one of its own for those."""
    monkeypatch.setenv("SAMPAN_HOST", f"unix://{tmp_path}/none")
    monkeypatch.setenv("DOCKER_CONFIG", f"{tmp_path}/docker")


def _words(line: str) -> list[str]:
    return [word for word, _ in candidates(line.split(" "))]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("st", ["start", "stop", "stats"]), ("--tlsv", ["--tlsverify"]), ("-c ", ["default"]),
        ("-H x context sh", ["show"]), ("container pru", ["prune"]), ("volume ins", ["inspect"]),
        ("ps --no", ["--no-trunc"]), ("run --pull ", ["always", "missing", "never"]), ("ps ", []), ("nosuch ", []),
        ("run --pull=a", ["--pull=always"]), ("run --health-i", ["--health-interval"]), ("daemon ", []),
        ("completion ", ["bash", "zsh", "fish"]), ("container run --cidf", ["--cidfile"]), ("load -i ", [FILES]),
        ("run --env-file ", [FILES]), ("inspect --type im", ["image"]), ("context use ", ["default"]),
    ],
)  # fmt: skip
def test_what_is_offered(line: str, wanted: list[str]) -> None:
    assert _words(line) == wanted


def test_every_command_can_be_asked() -> None:
    for name in COMMANDS:
        if name not in completion._GROUPS and name != "daemon":
            assert parser_of([name]) is not None, name


def test_nothing_that_goes_wrong_shows(capfd: pytest.CaptureFixture[str]) -> None:
    for line in (
        "sampan --nonsense x",
        "sampan run -H",
        "sampan rm ",
        "sampan -H ftp://x rm ",
        "sampan ps --format '",
        "",
    ):
        assert completion.main("__complete", ["line", line], Context()) == 0
    assert capfd.readouterr().err == ""


def _bash(line: str, *, answers: str) -> list[str]:
    """What bash makes of our answers for a line."""
    program = f"""
sampan() {{ printf '{answers}'; }}
. <(cat <<'EOF'
{SCRIPTS["bash"]}
EOF
)
COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}
COMP_WORDS=({line}); [[ "$COMP_LINE" == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
compopt() {{ echo "compopt $1 $2"; }}
_sampan
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


def test_bash() -> None:
    assert _bash("sampan s", answers="start\\tStart it\\nstop\\tStop it\\n") == ["start", "stop"]
    assert _bash("sampan cp README", answers="box:\\tUp\\n:files\\n") == ["compopt -o filenames", "box:", "README.md"]


@pytest.mark.parametrize("shell", [each for each in SCRIPTS if shutil.which(each)])
def test_a_script_is_one_of_its_shell(shell: str) -> None:
    subprocess.run([shell, "-n"], input=SCRIPTS[shell].encode(), check=True, capture_output=True)


def test_the_command_prints_them() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sampan.cli.__main__", "completion", "fish"], capture_output=True, text=True, check=True,
        env={**os.environ, "SAMPAN_HOST": "unix:///nope"},
    )  # fmt: skip
    assert done.stdout == SCRIPTS["fish"]
