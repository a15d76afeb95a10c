"""Lists in Docker's layouts: a table, one object a line as JSON, a template's lines, or `raw`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sampan.cli.table import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Row(dict[str, "Any"]):
    """A line of a list, by the names that templates know. A value that can be called is a method: `.Label "key"`."""


def print_rows(
    rows: Iterable[Row], titles: dict[str, str], keys: Sequence[str], template: str = "", *, raw: str = ""
) -> None:
    """`titles`: by the names that templates know; `keys`: those of the table that is shown without a template.

    Raises InvalidArgument.
    """
    text = rendered(rows, titles, keys, template, raw=raw)
    if text:
        print(text)


def rendered(
    rows: Iterable[Row], titles: dict[str, str], keys: Sequence[str], template: str = "", *, raw: str = ""
) -> str:
    """The list's text, without its last line's end."""
    if template in ("", "table"):
        return table([titles[key] for key in keys], [[str(row[key]) for key in keys] for row in rows])
    from sampan.cli.template import Template

    if template == "raw" and raw:
        template = raw
    template = template.strip(" ").replace("\\t", "\t").replace("\\n", "\n")
    is_table = template.startswith("table")
    compiled = Template(template.removeprefix("table").strip(" ") if is_table else _whole(template))
    body = [compiled.render(row) for row in rows]
    if not is_table:
        return "\n".join(body)
    return table(compiled.render(_head(titles), header=True).split("\t"), [row.split("\t") for row in body])


def _whole(template: str) -> str:
    return "{{json .}}" if template == "json" else template


def _head(titles: dict[str, str]) -> Row:
    """The line of titles: a label's own is its last word."""
    head: dict[str, Any] = {**titles, "Label": lambda key: key.rpartition(".")[2].replace("-", " ").replace("_", " ")}
    return Row(head)


def labels_method(labels: dict[str, str] | None) -> Any:
    """`.Label "key"`"""
    return lambda key: (labels or {}).get(key, "")


def joined_labels(labels: dict[str, str] | None) -> str:
    """`a=b,c=d`"""
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items()))
