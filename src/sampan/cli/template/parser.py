"""Templates as functions: each part of the text becomes one that writes to a frame or gives a value."""

from __future__ import annotations

import re
from collections.abc import Callable

from sampan.cli.template.functions import FUNCTIONS, HEADER
from sampan.cli.template.lexer import Token, pieces, wrong
from sampan.cli.template.values import Nil, Value, field, kind, shown
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Body = Callable[["Frame"], None]
    Expression = Callable[["Frame"], Any]
else:
    Body = Expression = Callable

_LONGEST = 1 << 22
"""Characters that a template may print for one value: a mistake must not fill the machine's memory."""


class Frame:
    """A run: the dot, the variables in view, and what was written."""

    def __init__(self, value: Value, *, header: bool) -> None:
        self.dot = value
        self.header = header
        self.variables: list[tuple[str, Value]] = [("$", value)]
        self.output: list[str] = []
        self._length = 0

    def write(self, text: str) -> None:
        self._length += len(text)
        if self._length > _LONGEST:
            raise InvalidArgument("template: it prints too much")
        self.output.append(text)

    def variable(self, name: str) -> int:
        """Where the innermost variable of that name is."""
        return next(at for at in range(len(self.variables) - 1, -1, -1) if self.variables[at][0] == name)


class _Break(Exception):
    """`{{break}}`"""


class _Continue(Exception):
    """`{{continue}}`"""


def compile_template(text: str) -> Body:
    """Raises InvalidArgument."""
    parser = _Parser(pieces(text))
    body, stop = parser.block(("$",), loop=False)
    if stop is not None:
        raise wrong(f"unexpected {{{{{stop[0].text}}}}}")
    return body


class _Parser:
    def __init__(self, found: list[str | list[Token]]) -> None:
        self._pieces = found
        self._at = 0

    def block(self, names: tuple[str, ...], *, loop: bool) -> tuple[Body, list[Token] | None]:
        """Up to an `end` or `else`, whose words are given back; None at the template's end."""
        parts: list[Body] = []
        while self._at < len(self._pieces):
            piece = self._pieces[self._at]
            self._at += 1
            if isinstance(piece, str):
                parts.append(_text(piece))
                continue
            if not piece:
                raise wrong("missing value for command")
            head = piece[0].text if piece[0].kind == "word" else ""
            match head:
                case "end" | "else":
                    return _sequence(parts), piece
                case "if" | "with" | "range":
                    parts.append(self._control(head, piece[1:], names, loop))
                case "break" | "continue":
                    if not loop or len(piece) > 1:
                        raise wrong(f"{{{{{head}}}}} outside {{{{range}}}}")
                    parts.append(_leave(_Break if head == "break" else _Continue))
                case "define" | "block" | "template":
                    raise wrong(f"{{{{{head}}}}} is not supported")
                case _:
                    part, names = _Words(piece, names).action()
                    parts.append(part)
        return _sequence(parts), None

    def _control(self, head: str, words: list[Token], names: tuple[str, ...], loop: bool) -> Body:
        expression, declared, assigns = _Words(words, names).condition(loop=head == "range")
        inside = names if assigns else (*names, *declared)
        then, stop = self.block(inside, loop=loop or head == "range")
        otherwise: Body = _sequence([])
        if stop is not None and stop[0].text == "else":
            if len(stop) > 1:
                if head == "range" or stop[1].text != head:
                    raise wrong(f"unexpected {stop[1].text!r} in else")
                otherwise = self._control(stop[1].text, stop[2:], inside, loop)
                return _CONTROLS[head](expression, declared, assigns, then, otherwise)
            otherwise, stop = self.block(inside, loop=loop)
            if stop is not None and stop[0].text == "else":
                raise wrong("unexpected {{else}}")
        if stop is None:
            raise wrong("unexpected EOF: {{end}} is missing")
        if len(stop) > 1:
            raise wrong(f"unexpected {stop[1].text!r} in end")
        return _CONTROLS[head](expression, declared, assigns, then, otherwise)


def _text(text: str) -> Body:
    return lambda frame: frame.write(text)


def _sequence(parts: list[Body]) -> Body:
    def run(frame: Frame) -> None:
        for part in parts:
            part(frame)

    return run


def _leave(error: type[Exception]) -> Body:
    def run(frame: Frame) -> None:
        raise error

    return run


def _declare(frame: Frame, names: tuple[str, ...], values: tuple[Value, ...], assigns: bool) -> None:
    for name, value in zip(names, values, strict=False):
        if assigns:
            frame.variables[frame.variable(name)] = (name, value)
        else:
            frame.variables.append((name, value))


def _scoped(body: Body) -> Body:
    """Its variables go with it, and the dot is as before."""

    def run(frame: Frame) -> None:
        count, dot = len(frame.variables), frame.dot
        try:
            body(frame)
        finally:
            del frame.variables[count:]
            frame.dot = dot

    return run


