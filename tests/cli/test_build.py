"""``build`` and ``builder``: options as users type them, what is shown, exit codes."""

import io
import json
import tarfile

import pytest
from fake_registry import FakeRegistry

from .conftest import tar_of
from .test_terminal import at_terminal

pytestmark = pytest.mark.root

DOCKERFILE = """\
FROM box AS base
ARG X=none
ENV Y=1
RUN echo "$X" > /x
COPY file /file
FROM base AS last
LABEL a=1
CMD ["cat", "/x", "/file"]
"""


@pytest.fixture
def context(layerfs, box, tmp_path):
    place = tmp_path / "context"
    place.mkdir()
    (place / "Dockerfile").write_text(DOCKERFILE)
    (place / "file").write_text("1\n")
    return place


def test_a_build_and_its_cache(layerfs, context, tmp_path):
    words = ["--build-arg", "X=5", "-t", "out:1", "--tag", "out:2", "--label", "b=2", "--iidfile", tmp_path / "iid"]
    result = layerfs.process("build", *words, context)
    id = result.stdout.decode().strip()
    assert (tmp_path / "iid").read_text() == id
    lines = result.stderr.decode().splitlines()
    assert any(line.endswith('RUN echo "$X" > /x') and line.startswith("#") for line in lines)
    assert any(" DONE " in line for line in lines)
    assert layerfs("run", "--rm", "out:1") == "5\n1\n"
    assert layerfs("inspect", "-f", "{{.Config.Labels.a}} {{.Config.Labels.b}} {{.RepoTags}}", id) == (
        "1 2 [out:1 out:2]\n"
    )
    again = layerfs.process("build", *words, context)
    assert again.stdout.decode().strip() == id
    assert again.stderr.decode().count("CACHED") >= 2
    quiet = layerfs.process("build", "-q", *words, context)
    assert (quiet.stdout.decode().strip(), quiet.stderr) == (id, b"")
    assert "CACHED" not in layerfs.process("build", "--no-cache", context).stderr.decode()


def test_files_and_contexts(layerfs, context, tmp_path):
    (tmp_path / "other").write_text("FROM scratch\nCOPY file /\n")
    layerfs("build", "-q", "-f", tmp_path / "other", "-t", "a", context)
    layerfs("build", "-q", "-f", "-", "-t", "b", context, data=b"FROM scratch\nCOPY file /\n")
    data = tar_of({"Dockerfile": b"FROM scratch\nCOPY file /\n", "file": b"1\n"})
    layerfs("build", "-q", "-t", "c", "-", data=data)
    layerfs("build", "-q", "-t", "d", cwd=context)
    for name in "abcd":
        assert layerfs("cat", name, "file") == "1\n"
    extra = tmp_path / "extra"
    extra.mkdir()
    (extra / "x").write_text("2")
    text = b"FROM scratch\nCOPY --from=more x /\n"
    layerfs("build", "-q", "-f", "-", "-t", "e", "--build-context", f"more={extra}", context, data=text)
    assert layerfs("cat", "e", "x") == "2"


def test_outputs(layerfs, context, tmp_path):
    layerfs("build", "-o", tmp_path / "tree", context)
    assert (tmp_path / "tree" / "file").read_text() == "1\n"
    piped = layerfs.process("build", "-o", "-", context).stdout
    assert "file" in {name.lstrip("./") for name in tarfile.open(fileobj=io.BytesIO(piped)).getnames()}
    layerfs("build", "-o", f"type=tar,dest={tmp_path}/out.tar", context)
    assert (tmp_path / "out.tar").read_bytes()[:100] == piped[:100]
    layerfs("build", "-t", "x:1", "-o", f"type=docker,dest={tmp_path}/image.tar", context)
    assert "x:1" not in layerfs("images", "--format", "{{.Repository}}:{{.Tag}}")
    assert layerfs("load", "-i", tmp_path / "image.tar") == "Loaded image: x:1\n"
    layerfs("build", "-t", "y:1", "--load", "-o", f"type=oci,dest={tmp_path}/oci.tar", context)
    assert layerfs("history", "y:1")
    metadata = tmp_path / "metadata.json"
    layerfs("build", "-t", "z:1", "--metadata-file", metadata, context)
    assert json.loads(metadata.read_text())["containerimage.config.digest"] == layerfs.json("inspect", "z:1")[0]["Id"]


