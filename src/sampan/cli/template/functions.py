"""The functions of Go's templates, and those that Docker's command adds."""

from __future__ import annotations

import re
from collections.abc import Callable

from sampan.cli.table import quoted
from sampan.cli.template.values import NO_TEXT, Nil, Value, as_json, kind, nil, shown
from sampan.errors import InvalidArgument


def _bad(text: str) -> InvalidArgument:
    return InvalidArgument(f"template: {text}")


# --- Go's -------------------------------------------------------------------------------------------


def _not(value: Value) -> bool:
    return not value


def _len(value: Value) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, dict | list | tuple | Nil):
        return len(value)
    raise _bad(f"error calling len: len of {kind(value)}")


def _position(key: Value, length: int) -> int:
    if isinstance(key, bool) or not isinstance(key, int):
        raise _bad(f"error calling index: cannot index slice/array with {kind(key)}")
    if not 0 <= key < length:
        raise _bad(f"error calling index: index out of range: {key}")
    return key


def _index(value: Value, *keys: Value) -> Value:
    for key in keys:
        if isinstance(value, dict):
            found = value.get(key if isinstance(key, str) else shown(key))
            # A map of texts has the empty text for what it has not, and so it is with labels and options.
            value = NO_TEXT if found is None else found
        elif isinstance(value, list | tuple):
            value = value[_position(key, len(value))]
        elif isinstance(value, str):
            value = value.encode()[_position(key, len(value.encode()))]
        elif isinstance(value, Nil) and value.shown in ("map[]", ""):
            value = NO_TEXT
        elif isinstance(value, Nil):
            raise _bad(f"error calling index: index out of range: {shown(key)}")
        else:
            raise _bad(f"error calling index: can't index item of {kind(value)}")
    return nil("") if value is None else value


def _slice(value: Value, *bounds: Value) -> Value:
    if not isinstance(value, str | list | tuple | Nil) or len(bounds) > 2:
        raise _bad(f"error calling slice: can't slice item of {kind(value)}")
    units = value.encode() if isinstance(value, str) else value if isinstance(value, list | tuple) else []
    for each in bounds:
        if isinstance(each, bool) or not isinstance(each, int) or not 0 <= each <= len(units):
            raise _bad(f"error calling slice: index out of range: {shown(each)}")
    start = bounds[0] if bounds else 0
    end = bounds[1] if len(bounds) > 1 else len(units)
    if start > end:
        raise _bad(f"error calling slice: invalid slice index: {start} > {end}")
    cut = units[start:end]
    return cut.decode("utf-8", "replace") if isinstance(cut, bytes) else list(cut)


def _print(*values: Value) -> str:
    """Blanks stand between two of which neither is a text."""
    text = ""
    for at, value in enumerate(values):
        if at and not isinstance(value, str) and not isinstance(values[at - 1], str):
            text += " "
        text += shown(value)
    return text


def _println(*values: Value) -> str:
    return " ".join(map(shown, values)) + "\n"


_VERB = re.compile(r"%([-+# 0]*)(\*|\d+)?(?:\.(\*|\d*))?(.?)", re.DOTALL)
_WIDEST = 10_000


def _printf(form: Value, *values: Value) -> str:
    """`%v %s %q %d %x %X %o %b %c %t %f %e %g %U %T %%`, with flags, width and precision."""
    left = list(values)

    def one(match: re.Match[str]) -> str:
        flags, width, precision, verb = match[1], match[2], match[3], match[4]
        if verb == "%":
            return "%"
        if width == "*":
            width = str(left.pop(0)) if left else "0"
        if precision == "*":
            precision = str(left.pop(0)) if left else "0"
        if not verb:
            return "%!(NOVERB)"
        if not left:
            return f"%!{verb}(MISSING)"
        text = _verb(verb, flags, precision, left.pop(0))
        places = min(int(width), _WIDEST) if width and width.isdigit() else 0
        if "-" in flags:
            return text.ljust(places)
        if "0" in flags and verb in "dxXobfeg":
            return text.zfill(places)
        return text.rjust(places)

    text = _VERB.sub(one, shown(form))
    return text + (f"%!(EXTRA {', '.join(f'{kind(each)[5:]}={shown(each)}' for each in left)})" if left else "")


def _verb(verb: str, flags: str, precision: str | None, value: Value) -> str:
    wrong = f"%!{verb}({kind(value)[5:]}={shown(value)})"
    plus = "+" if "+" in flags else " " if " " in flags else ""
    places = None if precision is None else min(int(precision), _WIDEST) if precision.isdigit() else 0
    if verb == "v":
        return shown(value)
    if verb == "T":
        return kind(value)[5:]
    if verb in "sq":
        if isinstance(value, int | float):
            return wrong
        if isinstance(value, list | tuple):
            return "[" + " ".join(_verb(verb, flags, precision, each) for each in value) + "]"
        text = shown(value) if places is None else shown(value)[:places]
        return text if verb == "s" else quoted(text)
    if verb == "t":
        return shown(value) if isinstance(value, bool) else wrong
    if verb in "xX" and isinstance(value, str):
        found = value.encode().hex()
        return found if verb == "x" else found.upper()
    if verb in "dxXobcU" and isinstance(value, int) and not isinstance(value, bool):
        if verb in "cU":
            valid = 0 <= value <= 0x10FFFF and not 0xD800 <= value <= 0xDFFF
            return f"U+{value:04X}" if verb == "U" else chr(value) if valid else "\ufffd"
        sharp = "#" if "#" in flags and verb != "d" else ""
        return format(value, f"{plus}{sharp}{verb}")
    if verb in "feEgG" and isinstance(value, float):
        if places is None and verb in "gG":
            return plus * (value >= 0) + shown(value)
        return format(value, f"{plus}.{6 if places is None else places}{verb}")
    return wrong


