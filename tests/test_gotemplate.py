"""Templates: what Go's text/template and docker's functions print, and that nonsense is an error with a place."""

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerfs.cli.gotemplate import Fields, Template
from layerfs.cli.gotemplate._functions import FUNCTIONS
from layerfs.errors import InvalidInputError

DATA = Fields(
    Id="sha256:abc",
    Names=["a", "b"],
    Config=Fields(Labels={"x": "1", "y.z": "2"}, Cmd=["/bin/sh", "-c"], Env=None),
    N=3,
    F=1.5,
    Size=0,
    State=Fields(Running=True, Pid=0),
    Nested=[Fields(A=1), Fields(A=2)],
    Label=lambda key: {"x": "1"}.get(key, ""),
)

# What the Go program prints for the same template over the same values.
PRINTED = [
    ("plain", "plain"),
    ("{{.Id}}", "sha256:abc"),
    ("{{.ID}}", "sha256:abc"),
    ("{{.Config.Cmd}}", "[/bin/sh -c]"),
    ("{{.Config.Labels}}", "map[x:1 y.z:2]"),
    ("{{.Config.Labels.x}} {{.Config.Labels.nothing}}", "1 <no value>"),
    ("{{.Config.Env}}", "<no value>"),
    ("{{json .Names}} {{.N | json}} {{json .Config.Env}}", '["a","b"] 3 null'),
    ("{{json .Config}}", '{"Labels":{"x":"1","y.z":"2"},"Cmd":["/bin/sh","-c"],"Env":null}'),
    ('{{index .Config.Labels "y.z"}}', "2"),
    ('{{index .Config.Labels "nothing"}}|', "|"),
    ("{{index .Names 1}}", "b"),
    ("{{(index .Nested 1).A}}", "2"),
    ("{{range .Names}}[{{.}}]{{end}}", "[a][b]"),
    ("{{range $i, $e := .Names}}{{if $i}}, {{end}}{{$i}}={{$e}}{{end}}", "0=a, 1=b"),
    ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", "x=1;y.z=2;"),
    ("{{range .Config.Env}}x{{else}}none{{end}}", "none"),
    ("{{range 3}}{{.}}{{end}}", "012"),
    ("{{range .Names}}{{.}}{{break}}{{end}}", "a"),
    ('{{range .Names}}{{if eq . "a"}}{{continue}}{{end}}{{.}}{{end}}', "b"),
    ("{{range .Names}}{{$.N}}{{end}}", "33"),
    ("{{range .Names}}{{range $.Nested}}{{.A}}{{end}};{{end}}", "12;12;"),
    ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
    ("{{if .Size}}big{{else if eq .N 3}}three{{else}}other{{end}}", "three"),
    ("{{if .Size}}big{{else if eq .N 4}}four{{else}}other{{end}}", "other"),
    ("{{if and .State.Running (gt .N 2) (not .Size)}}yes{{end}}", "yes"),
    ('{{or .Size "none"}} {{and .N 0}} {{or 0 0.0}}', "none 0 0"),
    ("{{with .Config}}{{len .Cmd}}{{end}}", "2"),
    ("{{with .Size}}x{{else}}zero{{end}}", "zero"),
    ("{{with $x := .N}}{{$x}}{{end}}", "3"),
    ("{{with .Size}}x{{else with .N}}n={{.}}{{end}}", "n=3"),
    ("{{$x := 5}}{{$x}}{{$x = 6}}{{$x}}", "56"),
    ("{{$x := 1}}{{range .Names}}{{$x = .}}{{end}}{{$x}}", "b"),
    ("{{$x := 1}}{{if true}}{{$x := 2}}{{end}}{{$x}}", "1"),
    ("{{eq .N 1 2 3}} {{ne .N 3}} {{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 2 3}}", "true false true true false false"),
    ('{{lt "a" "b"}} {{eq "a" "a"}}', "true true"),
    ('{{len "abc"}} {{len .Config.Labels}} {{len .Names}}', "3 2 2"),
    ("{{slice .Id 7}} {{slice .Id 0 6}} {{slice .Names 1}}", "abc sha256 [b]"),
    ('{{print 1 2 "a" 3 "b"}}', "1 2a3b"),
    ("{{print .N}}{{println .N 4}}", "33 4\n"),
    ('{{printf "%s|%-5s|%5s|%.2s" .Id "ab" "ab" "abc"}}', "sha256:abc|ab   |   ab|ab"),
    ('{{printf "%d|%5d|%-5d|%05d|%+d|%x|%X" 7 7 7 7 7 255 255}}', "7|    7|7    |00007|+7|ff|FF"),
    ('{{printf "%v %t %q %.1f %%" .Names true "a\\"b" .F}}', '[a b] true "a\\"b" 1.5 %'),
    ('{{printf "%05d|%06.2f" -7 -1.5}}', "-0007|-01.50"),
    ('{{printf "%*d" 4 7}}', "   7"),
    ('{{printf "%d" "x"}} {{printf "%d"}} {{printf "x" 1}}', "%!d(string=x) %!d(MISSING) x%!(EXTRA int=1)"),
    ('{{.Id | printf "%s-%d" "a"}}', "a-%!d(string=sha256:abc)"),
    ('{{join .Config.Cmd " "}} {{split "a,b" ","}}', "/bin/sh -c [a b]"),
    ('{{lower "ABC"}}{{upper "abc"}}{{title "hello wide world"}}', "abcABCHello Wide World"),
    ('{{pad "x" 1 2}}|{{pad "" 1 2}}|{{truncate "hello" 2}}|{{truncate "he" 5}}', " x  ||he|he"),
    ("a  {{- .N -}}  b", "a3b"),
    ("a  {{- /* gone */ -}}  b", "ab"),
    ("a{{/* gone */}} b", "a b"),
    ("{{ .N }} {{- 3 }}", "33"),
    ("{{-3}}", "-3"),
    ('{{"a}}b"}}{{`c}}d`}}', "a}}bc}}d"),
    ('{{"\\t\\x41\\u00e9\\"\\\\"}}', '\tAé"\\'),
    ("{{'a'}} {{0x1F}} {{0b11}} {{0o17}} {{017}} {{1_000}} {{1e3}} {{-2}} {{.5}}", "97 31 3 15 15 1000 1000 -2 0.5"),
    ("{{true}} {{false}}", "true false"),
    ('{{.Label "x"}}{{.Label "y"}}', "1"),
    ('{{"x" | .Label}}', "1"),
    ("{{(.Config).Cmd}}", "[/bin/sh -c]"),
    ('{{printf "%v" (index .Names 0)}}', "a"),
]

