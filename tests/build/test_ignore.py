"""Ignore files: a table in the manner of moby's, and an oracle that tries everything."""

import contextlib
import posixpath
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerfs.build import ignore
from layerfs.build.ignore import Matcher, read_patterns
from layerfs.errors import InvalidInputError

TABLE = [
    ("**", "file", True),
    ("**", "file/", True),
    ("**", "dir/file", True),
    ("**/", "dir/file", True),
    ("**/**", "dir/file", True),
    ("dir/**", "dir/file", True),
    ("dir/**", "dir/dir2/file", True),
    ("**/dir2/*", "dir/dir2/file", True),
    ("**/dir2/**", "dir/dir2/dir2/file", True),
    ("**file", "file", True),
    ("**file", "dir/file", True),
    ("**/file", "dir/dir/file", True),
    ("**/file*", "dir/dir/file.txt", True),
    ("**/file*txt", "dir/dir/file.txt", True),
    ("**/**/*.txt", "dir/dir/file.txt", True),
    ("**/**/*.txt2", "dir/dir/file.txt", False),
    ("**/*.txt", "file.txt", True),
    ("**/file", "file", True),
    ("a**/*.txt", "a/file.txt", True),
    ("a**/*.txt", "a/dir/file.txt", True),
    ("a/*.txt", "a/dir/file.txt", False),
    ("a/*.txt", "a/file.txt", True),
    ("a[b-d]e", "ae", False),
    ("a[b-d]e", "ace", True),
    ("a[b-d]e", "aae", False),
    ("a[^b-d]e", "aze", True),
    ("a[^b-d]e", "a/e", False),
    ("a[--x]e", "a7e", True),
    ("a[+--]e", "a,e", True),
    (".*", ".foo", True),
    (".*", "foo", False),
    ("abc.def", "abcdef", False),
    ("abc.def", "abc.def", True),
    ("abc.def", "abcZdef", False),
    ("abc?def", "abcZdef", True),
    ("abc?def", "abcdef", False),
    ("a\\*", "a*", True),
    ("a\\*", "ab", False),
    ("**/foo/bar", "foo/bar", True),
    ("**/foo/bar", "dir/dir2/foo/bar", True),
    ("abc/**", "abc", False),
    ("abc/**", "abc/def", True),
    ("abc/**", "abc/def/ghi", True),
    ("**/.foo", ".foo", True),
    ("**/.foo", "bar.foo", False),
    ("./bar.*", "bar.py", True),
    ("a(b)c/def", "a(b)c/def", True),
    ("a(b)c/def", "a(b)c/xyz", False),
    ("a.|)$(}+{bc", "a.|)$(}+{bc", True),
    ("dist/*.whl", "dist/proxy.py-2.4.0.whl", True),
    ("/foo", "foo", True),
    ("foo", "foo/bar/baz", True),
    ("foo", "bar/foo", False),
    ("foo/", "foo", True),
    ("*/temp*", "a/temporary.txt", True),
    ("*/temp*", "temporary.txt", False),
    ("../x", "x", False),
]


@pytest.mark.parametrize(("pattern", "path", "wanted"), TABLE, ids=[f"{p} {q}" for p, q, _ in TABLE])
def test_table(pattern, path, wanted):
    assert Matcher(read_patterns(pattern)).matches(posixpath.normpath(path)) is wanted


@pytest.mark.parametrize(
    ("lines", "path", "wanted"),
    [
        ("*.md\n!README.md", "README.md", False),
        ("*.md\n!README.md", "other.md", True),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", True),
        ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", False),
        ("docs\n!docs/keep", "docs/keep", False),
        ("docs\n!docs/keep", "docs/keep/below", False),
        ("docs\n!docs/keep", "docs/other", True),
        ("*\n!src\nsrc/*.o", "src/a.c", False),
        ("*\n!src\nsrc/*.o", "src/a.o", True),
        ("# comment\n\n  spaced  \n", "spaced", True),
        (" # not a comment", "# not a comment", True),
        ("!only", "anything", False),
        ("\ufeffbom", "bom", True),
        ("a/../b", "b", True),
        ("! spaced", "x", False),
    ],
)
def test_files(lines, path, wanted):
    assert Matcher(read_patterns(lines)).matches(path) is wanted


