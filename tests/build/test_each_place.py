"""Where a build takes from and gives to: caches of others, outputs, contexts, bases; each of their options."""

import io
import json
import os
import tarfile
import threading

import msgspec
import pytest
import tarbuild as tar

from layerfs.build import BuildOptions, Output
from layerfs.build.state import StageState
from layerfs.errors import InvalidInputError, LayerfsError, NotFoundError

pytestmark = pytest.mark.root


# ---- caches of others ----


def test_a_cache_that_cannot_be_written(kit, tmp_path):
    (tmp_path / "file").write_text("")
    place = f"type=local,dest={tmp_path}/file/in"
    for more in ("", ",ignore-error=false"):
        with pytest.raises(LayerfsError):
            kit.build("FROM box\n", cache_to=(place + more,))
    kit.build("FROM box\n", cache_to=(f"{place},ignore-error=true",))
    assert any(place in text for text in kit.result.warnings)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("cache_to", "type=local,src=x"),
        ("cache_from", "type=local,dest=x"),
        ("cache_from", "type=local,src="),
        ("cache_from", "type=registry,ref=UPPER CASE"),
        ("cache_to", "type=local,dest=x,other=y"),
        ("cache_to", "type=local,dest=x,mode=some"),
    ],
)
def test_caches_that_cannot_be_meant(kit, option, text):
    with pytest.raises(InvalidInputError):
        kit.build("FROM box\nRUN true\n", **{option: (text,)})
    assert kit.progress.titles == {}  # before any work


def test_what_is_no_cache(kit, tmp_path):
    kit.build("FROM box\n", tags=(), outputs=(Output("oci", str(tmp_path / "image"), {"tar": "false"}),))
    kit.build("FROM box\n", cache_from=(f"type=local,src={tmp_path}/image",))
    assert any("an image without a cache in it" in text for text in kit.result.warnings)
    assert [image.names for image in kit.store.images.list() if not image.names] == []


def test_a_cache_keeps_what_is_here(kit, tmp_path):
    """A record of our own is not replaced by one of another store, and nothing of its image stays."""
    place = f"type=local,dest={tmp_path}/cache,mode=max"
    kit.build("FROM box\nRUN echo $(cat /proc/uptime) > /o\n", cache_to=(place,))
    kit.build("FROM box\nRUN echo $(cat /proc/uptime) > /o\n", no_cache=True)
    ours = kit.read("/o")
    kit.build(
        "FROM box\nRUN echo $(cat /proc/uptime) > /o\n", cache_from=(place.replace("dest", "src").split(",mode")[0],)
    )
    assert (kit.read("/o"), kit.steps()) == (ours, (0, 1))


# ---- outputs ----


def test_annotations_names_and_labels(kit, tmp_path):
    kit.build("FROM box\nLABEL a=1 b=1\n", labels={"b": "2", "c": "2"}, annotations={"x": "y"}, format="docker")
    assert kit.section()["Labels"] == {"a": "1", "b": "2", "c": "2"}
    image = kit.store.images.get("made")
    assert image.manifest.annotations == {"x": "y"}
    assert "docker" in image.manifest_descriptor.media_type


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (Output("other"), "unknown"),
        (Output("tar"), "a destination is missing"),
        (Output("local"), "a destination is missing"),
        (Output("local", io.BytesIO()), "the destination is a directory"),
        (Output("oci", "x", {"push": "true"}), "push is not understood"),
        (Output("docker", "x", {"tar": "perhaps"}), "neither true nor false"),
    ],
)
def test_outputs_that_cannot_be(kit, output, reason):
    with pytest.raises(InvalidInputError, match=reason):
        kit.build("FROM box\nRUN true\n", outputs=(output,))
    assert kit.progress.titles == {}


def test_an_image_that_is_only_written_out_does_not_stay(kit, tmp_path):
    before = len(list(kit.store.images.list()))
    kit.build("FROM box\nLABEL a=1\n", outputs=(Output("oci", str(tmp_path / "out.tar")),))
    assert len(list(kit.store.images.list())) == before