WRONG = [
    ("{{.Foo}}", "template 1:3: no field 'Foo'; there are "),
    ("x\ny {{.Config.Foo}}", "template 2:5: no field 'Foo'"),
    ("{{.Names.x}}", "no field 'x' in list"),
    ("{{.Config.Env.x}}", "no field 'x' in nil"),
    ("{{foo .}}", "template 1:3: function 'foo' is not defined"),
    ("{{$x}}", "undefined variable '$x'"),
    ("{{$x = 1}}", "undefined variable '$x'"),
    ("{{if true}}{{$x := 1}}{{end}}{{$x}}", "undefined variable '$x'"),
    ("{{", "template 1:1: the action is not closed"),
    ("a{{.N", "template 1:2: the action is not closed"),
    ('{{"abc}}', "template 1:3: a quoted string is not closed"),
    ("{{/* abc }}", "the comment is not closed"),
    ("{{/* a */ .N}}", "more than a comment"),
    ("{{}}", "the action is empty"),
    ("{{if}}x{{end}}", "template 1:5: a value is missing"),
    ("{{if .N}}x", "template 1:3: if has no end"),
    ("{{range .Names}}", "range has no end"),
    ("{{end}}", "template 1:3: unexpected {{end}}"),
    ("{{else}}", "unexpected {{else}}"),
    ("{{if .N}}{{else}}{{else}}{{end}}", "unexpected"),
    ("{{break}}", "break is not allowed here"),
    ('{{define "x"}}{{end}}', "define is not supported"),
    ('{{template "x"}}', "template is not supported"),
    ("{{1 | 2}}", "template 1:7: a constant cannot take the value"),
    ("{{.N 3}}", "takes no argument"),
    ("{{3 4}}", "takes no argument"),
    ("{{(.N}}", "a parenthesis is not closed"),
    ("{{.N)}}", "unexpected ')'"),
    ("{{.N |}}", "a value is missing"),
    ("{{index .Names 7}}", "index 7 is out of range, there are 2"),
    ("{{index .Names -1}}", "out of range"),
    ('{{index .Names "a"}}', "whole number"),
    ("{{slice .Id 3 1}}", "out of range"),
    ('{{eq .N "x"}}', "incompatible types for comparison: int and string"),
    ("{{eq .Names .Names}}", "cannot be compared"),
    ("{{lt true false}}", "order"),
    ("{{len}}", "wrong number of arguments: 0"),
    ("{{len .N}}", "has no length"),
    ("{{not 1 2}}", "wrong number of arguments: 2"),
    ('{{join "a" ","}}', "wants a list"),
    ("{{upper .N}}", "wants a string, not int"),
    ("{{json .Label}}", "wrong number of arguments: 0"),
    ("{{.Label}}", "wrong number of arguments: 0"),
    ("{{range .Id}}{{end}}", "range cannot go over"),
    ("{{99999999999999999999999}}", "bad number"),
    ("{{1x}}", "bad number"),
    ("{{'ab'}}", "malformed character constant"),
    ('{{"\\z"}}', "invalid escape"),
    ('{{printf "%2000d" 1}}', "width"),
    ("{{nil}}", "nil is no command"),
    ("{{nil | print}}", "nil is no command"),
    ("{{#}}", "unexpected '#'"),
    ("{{.N .}}{{", "the action is not closed"),
]