def test_push(layerfs, context):
    with FakeRegistry() as registry:
        layerfs("build", "-q", "-t", f"{registry.host}/x:1", "--push", context)
        assert layerfs.lines("tags", f"{registry.host}/x") == ["1"]


def test_secrets_networks_and_other_options_of_run(layerfs, context, tmp_path):
    (tmp_path / "secret").write_text("s3cret")
    text = (
        b"FROM box\nRUN --mount=type=secret,id=one cat /run/secrets/one > /one\n"
        b"RUN --mount=type=secret,id=two cat /run/secrets/two > /two\nRUN cat /etc/hosts > /hosts\n"
    )
    words = ["--secret", f"id=one,src={tmp_path}/secret", "--secret", "id=two,env=TWO", "--add-host", "there:1.2.3.4"]
    layerfs("build", *words, "--network", "none", "-t", "x", "-f", "-", context, data=text, environment={"TWO": "2"})
    assert layerfs("cat", "x", "one", "two") == "s3cret2"
    assert "1.2.3.4\tthere" in layerfs("cat", "x", "hosts")


@pytest.mark.parametrize(
    ("words", "text", "code", "message"),
    [
        ([], b"FRM x\n", 2, "Dockerfile:1: FRM x: unknown instruction"),
        ([], b"FROM box\nRUN exit 3\n", 3, "Dockerfile:2: RUN exit 3: "),
        ([], b"FROM box\nCOPY nothing /\n", None, "nothing"),
        (["--target", "nope"], DOCKERFILE.encode(), 2, "target stage 'nope'"),
        (["-t", "UPPER"], b"FROM box\n", 2, "lower case"),
        (["--label", "x"], b"FROM box\n", 2, "--label 'x': not of the form name=value"),
        (["--secret", "src=x,nonsense=1"], b"FROM box\n", 2, "unknown are nonsense"),
        (["-o", "type=zip,dest=x"], b"FROM box\n", 2, "output type 'zip'"),
        (["--platform", "a/b/c/d"], b"FROM box\n", 2, "not a platform"),
        (["--build-context", "x"], b"FROM box\n", 2, "not of the form"),
    ],
)
def test_what_is_wrong_is_the_last_line(layerfs, context, words, text, code, message):
    (context / "Dockerfile").write_bytes(text)
    if code is None:
        code = 1
    result = layerfs.process("build", *words, context, code=code)
    last = result.stderr.decode().splitlines()[-1]
    assert last.startswith("layerfs build: ")
    assert message in last
    assert result.stdout == b""
    assert layerfs.lines("images", "--format", "{{.Repository}}") == ["box"]


def test_a_failing_step_shows_what_its_command_wrote(layerfs, context):
    (context / "Dockerfile").write_text("FROM box\nRUN echo some output; exit 4\n")
    assert b"some output" in layerfs.process("build", context, code=4).stderr


def test_at_a_terminal(layerfs, context):
    code, shown = at_terminal(layerfs, "build", "-t", "x", context)
    assert code == 0
    assert '=> [base 2/3] RUN echo "$X" > /x' in shown
    assert shown.strip().endswith(layerfs("images", "-q", "--no-trunc", "x").strip())
    code, shown = at_terminal(layerfs, "build", "--progress", "plain", context)
    assert "#1 " in shown
    (context / "Dockerfile").write_text("FROM box\nRUN echo some output; exit 4\n")
    code, shown = at_terminal(layerfs, "build", context)
    assert code == 4
    assert "   some output" in shown


def test_builder_lists_and_prunes(layerfs, context):
    layerfs("build", "-q", "-t", "x", context)
    assert layerfs.lines("builder", "ls")[0].split()[:3] == ["ID", "TYPE", "SIZE"]
    assert len(layerfs.lines("builder", "ls", "-q")) >= 2
    assert layerfs("builder", "prune", "-f").startswith("Total reclaimed space: 0B")
    layerfs("rmi", "x")
    dry = layerfs("builder", "prune", "--dry-run")
    assert dry.startswith("Unused build cache:\n")
    assert "Build Cache" in layerfs("system", "df")
    assert layerfs.lines("system", "df", "--format", "{{.Type}} {{.TotalCount}}")[-1] != "Build Cache 0"
    layerfs("builder", "prune", "-f", "--filter", "type=mount")
    assert layerfs("builder", "ls", "-q")
    layerfs("builder", "prune", "-f")
    assert layerfs("builder", "ls", "-q") == ""
    assert "unknown" in layerfs.error("builder", "prune", "-f", "--filter", "colour=1", code=2)


