"""COPY and ADD: where files go, whose they are, what is left out."""

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import stat
import subprocess
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import tarbuild as tar

from layerfs.build import Secret
from layerfs.errors import BuildError, IntegrityError, InvalidInputError, LayerfsError, NotFoundError

pytestmark = pytest.mark.root


def test_file_to_file(kit):
    kit.build("FROM scratch\nCOPY a /b", {"a": "x"})
    assert kit.paths("/") == ["b"]
    assert kit.read("/b") == "x"
    assert (kit.stat("/b").uid, kit.stat("/b").gid) == (0, 0)


def test_file_into_directory(kit):
    kit.build("FROM scratch\nCOPY a /new/dir/\nCOPY a new/dir", {"a": "x"})
    assert kit.paths("/") == ["new", "new/dir", "new/dir/a"]


def test_content_of_a_directory(kit):
    kit.build("FROM scratch\nCOPY d /e\nCOPY d/ /f/", {"d/x": "1", "d/s/y": "2"})
    assert kit.paths("/e") == kit.paths("/f") == ["s", "s/y", "x"]


def test_relative_to_the_working_directory(kit):
    kit.build("FROM scratch\nWORKDIR /w\nCOPY a .\nCOPY a ./sub/\nCOPY a ../c", {"a": "x"})
    assert kit.paths("/") == ["c", "w", "w/a", "w/sub", "w/sub/a"]


def test_several_sources(kit):
    kit.build("FROM scratch\nCOPY a b d /x/", {"a": "1", "b": "2", "d/c": "3"})
    assert kit.paths("/x") == ["a", "b", "c"]
    with pytest.raises(InvalidInputError, match="ends with a slash"):
        kit.build("FROM scratch\nCOPY a b /x")


def test_json_form(kit):
    kit.build('FROM scratch\nCOPY ["a b", "/c d/"]', {"a b": "x"})
    assert kit.paths("/c d") == ["a b"]


def test_globs(kit):
    kit.build("FROM scratch\nCOPY *.txt h?m [ab]1 /x/", {"a.txt": "1", "b.txt": "2", "hem": "3", "a1": "4", "c1": "5"})
    assert kit.paths("/x") == ["a.txt", "a1", "b.txt", "hem"]
    kit.build("FROM scratch\nCOPY no*thing a.txt /x/")
    assert kit.paths("/x") == ["a.txt"]
    assert any("no*thing" in note for note in kit.result.warnings)


def test_variables(kit):
    kit.build('FROM scratch\nARG W=a\nENV TO=/q\nCOPY ${W} "$TO/"', {"a": "x"})
    assert kit.paths("/q") == ["a"]


def test_links_are_kept_inside_and_followed_at_the_top(kit):
    kit.build("FROM scratch\nCOPY d /d\nCOPY l /file", {"d/l": "->../etc/passwd", "a": "x", "l": "->a"})
    assert kit.stat("/d/l").target == b"../etc/passwd"
    assert stat.S_ISREG(kit.stat("/file").mode)
    kit.build("FROM scratch\nCOPY l /x/")
    assert kit.paths("/x") == ["l"]


@pytest.mark.parametrize("target", ["->/etc/passwd", "->../../../../../../etc/passwd", "->/proc/self/root/etc/passwd"])
def test_no_link_leaves_the_context(kit, target):
    with pytest.raises(NotFoundError, match="not in the build context"):
        kit.build("FROM scratch\nCOPY l /x", {"l": target})


def test_no_directory_link_leaves_the_context(kit):
    kit.write({"d": "->/etc"})
    for source in ("d/passwd", "d", "d/*"):
        try:
            kit.build(f"FROM scratch\nCOPY {source} /x/")
        except NotFoundError:
            continue
        assert "x/passwd" not in kit.paths("/")


def test_dots_stay_inside(kit):
    with pytest.raises(NotFoundError):
        kit.build("FROM scratch\nCOPY ../Dockerfile /x")
    kit.build("FROM scratch\nCOPY ../a /x", {"a": "1"})
    assert kit.read("/x") == "1"