@pytest.mark.parametrize(("source", "printed"), PRINTED)
def test_prints_what_go_prints(source, printed):
    assert Template(source).render(DATA) == printed


@pytest.mark.parametrize(("source", "message"), WRONG)
def test_what_is_wrong_is_named_with_its_place(source, message):
    with pytest.raises(InvalidInputError, match=r"^template \d+:\d+: ") as caught:
        Template(source).render(DATA)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "{{range 1000}}{{range 1000}}{{range 1000}}x{{end}}{{end}}{{end}}",
        "{{range 2000000}}{{end}}",
        '{{$x := "aaaaaaaa"}}{{range 100}}{{$x = print $x $x}}{{end}}',
        '{{pad "x" 999999999 0}}',
        '{{$x := pad "x" 999999 0}}{{range 1000}}{{$x}}{{end}}',
        '{{$x := pad "x" 999999 0}}{{$y := split $x ""}}{{range 1000}}{{$z := join $y $x}}{{end}}',
        "{{" + "(" * 1000 + "1" + ")" * 1000 + "}}",
        "{{if 1}}" * 1000 + "{{end}}" * 1000,
        "{{if 0}}" + "{{else if 0}}" * 1000 + "{{end}}",
        "x" * 100_000,
    ],
)
def test_a_template_cannot_take_all_time_or_memory(source):
    with pytest.raises(InvalidInputError):
        Template(source).render(DATA)


def test_a_value_that_holds_itself_is_refused():
    loop: list[object] = []
    loop.append(loop)
    for source in ("{{.}}", "{{json .}}"):
        with pytest.raises(InvalidInputError):
            Template(source).render(loop)


WORDS = st.sampled_from(
    ["{{", "}}", "{{-", "-}}", "{{if", "{{range .Names}}", "{{else}}", "{{end}}", "{{$x:=.N}}", "if", "else", "end",
     "range", "with", "break", "$x", ":=", ".N", ".Names", ".Config.Labels", '"a"', "`b`", "'c'", "1", "-1.5", "0x",
     "nil", "true", "/*", "*/", '"', "'", "\\", "%d", "and", "or", "eq", "index", "slice", "printf", "print", ".",
     "json", "join", "pad", ",", "$", "(", ")", "|", "=", "}"]
)  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=40), st.lists(WORDS, max_size=25).map(" ".join), st.lists(WORDS, max_size=25).map("".join)
)


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_any_text_gives_output_or_one_kind_of_error(source):
    with suppress(InvalidInputError):
        assert isinstance(Template(source).render(DATA), str)


EXPRESSIONS = st.recursive(
    st.sampled_from([".N", ".Names", ".Id", ".Config.Labels", ".", "$", "1", "-1", "1.5", '"a"', "nil", "true", ".F"]),
    lambda inner: st.tuples(
        st.sampled_from(sorted(FUNCTIONS)),
        st.lists(inner, max_size=3),
    ).map(lambda pair: f"({pair[0]} {' '.join(pair[1])})"),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(
    EXPRESSIONS, st.sampled_from(["{{%s}}", "{{if %s}}a{{end}}", "{{range %s}}{{.}}{{end}}", "{{with %s}}{{.}}{{end}}"])
)
def test_any_expression_gives_output_or_one_kind_of_error(expression, form):
    with suppress(InvalidInputError):
        assert isinstance(Template(form.replace("%s", expression)).render(DATA), str)


@given(st.dictionaries(st.text(max_size=8), st.recursive(st.none() | st.integers() | st.text(max_size=8), st.lists)))
def test_json_of_any_value_is_json_again(value):
    assert json.loads(Template("{{json .}}").render(value)) == value