def test_system_prune_takes_the_cache_too(layerfs, context):
    layerfs("build", "-q", "-t", "x", context)
    layerfs("rmi", "x")
    assert "Deleted build cache:\n" in layerfs("system", "prune", "-f")
    assert layerfs("builder", "ls", "-q") == ""


def test_a_failing_command_can_be_entered(layerfs, context):
    (context / "Dockerfile").write_text("FROM box\nRUN echo 1 > /mark; exit 4\n")
    typed = [("/ # ", "echo [$(cat /mark)]\n"), ("[1]", "exit\n")]
    code, shown = at_terminal(layerfs, "build", "--debug-shell", "--progress", "plain", context, typed=typed)
    assert code == 4
    assert "the command ended with exit code 4" in shown


def test_the_shell_of_a_failed_command_has_what_it_had(layerfs, context):
    """Its mounts, user, directory and changes; what is done in it is gone, and nothing of it is kept."""
    (context / "Dockerfile").write_text(
        "FROM box\nWORKDIR /w\nUSER 0:7\nENV A=here\n"
        "RUN --mount=target=/c --mount=type=secret,id=s,mode=0444 echo 1 > /tmp/mark; false\n"
    )
    (context / "secret").write_text("hush")
    typed = [
        ("# ", "echo $(id -u):$(id -g) $(pwd) $A $(cat /c/file /run/secrets/s /tmp/mark); echo more > /tmp/more\n"),
        ("0:7 /w here 1 hush1", "exit 9\n"),
    ]
    words = ["--debug-shell", "--secret", f"id=s,src={context}/secret"]
    for progress in ("plain", "tty"):
        code, shown = at_terminal(layerfs, "build", *words, "--progress", progress, context, typed=typed)
        assert (code, "hush1" in shown) == (1, True), shown
    # Without a terminal it reads commands.
    done = layerfs.process("build", *words, context, data=b"cat /tmp/more; echo seen-$A\n", code=1)
    assert done.stdout == b"seen-here\n"
    assert list((layerfs.place / "root/snapshots").iterdir()) == []
    assert not (layerfs.place / "run/build").exists() or not list((layerfs.place / "run/build").iterdir())


def test_annotations_and_attestations(layerfs, context, tmp_path):
    words = ["--annotation", "a=b=c", "--annotation", "manifest:d=e", "--provenance=false", "--sbom=false"]
    words += ["--attest", "type=provenance,disabled=true"]
    layerfs("build", "-q", *words, "-o", f"type=oci,dest={tmp_path}/out.tar", context)
    with tarfile.open(tmp_path / "out.tar") as archive:
        index = json.load(archive.extractfile("index.json"))
        digest = index["manifests"][0]["digest"].removeprefix("sha256:")
        manifest = json.load(archive.extractfile(f"blobs/sha256/{digest}"))
    assert manifest["annotations"] == {"a": "b=c", "d": "e"}
    for words in (["--provenance=mode=max"], ["--sbom", "true"], ["--attest", "type=sbom"]):
        assert "attestations are not made" in layerfs.error("build", *words, context, code=2)
    assert "annotation index:a" in layerfs.error("build", "--annotation", "index:a=b", context, code=2)


def test_check_builds_nothing(layerfs, context):
    assert layerfs("build", "--check", context) == "Check complete, no warnings found.\n"
    (context / "Dockerfile").write_text("FROM box as base\nCMD cat /x\n")
    output = layerfs("build", "--check", context, code=1)
    assert "FromAsCasing: Dockerfile:1: " in output
    assert "JSONArgsRecommended: Dockerfile:2: " in output
    assert output.endswith("Check complete, 2 warnings found.\n")
    assert layerfs.lines("images", "--format", "{{.Repository}}") == ["box"]
