"""What bad input gets: the kind of error, the file and the line; and nothing is left (the fixture looks)."""

import os
import re

import pytest

from layerfs.build import Output, Secret
from layerfs.errors import BuildError, InvalidInputError, LayerfsError, NotFoundError, UnsupportedError

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("text", "line", "kind", "reason"),
    [
        ("FROM no.such.registry.invalid/x", 1, LayerfsError, "no.such.registry.invalid"),
        ("FROM box\nCOPY missing /x", 2, NotFoundError, "missing: not in the build context"),
        ("FROM box\n\nCOPY --from=nowhere.invalid/x a /x", 3, LayerfsError, "nowhere.invalid"),
        ("FROM box\nCOPY --from=later a /x\nFROM box AS later", 2, InvalidInputError, "comes later, in line 3"),
        ("FROM box AS me\nCOPY --from=me a /x", 2, InvalidInputError, "a cycle"),
        ("FROM box\nCOPY --from=0 a /x", 2, InvalidInputError, "there is no stage 0"),
        ("FROM box\nCOPY --from=7 a /x", 2, InvalidInputError, "there is no stage 7"),
        ("FROM box\nRUN --mount=from=later,target=/x true\nFROM box AS later", 2, InvalidInputError, "comes later"),
        ("FROM --platform=a/b/c/d box", 1, InvalidInputError, "platform"),
        ("FROM $NOTHING", 1, InvalidInputError, r"'\$NOTHING' is empty"),
        ("ARG A=${x:?give}\nFROM box", 1, InvalidInputError, "x: give"),
        ("FROM BAD/Name", 1, InvalidInputError, "BAD/Name"),
        ("FROM box\nEXPOSE ${P:-http}", 2, InvalidInputError, "not a port"),
        ("FROM box\nENV A=${B:?needed}", 2, InvalidInputError, "B: needed"),
        ("FROM box\nSTOPSIGNAL $A", 2, InvalidInputError, "exactly one argument|not a signal"),
        ("FROM box\nWORKDIR /etc/passwd", 2, InvalidInputError, "a file in its place"),
        ("FROM box\nWORKDIR /etc/passwd/x", 2, InvalidInputError, "not a directory"),
        ("FROM box\nCOPY [a /x", 2, InvalidInputError, "bracket"),
        ("FROM box\nCOPY $EMPTY /x", 2, InvalidInputError, "a source is empty"),
        ("FROM box\nADD --checksum=sha256:00 a /x", 2, InvalidInputError, "checksum"),
        ("FROM box\nRUN --mount=type=bind,source=nothing,target=/x true", 2, NotFoundError, "nothing: not in"),
        ("FROM box\nRUN --mount=type=tmpfs,target=/ true", 2, InvalidInputError, "nothing can be mounted at /"),
        ("FROM box\nRUN --mount=type=tmpfs,target=/proc/x true", 2, InvalidInputError, "/proc"),
        ("FROM box\nONBUILD FROM x", 2, InvalidInputError, "not allowed as a trigger"),
        ("", None, InvalidInputError, "no build stage"),
    ],
)
def test_mistakes(kit, text, line, kind, reason):
    with pytest.raises(kind) as caught:
        kit.build(text, {"a": "1"})
    message = str(caught.value)
    assert re.search(reason, message)
    if line is not None:
        assert message.startswith(f"{kit.place}/Dockerfile:{line}: ")
    if isinstance(caught.value, BuildError | InvalidInputError) and line is not None:
        assert caught.value.line == line


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"target": "none"}, "target stage 'none'"),
        ({"platform": "a/b/c/d"}, "platform"),
        ({"tags": ("Bad Name",)}, "Bad Name"),
        ({"tags": (f"a@sha256:{'0' * 64}",)}, "digest"),
        ({"format": "zip"}, "format"),
        ({"outputs": (Output("ftp"),)}, "ftp"),
        ({"outputs": (Output("local"),)}, "destination"),
        ({"outputs": (Output("image", None, {"compression": "zstd"}),)}, "output type image: compression"),
        ({"outputs": (Output("image", None, {"push": "maybe"}),)}, "push=maybe"),
        ({"outputs": (Output("local", "/tmp/x", {"platform-split": "true"}),)}, "platform-split"),
        ({"network": "bridge"}, "network 'bridge'"),
        ({"allow": ("device",)}, "--allow device"),
        ({"platform": "linux/amd64,linux/arm64"}, "one at a time"),
        ({"secrets": (Secret("unused", source="/no/such"),)}, "secret unused: there is no file /no/such"),
        ({"secrets": (Secret("unused"),)}, "secret unused: there is no file unused"),
        ({"annotations": {"index:a": "b"}}, "annotation index:a"),
        ({"cache_to": ("type=inline",)}, "'inline' is not known"),
        ({"text": "FROM scratch\nCOPY . /.wh.x/"}, "begins with .wh."),
        ({"text": "FROM scratch\nCOPY <<.wh.f /\n.wh.f\n"}, "begins with .wh."),
        ({"text": "FROM box\nRUN --mount=type=tmpfs,target=/t,size=99999999999g true"}, "too large"),
        ({"context": "/no/such/place"}, "not there"),
        ({"context": "/etc/passwd"}, "not a directory"),
        ({"file": "/no/such/file"}, "/no/such/file"),
        ({"file": "/etc"}, "/etc"),
        ({"file": "/dev/zero"}, "not a file"),
        ({"context": "-"}, "standard input"),
        ({"build_args": {"SOURCE_DATE_EPOCH": "soon"}}, "SOURCE_DATE_EPOCH"),
        ({"contexts": {"more": "/no/such"}, "text": "FROM box\nCOPY --from=more a /a"}, "/no/such"),
        (
            {"secrets": (Secret("s", source="/no/such"),), "text": "FROM box\nRUN --mount=type=secret,id=s true"},
            "secret s",
        ),
        ({"secrets": (Secret("s", env="NOT"),), "text": "FROM box\nRUN --mount=type=secret,id=s true"}, "NOT"),
        ({"runtime": "no-such-runtime", "text": "FROM box\nRUN true"}, "no-such-runtime"),
        ({"add_hosts": (("a", "b"),), "text": "FROM box\nRUN true"}, "'b'"),
        ({"ignore_file": "/no/such"}, "/no/such"),
    ],
)
def test_options(kit, options, reason):
    text = options.pop("text", "FROM box")
    with pytest.raises(LayerfsError, match=reason):
        kit.build(text, **options)