def test_modes_times_and_xattrs(kit):
    kit.write({"a": "x"})
    os.chmod(kit.context / "a", 0o4751)
    os.utime(kit.context / "a", ns=(1, 1_600_000_000_123_456_789))
    os.setxattr(kit.context / "a", "user.note", b"v\0w")
    os.setxattr(kit.context / "a", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    kit.build("FROM scratch\nCOPY a /a")
    entry = kit.stat("/a")
    assert entry.mode & 0o7777 == 0o4751
    assert entry.mtime_ns == 1_600_000_000_123_456_789
    xattrs = kit.xattrs("/a")
    assert xattrs[b"user.note"] == b"v\0w"
    assert b"security.capability" in xattrs


def test_hard_links_stay_together(kit):
    kit.write({"d/a": "x" * 5000})
    os.link(kit.context / "d/a", kit.context / "d/b")
    kit.build("FROM scratch\nCOPY d /d")
    assert kit.stat("/d/a").nlink == kit.stat("/d/b").nlink == 2


def test_sockets_are_left_out(kit):
    import socket

    kit.write({"d/a": "x"})
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(kit.context / "d/s"))
        kit.build("FROM scratch\nCOPY d /d")
    assert kit.paths("/d") == ["a"]
    assert any("socket" in text for text in kit.result.warnings)


def test_devices_and_pipes(kit):
    kit.write({"d/a": "x"})
    os.mkfifo(kit.context / "d/p")
    os.mknod(kit.context / "d/n", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    kit.build("FROM scratch\nCOPY d /d")
    assert (kit.stat("/d/p").type, kit.stat("/d/n").type, kit.stat("/d/n").rdev) == ("fifo", "char", (1, 3))


def test_long_and_strange_names(kit):
    names = {"n" * 200: "1", "p/" * 60 + "q": "2", "ünï": "3", "new\nline": "4"}
    kit.build("FROM scratch\nCOPY . /x", names)
    assert set(names) <= set(kit.paths("/x"))


# ---- what is there already ----


def test_into_what_is_there(kit):
    kit.build("FROM box\nCOPY a /etc\nCOPY b /data/seed", {"a": "1", "b": "2"})
    assert kit.read("/etc/a") == "1"
    assert kit.read("/data/seed") == "2"
    data = kit.stat("/data")
    assert (data.mode & 0o7777, data.uid, data.gid) == (0o750, 1000, 29)


def test_directories_above_keep_what_they_have(kit):
    archive = tar.archive(tar.directory("d", mode=0o750, uid=5, mtime=1000, xattrs={"user.k": b"v"}))
    kit.build("FROM scratch\nADD a.tar /\nCOPY a /d/a", {"a.tar": archive, "a": "1"})
    entry = kit.stat("/d")
    assert (entry.mode & 0o7777, entry.uid, entry.mtime_ns) == (0o750, 5, 1000 * 10**9)
    assert kit.xattrs("/d") == {b"user.k": b"v"}


def test_an_absolute_link_below_a_directory(kit):
    kit.build("FROM box\nRUN mkdir -p /real /a && ln -s /real /a/link\nCOPY a /a/link/", {"a": "1"})
    assert kit.read("/real/a") == "1"
    assert kit.paths("/a") == ["link"]


def test_a_link_at_the_destination_is_followed(kit):
    kit.build(
        "FROM box\nRUN mkdir /real && ln -s /real /link && ln -s nowhere /dead\nCOPY a /link/\nCOPY a /dead", {"a": "1"}
    )
    assert kit.read("/real/a") == "1"
    assert kit.stat("/link").type == "symlink"
    assert kit.read("/nowhere") == "1"


def test_a_hostile_link_at_the_destination(kit, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    kit.build(f"FROM box\nRUN ln -s ../../../../../../{outside} /out\nCOPY a /out/a", {"a": "1"})
    assert not list(outside.iterdir())
    assert kit.read(f"{outside}/a") == "1"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("COPY d /etc/passwd", "not a directory"),
        ("COPY f /", "/bin/busybox: not a directory, a directory cannot be copied over it"),
        ("COPY a /etc/passwd/", "not a directory"),
        ("COPY e /", "a directory, a file cannot be copied over it"),
        ("COPY a /etc/passwd/x", "not a directory"),
    ],
)
def test_kinds_that_do_not_fit(kit, text, reason):
    with pytest.raises(InvalidInputError, match=reason):
        kit.build(f"FROM box\n{text}", {"a": "1", "d/x": "2", "e/etc": "file", "f/bin/busybox/x": "3"})


