"""Repositories: the forms in which one says what of it is meant."""

import hashlib
import io
import os
import subprocess

import pytest
from test_copy import archive, repository, server  # noqa: F401

from layerfs.build.git import GitSource, parse_git
from layerfs.errors import BuildError, InvalidInputError

pytestmark = pytest.mark.root


@pytest.fixture
def both(repository):  # noqa: F811
    """The URL, and the commits of its two states."""
    url, commit = repository
    kit_of = {"GIT_CONFIG_GLOBAL": "/dev/null", "PATH": os.environ["PATH"]}
    told = subprocess.run(["git", "ls-remote", url, "v1"], capture_output=True, text=True, check=True, env=kit_of)
    return url, told.stdout.split()[0], commit


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("?tag=v1", "one"),
        ("?branch=main", "two"),
        ("?branch=old", "one"),
        ("?ref=v1", "one"),
        ("?ref=refs/heads/main", "two"),
        ("?commit={0}", "one"),
        ("?branch=main&commit={0}", "one"),
        ("?ref=main&tag=v1", "one"),
        ("?ref=main#v1", "two"),
        ("?checksum={1}", "two"),
        ("#{0}", "one"),
        ("", "two"),
    ],
)
def test_what_of_a_repository(kit, both, query, wanted):
    url, *commits = both
    kit.build(f"FROM scratch\nADD {url}{query.format(*commits)} /a\n")
    assert kit.read("/a/sub/f") == wanted


def test_directory_and_checksum_by_query(kit, both):
    url, one, two = both
    kit.build(f"FROM scratch\nADD {url}?subdir=sub&tag=v1 /a\nADD {url}?subdir=sub&checksum={two[:7]} /b\n")
    assert (kit.read("/a/f"), kit.read("/b/f")) == ("one", "two")
    for checksum in (one, two[:6]):
        with pytest.raises(BuildError, match=f"the commit is {two}, not {checksum}"):
            kit.build(f"FROM scratch\nADD {url}?checksum={checksum} /a\n")
    kit.build(f"FROM scratch\nARG SUM={two}\nADD --checksum=$SUM {url} /a\n")
    with pytest.raises(BuildError, match="the commit is"):
        kit.build(f"FROM scratch\nARG SUM={one}\nADD --checksum=$SUM {url} /a\n")


def test_the_repository_s_own_directory(kit, both):
    url = both[0]
    kit.build(
        f"FROM scratch\nADD {url}?keep-git-dir=1 /a\nADD {url}?keep-git-dir=false /b\nADD {url}?keep-git-dir /c\n"
    )
    assert [".git" in kit.paths(path) for path in ("/a", "/b", "/c")] == [True, False, True]
    text = b"FROM scratch\nCOPY . /\n"
    for value, kept in (("1", True), ("true", True), ("0", False)):
        arguments = {"BUILDKIT_CONTEXT_KEEP_GIT_DIR": value}
        kit.build("", context=url, file="-", stdin=io.BytesIO(text), build_args=arguments)
        assert (".git" in kit.paths("/")) is kept


def test_submodules(kit, both, server):  # noqa: F811
    place, url = server

    def git(*words, cwd=None):
        words = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always", *words)
        environment = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null"}
        subprocess.run(words, cwd=cwd, env=environment, check=True, capture_output=True)

    git("init", "-q", "-b", "main", place / "outer")
    git("submodule", "add", "-q", f"{url}/r.git", "inner", cwd=place / "outer")
    git("commit", "-qm", "outer", cwd=place / "outer")
    git("clone", "-q", "--bare", place / "outer", place / "o.git")
    git("update-server-info", cwd=place / "o.git")
    kit.build(f"FROM scratch\nADD {url}/o.git /a\nADD {url}/o.git?submodules=0 /b\n")
    assert kit.read("/a/inner/sub/f") == "two"
    assert kit.paths("/b") == [".gitmodules", "inner"]


def test_forms_of_urls():
    assert parse_git("github.com/a/b") == GitSource("https://github.com/a/b")
    assert parse_git("https://github.com/a/b#r:d") == GitSource("https://github.com/a/b", "r", "d")
    assert parse_git("git@host:a/b.git#r") == GitSource("git@host:a/b.git", "r")
    assert parse_git("ssh://git@host/a") == GitSource("ssh://git@host/a")
    assert parse_git("https://host/a.tar.gz") is None
    assert parse_git("https://host/a.git?unknown=1") is None
    assert parse_git("https://host/a.git?unknown") is None
    for query in ("keep-git-dir=maybe", "submodules=2"):
        with pytest.raises(InvalidInputError, match="is true or false"):
            parse_git(f"https://host/a.git?{query}")


# ---- what ADD with a checksum is known by in the cache ----


def test_another_checksum_is_another_step(kit, server):  # noqa: F811
    place, url = server
    for text in ("one", "two"):
        (place / "f").write_text(text)
        kit.build(f"FROM scratch\nADD --checksum=sha256:{hashlib.sha256(text.encode()).hexdigest()} {url}/f /o\n")
        assert (kit.steps(), kit.read("/o")) == ((1, 0), text)


def test_names_and_flags_beside_a_checksum(kit, server, both):  # noqa: F811
    place, url = server
    (place / "f.tar").write_bytes(archive())
    checksum = f"sha256:{hashlib.sha256(archive()).hexdigest()}"
    for flag, wanted in (("", ["f.tar"]), ("--unpack", ["in", "in/a", "in/b"])):
        kit.build(f"FROM scratch\nADD --checksum={checksum} {flag} {url}/f.tar /x/\n")
        assert kit.paths("/x") == wanted
    (place / "g.tar").write_bytes(archive())
    kit.build(f"FROM scratch\nADD --checksum={checksum} {url}/g.tar /x/\n")
    assert kit.paths("/x") == ["g.tar"]
    for flag in ("", "--keep-git-dir"):
        kit.build(f"FROM scratch\nADD --checksum={both[2]} {flag} {both[0]} /x/\n")
        assert (".git" in kit.paths("/x")) is bool(flag)
