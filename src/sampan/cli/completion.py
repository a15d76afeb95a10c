"""`completion`, and what the shells ask while somebody types: `__complete`.

The scripts are small: with each TAB they give the words so far to `sampan __complete`, which asks the command's own
parser what may come next, and the engine for names. So they know what this version knows, and need no new generation.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io

from sampan.cli import arguments
from sampan.cli.__main__ import COMMANDS, OPTIONS, context_of, run, take_options
from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

FAILURE = 1
FILES = ":files"
"""The answer that says: whatever the shell knows of files."""
_GROUPS = ("container", "image", "volume", "network", "system", "context", "manifest", "generate")

_BASH = """# bash completion for sampan: . <(sampan completion bash)
_sampan() {
    local IFS=$'\\n' word="${COMP_WORDS[COMP_CWORD]}" line candidates=()
    # Colons and equals signs part words here, and not on a command line.
    local typed="${COMP_LINE:0:COMP_POINT}"
    mapfile -t candidates < <(sampan __complete line "$typed" 2>/dev/null)
    local last="${typed##*[[:space:]]}"
    local before="${last%"$word"}"
    COMPREPLY=()
    for line in "${candidates[@]}"; do
        if [ "$line" = ":files" ]; then
            compopt -o filenames
            COMPREPLY+=($(compgen -f -- "$word"))
            continue
        fi
        line="${line%%$'\\t'*}"
        COMPREPLY+=("${line#"$before"}")
    done
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=:] ]] && compopt -o nospace
}
complete -F _sampan sampan
"""
_ZSH = """#compdef sampan
# zsh completion for sampan: source <(sampan completion zsh)
_sampan() {
    local line
    local -a candidates described
    candidates=("${(@f)$(sampan __complete words "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    for line in "${candidates[@]}"; do
        if [[ "$line" == ":files" ]]; then
            _files
        elif [[ -n "$line" ]]; then
            described+=("${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}")
        fi
    done
    _describe sampan described
}
if [ "$funcstack[1]" = "_sampan" ]; then
    _sampan
else
    compdef _sampan sampan
fi
"""
_FISH = """# fish completion for sampan: sampan completion fish | source
function __sampan_complete
    for line in (sampan __complete words (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)
        if test "$line" = ":files"
            __fish_complete_path (commandline -ct)
        else
            printf '%s\\n' $line
        end
    end
end
complete -c sampan -f -a '(__sampan_complete)'
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def main(name: str, words: list[str], context: Context) -> int:
    if name == "__complete":
        return _complete(words)
    made = Parser("completion", "SHELL", "Print what a shell needs to complete command lines", 1)
    made.add_argument("shell", choices=tuple(SCRIPTS), metavar="SHELL", help="bash, zsh or fish")
    print(SCRIPTS[made.parse_args(words).shell], end="")
    return 0


def _complete(words: list[str]) -> int:
    """`line TEXT`, or `words WORD…`, of which the last one is being typed."""
    kind, given = words[0], words[1:]
    if kind == "line":
        text = given[0].lstrip()
        given = text.split()[1:] + ([""] if text[-1:].isspace() else [])
    # Nothing that goes wrong may end up in the line that somebody types.
    with contextlib.suppress(SampanError, SystemExit):
        print("\n".join(f"{word}\t{text}" if text else word for word, text in candidates(given)))
    return 0


def candidates(words: Sequence[str]) -> list[tuple[str, str]]:
    """What may stand for the last word, each with a word on it. Raises SampanError."""
    before, typed = list(words[:-1]), words[-1] if words else ""
    rest = list(before)
    if before and any(before[-1] in names and value for names, value, _ in OPTIONS):
        with contextlib.suppress(SampanError):
            rest = before[:-1]
            take_options(rest)
            if not rest:
                return _matching(typed, _contexts() if before[-1] in ("-c", "--context") else [(FILES, "")])
        rest = list(before)
    options = take_options(rest)
    if not rest:
        offered = [(name, text) for name, (_, text) in COMMANDS.items()]
        offered = [(names[-1], text) for names, _, text in OPTIONS] if typed.startswith("-") else offered
        return _matching(typed, offered)
    name, *rest = rest
    if name in _GROUPS and not rest:
        module = importlib.import_module(f"sampan.cli.{COMMANDS[name][0]}")
        return _matching(typed, [(each, "") for each in module.COMMANDS])
    found = parser_of([name, rest.pop(0)] if name in _GROUPS else [name])
    return _matching(typed, _next(found, rest, typed, context_of(options))) if found else []


def _matching(typed: str, offered: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [each for each in offered if each[0].startswith(typed) or each[0] == FILES]


def parser_of(command: Sequence[str]) -> Parser | None:
    """The parser that a command reads its words by; None where it has none of ours."""
    arguments.asking = True
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if command[0] not in ("daemon", "__complete"):
                run(command[0], list(command[1:]))
    except arguments.Asked as asked:
        return asked.parser
    finally:
        arguments.asking = False
    return None


def _next(parser: Parser, before: list[str], typed: str, context: Context) -> Iterable[tuple[str, str]]:
    options = {name: action for action in parser._actions for name in action.option_strings}
    previous = before[-1] if before else ""
    name, equals, _ = typed.partition("=")
    if typed.startswith("--") and equals and name in options:
        return [(f"{name}={word}", text) for word, text in _values(options[name], parser, context, before)]
    if previous in options and options[previous].nargs is None:
        return _values(options[previous], parser, context, before)
    if typed.startswith("-"):
        return _flags(parser)
    positionals = [action for action in parser._actions if not action.option_strings]
    count = len(list(_plain(before, options)))
    at = min(count, len(positionals) - 1)
    if at < 0 or (count > at and positionals[at].nargs not in ("*", "+", argparse.REMAINDER)):
        return []
    return _values(positionals[at], parser, context, before)


def _flags(parser: Parser) -> list[tuple[str, str]]:
    shown: list[tuple[str, str]] = []
    for action in parser._actions:
        long = [each for each in action.option_strings if each.startswith("--")] or list(action.option_strings)
        shown += [(long[0], action.help or "")] if long else []
    return shown


def _plain(words: list[str], options: dict[str, argparse.Action]) -> Iterable[str]:
    """The words that are neither flags nor their values."""
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word.startswith("-") and len(word) > 1:
            skip = word in options and options[word].nargs is None
        else:
            yield word


def _values(
    action: argparse.Action, parser: Parser, context: Context, before: list[str]
) -> Iterable[tuple[str, str]]:  # fmt: skip
    """What an argument may be: by its choices, or by what it is called."""
    if action.choices:
        return [(str(each), "") for each in action.choices]
    name = (action.metavar if isinstance(action.metavar, str) else "") or action.dest
    # `run IMAGE` is a container's command, `rm CONTAINER` one on containers.
    name = name.lower().removeprefix("source_").rstrip("s")
    if name in ("name", "new_name"):
        name = parser.prog.split()[1] if parser.prog.split()[1] in _SOURCES else "object" if name == "name" else ""
    source = _SOURCES.get(name) if not action.option_strings else _FLAG_SOURCES.get(action.dest)
    if source is not None:
        with contextlib.suppress(SampanError):
            taken = set(before)
            return [each for each in source(parser, context) if each[0] not in taken]
    return [(FILES, "")]


# --- What the engine knows --------------------------------------------------------------------------

_STOPPED = ("start",)
_ANY = (
    "rm", "inspect", "logs", "rename", "commit", "cp", "diff", "export", "start", "wait", "port", "restart", "run",
    "create", "connect", "disconnect", "update",
)  # fmt: skip


def _containers(parser: Parser, context: Context) -> list[tuple[str, str]]:
    """Those that the command is for, by name; a command on what runs gets what runs."""
    command = parser.prog.split()[-1]
    found = context.client.call("GET", "/containers/json", all=command in _ANY)
    return [
        (each["Names"][0].removeprefix("/"), f"{each['Image']}, {each['Status']}")
        for each in found
        if command not in _STOPPED or each["State"] != "running"
    ]


def _images(parser: Parser, context: Context) -> list[tuple[str, str]]:
    found = context.client.call("GET", "/images/json")
    return [(tag, "") for each in found for tag in each.get("RepoTags") or () if tag != "<none>:<none>"]


def _networks(parser: Parser, context: Context) -> list[tuple[str, str]]:
    return [(each["Name"], each["Driver"]) for each in context.client.call("GET", "/networks")]


def _volumes(parser: Parser, context: Context) -> list[tuple[str, str]]:
    return [(each["Name"], each["Driver"]) for each in context.client.call("GET", "/volumes")["Volumes"] or ()]


def _objects(parser: Parser, context: Context) -> list[tuple[str, str]]:
    return [each for source in (_containers, _images, _networks, _volumes) for each in source(parser, context)]


def _contexts(parser: Parser | None = None, context: Context | None = None) -> list[tuple[str, str]]:
    from sampan.cli import contexts

    return [(name, "") for name in (contexts.DEFAULT, *contexts.names())]


def _path_in_container(parser: Parser, context: Context) -> list[tuple[str, str]]:
    return [(f"{name}:", text) for name, text in _containers(parser, context)] + [(FILES, "")]


_SOURCES: dict[str, Callable[[Parser, Context], list[tuple[str, str]]]] = {
    "container": _containers, "image": _images, "network": _networks, "volume": _volumes, "object": _objects,
    "context": _contexts, "image[:tag]": _images, "repository": _images, "src": _path_in_container,
    "dest": _path_in_container,
}  # fmt: skip
_FLAG_SOURCES = {"network": _networks, "volumes_from": _containers}
"""By the option's name."""
