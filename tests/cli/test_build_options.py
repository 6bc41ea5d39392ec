"""Each option of ``build`` and of ``builder``, as it is typed: without it, one of these fails."""

import io
import json
import os
import shutil
import tarfile
import time

import pytest
from fake_registry import FakeRegistry

from .test_build import context  # noqa: F401

pytestmark = pytest.mark.root


@pytest.fixture
def build(layerfs, context):  # noqa: F811
    """Builds a Dockerfile given as text as the image ``x``; what the command says."""

    def run(text, *words, **keywords):
        (context / "Dockerfile").write_text(text)
        done = layerfs.process("build", "-t", "x", *words, context, **keywords)
        return done.stderr.decode()

    return run


def test_network(layerfs, build):
    text = "FROM box\nRUN ls /sys/class/net > /o\n"
    build(text, "--network", "none")
    assert layerfs("cat", "x", "o") == "lo\n"
    for word in ("host", "default"):
        build(text, "--network", word)
        assert layerfs("cat", "x", "o").split() == sorted(os.listdir("/sys/class/net"))
    assert "network 'bridge': not known" in build(text, "--network", "bridge", code=2)


def test_the_cache(layerfs, build):
    text = "FROM box AS one\nRUN echo 1\nFROM one AS two\nRUN echo 2\n"
    assert build(text).count("CACHED") == 0
    assert build(text).count("CACHED") == 2
    assert build(text, "--no-cache").count("CACHED") == 0
    assert build(text, "--no-cache-filter", "two").count("CACHED") == 1
    assert build(text, "--no-cache-filter", "two", "--no-cache-filter", "one").count("CACHED") == 0


def test_a_cache_elsewhere(layerfs, build, tmp_path):
    text = "FROM box\nRUN echo 1 > /o\n"
    build(text, "--cache-to", f"type=local,dest={tmp_path}/cache")
    layerfs("rmi", "x")
    layerfs("builder", "prune", "-af")
    assert build(text, "--cache-from", f"type=local,src={tmp_path}/cache").count("CACHED") == 1


def test_allow(layerfs, build):
    text = "FROM box\nRUN --security=insecure mount -t tmpfs x /tmp && echo 1 > /o\n"
    assert "--security=insecure is not allowed" in build(text, code=2)
    build(text, "--allow", "security.insecure")
    assert layerfs("cat", "x", "o") == "1\n"
    assert "--allow all: not known" in build(text, "--allow", "all", code=2)


def test_platform_and_target(layerfs, build):
    text = "FROM scratch AS one\nARG TARGETARCH\nLABEL of=$TARGETARCH\nFROM one AS two\nLABEL two=2\n"
    build(text, "--platform", "linux/arm64", "--target", "one")
    found = layerfs.json("inspect", "--type", "image", "x")[0]
    assert (found["Architecture"], found["Config"]["Labels"]) == ("arm64", {"of": "arm64"})


def test_squash_and_format(layerfs, build, tmp_path):
    text = "FROM box\nRUN echo 1 > /a\nRUN echo 2 > /b\n"
    build(text)
    count = len(layerfs.json("inspect", "x")[0]["RootFS"]["Layers"])
    build(text, "--squash", "--format", "docker", "--metadata-file", tmp_path / "data")
    assert len(layerfs.json("inspect", "x")[0]["RootFS"]["Layers"]) == count - 1
    assert layerfs("cat", "x", "a", "b") == "1\n2\n"
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    assert json.loads((tmp_path / "data").read_text())["containerimage.descriptor"]["mediaType"] == kind


def test_jobs(layerfs, build):
    """One at a time, no stage sees the other one at the cache they share."""
    line = (
        "RUN --mount=type=cache,target=/c touch /c/{0}; for i in $(seq 20); do [ -e /c/{1} ] && break; sleep 0.1; done;"
    )
    line += " [ -e /c/{1} ] && echo met > /{0}; sleep 0.5; rm /c/{0}\n"
    text = f"FROM box AS one\n{line.format('a', 'b')}FROM box AS two\n{line.format('b', 'a')}"
    text += "FROM box\nCOPY --from=one / /got\nCOPY --from=two / /got\n"
    for jobs, seen in (("2", True), ("1", False)):
        build(text, "--jobs", jobs, "--no-cache")
        assert ("a" in layerfs("ls", "x", "got").split()) is seen


