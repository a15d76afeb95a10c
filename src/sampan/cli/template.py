"""`--format`: the part of Go's templates that people use with Docker's command.

`{{.Field.Sub}}`, `{{json .X}}`, `{{index .X "key"}}`, `{{len .X}}`, `{{range .X}}…{{end}}`,
`{{if .X}}…{{else}}…{{end}}`, `{{println .X}}`, and `table …` before a line for titles.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from sampan.errors import InvalidArgument

_TAG = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s"]+')

Value = Any


def render(template: str, value: Value) -> str:
    """The text for one value. Raises InvalidArgument for what it does not know."""
    pieces = _TAG.split(template.replace("\\t", "\t").replace("\\n", "\n"))
    text, at = _block(pieces, 0, value, value)
    if at < len(pieces):
        raise InvalidArgument("template parsing error: unexpected {{end}}")
    return text


def _block(pieces: list[str], at: int, dot: Value, root: Value) -> tuple[str, int]:
    """Text from `at` on, up to the end or to an `end` or `else` of the block around."""
    result: list[str] = []
    while at < len(pieces):
        if at % 2 == 0:
            result.append(pieces[at])
            at += 1
            continue
        tag = pieces[at]
        head, _, rest = tag.partition(" ")
        if head in ("end", "else"):
            return "".join(result), at
        if head == "range":
            text, at = _range(pieces, at + 1, _evaluate(rest, dot, root), root)
            result.append(text)
        elif head == "if":
            text, at = _if(pieces, at + 1, bool(_evaluate(rest, dot, root)), dot, root)
            result.append(text)
        else:
            result.append(_shown(_evaluate(tag, dot, root)))
            at += 1
    return "".join(result), at


def _range(pieces: list[str], at: int, values: Value, root: Value) -> tuple[str, int]:
    items = list(values.values()) if isinstance(values, dict) else list(values or [])
    result: list[str] = []
    _, end = _block(pieces, at, _Nothing(), root)
    for item in items:
        text, _ = _block(pieces, at, item, root)
        result.append(text)
    return "".join(result), _after(pieces, end, "end")


def _if(pieces: list[str], at: int, truth: bool, dot: Value, root: Value) -> tuple[str, int]:
    then, end = _block(pieces, at, dot if truth else _Nothing(), root)
    otherwise = ""
    if end < len(pieces) and pieces[end] == "else":
        otherwise, end = _block(pieces, end + 1, _Nothing() if truth else dot, root)
    return then if truth else otherwise, _after(pieces, end, "end")


def _after(pieces: list[str], at: int, word: str) -> int:
    if at >= len(pieces) or pieces[at] != word:
        raise InvalidArgument("template parsing error: {{end}} is missing")
    return at + 1


class _Nothing:
    """What is skipped is evaluated on this: everything of it is again nothing."""


def _evaluate(expression: str, dot: Value, root: Value) -> Value:
    *stages, last = (part.strip() for part in expression.split("|"))
    value: list[Value] = []
    for stage in (*stages, last):
        words = _WORD.findall(stage)
        if not words:
            raise InvalidArgument(f"template parsing error: empty command in {{{{{expression}}}}}")
        value = [_call(words, value, dot, root)]
    return value[0]


def _call(words: list[str], piped: list[Value], dot: Value, root: Value) -> Value:
    name, arguments = words[0], [_operand(each, dot, root) for each in words[1:]] + piped
    if name.startswith((".", "$", '"')) or name.isdigit():
        return _operand(name, dot, root)
    if any(isinstance(each, _Nothing) for each in arguments):
        return _Nothing()
    match name:
        case "json":
            return json.dumps(arguments[0], separators=(",", ":"), ensure_ascii=False)
        case "index":
            found = arguments[0]
            for key in arguments[1:]:
                found = _index(found, key)
            return found
        case "len":
            return len(arguments[0] or [])
        case "println":
            return " ".join(map(_shown, arguments)) + "\n"
        case "print":
            return "".join(map(_shown, arguments))
        case "join":
            return str(arguments[1]).join(map(_shown, arguments[0] or []))
        case "upper" | "lower" | "title":
            return getattr(str(arguments[0]), name)()
        case "eq":
            return arguments[0] == arguments[1]
        case "ne":
            return arguments[0] != arguments[1]
        case "not":
            return not arguments[0]
        case _:
            raise InvalidArgument(f'template parsing error: function "{name}" not defined')


def _index(found: Value, key: Value) -> Value:
    if isinstance(found, dict):
        return found.get(key, "")
    try:
        return found[int(key)]
    except (IndexError, ValueError, TypeError):
        raise InvalidArgument(f"template: error calling index: no element {key!r}") from None


def _operand(word: str, dot: Value, root: Value) -> Value:
    if word.startswith('"'):
        return json.loads(word)
    if word.lstrip("-").isdigit():
        return int(word)
    if word in ("true", "false"):
        return word == "true"
    value = root if word.startswith("$") else dot
    for name in _names(word.lstrip("$")):
        if isinstance(value, _Nothing):
            return value
        if not isinstance(value, dict) or name not in value:
            raise InvalidArgument(f'template: error calling field {name}: map has no entry for key "{name}"')
        value = value[name]
    return value


def _names(path: str) -> Iterator[str]:
    if not path.startswith(".") and path:
        raise InvalidArgument(f"template parsing error: unexpected {path!r}")
    return (name for name in path.split(".") if name)


def _shown(value: Value) -> str:
    """As Go prints it."""
    if value is None or isinstance(value, _Nothing):
        return "<no value>" if value is None else ""
    if value is True or value is False:
        return str(value).lower()
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_shown(each)}" for key, each in sorted(value.items())) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(_shown, value)) + "]"
    return str(value)


def lines(template: str, titles: dict[str, str], rows: list[dict[str, str]]) -> str:
    """A list by a template: `json`, a line each, or `table …` with titles."""
    from sampan.cli.table import table

    if template == "json":
        template = "{{json .}}"
    if not template.startswith("table "):
        return "\n".join(render(template, row) for row in rows)
    template = template.removeprefix("table ")
    head = render(template, titles)
    body = [render(template, row) for row in rows]
    return table(head.split("\t"), [row.split("\t") for row in body])
