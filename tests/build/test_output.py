"""What comes of a build: the configuration, names, files; and the same as buildah makes."""

import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from layerfs import Store
from layerfs.build import BuildOptions, Output
from layerfs.errors import InvalidInputError

pytestmark = pytest.mark.root


def test_configuration(kit):
    kit.build(
        'FROM scratch\nENV A=1 B=$A C="x y"\nENV A=2 D=$A\nLABEL one=1 two="2 2"\nEXPOSE 80 53/udp\nVOLUME /v ["/w"]\n'
        'USER 7\nWORKDIR /p\nWORKDIR q\nSTOPSIGNAL 9\nHEALTHCHECK --retries=2 CMD x\nENTRYPOINT ["e"]\nCMD ["c"]\n'
        'ONBUILD RUN later\nMAINTAINER me\nSHELL ["/s"]',
        labels={"three": "3"},
    )
    section = kit.section()
    assert section["Env"][1:] == ["A=2", "B=", "C=x y", "D=1"]
    assert section["Labels"] == {"one": "1", "two": "2 2", "three": "3"}
    assert section["ExposedPorts"] == {"53/udp": {}, "80/tcp": {}}
    assert (section["User"], section["WorkingDir"], section["StopSignal"]) == ("7", "/p/q", "9")
    assert section["Healthcheck"] == {"Test": ["CMD-SHELL", "x"], "Retries": 2}
    assert (section["Entrypoint"], section["Cmd"], section["OnBuild"], section["Shell"]) == (
        ["e"],
        ["c"],
        ["RUN later"],
        ["/s"],
    )
    assert kit.config()["author"] == "me"


def test_a_working_directory_belongs_to_the_user(kit):
    kit.build("FROM box\nUSER bob\nWORKDIR /made/deep\nUSER 5:6\nWORKDIR more\nWORKDIR /etc")
    owners = [(kit.stat(path).uid, kit.stat(path).gid) for path in ("/made", "/made/deep", "/made/deep/more", "/etc")]
    assert owners == [(1000, 1000), (1000, 1000), (5, 6), (0, 0)]


def test_the_other_escape_character(kit):
    kit.build('# escape=`\nFROM box\nENV A=x`y\nRUN echo a `\n  b > /o\nCOPY <<E /h\n$A `$A \\ "q"\nE')
    assert kit.read("/o") == "a b\n"
    assert kit.read("/h") == 'xy `xy  "q"\n'  # there the backslash is the escape, as BuildKit has it


def test_entrypoint_and_cmd_of_the_base(kit):
    kit.build('FROM box\nENTRYPOINT ["e"]')
    assert "Cmd" not in kit.section()
    kit.build('FROM box\nCMD ["c"]\nENTRYPOINT ["e"]')
    assert kit.section()["Cmd"] == ["c"]


def test_history_has_every_instruction(kit):
    kit.build("FROM box\nARG A=1\nENV B=2\nRUN echo $A\nCOPY a /\nCMD x", {"a": "1"})
    history = kit.config()["history"][1:]
    assert [(entry["created_by"], entry.get("empty_layer", False)) for entry in history] == [
        ("ARG A=1", True),
        ("ENV B=2", True),
        ("RUN |1 A=1 /bin/sh -c echo $A", False),
        ("COPY a /", False),
        ('CMD ["/bin/sh" "-c" "x"]', True),
    ]
    assert len(kit.config()["rootfs"]["diff_ids"]) == 3


def test_onbuild_runs_in_the_child_alone(kit):
    kit.build(
        "FROM box\nONBUILD ARG X=1\nONBUILD COPY a /a\nONBUILD RUN cat /a > /b; echo $X >> /b\nONBUILD ENV Y=2",
        {"a": "1\n"},
        tags=("parent",),
    )
    kit.build("FROM parent\nRUN echo $Y >> /b")
    assert kit.read("/b") == "1\n1\n2\n"
    assert "OnBuild" not in kit.section()


def test_arguments_of_scopes(kit):
    kit.build(
        "ARG BASE=box\nARG V=outer\nFROM $BASE AS one\nARG V\nARG W=$V-w\nRUN echo $V $W $TARGETARCH > /o\n"
        'FROM one\nARG TARGETARCH\nRUN echo $V $W $([ -n "$TARGETARCH" ] && echo arch) > /p',
    )
    assert kit.read("/o") == "outer outer-w\n"
    assert kit.read("/p") == "outer outer-w arch\n"


