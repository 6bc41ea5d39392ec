"""Each thing that a step's result depends on makes another step of it when it changes, and nothing else does."""

import os

import pytest
import tarbuild as tar

pytestmark = pytest.mark.root

FILES = {"a": "1", "d/x": "2", "d/y": "3", "e/x": "4"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("RUN <<E\n#!/bin/sh\necho 1 > /o\nE", "RUN <<E\n#!/bin/sh\necho 2 > /o\nE"),
        ("RUN echo 1", "RUN --security=insecure echo 1"),
        ("RUN --mount=type=cache,target=/m echo 1", "RUN --mount=type=tmpfs,target=/m echo 1"),
        ("RUN --mount=type=tmpfs,target=/m,size=1m echo 1", "RUN --mount=type=tmpfs,target=/m,size=2m echo 1"),
        ("RUN --mount=type=cache,target=/m,id=a echo 1", "RUN --mount=type=cache,target=/m,id=b echo 1"),
        ("RUN --mount=target=/m,source=d echo 1", "RUN --mount=target=/m,source=e echo 1"),
        ("RUN --mount=target=/m,source=d echo 1", "RUN --mount=target=/m,source=d,rw echo 1"),
        ("RUN --mount=type=secret,id=a echo 1", "RUN --mount=type=secret,id=b echo 1"),
        ("RUN --mount=type=ssh echo 1", "RUN --mount=type=ssh,id=b echo 1"),
        ("COPY --parents d/x /n/", "COPY d/x /n/"),
        ("COPY --exclude=y d /n", "COPY d /n"),
        ("COPY --exclude=y d /n", "COPY --exclude=x d /n"),
        ("COPY --from=box --parents /etc/passwd /n/", "COPY --from=box /etc/passwd /n/"),
        ("COPY --from=box --exclude=passwd /etc /n", "COPY --from=box /etc /n"),
        ("COPY --from=box --chmod=600 /etc /n", "COPY --from=box /etc /n"),
        ("COPY d /n", "COPY --link d /n"),
        ("COPY --chown=5:6 d /n", "COPY --chown=5:7 d /n"),
        ("COPY --chown=5 --link d /n", "COPY --chown=6 --link d /n"),
        ("COPY --chown=bob d /n", "COPY d /n"),
        ("RUN mkdir -m 700 /q && rm -r /q\nWORKDIR /w", "WORKDIR /w"),
        ("USER 5\nWORKDIR /w", "USER 6\nWORKDIR /w"),
        ("WORKDIR /w", "WORKDIR /v"),
    ],
)
def test_another_instruction_is_another_step(kit, before, after):
    allow = {"allow": ("security.insecure",)}
    kit.build(f"FROM box\n{before}", FILES, **allow)
    kit.build(f"FROM box\n{before}", **allow)
    assert kit.steps()[0] == 0
    kit.build(f"FROM box\n{after}", **allow)
    assert kit.steps()[0] == 1


@pytest.mark.parametrize("line", ["RUN echo 1 > /o", "COPY a /o", "ADD a /o", "WORKDIR /o", "COPY <<E /o\n1\nE"])
def test_another_time_is_another_step(kit, line):
    kit.build(f"FROM box\n{line}", FILES)
    kit.build(f"FROM box\n{line}", build_args={"SOURCE_DATE_EPOCH": "1000"})
    assert kit.steps() == (1, 0)
    assert kit.stat("/o").mtime_ns == 1000 * 10**9
    kit.build(f"FROM box\n{line}")
    assert kit.steps() == (0, 1)
    assert kit.stat("/o").mtime_ns > 10**18


@pytest.mark.parametrize("line", ["RUN echo 1 > /o", "COPY a /o", "ADD a /o", "WORKDIR /o", "COPY --from=box /bin /o"])
def test_without_the_cache_each_is_done(kit, line):
    kit.build(f"FROM box\n{line}", FILES)
    for options in ({"no_cache": True}, {"no_cache_filter": ("",)}, {"no_cache_filter": ("0",)}):
        kit.build(f"FROM box\n{line}", **options)
        assert kit.steps() == (1, 0)
    kit.build(f"FROM box\n{line}", no_cache_filter=("1",))
    assert kit.steps() == (0, 1)
    kit.build(f"FROM box AS One\n{line}", no_cache_filter=("oNE",))
    assert kit.steps() == (1, 0)


@pytest.mark.parametrize(
    "line",
    ["RUN echo 1 > /o", "COPY a /o", "ADD a /o", "COPY --from=box /etc /o", "WORKDIR /data", "COPY <<E /o\n1\nE"],
)
def test_other_layers_below_make_another_step(kit, line):
    kit.build(f"FROM box\n{line}", FILES)
    kit.build(f"FROM box\nRUN echo 2 > /below; rm -r /data\n{line}")
    assert kit.steps()[0] == 2
    kit.build(f"FROM box\n{line}")
    assert kit.steps()[0] == 0


def test_a_working_directory_is_made_where_it_is_missing(kit):
    kit.build("FROM box\nRUN mkdir -m 700 /w\nWORKDIR /w")
    kit.build("FROM box\nWORKDIR /w")
    assert kit.stat("/w").mode & 0o777 == 0o755