def test_a_dockerfile_that_is_a_link_out_of_the_context(kit, tmp_path):
    (tmp_path / "outside").write_text("FROM box\n")
    kit.write({"Dockerfile": f"->{tmp_path}/outside"})
    with pytest.raises(NotFoundError, match="Dockerfile"):
        kit.build("", file=None)


def test_a_wrong_pattern_in_the_ignore_file(kit):
    with pytest.raises(InvalidInputError, match=r"\.dockerignore"):
        kit.build("FROM box", {".dockerignore": "a[\n"})


def test_run_for_another_machine(kit):
    kit.build("FROM scratch\nCOPY a /a", {"a": "1"}, platform="linux/s390x")
    assert kit.config()["architecture"] == "s390x"
    with pytest.raises(UnsupportedError, match="s390x"):
        kit.build("FROM scratch\nRUN true", platform="linux/s390x")


def test_an_image_of_another_machine(kit):
    """Where FROM names the platform, an image here of another one is not it: nobody answers at that registry."""
    kit.build("FROM scratch\nCOPY a /a", {"a": "1"}, tags=("localhost:1/here",))
    with pytest.raises(LayerfsError, match="localhost:1"):
        kit.build("FROM --platform=linux/s390x localhost:1/here")
    kit.build("FROM localhost:1/here", platform="linux/s390x")
    assert any("s390x" in text for text in kit.result.warnings)


def test_a_file_that_nobody_may_read(kit):
    """For root every file can be read; a directory that vanished cannot."""
    kit.write({"d/a": "1"})
    os.chmod(kit.context / "d/a", 0)
    kit.build("FROM scratch\nCOPY d /d")
    assert kit.stat("/d/a").mode & 0o777 == 0


def test_a_failure_leaves_no_image_and_no_name(kit):
    before = {image.id for image in kit.store.images.list()}
    with pytest.raises(BuildError):
        kit.build("FROM box\nRUN true\nRUN exit 9")
    assert {image.id for image in kit.store.images.list()} == before
    with pytest.raises(NotFoundError):
        kit.store.images.get("made")


def test_a_dockerfile_without_an_end(kit):
    """A hostile file costs no more than its size."""
    with pytest.raises(InvalidInputError):
        kit.build("FROM box\n" + "ENV a=" + "${a:-" * 100_000)
    with pytest.raises(InvalidInputError):
        kit.build("FROM box\nRUN <<" + "A" * 100_000)