def test_several_names_and_files_about_it(kit, tmp_path):
    result = kit.build(
        "FROM box", tags=("one", "two:2"), iidfile=str(tmp_path / "iid"), metadata_file=str(tmp_path / "meta")
    )
    assert kit.store.images.get("one").id == kit.store.images.get("two:2").id == result.image.id
    assert (tmp_path / "iid").read_text() == result.image.id
    metadata = json.loads((tmp_path / "meta").read_text())
    assert metadata["containerimage.digest"] == result.image.manifest_descriptor.digest
    assert "docker.io/library/two:2" in metadata["image.name"]


def test_without_a_name(kit):
    image = kit.build("FROM box\nRUN echo 1", tags=()).image
    assert image.names == ()


def test_docker_media_types(kit):
    image = kit.build("FROM box\nRUN echo 1", format="docker").image
    assert "docker" in image.manifest_descriptor.media_type
    assert all("docker" in layer.media_type for layer in image.manifest.layers)


def test_annotations(kit):
    given = {"a": "b", "manifest:c": "d", "manifest[linux/amd64]:e": "f=g", "org.example:x": "y"}
    expected = {"a": "b", "c": "d", "e": "f=g", "org.example:x": "y"}
    assert kit.build("FROM box", annotations=given).image.manifest.annotations == expected


def test_names_that_outputs_give(kit):
    image = kit.build(
        "FROM box", tags=(), outputs=(Output("image", None, {"name": "one:1, two:2", "push": "false"}),)
    ).image
    assert image.names == ("docker.io/library/one:1", "docker.io/library/two:2")


def test_an_empty_target_is_none(kit):
    kit.build("FROM box AS a\nFROM a\nLABEL x=y", target="")
    assert kit.section()["Labels"] == {"x": "y"}


def test_inline_cache_is_told_of(kit):
    kit.build("FROM box", build_args={"BUILDKIT_INLINE_CACHE": "1"})
    assert "BUILDKIT_INLINE_CACHE" in kit.result.warnings[0]


def test_files_into_a_directory(kit, tmp_path):
    target = tmp_path / "out"
    outside = tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (target / "l").symlink_to(outside)
    (target / "d").symlink_to(outside)
    kit.build(
        "FROM box AS b\nRUN mkdir -p /x/l /x/e && echo 1 > /x/l/f && chmod 750 /x/l && echo 2 > /x/d && ln -s d /x/s\n"
        "FROM scratch\nCOPY --from=b /x/d /x/s /x/e /",
        outputs=(Output("local", str(target)),),
    )
    assert (target / "d").read_text() == "2\n"
    assert not (target / "d").is_symlink()
    with pytest.raises(Exception):  # noqa: B017
        kit.build("FROM box\nRUN mkdir /l && echo 1 > /l/f", outputs=(Output("local", str(target)),))
    assert not list(outside.iterdir())
    assert kit.result.image is None


def test_files_as_a_tar(kit, tmp_path):
    kit.build("FROM scratch\nCOPY . /x", {"a": "1", "l": "->a"}, outputs=(Output("tar", str(tmp_path / "t.tar")),))
    with tarfile.open(tmp_path / "t.tar") as tar:
        assert sorted(name.removeprefix("./") for name in tar.getnames() if name not in (".", "./")) == [
            "x",
            "x/a",
            "x/l",
        ]
    buffer = io.BytesIO()
    kit.build("FROM scratch\nCOPY . /x", outputs=(Output("tar", buffer),))
    assert buffer.getvalue() == (tmp_path / "t.tar").read_bytes()


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_archives_come_back(kit, tmp_path, kind):
    path = tmp_path / "image.tar"
    kit.build("FROM box\nRUN echo 1 > /f\nCMD z", outputs=(Output(kind, str(path), {"name": "named:1"}),), tags=())
    assert [image.familiar_names for image in kit.store.images.list()] == [("box:latest",)]
    with Store.open(tmp_path / "root2", tmp_path / "run2") as other:
        loaded = other.load(path)
        assert loaded[0].names == ("named:1",)
        with other.view("named:1") as view:
            assert b"".join(view.read(b"/f")) == b"1\n"


def test_squash(kit):
    text = "FROM box\nRUN echo 1 > /a\nRUN rm /a /data/seed; echo 2 > /b\nENV X=1"
    image = kit.build(text, squash=True).image
    assert len(image.diff_ids) == 2
    assert "/a" not in kit.layer_paths()
    assert kit.read("/b") == "2\n"
    assert "/data/seed" not in kit.entries()
    assert sum(not entry.get("empty_layer") for entry in kit.config()["history"]) == 2


