"""Words as Docker's command reads them."""

from __future__ import annotations

import argparse

import pytest

from sampan.cli import arguments
from sampan.cli.arguments import Parser, truth
from sampan.cli.run import parser as run_parser


def _parser() -> Parser:
    made = Parser("thing", "[OPTIONS] NAME [NAME...]", "Do it", 125)
    made.add_argument("-f", "--force", action="store_true")
    made.add_argument("-q", "--quiet", action="store_true")
    made.add_argument("-n", "--last", type=int, default=-1)
    made.add_argument("-e", "--env", action="append", default=[])
    made.add_argument("-H", "--human", type=truth, nargs="?", const=True, default=True)
    made.add_argument("names", nargs="*")
    return made


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("-fq x", {"force": True, "quiet": True, "names": ["x"]}),
        ("x -f y", {"force": True, "names": ["x", "y"]}),
        ("--force=false x", {"force": False}), ("--force=true", {"force": True}), ("-f=false", {"force": False}),
        ("-qf=0", {"quiet": True, "force": False}),
        ("-n 5", {"last": 5}), ("-n5", {"last": 5}), ("-n=5", {"last": 5}), ("-qn -1", {"quiet": True, "last": -1}),
        ("--last=-3", {"last": -3}), ("-e -x -e=A=b -eC=d --env --y", {"env": ["-x", "A=b", "C=d", "--y"]}),
        ("-H=false x", {"human": False, "names": ["x"]}), ("-H x", {"human": True, "names": ["x"]}),
        ("-- -f --last", {"force": False, "names": ["-f", "--last"]}), ("- x", {"names": ["-", "x"]}),
    ],
)  # fmt: skip
def test_words_are_read(words: str, wanted: dict[str, object]) -> None:
    found = vars(_parser().parse_args(words.split()))
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("words", "image", "command"),
    [
        ("--rm -it box sh -c x", "box", ["sh", "-c", "x"]),
        ("box --rm -x", "box", ["--rm", "-x"]), ("box -- echo", "box", ["--", "echo"]),
        ("-- box echo --", "box", ["echo", "--"]), ("--entrypoint -x box", "box", []),
        ("-e A --name n --tty=false box a", "box", ["a"]), ("box", "box", []), ("-h host box", "box", []),
    ],
)  # fmt: skip
def test_what_follows_an_image_is_the_command(words: str, image: str, command: list[str]) -> None:
    flags = run_parser("run").parse_args(words.split())
    assert (flags.image, flags.command) == (image, command)


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        ("--nope", 125, "unknown flag: --nope"), ("-z", 125, "unknown flag: -z"), ("--nope=3 x", 125, "flag: --nope\n"),
        ("--last x", 125, "invalid int value: 'x'"), ("--last", 125, "expected one argument"),
        ("--force=maybe", 125, "neither true nor false"),
    ],
)  # fmt: skip
def test_mistakes_are_told(words: str, status: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _parser().parse_args(words.split())
    assert ended.value.code == status
    told = capsys.readouterr().err
    assert text in told
    assert told.endswith(
        "\n\nUsage:  sampan thing [OPTIONS] NAME [NAME...]\n\nRun 'sampan thing --help' for more information\n"
    )


def test_too_few_and_too_many_end_with_one(capsys: pytest.CaptureFixture[str]) -> None:
    made = Parser("thing", "NAME", "Do it")
    made.add_argument("name", metavar="NAME")
    for words, text in ([], "requires NAME"), (["a", "b"], "an argument too many: b"):
        with pytest.raises(SystemExit) as ended:
            made.parse_args(words)
        assert ended.value.code == 1
        assert text in capsys.readouterr().err


def test_a_parser_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "asking", True)
    with pytest.raises(arguments.Asked) as asked:
        _parser().parse_args(["--nonsense"])
    assert isinstance(asked.value.parser, argparse.ArgumentParser)
