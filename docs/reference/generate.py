"""Write cli.md and api.md: each command is asked for its help, and the engine for its routes."""

from __future__ import annotations

import argparse
import ast
import asyncio
import functools
import importlib
import inspect
import io
import pathlib
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout

from sampan import client
from sampan.cli import arguments
from sampan.cli.__main__ import COMMANDS, OPTIONS, run
from sampan.cli.context import Context
from sampan.engine import config
from sampan.engine.http.router import RouteDef
from sampan.engine.routes import all_routes
from sampan.engine.services import Engine
from sampan.runtime import options as runtime

HERE = pathlib.Path(__file__).parent
_NOTE = "<!-- Written by docs/reference/generate.py; a test says when it is stale. -->"


def _parser(ask: Callable[[], object]) -> argparse.ArgumentParser | None:
    """The parser that the command would read its words by; None where there is none."""
    arguments.asking = True
    try:
        with redirect_stdout(io.StringIO()):
            ask()
    except arguments.Asked as asked:
        return asked.parser
    finally:
        arguments.asking = False
    return None


def _commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command with its parser: `sampan`'s, its groups' and the daemon's."""
    for name, (module, _) in COMMANDS.items():
        if name == "daemon":
            yield "sampan daemon", config.parser()
            continue
        found = _parser(lambda name=name: run(name, ["--help"]))  # type: ignore[misc]
        if found is not None:
            yield f"sampan {name}", found
            continue
        for part, command in importlib.import_module(f"sampan.cli.{module}").COMMANDS.items():
            found = _parser(lambda command=command: command(["--help"], Context()))  # type: ignore[misc]
            assert found is not None, f"{name} {part} has no help"
            yield f"sampan {name} {part}", found


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _section(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f"## {name}\n"
    if name != parser.prog:
        yield f"The same as [`{parser.prog}`](#{parser.prog.replace(' ', '-')}).\n"
        return
    if parser.description:
        yield f"{parser.description}\n"
    if parser.usage:
        yield f"```text\n{parser.usage}\n```\n"
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            continue
        value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
        title = ", ".join(action.option_strings) + value if action.option_strings else action.metavar or action.dest
        rows.append(f"| `{_cell(str(title))}` | {_cell(action.help or '')} |")
    yield "\n".join(["| argument | meaning |", "| --- | --- |", *rows, ""])


def _runtime_section(name: str, usage: str, options: Iterable[runtime.Option]) -> Iterator[str]:
    head, _, rest = usage.partition("\n")
    yield f"## {name}\n"
    yield f"{rest.strip().partition(chr(10))[0].capitalize()}\n" if rest and name != "sampan-runtime" else ""
    yield f"```text\n{head.removeprefix('usage: ')}\n```\n"
    rows = []
    for option in options:
        letter = f"-{option.letter}, " if option.letter else ""
        rows.append(f"| `{_cell(f'{letter}--{option.name} {option.value}'.rstrip())}` | {_cell(option.help)} |")
    if rows:
        yield "\n".join(["| argument | meaning |", "| --- | --- |", *rows, ""])


def _runtime_sections() -> Iterator[str]:
    yield from _runtime_section("sampan-runtime", runtime.usage(), runtime.GLOBAL)
    for name, command in runtime.COMMANDS.items():
        yield from _runtime_section(f"sampan-runtime {name}", runtime.usage(name), command.options)


def cli_page() -> str:
    titles = [f"{', '.join(names)} {value}".rstrip() for names, value, _ in OPTIONS]
    rows = [f"| `{title}` | {text} |" for title, (_, _, text) in zip(titles, OPTIONS, strict=True)]
    head = [
        f"{_NOTE}\n\n# Commands\n",
        "Before the command, `sampan` takes:\n",
        "| option | meaning |",
        "| --- | --- |",
    ]
    head += [*rows, ""]
    own = [part for name, parser in _commands() for part in _section(name, parser)]
    return "\n".join([*head, *own, *_runtime_sections()])


async def _routes() -> list[RouteDef]:
    return all_routes(Engine(config.Config()))


def _refuses(route: RouteDef) -> bool:
    """Whether the handler never answers: it has no `return`, and ends by raising."""
    handler = route.handler.func if isinstance(route.handler, functools.partial) else route.handler
    function = ast.parse(textwrap.dedent(inspect.getsource(handler))).body[0]
    assert isinstance(function, ast.AsyncFunctionDef)
    returns = any(isinstance(node, ast.Return) for node in ast.walk(function))
    return isinstance(function.body[-1], ast.Raise) and not returns


def _table(routes: list[RouteDef]) -> str:
    rows = [f"| {each.method} | `{re.sub(r':[^}]+(?=})', '', each.path)}` |" for each in routes]
    return "\n".join(["| method | path |", "| --- | --- |", *rows, ""])


def api_page() -> str:
    routes = asyncio.run(_routes())
    refused = [each for each in routes if _refuses(each)]
    served = [each for each in routes if each not in refused]
    return "\n".join([
        f"{_NOTE}\n\n# Engine API\n",
        "Versions 1.24 to 1.51, as `/v1.N/…` or without. A path that is not here is answered with 404.\n",
        "## Served\n", _table(served),
        "## Refused by name\n",
        "Known, and answered with a line that says what is not supported: status 501; 503 for Swarm's; 403 for the",
        "removal of a predefined network. A served path can refuse a field or an option too: see [limits](limits.md).",
        _table(refused),
    ])  # fmt: skip


_WRITTEN_HERE = "transport.py"
_SYNCHRONOUS = (
    (r"\bAsync(Iterator|Docker)\b", r"\1"), (r"\basync (def|for|with)\b", r"\1"), (r"\bawait ", ""),
    (r"__a(iter|next|enter|exit)__", r"__\1__"), (r"StopAsyncIteration", "StopIteration"),
    (r"sampan\.client\.asynchronous", "sampan.client.synchronous"),
)  # fmt: skip


def synchronous() -> dict[str, str]:
    """The modules of the synchronous client, from the asynchronous one's."""
    source = pathlib.Path(client.__file__).parent / "asynchronous"
    modules: dict[str, str] = {}
    for path in sorted(source.glob("*.py")):
        if path.name in ("__init__.py", _WRITTEN_HERE):
            continue
        text = path.read_text()
        for pattern, by in _SYNCHRONOUS:
            text = re.sub(pattern, by, text)
        for command in (["check", "--select", "I", "--fix", "-q"], ["format", "-q"]):
            words = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(path), "-"]
            text = subprocess.run(words, input=text, capture_output=True, text=True, check=True).stdout
        modules[path.name] = text
    return modules


def pages() -> dict[str, str]:
    """Each generated page's name and text."""
    return {"cli.md": cli_page(), "api.md": api_page()}


if __name__ == "__main__":
    for name, text in pages().items():
        (HERE / name).write_text(text)
    for name, text in synchronous().items():
        (pathlib.Path(client.__file__).parent / "synchronous" / name).write_text(text)
