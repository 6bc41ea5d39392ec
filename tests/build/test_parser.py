"""Dockerfiles of many shapes, and what each is understood as; whatever is given, only InvalidInputError comes."""

import json
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))


from dump import DOCKERFILES, outcome, understood

from layerfs.build.parser import INSTRUCTIONS, parse
from layerfs.errors import InvalidInputError

EXPECTED = json.loads((Path(__file__).parent / "expected.json").read_text())
PATHS = sorted(DOCKERFILES.glob("*.Dockerfile"))


def test_there_are_many():
    assert len(PATHS) >= 150
    assert {path.name.removesuffix(".Dockerfile") for path in PATHS} == set(EXPECTED)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name.removesuffix(".Dockerfile"))
def test_dockerfile(path):
    assert json.loads(json.dumps(outcome(path))) == EXPECTED[path.name.removesuffix(".Dockerfile")]


@pytest.mark.parametrize(
    "name", [name for name, value in EXPECTED.items() if "stages" in value and "escape" not in name]
)
def test_written_again_it_says_the_same(name):
    """An instruction's own text is a Dockerfile line that is understood as the same."""
    before = parse((DOCKERFILES / f"{name}.Dockerfile").read_bytes())
    if before.directives.escape != "\\":
        pytest.skip("its text needs the directive")
    lines = [each.line.text for each in before.arguments]
    for stage in before.stages:
        lines += [stage.source.line.text, *(each.line.text for each in stage.instructions)]
    after = parse("\n".join(lines).encode())

    def plain(value):
        if isinstance(value, list):
            head = value[:1] if value and isinstance(value[0], int) else []
            return [plain(each) for each in value[len(head) :]]
        return value

    assert plain(understood(after)["stages"]) == plain(understood(before)["stages"])


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("FROM a\nRUNN x", "did you mean RUN?"),
        ("FROM a\nCOPY --chwon=1 a b", "did you mean --chown?"),
        ("RUN x", "only ARG may stand before the first FROM"),
        ("FROM a\nRUN <<X\n", "a line with X ends it"),
        ("", "it needs a FROM instruction"),
    ],
)
def test_hints(text, hint):
    with pytest.raises(InvalidInputError) as caught:
        parse(text.encode())
    assert hint in caught.value.hint


def test_error_has_file_and_line():
    with pytest.raises(InvalidInputError) as caught:
        parse(b"FROM a\n\n# x\nCOPY a\n", "sub/Dockerfile.prod")
    assert (caught.value.file, caught.value.line) == ("sub/Dockerfile.prod", 4)
    assert str(caught.value).startswith("sub/Dockerfile.prod:4: COPY a: ")


def test_too_large():
    with pytest.raises(InvalidInputError, match="more than"):
        parse(b"#" * (16 << 20) + b"\nFROM a")


FRAGMENTS = (
    r"""--mount= --from=x type=cache , = <<EOF EOF <<-X X # " ' [ ] ["a"] ${a:- } $x AS a NONE CMD / -- target=/x ! 1"""
)
BLANKS = ["\\\n", "\n", "\t", " ", "# escape=`\n", "`\n", "\r\n", "\ufeff", "\u2028"]
WORDS = st.sampled_from([*INSTRUCTIONS, *map(str.lower, INSTRUCTIONS), *FRAGMENTS.split(), *BLANKS])


@settings(max_examples=600, deadline=None)
@given(st.lists(WORDS, max_size=30).map("".join))
@example("FROM a\nRUN \\")
@example("FROM a\nENV \\\n")
@example("ONBUILD")
@example("FROM a\nONBUILD \t")
@example("FROM a\nLABEL '")
def test_only_one_kind_of_error(text):
    for start in ("", "FROM a\n"):
        with suppress(InvalidInputError):
            parse((start + text).encode())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(data):
    with suppress(InvalidInputError):
        parse(data)