def _comparable(one: Value, other: Value) -> None:
    """Raises InvalidArgument unless both are truths, both numbers, or both texts."""
    for each in (bool, (int, float), (str, Nil, type(None))):
        if isinstance(one, each) and isinstance(other, each):
            return
        if isinstance(one, each) or isinstance(other, each):
            break
    raise _bad(f"error calling eq: incompatible types for comparison: {kind(one)[5:]} and {kind(other)[5:]}")


def _equal(one: Value, other: Value) -> bool:
    _comparable(one, other)
    if isinstance(one, Nil) or isinstance(other, Nil):
        return not one and not other
    return bool(one == other)


def _eq(one: Value, *others: Value) -> bool:
    """Whether it is one of the others."""
    if not others:
        raise _bad("error calling eq: missing argument for comparison")
    return any(_equal(one, each) for each in others)


def _ne(one: Value, other: Value) -> bool:
    return not _equal(one, other)


def _ordered(name: str, test: Callable[[Value, Value], bool]) -> Callable[..., bool]:
    def compare(one: Value, other: Value) -> bool:
        _comparable(one, other)
        if isinstance(one, bool) or one is None or other is None:
            raise _bad(f"error calling {name}: invalid type for comparison")
        one, other = ("" if isinstance(each, Nil) else each for each in (one, other))
        return test(one, other)

    return compare


def _html(*values: Value) -> str:
    text = _print(*values)
    for each, code in (("&", "&amp;"), ('"', "&#34;"), ("'", "&#39;"), ("<", "&lt;"), (">", "&gt;"), ("\0", "\ufffd")):
        text = text.replace(each, code)
    return text


def _js(*values: Value) -> str:
    special = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}
    return "".join(
        special.get(each) or (each if each.isprintable() else f"\\u{ord(each):04X}") for each in _print(*values)
    )


def _urlquery(*values: Value) -> str:
    from sampan.client.client import quoted as percent

    return percent(_print(*values)).replace("%20", "+")


# --- Docker's ---------------------------------------------------------------------------------------


def _join(values: Value, between: Value) -> str:
    if not isinstance(values, list | tuple | Nil):
        raise _bad(f"error calling join: wrong type for value; expected []string; got {kind(values)[5:]}")
    return shown(between).join(map(shown, values if isinstance(values, list | tuple) else ()))


def _split(text: Value, between: Value) -> list[str]:
    between = shown(between)
    return shown(text).split(between) if between else list(shown(text))


def _title(text: Value) -> str:
    """A capital for each word's first letter; the others stay."""
    return re.sub(r"(?<![\w'])\w", lambda match: match[0].upper(), shown(text))


def _count(value: Value, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _bad(f"error calling {name}: wrong type for value; expected int; got {kind(value)[5:]}")
    return max(0, min(value, _WIDEST))


def _pad(text: Value, before: Value, after: Value) -> str:
    text = shown(text)
    return " " * _count(before, "pad") + text + " " * _count(after, "pad") if text else ""


def _truncate(text: Value, length: Value) -> str:
    return shown(text)[: _count(length, "truncate")]


FUNCTIONS: dict[str, tuple[Callable[..., Value], int, int]] = {
    "not": (_not, 1, 1), "len": (_len, 1, 1), "index": (_index, 1, 99), "slice": (_slice, 1, 4),
    "print": (_print, 0, 99), "println": (_println, 0, 99), "printf": (_printf, 1, 99), "html": (_html, 0, 99),
    "js": (_js, 0, 99), "urlquery": (_urlquery, 0, 99), "eq": (_eq, 1, 99), "ne": (_ne, 2, 2),
    "lt": (_ordered("lt", lambda a, b: bool(a < b)), 2, 2), "le": (_ordered("le", lambda a, b: bool(a <= b)), 2, 2),
    "gt": (_ordered("gt", lambda a, b: bool(a > b)), 2, 2), "ge": (_ordered("ge", lambda a, b: bool(a >= b)), 2, 2),
    "json": (as_json, 1, 1), "join": (_join, 2, 2), "split": (_split, 2, 2), "title": (_title, 1, 1),
    "upper": (lambda text: shown(text).upper(), 1, 1), "lower": (lambda text: shown(text).lower(), 1, 1),
    "pad": (_pad, 3, 3), "truncate": (_truncate, 2, 2),
}  # fmt: skip
"""By name: the function, and how many arguments it takes at least and at most. `and` and `or` are the parser's."""
HEADER = frozenset({"json", "split", "join", "title", "lower", "upper", "truncate", "pad"})
"""Those that give a table's title back as it is."""