def test_a_file_replaces_a_link(kit):
    kit.build("FROM box\nRUN mkdir /t && ln -s /etc/passwd /t/a\nCOPY a b /t/", {"a": "new", "b": "x"})
    assert kit.read("/t/a") == "new"
    assert "root" in kit.read("/etc/passwd")


# ---- flags ----


def test_chown_by_number_and_name(kit):
    kit.build(
        "FROM box\nCOPY --chown=7:8 a /n\nCOPY --chown=bob d /d/\nCOPY --chown=bob:audio a /g\nCOPY --chown=55 a /u",
        {"a": "1", "d/x": "2"},
    )
    owners = {path: (kit.stat(path).uid, kit.stat(path).gid) for path in ("/n", "/d", "/d/x", "/g", "/u")}
    assert owners == {"/n": (7, 8), "/d": (1000, 1000), "/d/x": (1000, 1000), "/g": (1000, 29), "/u": (55, 55)}


@pytest.mark.parametrize("owner", ["nobody-here", "bob:nogroup", "99999999999", ":nogroup"])
def test_unknown_owners(kit, owner):
    with pytest.raises(LayerfsError) as caught:
        kit.build(f"FROM box\nCOPY --chown={owner} a /a", {"a": "1"})
    assert str(caught.value).startswith(f"{kit.place}/Dockerfile:2: COPY ")


def test_owner_names_are_read_inside_the_image(kit):
    with pytest.raises(NotFoundError):
        kit.build("FROM box\nRUN ln -sf /proc/self/root/etc/passwd /etc/passwd\nCOPY --chown=daemon a /a", {"a": "1"})


def test_chmod(kit):
    kit.write({"d/a": "1", "d/x": "2"})
    os.chmod(kit.context / "d/x", 0o755)
    kit.build(
        "FROM scratch\nCOPY --chmod=640 d/a /o\nCOPY --chmod=u=rwX,go=rX d /s\n"
        "COPY --chmod=+x d/a /p\nCOPY --chmod=a-r,u+s d/a /q"
    )
    modes = {path: kit.stat(path).mode & 0o7777 for path in ("/o", "/s/a", "/s/x", "/p", "/q")}
    assert modes == {"/o": 0o640, "/s/a": 0o644, "/s/x": 0o755, "/p": 0o755, "/q": 0o4200}
    with pytest.raises(InvalidInputError, match="--chmod"):
        kit.build("FROM scratch\nCOPY --chmod=rwx d /")


def test_exclude(kit):
    files = {"d/a.md": "1", "d/b.txt": "2", "d/s/c.md": "3", "x.md": "4"}
    kit.build("FROM scratch\nCOPY --exclude=*.md d x.* /x/\nCOPY --exclude=**/*.md d /y", files)
    assert kit.paths("/x") == ["b.txt", "s", "s/c.md"]
    assert kit.paths("/y") == ["b.txt", "s"]


def test_parents(kit):
    files = {"x/a.txt": "1", "x/y/b.txt": "2", "z/c.txt": "3"}
    kit.build(
        "FROM scratch\nCOPY --parents x/a.txt x/y /one/\nCOPY --parents ./x/./y/*.txt /two/\n"
        "COPY --parents **/*.txt /three/",
        files,
    )
    assert kit.paths("/one") == ["x", "x/a.txt", "x/y", "x/y/b.txt"]
    assert kit.paths("/two") == ["y", "y/b.txt"]
    assert kit.paths("/three") == ["x", "x/a.txt", "x/y", "x/y/b.txt", "z", "z/c.txt"]


def test_link_does_not_depend_on_what_is_below(kit):
    kit.build("FROM box\nCOPY --link a /x/", {"a": "1"})
    first = kit.store.images.get("made").diff_ids[-1]
    kit.build("FROM scratch\nCOPY --link a /x/")
    assert kit.store.images.get("made").diff_ids[-1] == first
    assert kit.steps() == (0, 1)


def test_heredocs(kit):
    kit.build(
        'FROM scratch\nARG WHO=you\nCOPY <<one <<"two" /x/\nhi $WHO "quoted" \\$5\none\nhi $WHO\ntwo\n'
        "COPY --chmod=755 <<EOF /run.sh\n#!/bin/sh\nEOF"
    )
    assert kit.read("/x/one") == 'hi you "quoted" $5\n'
    assert kit.read("/x/two") == "hi $WHO\n"
    assert kit.stat("/run.sh").mode & 0o777 == 0o755


# ---- from ----


