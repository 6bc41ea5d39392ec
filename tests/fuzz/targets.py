"""What is fuzzed of the Python side, and what must hold: any bytes give a value or InvalidInputError, never another
exception, and what was understood once is understood the same again when it is written out.

A target takes bytes. ``SEEDS`` are inputs to begin with; those in ``regressions/`` once found something.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from layerfs.build.check import check_dockerfile
from layerfs.build.ignore import Matcher, read_patterns
from layerfs.build.parser import INSTRUCTIONS, parse
from layerfs.errors import InvalidInputError
from layerfs.reference import Reference, is_id_prefix
from layerfs.variables import expand, split_words

__all__ = ["HERE", "SEEDS", "TARGETS", "WORDS", "regressions"]

HERE = Path(__file__).parent
_DOCKERFILES = HERE.parent / "build" / "dockerfiles"
_DIGEST = "sha256:" + "a" * 64
_VARIABLES = {"A": "a/b.c/b", "EMPTY": "", "L": "a" * 200}


def dockerfile(data: bytes) -> None:
    """A Dockerfile: parsed, looked over for warnings, and its instructions parsed again."""
    try:
        file = parse(data)
    except InvalidInputError as error:
        _told(error)
        return
    for finding in check_dockerfile(file)[0]:
        assert finding.line > 0
    assert file.stages
    for stage in file.stages:
        assert stage.source.image
        before = stage.source.line.number
        for instruction in stage.instructions:
            assert instruction.line.number > before, "lines go backwards"
            before = instruction.line.number


def _told(error: InvalidInputError) -> None:
    """A mistake in a file says in which one."""
    assert error.file == "Dockerfile", "it is not said where"


def reference(data: bytes) -> None:
    """An image reference; written in full or as docker shows it, it is the same one."""
    text = data.decode(errors="replace")
    is_id_prefix(text)
    for read in (Reference.parse, Reference.parse_new):
        try:
            found = read(text)
        except InvalidInputError:
            continue
        assert Reference.parse(str(found)) == found
        assert Reference.parse(found.familiar) == found
        assert found.repository == found.repository.lower()
        assert not set(str(found)) & set(" \n\0\\"), "nothing that a shell, a header or a path would mind"
        assert ".." not in str(found).split("/")


def ignore(data: bytes) -> None:
    """An ignore file after a path to ask it about, in the first line."""
    path, _, text = data.decode(errors="replace").partition("\n")
    with suppress(InvalidInputError):
        matcher = Matcher(read_patterns(text))
        asked = "/".join(name for name in path.split("/") if name not in ("", ".", ".."))
        if asked and "\0" not in asked:
            matcher.matches(asked[:1000])
            matcher.may_include_below(asked[:1000])


def expanded(data: bytes) -> None:
    """A word with variables, in both dialects of escapes."""
    text = data.decode(errors="replace")
    for escape in "\\`":
        for word in split_words(text, escape):
            with suppress(InvalidInputError):
                expand(word, _VARIABLES, escape=escape)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "dockerfile": dockerfile,
    "reference": reference,
    "ignore": ignore,
    "expand": expanded,
}

SEEDS: dict[str, list[bytes]] = {
    "dockerfile": [
        path.read_bytes() for path in sorted(_DOCKERFILES.glob("*.Dockerfile")) if path.stat().st_size < 4000
    ],
    "reference": [
        text.encode()
        for text in (
            "debian", "debian:12", "user/app", "localhost:5000/a/b-c__d.e:T.a_g-1", "[::1]:5000/app", "0123abcd",
            f"quay.io/a@{_DIGEST}", f"debian:12@{_DIGEST}", "index.docker.io/library/debian", "A/b", "a//b", "a:",
        )
    ],
    "ignore": [
        b"dir/file\n**\n!dir/**\n", b"a/b.txt\n*.txt\n!a/b.*\n# c\n", b"abc/[a-d]x\n[^b]?c/[a-d\\]]*\n/x/../y\n",
        b"a*b\n\\*\na(b)|c{1}$^\n**/file*\n",
    ],
    "expand": [
        b"$A ${A} \"$A\" '$A' \\$A `$A", b"${EMPTY:-x$A} ${B-y} ${A:+z} ${B:?no}", b"${A#*/} ${A##*/} ${A%/*} ${A%%.*}",
        b"${A/b/x} ${A//b/${EMPTY:-y}} ${L/a*a/x}", b"a\\ b \"c d\"'e'",
    ],
}  # fmt: skip

WORDS: dict[str, list[bytes]] = {
    "dockerfile": [
        *(f"\n{word} ".encode() for word in INSTRUCTIONS),
        b"<<EOF", b"\nEOF\n", b"<<-'E' ", b"# escape=`\n", b"# syntax=", b"# check=skip=",
        b"--mount=type=cache,target=",
        b"--from=", b"--chown=", b"--platform=", b" AS ", b"[\"", b"\", \"", b"\"]", b"\\\n", b"${", b":-", b"scratch",
    ],
    "reference": [b"localhost", b"docker.io/", b"library/", b"@sha256:", b":5000", b"[::1]", b"__", b"latest"],
    "ignore": [b"**", b"**/", b"/**", b"!", b"[^", b"]", b"\\", b"..", b"\n"],
    "expand": [b"${A", b"${EMPTY", b":-", b":+", b":?", b"##", b"%%", b"//", b"}", b"\\", b"$A"],
}  # fmt: skip
"""What inputs of a target are made of."""


def regressions(name: str) -> Iterable[Path]:
    """Inputs that once found something in a target."""
    return sorted((HERE / "regressions" / name).glob("*"))
