"""Go templates: what Docker's documentation shows, what mistakes give, and that nothing crashes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.cli.listing import Row, labels_method, rendered
from sampan.cli.template import Template, render
from sampan.errors import InvalidArgument

DOCUMENT: dict[str, Any] = {
    "Name": "x", "State": {"Running": True, "Pid": 7}, "Mounts": [{"A": 1}, {"A": 2}], "Map": {"k": "v", "a": "b"},
    "Env": ["A=1", "B=2"], "Binds": None, "Volumes": None, "Healthcheck": None, "Empty": [],
    "Ports": {"80/tcp": [{"HostPort": "8080"}], "81/tcp": None},
}  # fmt: skip


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Name}}", "x"),
        ("{{ .State.Running }}", "true"),
        ("{{json .Map}}", '{"k":"v","a":"b"}'),
        ("{{json .Binds}}", "null"),
        ("json", None),
        ("{{.Map}}", "map[a:b k:v]"),
        ("{{.Env}}{{.Binds}}{{.Volumes}}{{.Healthcheck}}", "[A=1 B=2][]map[]<nil>"),
        ('{{index .Map "k"}}|{{index .Map "nope"}}', "v|"),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ('{{index .Ports "80/tcp" 0}}', "map[HostPort:8080]"),
        ("{{len .Mounts}}{{len .Name}}{{len .Binds}}", "210"),
        ("{{range .Mounts}}<{{.A}}>{{end}}", "<1><2>"),
        ("{{range .Empty}}a{{else}}none{{end}}", "none"),
        ("{{range $i, $e := .Env}}{{if $i}}, {{end}}{{$e}}{{end}}", "A=1, B=2"),
        ("{{range $k, $v := .Map}}{{$k}}={{$v}};{{end}}", "a=b;k=v;"),
        ("{{range .Env}}{{if eq . `B=2`}}{{break}}{{end}}{{.}}{{end}}", "A=1"),
        ("{{range .Env}}{{if eq . `A=1`}}{{continue}}{{end}}{{.}}{{end}}", "B=2"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{range $p, $c := .Ports}}{{$p}}{{with $c}} -> {{(index . 0).HostPort}}{{end}} {{end}}",
         "80/tcp -> 8080 81/tcp "),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if .Binds}}a{{else if .Empty}}b{{else if .Name}}c{{else}}d{{end}}", "c"),
        ("{{with .State}}{{.Pid}} {{$.Name}}{{end}}{{with .Binds}}x{{else}}-{{end}}", "7 x-"),
        ("{{if and .Name (eq .State.Pid 7) (not .Empty)}}all{{end}}", "all"),
        ("{{or .Binds .Empty .Name}}{{and .Empty .Nope}}", "x[]"),
        ("{{if .Health}}{{.Health.Status}}{{else}}none{{end}}", "none"),
        ('{{$x := .Name}}{{if true}}{{$x = "y"}}{{end}}{{$x}}', "y"),
        ('{{$x := .Name}}{{if true}}{{$x := "y"}}{{end}}{{$x}}', "x"),
        ("{{.Name | upper}}{{lower `AB`}}{{title `ab cd-ef`}}", "XabAb Cd-Ef"),
        ('{{join .Env ","}}{{range split "a,b" ","}}[{{.}}]{{end}}', "A=1,B=2[a][b]"),
        ('{{printf "%s|%5d|%-4s|%q|%v|%t|%05.1f|%x|%%" .Name 3 "x" .Name .Env true 2.25 255}}',
         'x|    3|x   |"x"|[A=1 B=2]|true|002.2|ff|%'),
        ('{{printf "%d %s" "x"}}', "%!d(string=x) %!s(MISSING)"),
        ('{{pad "x" 1 2}}|{{truncate "abcdef" 3}}|{{slice "abcdef" 1 3}}', " x  |abc|bc"),
        ("{{range .Mounts}}{{println .A}}{{end}}", "1\n2\n"),
        ('{{print 1 2 "x" 3}}{{html "<a>"}}{{urlquery "a b&c"}}', "1 2x3&lt;a&gt;a+b%26c"),
        ("{{1e6}} {{123456789.0}} {{1.5}} {{1e20}} {{0.00001}} {{100000.0}} {{0x1F}}",
         "1e+06 1.23456789e+08 1.5 1e+20 1e-05 100000 31"),
        ("{{eq .Name `a` `x`}}{{ne 1 2}}{{lt 1 2}}{{ge `b` `a`}}{{le 2 1}}", "truetruetruetruefalse"),
        ("a {{- /* no */ -}} b{{- ` c ` -}}  d", "ab c d"),
        ('{{"a\\tb\\u0041\\x41"}}{{`\\t`}}{{\'a\'}}', "a\tbAA\\t97"),
        ("\\n", "\\n"),
    ],
)  # fmt: skip
def test_render(template: str, text: str | None) -> None:
    if text is not None:
        assert render(template, DOCUMENT) == text
    else:
        assert render(template, {"a": [1, None, "<"]}) == '{"a":[1,null,"<"]}'


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{.Nope}}", 'no entry for key "Nope"'), ("{{nope .Name}}", 'function "nope" not defined'),
        ("{{range .Mounts}}", "EOF"), ("{{if .Name}}a{{else}}", "EOF"), ("{{end}}", "unexpected {{end}}"),
        ("{{else}}", "unexpected {{else}}"), ("{{}}", "missing value"), ("{{", "unclosed action"),
        ('{{"a', "unterminated"), ("{{.Name.X}}", "type string"), ("{{$x}}", "undefined variable"),
        ("{{break}}", "outside"), ("{{/* }}", "comment"), ("{{(.Name}}", "paren"), ("{{.Name )}}", "unexpected"),
        ("{{len}}", "number of args"), ("{{index .Env 7}}", "out of range: 7"), ("{{len 3}}", "len of type int"),
        ("{{lt 1 `a`}}", "incompatible types"), ("{{define `x`}}{{end}}", "not supported"), ("{{1 2}}", "argument"),
        ("{{.Healthcheck.Test}}", "nil"), ("{{.Name | }}", "missing value"), ('{{"\\q"}}', "invalid syntax"),
        ("{{range 99999999}}xxxxx{{end}}", "range"), ("{{range $i, $e := 4000000}}xxxxx{{end}}", "too much"),
        ("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", "nested too deep"), ("{{nil}}", "nil is not a command"),
        ("{{if}}a{{end}}", "missing value"), ("{{.A B}}", "defined"),
        ("{{if .Name}}{{else with .Name}}{{end}}", "else"),
    ],
)  # fmt: skip
def test_mistakes_are_told(template: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match=r"template.*" + why.replace("{", r"\{")):
        render(template, DOCUMENT)


_WORDS = (
    "{{ }} {{- -}} . .A .B.C $ $x := = | ( ) , if else end range with break continue and or not eq json index len",
    "print printf println split join upper title slice html \" ` ' /* */ %d %s% \\ \n 0 1 -1 1.5 1e9 0x nil true x é",
)
_PIECES = st.sampled_from(" ".join(_WORDS).split(" "))
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ABC"), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(_PIECES, max_size=14).map(" ".join) | st.text(max_size=30), _VALUES)
def test_whatever_is_written_gives_a_text_or_one_refusal(template: str, value: object) -> None:
    try:
        assert isinstance(render(template, value), str)
    except InvalidArgument as error:
        assert "\n" not in error.message


_ACTIONS = st.lists(_PIECES, min_size=1, max_size=4).map(" ".join).map("{{{{{}}}}}".format)


@given(st.lists(_ACTIONS, max_size=6), _VALUES)
def test_whatever_is_in_actions_gives_a_text_or_one_refusal(actions: list[str], value: object) -> None:
    try:
        assert isinstance(render("".join(actions), value), str)
    except InvalidArgument as error:
        assert error.message


def _row(**more: object) -> Row:
    return Row(ID="1", Names="<n>", Label=labels_method({"com.x.y": "z"}), **more)


TITLES = {"ID": "CONTAINER ID", "Names": "NAMES"}


def test_a_row_is_shown_in_each_layout() -> None:
    rows = [_row()]
    assert rendered(rows, TITLES, ("ID", "Names")) == "CONTAINER ID   NAMES\n1              <n>"
    assert rendered(rows, TITLES, ("ID",), "json") == '{"ID":"1","Names":"\\u003cn\\u003e"}'
    assert rendered(rows, TITLES, ("ID",), "{{json .Names}}\\t{{.ID}}") == '"<n>"\t1'
    assert rendered(rows, TITLES, ("ID",), "raw", raw="id: {{.ID}}\n") == "id: 1\n"
    wide = rendered(rows, TITLES, (), 'table {{upper .Names}}\\t{{.Label "com.x.a-y"}}\\t{{.ID}}')
    assert wide == "NAMES     a y       CONTAINER ID\n<N>                 1"
    assert rendered([], TITLES, (), "table {{.ID}}") == "CONTAINER ID"


@pytest.mark.parametrize("template", ["{{.Nope}}", "{{.Label}}", "{{.Label 1}}", '{{.ID "x"}}', "table {{.Nope}}"])
def test_a_row_has_what_it_has(template: str) -> None:
    with pytest.raises(InvalidArgument, match="template"):
        rendered([_row()], TITLES, (), template)


def test_a_template_is_parsed_once_and_rendered_often() -> None:
    template = Template("{{$n := .N}}{{range 2}}{{$n}}{{end}}")
    assert [template.render({"N": number}) for number in (1, 2)] == ["11", "22"]