@pytest.mark.parametrize("pattern", ["!", "a[", "a[b", "a\\", "[]a]x[", "a[z-a]"])
def test_wrong_patterns(pattern):
    with pytest.raises(InvalidInputError):
        Matcher(read_patterns(pattern) or ["!"])


def _oracle_match(pattern, path):
    """One pattern and one path by backtracking, character by character."""
    if not pattern:
        return not path
    if pattern.startswith("**"):
        rest = pattern[2:]
        slash = rest.startswith("/")
        rest = rest[1:] if slash else rest
        if not rest:
            return True
        # Nothing, or anything that ends with a slash.
        return any(
            (count == 0 or path[count - 1] == "/") and _oracle_match(rest, path[count:])
            for count in range(len(path) + 1)
        )
    if pattern[0] == "*":
        for count in range(len(path) + 1):
            if "/" in path[:count]:
                break
            if _oracle_match(pattern[1:], path[count:]):
                return True
        return False
    if not path:
        return False
    if pattern[0] == "?":
        return path[0] != "/" and _oracle_match(pattern[1:], path[1:])
    return pattern[0] == path[0] and _oracle_match(pattern[1:], path[1:])


def _oracle(patterns, path):
    left_out = False
    names = path.split("/")
    ways = ["/".join(names[:count]) for count in range(1, len(names) + 1)]
    for pattern in patterns:
        text = pattern.removeprefix("!")
        if any(_oracle_match(text, way) for way in ways):
            left_out = not pattern.startswith("!")
    return left_out


NAMES = st.text(alphabet="ab", min_size=1, max_size=2)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PATTERNS = st.lists(st.one_of(NAMES, st.sampled_from(["*", "**", "?", "a*", "*b", "a?"])), min_size=1, max_size=3).map(
    "/".join
)


@settings(max_examples=500)
@given(st.lists(st.tuples(st.booleans(), PATTERNS), max_size=4), PATHS)
def test_against_the_oracle(patterns, path):
    written = [f"{'!' if inverted else ''}{pattern}" for inverted, pattern in patterns]
    assert Matcher(written).matches(path) is _oracle(written, path)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.booleans(), PATTERNS), max_size=4), PATHS)
def test_no_way_to_what_is_taken_back_is_cut(patterns, path):
    matcher = Matcher([f"{'!' if inverted else ''}{pattern}" for inverted, pattern in patterns])
    if not matcher.matches(path):
        names = path.split("/")
        for count in range(1, len(names)):
            directory = "/".join(names[:count])
            assert not matcher.matches(directory) or matcher.may_include_below(directory)


@given(st.text(max_size=20))
def test_any_pattern(pattern):
    with contextlib.suppress(InvalidInputError):
        Matcher(read_patterns(pattern)).matches("a/b")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("pattern", ["*a" * 30 + "b", "**/a" * 30 + "/b", "**a*" * 15 + "b", "a**" * 30 + "b"])
def test_many_stars_take_no_ages(pattern):
    """A context that somebody else made brings its own patterns."""
    matcher = Matcher([pattern, f"!{pattern}"])
    for path in ("a" * 250, "a/" * 120 + "a"):
        assert not matcher.matches(path)
        matcher.may_include_below(path)


@settings(max_examples=1000)
@given(st.text("*a/?[-]b", min_size=1, max_size=12), st.text("ab/", min_size=1, max_size=10))
def test_walked_as_by_regular_expressions(pattern, path):
    """Patterns of many stars go another way than those of few."""
    with contextlib.suppress(InvalidInputError):
        items = ignore._items(pattern)
        walked = ignore._walk([item if item in ignore._STARS else re.compile(item, re.DOTALL) for item in items], path)
        assert walked is (re.fullmatch("".join(items), path, re.DOTALL) is not None)
