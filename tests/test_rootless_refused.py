"""What an ordinary user asks of images beside containers, and what the host may refuse him."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import tarbuild as tar
from boxes import needs_busybox
from test_rootless_files import SH, members, ranges, user
from test_rootless_owners import FILES, foreign, many, many_tar

__all__ = ["many", "ranges", "user"]

pytestmark = [pytest.mark.root, needs_busybox]

SUBIDS = [Path("/etc/subuid"), Path("/etc/subgid")]
with_ranges = pytest.mark.parametrize("ranges", ["ranges"], indirect=True)


@pytest.fixture
def no_subids():
    """A function that takes the ranges away until it is called again."""
    kept = [path.read_bytes() for path in SUBIDS]
    away = False

    def turn():
        nonlocal away
        away = not away
        for path, content in zip(SUBIDS, kept, strict=True):
            path.write_bytes(b"" if away else content)

    yield turn
    if away:
        turn()


def refused(user, *words, code, data=b""):
    """The one line of a refusal with its hint."""
    text = user.process(*words, code=code, data=data).stderr.decode()
    assert "Traceback" not in text
    return text


def test_diff_and_export_of_images(many, ranges):
    many("run", "--name", "cc", "many", *SH, "rm -r /sticky; echo >/new")
    many("commit", "cc", "next")
    added = many("diff", "many").splitlines()
    assert {"A /bobs/file", "A /none", "A /bin/busybox"} <= set(added)
    assert {"A /new", "D /sticky"} == set(many("diff", "next").splitlines())
    assert {"A /new", "D /sticky"} == set(many("diff", "many", "next").splitlines())
    assert {"D /new", "A /sticky"} == set(many("diff", "cc", "many").splitlines())
    assert many("diff", "many", "many") == ""
    found = members(many.process("export", "many").stdout)
    looks = {name: f"{found[name].uid} {found[name].gid} {found[name].mode:o}" for name in FILES}
    assert looks == (FILES if ranges else {name: f"0 0 {look.split()[2]}" for name, look in FILES.items()})
    assert "new" in members(many.process("export", "next").stdout)


@with_ranges
def test_export_with_other_ranges(many, no_subids):
    no_subids()
    for words in (("export", "many"), ("diff", "many")):
        assert "ranges that this user had once" in refused(many, *words, code=4)


@with_ranges
def test_mount_of_an_image(many):
    text = refused(many, "mount", "many", code=4)
    assert "mount: many: only root can mount" in text
    assert "layerfs export" in text
    many("create", "--name", "cc", "many")
    assert "layerfs export" in refused(many, "mount", "cc", code=4)


@with_ranges
@pytest.mark.parametrize("verb", [["rmi", "many"], ["prune", "-af"]])
def test_removal_without_the_ranges(many, no_subids, verb):
    many("import", "-", "other", data=many_tar(tar.file("more", b"x", uid=33)))
    layers = [many("inspect", "--format", "{{index .RootFS.Layers 0}}", name).strip() for name in ("many", "other")]
    no_subids()
    for words in (verb, ["prune", "-af"]):
        text = refused(many, *words, code=4)
        assert text.split("remove layer ")[1].split(": ")[0] in layers
        assert text.count("\n") == 1
        assert "/etc/subuid" in text
    no_subids()
    many("prune", "-af")
    assert foreign(many.place / "root") == []


NO_NAMESPACES = textwrap.dedent("""
    import subprocess, sys
    from pathlib import Path
    from layerfs.userns import Maps, in_userns

    def work():
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
        return subprocess.run(sys.argv[1:]).returncode

    whole = ((0, 0, 1_000_000),)
    sys.exit(in_userns(work, maps=Maps(whole, whole)))
""")


@with_ranges
@pytest.mark.parametrize("refuses", ["kernel", "newuidmap"])
def test_a_host_that_has_ranges_and_refuses_namespaces(user, refuses):
    words, environment = user.words, dict(user.environment)
    if refuses == "kernel":
        words = [sys.executable, "-c", NO_NAMESPACES, *words]
        environment["PYTHONPATH"] = os.pathsep.join([environment["PYTHONPATH"], *sys.path])
    else:
        fake = user.place / "bin"
        fake.mkdir()
        (fake / "newuidmap").write_text(
            "#!/bin/sh\necho 'write to uid_map failed: Operation not permitted' >&2\nexit 1"
        )
        (fake / "newuidmap").chmod(0o755)
        environment["PATH"] = f"{fake}:{environment['PATH']}"
    done = subprocess.run(
        [*words, "import", "-", "many"], env=environment, input=many_tar(), capture_output=True, cwd="/", timeout=100
    )
    text = done.stderr.decode()
    assert done.returncode == 4, text
    assert "set the owners of its files: " in text
    assert "No space left" not in text
    assert "/etc/subuid" in text
    assert "user.max_user_namespaces" in text
    # An image whose files are all root's asks for no namespace.
    data = tar.archive(tar.file("roots", b"x"))
    subprocess.run([*words, "import", "-", "own"], env=environment, input=data, cwd="/", timeout=100, check=True)
    # Of one that came before that, the removal says what it lacks, and later it can be done.
    user("import", "-", "many", data=many_tar())
    layer = user("inspect", "--format", "{{index .RootFS.Layers 0}}", "many").strip()
    done = subprocess.run([*words, "rmi", "many"], env=environment, capture_output=True, cwd="/", timeout=100)
    assert done.returncode == 4
    assert f"rmi: remove layer {layer}: make a user namespace: ".encode() in done.stderr
    user("prune", "-f")
    assert foreign(user.place / "root/ingest") == []
