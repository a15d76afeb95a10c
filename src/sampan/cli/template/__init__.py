"""`--format`: Go's text/template as Docker's command offers it, with its functions.

A template is taken apart by `lexer`, made into functions by `parser`, and run over a value of `values`: what JSON says,
or a `Row` of a list. All of text/template is here except templates that define others (`define`, `block`,
`template`), which are refused by name.
"""

from __future__ import annotations

from sampan.cli.template.parser import compile_template
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Template:
    """Parsed once, rendered often. Raises InvalidArgument for what is no template."""

    def __init__(self, text: str) -> None:
        try:
            self._body = compile_template(text)
        except RecursionError:
            raise InvalidArgument("template parsing error: nested too deep") from None

    def render(self, value: Any, *, header: bool = False) -> str:
        """The text for one value. `header`: functions give back their first argument, as for a table's titles.

        Raises InvalidArgument where the value has not what the template asks for.
        """
        from sampan.cli.template.parser import Frame

        frame = Frame(value, header=header)
        try:
            self._body(frame)
        except RecursionError:
            raise InvalidArgument("template: nested too deep") from None
        return "".join(frame.output)


def render(text: str, value: Any) -> str:
    """`--format` for one value; `json` stands for the whole of it. Raises InvalidArgument."""
    return Template("{{json .}}" if text == "json" else text).render(value)