def test_an_ignore_file(layerfs, build, tmp_path):
    (tmp_path / "ignored").write_text("file\n")
    text = "FROM box\nCOPY . /c/\n"
    build(text)
    assert "file" in layerfs("ls", "x", "c").split()
    build(text, "--ignorefile", tmp_path / "ignored")
    assert "file" not in layerfs("ls", "x", "c").split()


def test_ssh(layerfs, build, tmp_path):
    if not shutil.which("ssh-agent"):
        pytest.skip("needs the Debian package openssh-client")
    os.system(f"ssh-keygen -q -t ed25519 -N '' -f {tmp_path}/key")
    text = "FROM box\nRUN --mount=type=ssh,id=mine,required test -S $SSH_AUTH_SOCK\n"
    assert "there is no agent's socket" in build(text, code=None)
    build(text, "--ssh", f"mine={tmp_path}/key")
    assert "--ssh '=x': the id is missing" in build(text, "--ssh", "=x", code=2)
    words = ["--no-cache", "--ssh", "mine"]
    assert "there is no agent's socket" in build(text, *words, code=None, environment={"SSH_AUTH_SOCK": ""})


def test_a_runtime(layerfs, build):
    assert "no-such-runtime" in build("FROM box\nRUN true\n", "--runtime", "/no-such-runtime", code=None)
    if shutil.which("runc"):
        build("FROM box\nRUN echo 1 > /o\n", "--runtime", "runc")
        assert layerfs("cat", "x", "o") == "1\n"


def test_arguments_of_the_environment(layerfs, build):
    text = "FROM box\nARG A=default\nARG B=default\nARG C=default\nRUN echo $A $B $C > /o\n"
    words = ["--build-arg", "A", "--build-arg", "B=", "--build-arg", "C"]
    build(text, *words, environment={"A": "here", "B": "here"})
    assert layerfs("cat", "x", "o") == "here default\n"


def test_forms_of_secrets(layerfs, build, tmp_path):
    for name in ("file", "comma,name", "bare"):
        (tmp_path / name).write_text(name)
    lines = [
        f"RUN --mount=type=secret,id={id} cat /run/secrets/{id} > /{id}\n" for id in ("a", "b", "c", "d", "e", "bare")
    ]
    words = [
        "id=a,type=file,source=file",
        '"src=comma,name",id=b',
        "id=c,type=env,env=C",
        "type=env,id=d",
        "id=e,type=env,src=E",
        "src=bare",
    ]
    build(
        "FROM box\n" + "".join(lines),
        *(word for each in words for word in ("--secret", each)),
        cwd=tmp_path,
        environment={"C": "see", "d": "dee", "E": "eee"},
    )
    assert [layerfs("cat", "x", id) for id in ("a", "b", "c", "d", "e", "bare")] == [
        "file",
        "comma,name",
        "see",
        "dee",
        "eee",
        "bare",
    ]
    for word, reason in (
        ("id=a,type=other", "unknown are other"),
        ("type=env", "the id is missing"),
        ("id=a,src=/none", "there is no file /none"),
        ("id=a,env=NONE_HERE", "the environment has no NONE_HERE"),
    ):
        assert reason in build("FROM box\n", "--secret", word, code=None)