def test_of_the_context_only_what_is_bound_counts(kit):
    text = "FROM box\nRUN --mount=source=d,target=/m cat /m/x > /o\nRUN --mount=source=a,target=/f cat /f > /p\n"
    kit.build(text, FILES)
    kit.build(text, {"e/x": "other"})
    assert kit.steps() == (0, 2)
    kit.build(text, {"d/x": "new"})
    assert (kit.steps(), kit.read("/o")) == ((2, 0), "new")
    kit.build(text, {"a": "new"})
    assert (kit.steps(), kit.read("/p")) == ((1, 1), "new")


def test_what_a_stage_has_counts_where_it_is_bound(kit):
    text = "FROM box AS one\nRUN echo {} > /f\nFROM box\nRUN --mount=from=one,target=/m cat /m/f > /o\n"
    kit.build(text.format(1))
    kit.build(text.format(2))
    assert kit.read("/o") == "2\n"


def test_what_a_stage_has_counts_where_it_is_copied(kit):
    text = "FROM box AS one\nRUN echo {} > /f; echo {} > /g\nFROM box\nCOPY --from=one {} /o\n"
    kit.build(text.format(1, 2, "/f"))
    kit.build(text.format(3, 4, "/f"))
    assert kit.read("/o") == "3\n"
    kit.build(text.format(3, 4, "/g"))
    assert kit.read("/o") == "4\n"


def test_what_a_name_stands_for_counts(kit):
    """The same name has another number in another image."""
    kit.build("FROM box\nRUN sed -i s/1000:1000/1001:1001/ /etc/passwd\n", tags=("other",))
    for base, number in (("box", 1000), ("other", 1001)):
        kit.build(f"FROM {base}\nCOPY --chown=bob a /o\nCOPY --chown=bob --link a /p\n", FILES)
        assert (kit.stat("/o").uid, kit.stat("/p").uid) == (number, number)


def test_a_source_s_name_and_kind_count(kit):
    kit.build("FROM scratch\nCOPY d/x /o/", FILES | {"s/x": "2", "t/z": "2"})
    kit.build("FROM scratch\nCOPY t/z /o/")
    assert kit.paths("/o") == ["z"]
    os.chmod(kit.context / "t/z", 0o600)
    kit.build("FROM scratch\nCOPY t/z /o/")
    assert kit.stat("/o/z").mode & 0o777 == 0o600
    kit.build("FROM scratch\nCOPY t /o/")
    kit.build("FROM scratch\nCOPY --parents t /o/")
    assert kit.paths("/o") == ["t", "t/z"]


def test_one_source_or_several(kit):
    """A pattern that matches one file is one source; two words, of which one matches nothing, are several."""
    kit.build("FROM scratch\nCOPY a none* /o", FILES)
    assert kit.paths("/o") == ["a"]
    kit.build("FROM scratch\nCOPY a /o")
    assert kit.read("/o") == "1"


def test_an_archive_and_what_is_in_it(kit):
    kit.write({"t.tar": tar.archive(tar.file("in", b"1"))})
    for line, wanted in (("ADD", "in"), ("COPY", "t.tar"), ("ADD", "in"), ("ADD --unpack=false", "t.tar")):
        kit.build(f"FROM scratch\n{line} t.tar /n/\n")
        assert kit.paths("/n") == [wanted]


def test_owners_count_where_they_are_kept(kit):
    for owner in (5, 6):
        kit.build(f"FROM box AS one\nRUN echo 1 > /f; chown {owner} /f\nFROM scratch\nCOPY --from=one /f /o\n")
        assert kit.stat("/o").uid == owner
    kit.build("FROM scratch\nCOPY a /o\n", FILES)
    os.chown(kit.context / "a", 5, 5)
    kit.build("FROM scratch\nCOPY a /o\n")
    assert (kit.steps(), kit.stat("/o").uid) == ((0, 1), 0)


def test_values_of_attributes_and_numbers_of_devices_count(kit):
    kit.write({"d/a": "1"})
    for value, minor in ((b"x", 3), (b"y", 5)):
        os.setxattr(kit.context / "d/a", "user.v", value)
        kit.build("FROM scratch\nCOPY d/a /a\n")
        assert (kit.steps(), kit.xattrs("/a")[b"user.v"]) == ((1, 0), value)
        (kit.context / "e").mkdir(exist_ok=True)
        (kit.context / "e/device").unlink(missing_ok=True)
        os.mknod(kit.context / "e/device", 0o20600, os.makedev(1, minor))
        kit.build("FROM scratch\nCOPY e /e\n")
        assert (kit.steps(), kit.stat("/e/device").rdev) == ((1, 0), (1, minor))


def test_platforms_are_other_steps(kit):
    text = "FROM scratch\nARG TARGETARCH\nLABEL of=$TARGETARCH\nCOPY a /\n"
    for arch in ("arm64", "s390x"):
        kit.build(text, FILES, platform=f"linux/{arch}")
        assert (kit.config()["architecture"], kit.section()["Labels"]["of"]) == (arch, arch)


def test_proxies_are_not_part_of_a_step(kit):
    for proxy in ("one", "two"):
        kit.build("FROM box\nARG http_proxy\nRUN echo $http_proxy > /o\n", build_args={"http_proxy": proxy})
        assert "|" not in kit.config()["history"][-1]["created_by"]
    assert (kit.steps(), kit.read("/o")) == ((0, 1), "one\n")
