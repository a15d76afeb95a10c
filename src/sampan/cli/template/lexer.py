"""A template's text taken apart: what is printed as it is, and the words of each `{{action}}`."""

from __future__ import annotations

import re

from sampan.errors import InvalidArgument

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<string>"(?:[^"\\\n]|\\.)*")
    | (?P<raw>`[^`]*`)
    | (?P<char>'(?:[^'\\\n]|\\.)+')
    | (?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|[0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)(?!\w))
    | (?P<field>\.[^\W\d]\w*)
    | (?P<dot>\.)
    | (?P<variable>\$\w*)
    | (?P<word>[^\W\d]\w*)
    | (?P<mark>:=|=|\||\(|\)|,)
    """,
    re.VERBOSE,
)


def wrong(text: str) -> InvalidArgument:
    """What is no template."""
    return InvalidArgument(f"template parsing error: {text}")


class Token:
    """`kind`: a group of the expression above. `joined`: no blank stands before it."""

    __slots__ = ("joined", "kind", "text")

    def __init__(self, kind: str, text: str, joined: bool) -> None:
        self.kind = kind
        self.text = text
        self.joined = joined


def pieces(template: str) -> list[str | list[Token]]:
    """Text and actions in turn; `{{- ` and ` -}}` have taken the blanks beside them. Raises InvalidArgument."""
    found: list[str | list[Token]] = []
    at, trim = 0, False
    while True:
        start = template.find("{{", at)
        text = template[at:] if start < 0 else template[at:start]
        if trim:
            text = text.lstrip(" \t\r\n")
        if start < 0:
            return [*found, text] if text else found
        at = start + 2
        if template.startswith("-", at) and template[at + 1 : at + 2].isspace():
            text = text.rstrip(" \t\r\n")
            at += 1
        if text:
            found.append(text)
        blank = len(template[at:]) - len(template[at:].lstrip(" \t\r\n"))
        if template.startswith("/*", at + blank):
            at, trim = _comment(template, at + blank)
            continue
        tokens, at, trim = _action(template, at)
        found.append(tokens)


def _comment(template: str, at: int) -> tuple[int, bool]:
    end = template.find("*/", at + 2)
    if end < 0:
        raise wrong("unclosed comment")
    match = re.compile(r"(\s-)?\}\}").match(template, end + 2)
    if match is None:
        raise wrong("comment ends before closing delimiter")
    return match.end(), match[1] is not None


_END = re.compile(r"(\s-)?\}\}")


def _action(template: str, at: int) -> tuple[list[Token], int, bool]:
    """Its words, where the text goes on, and whether that loses its first blanks."""
    tokens: list[Token] = []
    joined = False
    while True:
        end = _END.match(template, at)
        if end is not None:
            return tokens, end.end(), end[1] is not None
        match = _TOKEN.match(template, at)
        if match is None or match.lastgroup is None:
            if at >= len(template):
                raise wrong("unclosed action")
            if template[at] in "\"`'":
                raise wrong("unterminated quoted string")
            raise wrong(f"unexpected {template[at]!r} in command")
        at = match.end()
        if match.lastgroup == "space":
            joined = False
            continue
        tokens.append(Token(match.lastgroup, match[0], joined))
        joined = True