def test_contexts_on_the_standard_input(kit):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in (
            ("Dockerfile", b"FROM scratch\nCOPY . /x\n"),
            ("a", b"1"),
            (".dockerignore", b"b"),
            ("b", b"2"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    layers = len(list(kit.store.layers.list()))
    kit.build("", context="-", file=None, stdin=io.BytesIO(buffer.getvalue()))
    assert kit.paths("/x") == [".dockerignore", "Dockerfile", "a"]
    assert len(list(kit.store.layers.list())) == layers + 1
    kit.build("", context="-", file=None, stdin=io.BytesIO(b"FROM box\nRUN echo 1 > /f\n"))
    assert kit.read("/f") == "1\n"
    kit.build("", {"c": "3"}, file="-", stdin=io.BytesIO(b"FROM scratch\nCOPY c /c\n"))
    assert kit.read("/c") == "3"
    with pytest.raises(InvalidInputError, match="at once"):
        kit.build("", context="-", file="-", stdin=io.BytesIO(b""))


def test_warnings(kit):
    kit.build("FROM box AS Base\nENV API_TOKEN=x\nWORKDIR rel\nLABEL old form\nCMD echo\nCMD echo $X\nmaintainer me")
    rules = {text.partition(":")[0] for text in kit.result.warnings}
    assert {
        "StageNameCasing",
        "SecretsUsedInArgOrEnv",
        "WorkdirRelativePath",
        "LegacyKeyValueFormat",
        "JSONArgsRecommended",
        "MultipleInstructionsDisallowed",
        "MaintainerDeprecated",
        "ConsistentInstructionCasing",
    } <= rules
    findings, failing = kit.store.check_build(
        BuildOptions(context=str(kit.context), file=str(kit.place / "Dockerfile"))
    )
    assert {finding.rule for finding in findings} <= rules
    assert not failing


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("FROM a as x", "FromAsCasing"),
        ("FROM a\nRUN a \\\n\n b", "NoEmptyContinuation"),
        ("FROM a AS x\nFROM a AS x", "DuplicateStageName"),
        ("FROM a AS context", "ReservedStageName"),
        ("FROM a$X", "UndefinedArgInFrom"),
        ("FROM a\nENV B=$UNKNOWN", "UndefinedVar"),
        ("FROM --platform=$TARGETPLATFORM a", "RedundantTargetPlatform"),
        ("FROM --platform=linux/amd64 a", "FromPlatformFlagConstDisallowed"),
        ("FROM a\nEXPOSE 80/TCP", "ExposeProtoCasing"),
        ("FROM a\nCOPY b /", "CopyIgnoredFile"),
        ("ARG V\nFROM a:$V", "InvalidDefaultArgInFrom"),
    ],
)
def test_each_warning(text, rule):
    from layerfs.build.check import check_dockerfile
    from layerfs.build.ignore import Matcher
    from layerfs.build.parser import parse

    findings, _ = check_dockerfile(parse(text.encode()), {}, Matcher(["b"]))
    assert rule in {finding.rule for finding in findings}
    skipped, failing = check_dockerfile(parse(f"# check=skip={rule};error=true\n{text}".encode()), {}, Matcher(["b"]))
    assert rule not in {finding.rule for finding in skipped}
    assert failing


# ---- as buildah does it ----

BOTH = {
    "files": (
        "FROM box\nCOPY . /x/\nCOPY d /d\nCOPY --chown=bob:audio a /owned\nCOPY --chmod=600 a b /m/\nADD t.tar /t/\n"
    ),
    "commands": (
        "FROM box\n"
        "WORKDIR /w/x\n"
        "RUN echo 1 > f && rm /data/seed && chown bob f && ln -s f l && ln f h\n"
        "RUN mkdir -m 700 d; rm l\n"
    ),
    "stages": ("FROM box AS one\nRUN mkdir /o && echo 1 > /o/f && chown bob /o/f\nFROM box\nCOPY --from=one /o /p\n"),
    "config": (
        "FROM box\n"
        "ARG A=1\n"
        'ENV B=$A C="x y" D=${Z:-z}\n'
        "LABEL k=v\n"
        "EXPOSE 80 53/udp\n"
        "VOLUME /v\n"
        "WORKDIR /home/made\n"
        "COPY a .\n"
        "USER bob\n"
        "STOPSIGNAL SIGINT\n"
        'ENTRYPOINT ["e", "f"]\n'
        'CMD ["c"]\n'
    ),
    "shell forms": ("FROM box\nENV X=1\nENTRYPOINT exec top\nRUN echo $X > /f\nUSER 55\nRUN id -u > /tmp/u\n"),
}