def test_from_stage_number_image_and_context(kit, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "o").write_text("named")
    kit.build(
        "FROM box AS one\nRUN echo 1 > /f && chown bob /f\nFROM scratch\n"
        "COPY --from=one /f /a\nCOPY --from=0 /f /b\nCOPY --from=box /etc/group /c\nCOPY --from=more o /d",
        contexts={"more": str(other)},
    )
    assert [kit.read(path) for path in ("/a", "/b", "/d")] == ["1\n", "1\n", "named"]
    assert "audio" in kit.read("/c")
    assert kit.stat("/a").uid == 1000


def test_from_an_image_as_named_context(kit):
    kit.build(
        "FROM base\nCOPY --from=extra /data/seed /x",
        contexts={"base": "docker-image://box", "extra": "docker-image://box"},
    )
    assert kit.read("/x") == "seeded\n"


def test_a_link_in_a_stage_stays_in_it(kit):
    with pytest.raises(NotFoundError):
        kit.build("FROM box AS a\nRUN ln -s /proc/self/root/etc/debian_version /l\nFROM scratch\nCOPY --from=a /l /x")


# ---- the ignore file ----


def test_ignore_file(kit):
    kit.build(
        "FROM scratch\nCOPY . /x",
        {".dockerignore": "*.log\n!keep.log\nsecret", "a.log": "", "keep.log": "", "secret/k": "", "b": ""},
    )
    assert kit.paths("/x") == [".dockerignore", "b", "keep.log"]
    with pytest.raises(NotFoundError, match="ignore file"):
        kit.build("FROM scratch\nCOPY secret/k /x")


def test_ignore_file_of_the_dockerfile(kit):
    (kit.place / "Dockerfile.dockerignore").write_text("b\n")
    kit.build("FROM scratch\nCOPY . /x", {".dockerignore": "a\n", "a": "", "b": ""})
    assert kit.paths("/x") == [".dockerignore", "a"]


def test_ignore_file_is_no_way_out(kit, tmp_path):
    (tmp_path / "secret").write_text("a\n")
    kit.build("FROM scratch\nCOPY . /x", {".dockerignore": f"->{tmp_path}/secret", "a": ""})
    assert "a" in kit.paths("/x")


def test_what_is_taken_back_below_an_ignored_directory(kit):
    kit.build("FROM scratch\nCOPY . /x", {".dockerignore": "d\n!d/e/keep", "d/e/keep": "", "d/f": "", "d/g/h": ""})
    assert kit.paths("/x") == [".dockerignore", "d", "d/e", "d/e/keep"]


# ---- ADD ----


