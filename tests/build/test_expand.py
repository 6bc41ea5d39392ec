"""Variables in words: a table of BuildKit's behaviour, and properties."""

import contextlib
import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import InvalidInputError
from layerfs.variables import expand, split_words

VARIABLES = {"HOME": "/root", "EMPTY": "", "P": "foo/bar/baz.tar.gz", "R": "foobarfoo", "A": "x", "SPACE": "a b"}

TABLE = [
    ("plain", "plain"),
    ("$HOME", "/root"),
    ("${HOME}x", "/rootx"),
    ("$HOMEx", ""),
    ("a$HOME/b", "a/root/b"),
    (r"\$HOME", "$HOME"),
    (r"\\$HOME", r"\/root"),
    (r"\a", "a"),
    ("'$HOME'", "$HOME"),
    ('"$HOME"', "/root"),
    (r'"\$HOME"', "$HOME"),
    (r'"\a"', r"\a"),
    (r'"a\"b"', 'a"b'),
    (r"'a\b'", r"a\b"),
    ('"it\'s"', "it's"),
    ("'a'\"b\"c", "abc"),
    ("$SPACE", "a b"),
    ("$UNSET", ""),
    ("${UNSET}", ""),
    ("${UNSET:-w}", "w"),
    ("${UNSET-w}", "w"),
    ("${EMPTY:-w}", "w"),
    ("${EMPTY-w}", ""),
    ("${HOME:-w}", "/root"),
    ("${UNSET:+w}", ""),
    ("${UNSET+w}", ""),
    ("${EMPTY:+w}", ""),
    ("${EMPTY+w}", "w"),
    ("${HOME:+w}", "w"),
    ("${UNSET:-$HOME}", "/root"),
    ("${UNSET:-${EMPTY:-deep}}", "deep"),
    ("${UNSET:-'a b'}", "a b"),
    ('${UNSET:-"}"}', "}"),
    (r"${UNSET:-\}}", "}"),
    ("${HOME?no}", "/root"),
    ("${P#*/}", "bar/baz.tar.gz"),
    ("${P##*/}", "baz.tar.gz"),
    ("${P%.*}", "foo/bar/baz.tar"),
    ("${P%%.*}", "foo/bar/baz"),
    ("${P%/*}", "foo/bar"),
    ("${P#nothing}", "foo/bar/baz.tar.gz"),
    ("${P#???}", "/bar/baz.tar.gz"),
    ("${R/foo/X}", "Xbarfoo"),
    ("${R//foo/X}", "XbarX"),
    ("${R//foo}", "bar"),
    ("${R/o*/-}", "f-"),
    ("${R//o/$A}", "fxxbarfxx"),
    (r"${P//\//_}", "foo_bar_baz.tar.gz"),
    ("$", "$"),
    ("a$", "a$"),
    ("$ a", "$ a"),
    ("$1", ""),
    ("$?x", "x"),
    ("${A}${A}", "xx"),
    ("\\", ""),
]


@pytest.mark.parametrize(("word", "wanted"), TABLE, ids=[word for word, _ in TABLE])
def test_table(word, wanted):
    assert expand(word, VARIABLES) == wanted


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("${", "name is wrong"),
        ("${}", "name is wrong"),
        ("${A", "brace is not closed"),
        ("${A:-b", "brace is not closed"),
        ("${A:=b}", "not a substitution"),
        ("${A^^}", "not a substitution"),
        ("'a", "single quote"),
        ('"a', "double quote"),
        ("${UNSET:?}", "UNSET: not allowed to be unset or empty"),
        ("${UNSET?give it}", "UNSET: give it"),
        ("${EMPTY:?no}", "EMPTY: no"),
        ("${x:-" * 60, "too deeply"),
    ],
)
def test_mistakes(word, reason):
    with pytest.raises(InvalidInputError, match=re.escape(reason)):
        expand(word, VARIABLES)


def test_other_escape():
    assert expand("`$HOME", VARIABLES, escape="`") == "$HOME"
    assert expand(r"c:\$HOME", VARIABLES, escape="`") == r"c:\/root"


def test_missing_is_told():
    told = []
    expand("$HOME $NOT ${NOR} ${WITH:-default} ${EMPTY}", VARIABLES, missing=told.append)
    assert told == ["NOT", "NOR"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b  c", ["a", "b", "c"]),
        ('a="b c" d', ['a="b c"', "d"]),
        (r"a\ b c", [r"a\ b", "c"]),
        ("a='x y'z", ["a='x y'z"]),
        ('"a b', ['"a b']),
        ("", []),
    ],
)
def test_split(text, words):
    assert split_words(text) == words


@given(st.text(alphabet="$\\'\"{}:-+/#%ab ", max_size=40))
def test_only_one_kind_of_error(word):
    with contextlib.suppress(InvalidInputError):
        expand(word, {"a": "1", "b": ""})


@given(st.text())
def test_a_value_is_never_looked_into(value):
    assert expand("${a}", {"a": value}) == value


@given(st.text(alphabet="ab/.", max_size=12), st.text(alphabet="ab/.*?", max_size=5))
def test_trimming_against_an_oracle(value, pattern):
    """The shortest and longest beginnings and ends that match, by trying all."""
    if "/" in pattern:
        return
    regex = re.compile(fnmatch.translate(pattern))
    heads = [count for count in range(len(value) + 1) if regex.match(value[:count])]
    tails = [count for count in range(len(value) + 1) if regex.match(value[count:])]
    wanted = {
        "#": value[min(heads) :] if heads else value,
        "##": value[max(heads) :] if heads else value,
        "%": value[: max(tails)] if tails else value,
        "%%": value[: min(tails)] if tails else value,
    }
    for mark, expected in wanted.items():
        if not pattern.startswith(mark[0]):
            assert expand(f"${{v{mark}{pattern}}}", {"v": value}) == expected


@pytest.mark.timeout(20)
@pytest.mark.parametrize("form", ["${V#%s}", "${V##%s}", "${V%%%s}", "${V%%%%%s}", "${V/%s/x}", "${V//%s/x}"])
def test_many_stars_take_no_ages(form):
    assert expand(form % ("*a" * 30 + "b"), {"V": "a" * 300}) == "a" * 300