def test_times_of_files_that_are_written_out(kit, tmp_path):
    """Those of the base too, which are as they are in its layers."""
    kit.build("FROM box\nRUN echo 1 > /late\n", tags=("late",))
    options = {"build_args": {"SOURCE_DATE_EPOCH": "1000"}, "tags": ()}
    kit.build("FROM late\nRUN echo 1 > /o\n", outputs=(Output("local", str(tmp_path / "tree")),), **options)
    assert [(tmp_path / "tree" / name).stat().st_mtime for name in ("o", "late")] == [1000, 1000]
    kit.build("FROM late\nRUN echo 1 > /o\n", outputs=(Output("tar", str(tmp_path / "out.tar")),), **options)
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert max(member.mtime for member in archive) == 1000


def test_a_squashed_image_has_the_time_that_is_asked_for(kit):
    text = "FROM box\nRUN echo 1 > /a\nRUN echo 2 > /b\nLABEL c=d\n"
    ids = {kit.build(text, squash=True, no_cache=True, build_args={"SOURCE_DATE_EPOCH": "1000"}).image.id for _ in "12"}
    assert len(ids) == 1
    assert kit.stat("/b").mtime_ns == 1000 * 10**9
    told = [(entry["created_by"], entry.get("empty_layer", False)) for entry in kit.config()["history"][-4:]]
    assert [empty for _, empty in told] == [True, True, True, False]
    assert told[-1][0] == "squashed"


def test_one_layer_is_not_squashed(kit):
    image = kit.build("FROM box\nRUN echo 1 > /a\n").image
    assert kit.build("FROM box\nRUN echo 1 > /a\n", squash=True).image.id == image.id


def test_the_same_image_has_the_same_time(kit):
    first = kit.build("FROM box\nLABEL a=1\n").image.id
    again = kit.build("FROM box\nLABEL a=1\n").image.id
    assert first == again


# ---- contexts and bases ----


def test_ignore_files_of_a_context(kit, tmp_path):
    names = {"a": "1", "b": "1", "c": "1", "d": "1", "e": "1"}
    kit.write(names | {".dockerignore": "a\n"})
    text = "FROM scratch\nCOPY . /\n"
    seen = lambda: set("abcde") - set(kit.paths("/"))  # noqa: E731
    kit.build(text)
    assert seen() == {"a"}
    kit.write({".containerignore": "b\n"})
    kit.build(text)
    assert seen() == {"b"}
    (kit.place / "Dockerfile.dockerignore").write_text("c\n")
    kit.build(text)
    assert seen() == {"c"}
    (tmp_path / "given").write_text("d\n")
    kit.build(text, ignore_file=str(tmp_path / "given"))
    assert seen() == {"d"}


def test_a_dockerfile_from_a_pipe(kit, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("FROM scratch\nLABEL a=1\n",))
    writer.start()
    kit.build("", file=str(tmp_path / "pipe"))
    writer.join()
    assert kit.section()["Labels"] == {"a": "1"}


@pytest.mark.parametrize("file", [None, "Dockerfile"])
def test_an_ignore_file_beside_a_dockerfile_in_a_tar(kit, file):
    members = {"Dockerfile": "FROM scratch\nCOPY . /\n", "Dockerfile.dockerignore": "a\n", "a": "1", "b": "1"}
    kit.build(
        "",
        context="-",
        stdin=io.BytesIO(tar.archive(*(tar.file(k, v.encode()) for k, v in members.items()))),
        file=file,
    )
    assert set("ab") & set(kit.paths("/")) == {"b"}


def test_a_base_whose_history_does_not_fit(kit):
    image = kit.build("FROM scratch\nCOPY a /a", {"a": "1"}).image
    document = json.loads(image.config_bytes)

    def state(history):
        changed = json.dumps(document | {"history": history}).encode()
        return StageState.of_image(msgspec.structs.replace(image, config_bytes=changed), "\\")

    assert [entry["comment"] for entry in state(None).history] == ["no history recorded"]
    with pytest.raises(InvalidInputError, match="does not fit its layers"):
        state([{}, {}]).finished(lambda _: "")


def test_the_variant_of_a_platform(kit):
    kit.build("FROM scratch\nCOPY a /a", {"a": "1"}, platform="linux/arm/v7")
    assert (kit.config()["architecture"], kit.config()["variant"]) == ("arm", "v7")