@pytest.fixture(scope="module")
def buildah(tmp_path_factory):
    """Its own storage, with the small image in it."""
    if shutil.which("buildah") is None:
        pytest.skip("needs the Debian package buildah")
    from boxes import box_tar

    place = tmp_path_factory.mktemp("buildah")
    words = ["buildah", "--root", place / "root", "--runroot", place / "run", "--storage-driver", "vfs"]

    def call(*more):
        done = subprocess.run([*words, *more], capture_output=True, text=True, cwd=place)
        if done.returncode:
            pytest.fail(f"buildah {more}: {done.stderr[-2000:]}")
        return done.stdout.strip()

    (place / "c").mkdir()
    (place / "c/box.tar").write_bytes(box_tar())
    (place / "c/Dockerfile").write_text("FROM scratch\nADD box.tar /\nCMD /bin/sh\n")
    probe = subprocess.run(
        [*words, "bud", "--isolation", "chroot", "-q", "-t", "box", place / "c"], capture_output=True, text=True
    )
    if probe.returncode:
        pytest.skip(f"buildah does not work here: {probe.stderr[-200:]}")
    return call


@pytest.mark.parametrize("name", BOTH)
def test_the_same_as_buildah(kit, buildah, name):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("in/t")
        info.uid, info.mode = 5, 0o640
        tar.addfile(info)
    kit.write({"a": "1", "b": "2", "d/x": "3", "d/s/y": "4", "d/l": "->x", "t.tar": buffer.getvalue(), "e": None})
    (kit.context / "Dockerfile").write_text(BOTH[name])
    kit.build(BOTH[name])
    buildah("bud", "--isolation", "chroot", "--layers", "-q", "-t", "theirs", str(kit.context))
    container = buildah("from", "--pull-never", "theirs")
    try:
        theirs = _tree(Path(buildah("mount", container)))
        inspected = json.loads(buildah("inspect", container))["OCIv1"]["config"]
    finally:
        buildah("rm", container)
    mounted = kit.store.mount("made")
    ours = _tree(mounted)
    kit.store.unmount("made")
    for place in ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/proc", "/sys", "/dev", "/run"):
        theirs.pop(place, None)
        ours.pop(place, None)
    assert ours == theirs
    section = {key: value for key, value in kit.section().items() if value}
    inspected = {key: value for key, value in inspected.items() if value}
    inspected["Labels"] = {key: value for key, value in (inspected.get("Labels") or {}).items() if "buildah" not in key}
    for key in ("Entrypoint", "Cmd", "ExposedPorts", "Volumes", "User", "StopSignal", "Labels"):
        assert (section.get(key) or None) == (inspected.get(key) or None), key
    assert set(inspected["Env"]) == set(section["Env"])
    assert section.get("WorkingDir", "/") == inspected.get("WorkingDir", "/")


def _tree(root):
    """Everything but times: type, mode, owner, content or link."""
    found = {}
    for directory, names, files in os.walk(root):
        for name in [*names, *files]:
            path = Path(directory) / name
            status = path.lstat()
            data = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            if isinstance(data, bytes) and len(data) > 4096:
                data = hash(data)
            found["/" + str(path.relative_to(root))] = (oct(status.st_mode), status.st_uid, status.st_gid, data)
    return found


def test_a_rebuild_runs_nothing(kit):
    """No step of twenty instructions is done again."""
    lines = [f"ENV V{number}={number}" for number in range(8)] + [
        f"RUN echo {number} > /f{number}" for number in range(6)
    ]
    text = "\n".join(["FROM box", *lines, *(f"COPY a /a{number}" for number in range(6))])
    kit.build(text, {"a": "1"})
    assert kit.steps() == (12, 0)
    kit.build(text)
    assert kit.steps() == (0, 12)


@pytest.mark.parametrize("layer_format", ["erofs", "dir"])
def test_in_both_formats(tmp_path, layer_format):
    from boxes import add_box
    from conftest import Kit

    from layerfs.errors import LayerfsError

    try:
        store = Store.open(tmp_path / "root", tmp_path / "run", layer_format=layer_format)
    except LayerfsError as error:
        pytest.skip(str(error))
    with store:
        add_box(store, tmp_path)
        kit = Kit(store, tmp_path)
        text = (
            "FROM box AS one\nWORKDIR /w\nCOPY . .\nRUN rm /data/seed && echo 1 > f && mkdir e && rmdir /home\n"
            "FROM box\nCOPY --from=one --chown=bob /w /x\nRUN "
            "--mount=from=one,source=/w,target=/m ls /m > /l\nADD t.tar /t/\n"
        )
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("in"))
        kit.build(text, {"a": "1", "t.tar": buffer.getvalue()})
        assert kit.paths("/x") == ["a", "e", "f", "t.tar"]
        assert kit.read("/l").split() == ["a", "e", "f", "t.tar"]
        assert kit.paths("/t") == ["in"]
        kit.build(text)
        assert kit.steps() == (0, 6)
        store.snapshots.release_layers()