def archive():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, uid in (("in/a", 5), ("in/b", 6)):
            info = tarfile.TarInfo(name)
            info.size, info.uid = 1, uid
            tar.addfile(info, io.BytesIO(b"x"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["tar", "gzip", "bzip2", "xz"]
)
def test_archives_are_unpacked_by_content(kit, pack):
    kit.build(
        "FROM scratch\nADD data.bin /x/\nADD --unpack=false data.bin /y/\nCOPY data.bin /z/",
        {"data.bin": pack(archive())},
    )
    assert kit.paths("/x") == ["in", "in/a", "in/b"]
    assert kit.stat("/x/in/b").uid == 6
    assert kit.paths("/y") == kit.paths("/z") == ["data.bin"]
    kit.build("FROM scratch\nADD data.bin /x/")
    assert kit.steps() == (0, 1)


def test_what_only_looks_like_an_archive_is_a_file(kit):
    kit.build("FROM scratch\nADD a.tar b.gz /x/", {"a.tar": "no tar", "b.gz": gzip.compress(b"no tar in it")})
    assert kit.paths("/x") == ["a.tar", "b.gz"]


def test_an_archive_cannot_leave_the_destination(kit, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("l")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(link)
        info = tarfile.TarInfo("l/evil")
        tar.addfile(info)
    with contextlib.suppress(LayerfsError):
        kit.build("FROM scratch\nADD a.tar /x/", {"a.tar": buffer.getvalue()})
    assert not (tmp_path / "evil").exists()


@pytest.fixture
def server(tmp_path):
    place = tmp_path / "www"
    place.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(place))

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield place, f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_add_url(kit, server):
    place, url = server
    (place / "f.txt").write_text("web")
    os.utime(place / "f.txt", (1_500_000_000, 1_500_000_000))
    digest = hashlib.sha256(b"web").hexdigest()
    kit.build(f"FROM scratch\nADD {url}/f.txt /x/\nADD --checksum=sha256:{digest} --chmod=644 {url}/f.txt /y")
    entry = kit.stat("/x/f.txt")
    assert (entry.mode & 0o7777, entry.mtime_ns) == (0o600, 1_500_000_000 * 10**9)
    assert kit.read("/y") == "web"
    assert kit.stat("/y").mode & 0o7777 == 0o644


def test_add_url_that_is_wrong(kit, server):
    place, url = server
    (place / "f").write_text("web")
    with pytest.raises(IntegrityError, match="sha256"):
        kit.build(f"FROM scratch\nADD --checksum=sha256:{'0' * 64} {url}/f /x")
    with pytest.raises(NotFoundError, match="404"):
        kit.build(f"FROM scratch\nADD {url}/none /x")
    with pytest.raises(InvalidInputError):
        kit.build(f"FROM scratch\nADD --checksum=md5:00 {url}/f /x")
    with pytest.raises(InvalidInputError, match="no name"):
        kit.build(f"FROM scratch\nADD {url}/ /x/")


def test_add_url_with_a_checksum_is_not_fetched_again(kit, server):
    place, url = server
    (place / "f").write_text("web")
    text = f"FROM scratch\nADD --checksum=sha256:{hashlib.sha256(b'web').hexdigest()} {url}/f /x"
    kit.build(text)
    (place / "f").unlink()
    kit.build(text)
    assert kit.steps() == (0, 1)


def test_add_url_unpacked(kit, server):
    place, url = server
    (place / "f.tgz").write_bytes(gzip.compress(archive()))
    kit.build(f"FROM scratch\nADD --unpack=true {url}/f.tgz /x/\nADD {url}/f.tgz /y/")
    assert kit.paths("/x") == ["in", "in/a", "in/b"]
    assert kit.paths("/y") == ["f.tgz"]


@pytest.fixture
def repository(server):
    """A repository that plain HTTP gives."""
    place, url = server
    work = place / "work"
    work.mkdir()

    def git(*words):
        environment = os.environ | {
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_AUTHOR_DATE": "2024-01-01T00:00:00Z",
            "GIT_COMMITTER_DATE": "2024-01-01T00:00:00Z",
        }
        words = ("git", "-c", "user.name=a", "-c", "user.email=a@b", *words)
        return subprocess.run(
            words, cwd=work, env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q", "-b", "main")
    (work / "sub").mkdir()
    (work / "sub/f").write_text("one")
    (work / "Dockerfile").write_text("FROM scratch\nCOPY sub /s\n")
    (work / "out").symlink_to("/etc")
    git("add", ".")
    git("commit", "-qm", "one")
    git("tag", "v1")
    git("branch", "old")
    (work / "sub/f").write_text("two")
    git("commit", "-qam", "two")
    commit = git("rev-parse", "HEAD")
    subprocess.run(["git", "clone", "-q", "--bare", work, place / "r.git"], check=True)
    subprocess.run(["git", "update-server-info"], cwd=place / "r.git", check=True)
    return f"{url}/r.git", commit


def test_add_git(kit, repository):
    url, commit = repository
    kit.build(
        f"FROM scratch\nADD {url} /a\nADD {url}#v1 /b\nADD {url}#main:sub /c\n"
        f"ADD --keep-git-dir=true --checksum={commit} {url} /d"
    )
    assert kit.read("/a/sub/f") == kit.read("/c/f") == "two"
    assert kit.read("/b/sub/f") == "one"
    assert ".git" not in kit.paths("/a")
    assert ".git" in kit.paths("/d")
    with pytest.raises(BuildError, match="the commit is"):
        kit.build(f"FROM scratch\nADD --checksum={'1' * 40} {url} /a")


def test_git_context(kit, repository):
    url, _ = repository
    kit.build("", context=url, file=None)
    assert kit.read("/s/f") == "two"
    kit.build("", context=f"{url}#v1", file=None)
    assert kit.read("/s/f") == "one"


def test_the_time_of_the_context(kit, repository):
    """SOURCE_DATE_EPOCH=context: that of the commit, of the newest file of an archive; a directory has none."""
    kit.build("", context=f"{repository[0]}#main", file=None, build_args={"SOURCE_DATE_EPOCH": "context"})
    assert kit.config()["created"] == "2024-01-01T00:00:00Z"
    assert kit.stat("/s/f").mtime_ns == 1_704_067_200 * 10**9
    text = b"ARG SOURCE_DATE_EPOCH=context\nFROM scratch\nARG SOURCE_DATE_EPOCH\nCOPY f /\nLABEL e=$SOURCE_DATE_EPOCH\n"
    context = tar.archive(tar.file("Dockerfile", text, mtime=1_600_000_000), tar.file("f", b"1", mtime=1_500_000_000))
    kit.build("", context="-", stdin=io.BytesIO(context), file=None)
    assert kit.config()["created"] == "2020-09-13T12:26:40Z"
    assert kit.section()["Labels"] == {"e": "1600000000"}
    assert kit.stat("/f").mtime_ns == 1_500_000_000 * 10**9
    kit.build(text.decode(), {"f": "1"})
    assert "SOURCE_DATE_EPOCH=context" in kit.result.warnings[0]
    assert kit.section()["Labels"] == {"e": ""}
    assert kit.config()["created"] > "2024-01-02"
    kit.build(text.decode().replace("context", "86400", 1))
    assert kit.config()["created"] == "1970-01-02T00:00:00Z"


@pytest.mark.parametrize("fragment", ["#main:out", "#main:../..", "#main:sub/../../..", "#main:nowhere"])
def test_a_directory_of_a_repository_stays_in_it(kit, repository, fragment):
    with pytest.raises(LayerfsError):
        kit.build("", context=repository[0] + fragment, file=None)


@pytest.mark.parametrize("fragment", ["#--upload-pack=touch /tmp/x", "#-x", "#a b", "#a\tb"])
def test_a_reference_is_no_option(kit, repository, fragment):
    with pytest.raises(InvalidInputError):
        kit.build("", context=repository[0] + fragment, file=None)


def test_directories_without_an_end(kit):
    path = kit.context
    for _ in range(450):
        path = path / "d"
    os.makedirs(path)
    with pytest.raises(InvalidInputError, match="in one another"):
        kit.build("FROM scratch\nCOPY . /x")


def test_add_url_with_a_secret(kit, tmp_path):
    seen = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.headers.get("Authorization"))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x")

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        secrets = (Secret("HTTP_AUTH_TOKEN_127.0.0.1", env="T"),)
        kit.build(
            f"FROM scratch\nADD http://127.0.0.1:{http.server_port}/f /x", secrets=secrets, environment={"T": "tok"}
        )
        http.shutdown()
        thread.join()
    assert seen == ["Bearer tok"]


def test_a_layout_as_base_and_source(kit, tmp_path):
    kit.store.save(["box"], tmp_path / "layout", format="oci-dir")
    contexts = {"base": f"oci-layout://{tmp_path}/layout", "more": f"oci-layout://{tmp_path}/layout:latest"}
    kit.build("FROM base\nRUN cat /data/seed > /o\nCOPY --from=more /data/seed /p", contexts=contexts)
    assert kit.read("/o") == kit.read("/p") == "seeded\n"


def test_a_new_destination_is_a_new_directory(kit):
    """The content of a directory is copied, not the directory: not its mode, not its owner."""
    kit.write({"d/f": "1"})
    (kit.context / "d").chmod(0o700)
    kit.build(
        "FROM box AS one\nRUN mkdir -m 700 /r && touch /r/f && chown -R bob:bob /r\n"
        "FROM box\nCOPY d /a\nCOPY --chown=bob d /b\nCOPY --from=one /r /c\nCOPY --link d /e"
    )
    found = {path: kit.stat(path) for path in ("/a", "/b", "/c", "/e", "/c/f")}
    assert [(entry.mode & 0o777, entry.uid) for entry in found.values()] == [
        (0o755, 0), (0o755, 1000), (0o755, 0), (0o755, 0), (0o644, 1000),
    ]  # fmt: skip


def test_files_of_an_archive_keep_their_owners(kit):
    archive = tar.archive(tar.directory("d", mode=0o750, uid=12, gid=34), tar.file("d/f", b"1", uid=12, gid=34))
    kit.build("FROM box\nADD --chown=bob:bob a.tar /own", {"a.tar": archive})
    assert [(kit.stat(path).uid, kit.stat(path).gid) for path in ("/own", "/own/d", "/own/d/f")] == [
        (1000, 1000), (12, 34), (12, 34),
    ]  # fmt: skip