def test_a_named_context_has_an_ignore_file_of_its_own(kit, tmp_path):
    place = tmp_path / "extra"
    place.mkdir()
    for name in ("f", "secret"):
        (place / name).write_text(name)
    (place / ".dockerignore").write_text("secret\n")
    kit.build("FROM scratch\nCOPY --from=extra . /\n", contexts={"extra": str(place)})
    assert kit.paths("/") == [".dockerignore", "f"]
    with pytest.raises(NotFoundError, match="not a directory"):
        kit.build("FROM scratch\nCOPY --from=extra . /\n", contexts={"extra": str(place / "f")})
    with pytest.raises(InvalidInputError, match="has files and is no image"):
        kit.build("FROM extra\n", contexts={"extra": str(place)})


def test_arguments_that_nothing_declares(kit):
    given = {
        "LOST": "1",
        "HTTP_PROXY": "2",
        "https_proxy": "3",
        "BUILDKIT_SYNTAX": "4",
        "SOURCE_DATE_EPOCH": "5",
        "A": "6",
    }
    kit.build("ARG A\nFROM box\n", build_args=given)
    assert kit.result.warnings == ("build argument LOST: no ARG declares it",)


def test_times_that_are_none(kit):
    for text in ("yesterday", "-1", "999999999999"):
        for options in ({"build_args": {"SOURCE_DATE_EPOCH": text}}, {"environment": {"SOURCE_DATE_EPOCH": text}}):
            with pytest.raises(InvalidInputError, match="not a time in seconds"):
                kit.build("FROM box\n", **options)
            with pytest.raises(InvalidInputError, match="not a time in seconds"):  # before anything is fetched
                kit.build("FROM box\n", context="http://localhost:1/a.tar", **options)


def test_where_the_time_comes_from(kit):
    text = "ARG SOURCE_DATE_EPOCH=3\nFROM box\nRUN true\n"
    environment = {"SOURCE_DATE_EPOCH": "2"}
    for second, options in (
        (1, {"build_args": {"SOURCE_DATE_EPOCH": "1"}, "environment": environment}),
        (2, {"environment": environment}),
        (3, {"environment": {}}),
    ):
        kit.build(text, **options)
        assert kit.config()["created"] == f"1970-01-01T00:00:0{second}Z"


def test_warnings_are_told_once_and_a_check_sees_what_a_build_sees(kit):
    kit.write({"a": "1", ".dockerignore": "a\n"})
    kit.build("FROM box\nLABEL x=$LOST\nLABEL x=$LOST y=$LOST\n")
    assert len(kit.progress.notes) == len(set(kit.progress.notes)) == 2
    (kit.place / "Dockerfile").write_text("FROM box\nCOPY a /\n")
    options = BuildOptions(context=str(kit.context), file=str(kit.place / "Dockerfile"))
    assert [each.rule for each in kit.store.check_build(options)[0]] == ["CopyIgnoredFile"]


@pytest.mark.parametrize("trigger", ["ONBUILD RUN true", "MAINTAINER me", "FROM box"])
def test_triggers_that_no_dockerfile_makes(kit, trigger):
    image = kit.store.images.get("box")
    document = json.loads(image.config_bytes)
    document["config"]["OnBuild"] = [trigger]
    kit.store.images.create(document, image.manifest.layers, "docker.io/library/bad:latest")
    with pytest.raises(InvalidInputError, match=f"ONBUILD {trigger.split()[0]} in the base image"):
        kit.build("FROM bad\n")


def test_attributes_that_mean_something_to_overlayfs_are_not_copied(kit):
    kit.write({"d/f": "1", "large": bytes(2 << 20)})
    for path in ("d", "d/f", "large"):
        os.setxattr(kit.context / path, "user.overlay.opaque", b"y")
        os.setxattr(kit.context / path, "user.kept", b"1")
    kit.build("FROM scratch\nCOPY . /c/")
    assert [kit.xattrs(path, "made") for path in ("/c/d", "/c/d/f", "/c/large")] == [{b"user.kept": b"1"}] * 3


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ("USER bob\nWORKDIR /w", "USER bob: there are no names in scratch"),
        ("USER 9999999999\nWORKDIR /w", "USER 9999999999: out of range"),
        ("COPY --chown=bob a /", "--chown=bob: there are no names in scratch"),
        ("COPY --chown=1:9999999999 a /", "--chown=9999999999: out of range"),
    ],
)
def test_where_an_owner_stands_that_is_nobody(kit, lines, what):
    with pytest.raises(InvalidInputError, match=what):
        kit.build(f"FROM scratch\n{lines}", {"a": "1"})