def test_outputs_in_each_form(layerfs, context, build, tmp_path):  # noqa: F811
    text = "FROM scratch\nCOPY file /f\n"
    (context / "Dockerfile").write_text(text)
    for words in (["-o", "type=tar"], ["-o", "type=tar,dest=-"], ["-o", "-"]):
        data = layerfs.process("build", *words, context).stdout
        assert tarfile.open(fileobj=io.BytesIO(data)).getnames()[-1].endswith("f")
    for kind, member in (("oci", "oci-layout"), ("docker", "manifest.json")):
        data = layerfs.process("build", "-t", "n:1", "-o", f"type={kind}", context).stdout
        assert member in tarfile.open(fileobj=io.BytesIO(data)).getnames()
        assert data.endswith(bytes(1024))
        layerfs("build", "-o", f'type={kind},"name=a:1,b:2",dest={tmp_path}/{kind}.tar', context)
        layerfs("load", "-i", tmp_path / f"{kind}.tar")
        assert {"a:1", "b:2"} <= set(layerfs.lines("images", "--format", "{{.Repository}}:{{.Tag}}"))
        layerfs("rmi", "a:1", "b:2")
        layerfs("build", "-t", "n:1", "-o", f"type={kind},tar=true,dest={tmp_path}/{kind}.true", context)
        assert tarfile.is_tarfile(tmp_path / f"{kind}.true")
    layerfs("build", "-t", "n:1", "-o", f"type=oci,tar=false,dest={tmp_path}/layout", context)
    assert (tmp_path / "layout/index.json").exists()
    assert "n:1" not in layerfs.lines("images", "--format", "{{.Repository}}:{{.Tag}}")
    layerfs("build", "-t", "n:1", "-o", "type=cacheonly", context)
    assert "n:1" not in layerfs.lines("images", "--format", "{{.Repository}}:{{.Tag}}")
    for word, reason in (
        ("dest=x", "the type is missing"),
        ("type=local", "a destination is missing"),
        ("type=oci,dest=x,nonsense=1", "nonsense is not understood"),
        ("type=image,push=maybe", "push=maybe: neither true nor false"),
    ):
        assert reason in layerfs.error("build", "-o", word, context, code=2)


def test_all_names_are_pushed(layerfs, context):  # noqa: F811
    with FakeRegistry() as registry:
        names = [f"{registry.host}/{name}:1" for name in ("one", "two", "three")]
        layerfs("build", "-o", f'type=image,"name={names[0]},{names[1]}",push=true', context)
        layerfs("build", "-o", f"type=image,name={names[2]},push=false", context)
        for name in names[:2]:
            assert layerfs.lines("tags", name.rpartition(":")[0]) == ["1"]
        layerfs.error("tags", names[2].rpartition(":")[0], code=None)


def test_pull(layerfs, context):  # noqa: F811
    with FakeRegistry() as registry:
        name = f"{registry.host}/base:1"
        for word, option in (("new", "--push"), ("old", "--load")):
            text = f"FROM box\nLABEL {word}=1\n".encode()
            layerfs("build", "-t", name, option, "-f", "-", context, data=text)
        for words, word in (([], "old"), (["--pull"], "new")):
            layerfs("build", "-t", "x", *words, "-f", "-", context, data=f"FROM {name}\n".encode())
            assert layerfs.json("inspect", "x")[0]["Config"]["Labels"] == {word: "1"}


def test_progress(layerfs, build):
    text = "FROM box\nRUN echo said\n"
    assert build(text, "--progress", "quiet") == ""
    assert " said\n" in build(text, "--progress", "plain", "--no-cache")
    assert "\n#" not in build(text, "--progress", "tty", "--no-cache")


def test_check(layerfs, build):
    assert "MaintainerDeprecated" in said_by_check(layerfs, build, "FROM box\nMAINTAINER me\n")
    skip = "BUILDKIT_DOCKERFILE_CHECK=skip=MaintainerDeprecated"
    build("FROM box\nMAINTAINER me\n", "--check", "--build-arg", skip)
    assert "there is none" in build("FROM box\n", "--check", "--target", "nope", code=2)
    assert "not a platform" in build("FROM box\n", "--check", "--platform", "a/b/c/d", code=2)


def said_by_check(layerfs, build, text):
    build(text, "--check", code=1)
    return layerfs.process("build", "--check", "-f", "-", ".", data=text.encode(), code=1).stdout.decode()


