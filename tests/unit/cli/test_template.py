"""Go templates, as far as people use them."""

from __future__ import annotations

import pytest

from sampan.cli.template import lines, render
from sampan.errors import InvalidArgument

DOCUMENT = {"Name": "x", "State": {"Running": True}, "Mounts": [{"A": 1}, {"A": 2}], "Map": {"k": "v"}, "None": None}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Name}}", "x"),
        ("{{ .State.Running }}", "true"),
        ("{{json .Map}}", '{"k":"v"}'),
        ("{{.Map}}", "map[k:v]"),
        ('{{index .Map "k"}}', "v"),
        ("{{len .Mounts}}", "2"),
        ("{{range .Mounts}}<{{.A}}>{{end}}", "<1><2>"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if .None}}a{{else}}b{{end}}", "b"),
        ("{{.Name | upper}}", "X"),
        ("{{range .Mounts}}{{println .A}}{{end}}", "1\n2\n"),
    ],
)
def test_render(template: str, text: str) -> None:
    assert render(template, DOCUMENT) == text


@pytest.mark.parametrize("template", ["{{.Nope}}", "{{nope .Name}}", "{{range .Mounts}}", "{{end}}", "{{}}"])
def test_mistakes_are_told(template: str) -> None:
    with pytest.raises(InvalidArgument, match="template"):
        render(template, DOCUMENT)


def test_a_table_has_titles() -> None:
    assert lines("table {{.A}}\t{{.B}}", {"A": "AA", "B": "BB"}, [{"A": "1", "B": "2"}]) == "AA        BB\n1         2"