def _if(expression: Expression, names: tuple[str, ...], assigns: bool, then: Body, otherwise: Body) -> Body:
    def run(frame: Frame) -> None:
        value = expression(frame)
        _declare(frame, names, (value,), assigns)
        (then if value else otherwise)(frame)

    return _scoped(run)


def _with(expression: Expression, names: tuple[str, ...], assigns: bool, then: Body, otherwise: Body) -> Body:
    def run(frame: Frame) -> None:
        value = expression(frame)
        _declare(frame, names, (value,), assigns)
        if value:
            frame.dot = value
            then(frame)
        else:
            otherwise(frame)

    return _scoped(run)


def _range(expression: Expression, names: tuple[str, ...], assigns: bool, then: Body, otherwise: Body) -> Body:
    def run(frame: Frame) -> None:
        items = _items(expression(frame))
        for key, value in items:
            frame.dot = value
            try:
                _one(frame, (key, value) if len(names) == 2 else (value,))
            except _Continue:
                continue
            except _Break:
                break
        if not items:
            otherwise(frame)

    def each(frame: Frame, values: tuple[Value, ...]) -> None:
        _declare(frame, names, values, assigns)
        then(frame)

    def _one(frame: Frame, values: tuple[Value, ...]) -> None:
        _scoped(lambda frame: each(frame, values))(frame)

    return _scoped(run)


def _items(value: Value) -> list[tuple[Value, Value]]:
    if isinstance(value, dict):
        return [(key, value[key]) for key in sorted(value)]
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    if value is None or isinstance(value, Nil):
        return []
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LONGEST:
        return [(number, number) for number in range(value)]
    raise InvalidArgument(f"template: range can't iterate over {shown(value)}")


_CONTROLS = {"if": _if, "with": _with, "range": _range}


class _Words:
    """The words of one action."""

    def __init__(self, tokens: list[Token], names: tuple[str, ...]) -> None:
        self._tokens = tokens
        self._at = 0
        self._names = names

    def _peek(self) -> Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _is(self, text: str) -> bool:
        token = self._peek()
        return token is not None and token.kind == "mark" and token.text == text

    def action(self) -> tuple[Body, tuple[str, ...]]:
        """What a pipeline in the text does, and the variables in view after it."""
        declared, assigns = self._declaration(loop=False)
        expression = self._whole()
        if not declared:
            return lambda frame: frame.write(shown(expression(frame))), self._names
        after = self._names if assigns else (*self._names, *declared)
        return lambda frame: _declare(frame, declared, (expression(frame),), assigns), after

    def condition(self, *, loop: bool) -> tuple[Expression, tuple[str, ...], bool]:
        """A control's pipeline, the variables that it sets, and whether they are older."""
        declared, assigns = self._declaration(loop=loop)
        return self._whole(), declared, assigns

    def _declaration(self, *, loop: bool) -> tuple[tuple[str, ...], bool]:
        start, found = self._at, []
        while (token := self._peek()) is not None and token.kind == "variable":
            found.append(token.text)
            self._at += 1
            if self._is(":=") or self._is("="):
                assigns = self._tokens[self._at].text == "="
                self._at += 1
                if len(found) > 1 and not loop:
                    raise wrong("too many declarations in command")
                for name in found if assigns else ():
                    self._known(name)
                return tuple(found), assigns
            if not loop or not self._is(",") or len(found) > 1:
                break
            self._at += 1
        self._at = start
        return (), False

    def _known(self, name: str) -> None:
        if name not in self._names:
            raise wrong(f'undefined variable "{name}"')

    def _whole(self) -> Expression:
        expression = self._pipeline()
        if (token := self._peek()) is not None:
            raise wrong(f"unexpected {token.text!r} in command")
        return expression

    def _pipeline(self) -> Expression:
        expression = self._command(None)
        while self._is("|"):
            self._at += 1
            expression = self._command(expression)
        return expression

    def _command(self, piped: Expression | None) -> Expression:
        first = self._peek()
        if first is None or (first.kind == "mark" and first.text != "("):
            raise wrong("missing value for command")
        if first.kind == "word" and first.text not in ("true", "false", "nil"):
            self._at += 1
            return _call(first.text, self._arguments(piped))
        head, callable_ = self._operand()
        arguments = self._arguments(piped)
        if not callable_:
            if arguments:
                raise wrong(f"can't give argument to non-function {first.text}")
            if first.text == "nil":
                raise wrong("nil is not a command")
            return lambda frame: head(frame, [])
        return lambda frame: head(frame, [each(frame) for each in arguments])

    def _arguments(self, piped: Expression | None) -> list[Expression]:
        found: list[Expression] = []
        while (token := self._peek()) is not None and (token.kind != "mark" or token.text == "("):
            if token.kind == "word" and token.text not in ("true", "false", "nil"):
                self._at += 1
                found.append(_call(token.text, []))
                continue
            operand, _ = self._operand()
            found.append(_alone(operand))
        return [*found, piped] if piped is not None else found

    def _operand(self) -> tuple[Callable[[Frame, list[Value]], Value], bool]:
        """A value by its arguments, and whether it may have some (a field may be a method)."""
        token = self._peek()
        assert token is not None
        self._at += 1
        start: Expression
        match token.kind:
            case "string" | "char" | "number" | "raw":
                return _constant(_literal(token)), False
            case "word":
                return _constant({"true": True, "false": False}.get(token.text)), False
            case "variable":
                self._known(token.text)
                start = _variable(token.text)
            case "dot":
                start = _dot
            case "field":
                start = _dot
                self._at -= 1
            case _ if token.text == "(":
                start = self._pipeline()
                if not self._is(")"):
                    raise wrong("unclosed left paren")
                self._at += 1
            case _:
                raise wrong(f"unexpected {token.text!r} in operand")
        chain = self._chain(first=token.kind == "field")
        if (after := self._peek()) is not None and after.joined and after.kind not in ("mark", "field"):
            raise wrong(f"unexpected {after.text!r} in operand")
        return _fields(start, chain), bool(chain)

    def _chain(self, *, first: bool) -> tuple[str, ...]:
        names: list[str] = []
        while (token := self._peek()) is not None and token.kind == "field" and (token.joined or first):
            names.append(token.text[1:])
            self._at += 1
            first = False
        return tuple(names)