# ---- builder ----


@pytest.fixture
def cached(layerfs, build):
    """Two layers that no image has, of which the first is older, and a cache mount."""
    build("FROM box\nRUN --mount=type=cache,target=/c,id=mine head -c 50000 /dev/urandom > /c/f; echo 1 > /one\n")
    layerfs("rmi", "x")
    time.sleep(1.1)
    build("FROM box\nRUN head -c 100000 /dev/urandom > /two\n")
    layerfs("rmi", "x")
    return lambda: {line.split()[0]: line.split()[1] for line in layerfs.lines("builder", "ls", "--no-trunc")[1:]}


def test_listing(layerfs, cached):
    entries = cached()
    assert sorted(entries.values()) == ["layer", "layer", "mount"]
    assert {len(id) for id in entries} == {24}
    assert layerfs.lines("builder", "ls", "-q") == [id[:12] for id in entries]
    assert sorted(layerfs.lines("builder", "ls", "--format", "{{.CacheType}} {{.Shared}} {{.InUse}}")) == [
        "layer false false",
        "layer false false",
        "mount false false",
    ]
    assert "> /one" not in layerfs("builder", "ls")
    assert "> /one" in layerfs("builder", "ls", "--no-trunc")


@pytest.mark.parametrize(
    ("filter", "left"),
    [
        ("type=layer", ["mount"]),
        ("type=mount", ["layer", "layer"]),
        ("until=1h", ["layer", "layer", "mount"]),
        ("unused-for=1h", ["layer", "layer", "mount"]),
        ("until=1ms", []),
        ("unused-for=1ms", []),
        ("shared=false", []),
        ("shared=true", ["layer", "layer", "mount"]),
        ("inuse=true", ["layer", "layer", "mount"]),
        ("id=MOUNT", ["layer", "layer"]),
        ("id=none", ["layer", "layer", "mount"]),
    ],
)
def test_pruning_by_filters(layerfs, cached, filter, left):
    mount = next(id for id, kind in cached().items() if kind == "mount")
    layerfs("builder", "prune", "-f", "--filter", filter.replace("MOUNT", mount[:8]))
    assert sorted(cached().values()) == left


@pytest.mark.parametrize("option", ["--keep-storage", "--reserved-space", "--max-used-space"])
def test_pruning_to_a_size(layerfs, cached, option):
    before = list(cached())
    layerfs("builder", "prune", "-f", option, "1g")
    assert list(cached()) == before
    layerfs("builder", "prune", "-f", option, "130k")
    assert list(cached()) == before[1:]  # the least recently used go first
    assert "> /two" in layerfs("builder", "ls", "--no-trunc")
    layerfs("builder", "prune", "-f", option, "0")
    assert cached() == {}


def test_pruning_asks(layerfs, cached):
    assert "cancelled" in layerfs.process("builder", "prune", data=b"n\n", code=1).stderr.decode()
    assert len(cached()) == 3
    assert "Unused build cache" in layerfs("builder", "prune", "--dry-run")
    assert len(cached()) == 3
    layerfs("builder", "prune", data=b"y\n")
    assert cached() == {}


def test_pruning_all(layerfs, build):
    build("FROM box\nRUN echo 1\n")
    layerfs("builder", "prune", "-f")
    assert len(layerfs.lines("builder", "ls", "-q")) == 1
    layerfs("builder", "prune", "--all", "--force")
    assert layerfs("builder", "ls", "-q") == ""


def test_a_cache_mount_through_pipes(layerfs, build, cached, tmp_path):
    data = layerfs.process("builder", "export", "mine").stdout
    layerfs("builder", "export", "-o", tmp_path / "mine.tar", "mine")
    assert (tmp_path / "mine.tar").read_bytes() == data
    layerfs("builder", "import", "theirs", "-", data=data)
    build("FROM box\nRUN --mount=type=cache,target=/c,id=theirs wc -c < /c/f > /o\n")
    assert layerfs("cat", "x", "o") == "50000\n"