def _dot(frame: Frame) -> Value:
    return frame.dot


def _variable(name: str) -> Expression:
    return lambda frame: frame.variables[frame.variable(name)][1]


def _constant(value: Value) -> Callable[[Frame, list[Value]], Value]:
    return lambda frame, arguments: value


def _alone(operand: Callable[[Frame, list[Value]], Value]) -> Expression:
    return lambda frame: operand(frame, [])


def _fields(start: Expression, names: tuple[str, ...]) -> Callable[[Frame, list[Value]], Value]:
    def value_of(frame: Frame, arguments: list[Value]) -> Value:
        value = start(frame)
        for at, name in enumerate(names):
            value = field(value, name)
            given = arguments if at == len(names) - 1 else []
            if callable(value):
                value = value(*_checked(name, given))
            elif given:
                raise InvalidArgument(f"template: {name} has arguments but cannot be invoked as function")
        return value

    return value_of


def _checked(name: str, arguments: list[Value]) -> list[Value]:
    """A method of a row takes one text."""
    if len(arguments) != 1:
        raise InvalidArgument(f"template: wrong number of args for {name}: want 1 got {len(arguments)}")
    if not isinstance(arguments[0], str):
        raise InvalidArgument(f"template: wrong type for {name}: want string got {kind(arguments[0])[5:]}")
    return arguments


def _literal(token: Token) -> Value:
    if token.kind == "raw":
        return token.text[1:-1]
    if token.kind == "number":
        text = token.text.replace("_", "")
        try:
            return int(text, 16) if "x" in text.lower() else float(text) if set(text) & set(".eE") else int(text)
        except ValueError:
            raise wrong(f"bad number syntax: {token.text!r}") from None
    value = _ESCAPE.sub(_unescaped, token.text[1:-1])
    if token.kind == "string":
        return value
    if len(value) != 1:
        raise wrong(f"malformed character constant: {token.text}")
    return ord(value)


_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.|$)", re.DOTALL)
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"', "'": "'"}


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    if code in _SIMPLE:
        return _SIMPLE[code]
    number = int(code, 8) if code.isdigit() and code.isascii() else int(code[1:], 16) if len(code) > 1 else -1
    if not 0 <= number <= 0x10FFFF or 0xD800 <= number <= 0xDFFF or (code[0].isdigit() and len(code) != 3):
        raise wrong(f"invalid syntax: \\{code}")
    return chr(number)


def _call(name: str, arguments: list[Expression]) -> Expression:
    if name in ("and", "or"):
        if not arguments:
            raise wrong(f"wrong number of args for {name}: want at least 1 got 0")
        return _junction(name == "and", arguments)
    if name not in FUNCTIONS:
        raise wrong(f'function "{name}" not defined')
    function, least, most = FUNCTIONS[name]
    if not least <= len(arguments) <= most:
        raise wrong(f"wrong number of args for {name}: want {least} got {len(arguments)}")

    def run(frame: Frame) -> Value:
        values = [each(frame) for each in arguments]
        return values[0] if frame.header and name in HEADER else function(*values)

    return run


def _junction(conjunction: bool, arguments: list[Expression]) -> Expression:
    """`and`, `or`: the first that decides, or the last; what comes after it is not looked at."""

    def run(frame: Frame) -> Value:
        value: Value = None
        for each in arguments:
            value = each(frame)
            if bool(value) != conjunction:
                break
        return value

    return run
