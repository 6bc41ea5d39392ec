"""``run``, ``create``, ``start``, ``ps``, ``rm``, ``commit``, ``diff``, ``export``, ``mount`` on a real busybox."""

import io
import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from .conftest import tar_of

pytestmark = pytest.mark.root


def test_run_gives_output_and_exit_code(layerfs, box):
    assert layerfs("run", "--rm", "box", "echo", "-n", "hi") == "hi"
    assert layerfs("run", "--rm", "box", "sh", "-c", "echo out; echo err >&2; exit 7", code=7) == "out\n"
    assert layerfs.process("run", "--rm", "box", "sh", "-c", "echo err >&2").stderr == b"err\n"
    assert layerfs("ps", "-aq") == ""


def test_run_passes_its_input_only_with_i(layerfs, box):
    assert layerfs("run", "--rm", "-i", "box", "cat", data=b"data") == "data"
    assert layerfs("run", "--rm", "box", "cat", data=b"data") == ""


def test_options_of_run(layerfs, box, tmp_path):
    (tmp_path / "file").write_text("from the host")
    (tmp_path / "env").write_text("FROM_FILE=1\n# comment\n")
    run = lambda *words: layerfs("run", "--rm", *words)  # noqa: E731
    assert run("-e", "A=1", "--env=B=2", "box", "sh", "-c", "echo $A $B") == "1 2\n"
    assert run("--env-file", tmp_path / "env", "box", "sh", "-c", "echo $FROM_FILE") == "1\n"
    assert run("-w", "/tmp", "box", "pwd") == "/tmp\n"
    assert run("-u", "user", "box", "id", "-u") == "1000\n"
    assert run("--user=5:6", "box", "id", "-g") == "6\n"
    assert run("--entrypoint", "/bin/echo", "box", "-n", "x") == "x"
    assert run("--network", "none", "--hostname", "here", "box", "hostname") == "here\n"
    assert run("-v", f"{tmp_path}/file:/in:ro", "box", "cat", "/in") == "from the host"
    assert run("--mount", f"type=bind,source={tmp_path},target=/mnt", "box", "cat", "/mnt/file") == "from the host"
    assert run("--read-only", "box", "sh", "-c", "echo x > /x 2>/dev/null || echo refused") == "refused\n"
    assert run("--tmpfs", "/t", "box", "sh", "-c", "echo x > /t/x && cat /t/x") == "x\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["box", "/nope"], 127, "layerfs run: "),
        (["box", "/etc"], 126, "layerfs run: "),
        (["--pull", "never", "nope"], 125, "image nope: not in the store"),
        (["-u", "nobody", "box", "true"], 125, "nobody"),
        (["--name", "a b", "box", "true"], 125, "not a name"),
        (["-p", "80:80", "box", "true"], 125, "option --publish: not offered"),
        (["-P", "box", "true"], 125, "option --publish-all: not offered"),
        (["--nmae", "x", "box"], 125, "unknown flag: --nmae (did you mean --name?)"),
        (["--memory", "lots", "box"], 125, "not a size"),
        (["-e"], 125, "flag needs an argument: -e"),
        ([], 125, "an argument is missing"),
        (["--network", "bridge", "box", "true"], 125, "offered are host, none"),
        (["-it", "box", "true"], 125, "the input is not one"),
        (["-v", "relative:x", "box", "true"], 125, ""),
    ],
)
def test_what_run_refuses(layerfs, box, words, code, message):
    result = layerfs.process("run", "--rm", *words, code=code)
    last = result.stderr.decode().splitlines()[-1]
    assert message in last
    assert last.startswith("layerfs run: ")
    assert layerfs("ps", "-aq") == ""


def test_cidfile_gets_the_id(layerfs, box, tmp_path):
    cidfile = tmp_path / "cid"
    assert layerfs("run", "--rm", "--cidfile", cidfile, "box", "echo", "x") == "x\n"
    assert re.fullmatch("[0-9a-f]{64}", cidfile.read_text())
    assert "it exists (remove it first)" in layerfs.error("run", "--cidfile", cidfile, "box", "true", code=125)
    layerfs.process("run", "--pull", "never", "--cidfile", tmp_path / "other", "nope", code=125)
    assert not (tmp_path / "other").exists()


def test_ps(layerfs, box):
    layerfs("run", "--name", "first", "-l", "a=1", "box", "sh", "-c", "echo a long command that is cut; exit 3", code=3)
    id = layerfs("create", "--name", "second", "box", "true").strip()
    assert layerfs("ps") == "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"
    head, second, first = layerfs.lines("ps", "-a")
    assert head.split()[:3] == ["CONTAINER", "ID", "IMAGE"]
    assert re.fullmatch(rf'{id[:12]}   box       "true" +\S.* ago +Created +second', second)
    assert re.search(r"""   box       "sh -c 'echo a long …"   .* ago   Exited \(3\) .* ago +first$""", first)
    assert layerfs.lines("ps", "-aq", "--no-trunc")[0] == id
    assert layerfs.lines("ps", "-lq") == [id[:12]]
    assert len(layerfs.lines("ps", "-n", "2", "-q")) == 2
    assert (
        layerfs("ps", "-a", "--format", '{{.Names}} {{.State}} {{.Label "a"}}') == "second created \nfirst exited 1\n"
    )
    assert layerfs("ps", "-a", "--format", r'table {{.Names}}\t{{.Label "a"}}').splitlines()[0] == "NAMES     a"
    rows = [json.loads(line) for line in layerfs.lines("ps", "-a", "--format", "json")]
    assert [row["Names"] for row in rows] == ["second", "first"]
    assert rows[1]["Labels"] == "a=1"
    assert "virtual" in layerfs.lines("ps", "-as")[1]


def test_ps_filters(layerfs, box):
    layerfs("run", "--name", "ended", "-l", "a=1", "box", "sh", "-c", "exit 3", code=3)
    layerfs("create", "--name", "made", "--network", "none", "-v", "vol:/v", "box", "true")
    names = lambda *words: layerfs.lines("ps", "-a", "--format", "{{.Names}}", *words)  # noqa: E731
    assert names("-f", "status=created") == ["made"]
    assert names("-f", "exited=3") == ["ended"]
    assert names("-f", "exited=3", "-f", "exited=4", "-f", "label=a=1") == ["ended"]
    assert names("-f", "label!=a") == ["made"]
    assert names("-f", "name=end") == ["ended"]
    assert names("-f", "volume=vol") == names("-f", "network=none") == ["made"]
    assert names("-f", "ancestor=box") == ["made", "ended"]
    assert names("-f", "before=made") == ["ended"]
    assert names("-f", "since=ended") == ["made"]
    assert layerfs.lines("ps", "-f", "status=exited", "--format", "{{.Names}}") == ["ended"]
    for wrong in ("status=up", "exited=x", "colour=red", "name=["):
        assert layerfs.error("ps", "-f", wrong, code=2).startswith("layerfs ps: filter ")


def test_ps_shows_the_id_of_an_image_that_lost_its_name(layerfs, box):
    layerfs("create", "--name", "made", "box", "true")
    layerfs("import", "-", "box", data=tar_of({"x": b""}))
    (document,) = layerfs.json("inspect", "made")
    assert layerfs("ps", "-a", "--format", "{{.Image}}").strip() == document["Image"][7:19]


def test_create_start_and_rm(layerfs, box):
    id = layerfs("create", "--name", "made", "box", "sh", "-c", "echo $((1+1)); exit 4").strip()
    assert layerfs("start", "-a", "made", code=4) == "2\n"
    assert layerfs("container", "start", "--attach", id[:10], code=4) == "2\n"
    assert layerfs("rm", "made") == "made\n"
    assert "no such container" in layerfs.error("rm", "made", code=1)
    assert layerfs("rm", "-f", "made") == ""
    assert "no such container" in layerfs.error("start", "-a", "made", code=125)


def test_rename_and_names(layerfs, box):
    layerfs("create", "--name", "one", "box", "true")
    layerfs("create", "--name", "two", "box", "true")
    assert "in use" in layerfs.error("create", "--name", "one", "box", code=125)
    assert "in use" in layerfs.error("rename", "one", "two", code=1)
    layerfs("rename", "one", "three")
    assert sorted(layerfs.lines("ps", "-a", "--format", "{{.Names}}")) == ["three", "two"]


def test_a_running_container_is_seen_and_killed(layerfs, box):
    process = subprocess.Popen(
        [os.sys.executable, "-m", "layerfs", "run", "--name", "runs", "box", "sh", "-c", "echo up; sleep 100"],
        stdout=subprocess.PIPE,
        env=layerfs.environment,
    )
    assert process.stdout.readline() == b"up\n"
    assert re.search(r"   Up .*   runs$", layerfs.lines("ps")[1])
    assert layerfs("inspect", "-f", "{{.State.Running}} {{.State.Status}}", "runs") == "true running\n"
    assert "it is running" in layerfs.error("rm", "runs", code=1)
    assert "used by running container" in layerfs.error("rmi", "-f", "box", code=1)
    assert layerfs("kill", "-s", "TERM", "runs") == "runs\n"
    layerfs("rm", "-f", "runs")
    assert process.wait(30) in (137, 143)
    process.stdout.close()
    assert layerfs("ps", "-aq") == ""


def test_diff_commit_and_history(layerfs, box):
    layerfs("run", "--name", "work", "box", "sh", "-c", "echo 2 > /new; echo 2 > /old; rm /bin/env; mkdir /d")
    assert layerfs("diff", "work") == "C /bin\nD /bin/env\nA /d\nA /new\nC /old\n"
    assert layerfs.json("diff", "--format", "json", "work") == {
        "changed": ["/bin", "/old"],
        "added": ["/d", "/new"],
        "deleted": ["/bin/env"],
    }
    words = ["-a", "me", "-m", "work done", "-c", "ENV X=1", "-c", 'CMD ["cat", "/new"]']
    id = layerfs("commit", *words, "work", "result:1").strip()
    (document,) = layerfs.json("inspect", id)
    assert (document["Author"], document["Comment"]) == ("me", "work done")
    assert "X=1" in document["Config"]["Env"]
    assert layerfs("run", "--rm", "result:1") == "2\n"
    assert layerfs("diff", "result:1") == layerfs("diff", "work")
    assert layerfs("diff", "box", "result:1") == layerfs("diff", "box", "work") == layerfs("diff", "work")
    lines = layerfs.lines("history", "result:1")
    assert len(lines) == 3
    assert lines[1].endswith("work done")
    squashed = layerfs("commit", "-s", "-q", "work", "flat").strip()
    assert len(layerfs.json("inspect", squashed)[0]["RootFS"]["Layers"]) == 1
    assert layerfs("cat", "flat", "new") == "2\n"


def test_commit_writes_the_id_and_names_what_is_left_out(layerfs, box, tmp_path):
    layerfs("run", "--name", "work", "-v", "data:/data", "box", "sh", "-c", "echo 1 > /data/x")
    result = layerfs.process("commit", "--iidfile", tmp_path / "iid", "--format", "docker", "work")
    assert (tmp_path / "iid").read_text() == result.stdout.decode().strip()
    assert result.stderr == b"layerfs commit: /data: left out, it is a volume data mounted in the container\n"
    target = layerfs.json("inspect", (tmp_path / "iid").read_text())[0]["Descriptor"]
    assert target["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert "unknown instruction" in layerfs.error("commit", "-c", "FOO x", "work", code=2)


def test_export(layerfs, box, tmp_path):
    layerfs("run", "--name", "work", "box", "sh", "-c", "echo 2 > /new; rm /old")
    piped = layerfs.process("export", "work").stdout
    layerfs("export", "-o", tmp_path / "out.tar", "work")
    assert (tmp_path / "out.tar").read_bytes() == piped
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []
    names = {name.lstrip("./") for name in tarfile.open(fileobj=io.BytesIO(piped)).getnames()}
    assert "new" in names
    assert "old" not in names
    assert "no such" in layerfs.error("export", "-o", "/nope/x", "work", code=1).lower()
    assert "no such container" in layerfs.error("export", "nope", code=1)
    image = layerfs.process("export", "box").stdout
    assert "old" in {name.lstrip("./") for name in tarfile.open(fileobj=io.BytesIO(image)).getnames()}


def test_mount_and_unmount(layerfs, box, tmp_path):
    place = Path(layerfs("mount", "box").strip())
    assert (place / "old").read_text() == "1"
    with pytest.raises(OSError, match="Read-only"):
        (place / "new").write_text("x")
    assert layerfs("mount", "box").strip() == str(place)
    layerfs("create", "--name", "made", "box", "true")
    (tmp_path / "here").mkdir()
    assert layerfs("mount", "made", tmp_path / "here").strip() == str(tmp_path / "here")
    (tmp_path / "here" / "new").write_text("x")
    rows = {row["Type"]: row for row in map(json.loads, layerfs.lines("mount", "--format", "json"))}
    assert rows["image"]["Mountpoint"] == str(place)
    assert rows["container"]["Names"] == "made"
    assert layerfs.lines("mount")[0].split() == ["ID", "TYPE", "NAMES", "MOUNTPOINT"]
    assert "A /new" in layerfs("diff", "made")
    layerfs("umount", tmp_path / "here")
    assert not os.path.ismount(tmp_path / "here")
    layerfs("mount", "made", tmp_path / "here")
    layerfs("unmount", place)
    assert not place.exists() or not os.path.ismount(place)
    assert "/nowhere: it is not mounted" in layerfs.error("unmount", "/nowhere", code=1)
    layerfs("mount", "box")
    layerfs("unmount", "box")
    assert not place.exists() or not os.path.ismount(place)
    layerfs("umount", "--all")
    assert not os.path.ismount(tmp_path / "here")
    assert "it is not mounted" in layerfs.error("unmount", "box", code=1)
    assert "a name or --all is wanted" in layerfs.error("unmount", code=2)


def test_volumes(layerfs, box):
    assert layerfs("volume", "create", "-l", "a=1", "named") == "named\n"
    random = layerfs("volume", "create").strip()
    assert re.fullmatch("[0-9a-f]{64}", random)
    layerfs("run", "--name", "user", "-v", "named:/v", "-v", "/anon", "box", "sh", "-c", "echo 1 > /v/x")
    names = lambda *words: layerfs.lines("volume", "ls", "-q", *words)  # noqa: E731
    assert len(names()) == 3
    assert layerfs.lines("volume", "ls")[0] == "DRIVER    VOLUME NAME"
    assert names("-f", "label=a") == ["named"]
    assert names("-f", "dangling=true") == [random]
    assert "named" in names("-f", "dangling=false")
    assert names("-f", "name=ame") == ["named"]
    (document,) = layerfs.json("volume", "inspect", "named")
    assert (Path(document["Mountpoint"]) / "x").read_text() == "1\n"
    assert layerfs("inspect", "--type", "volume", "-f", "{{.Labels.a}}", "named") == "1\n"
    assert "in use by container" in layerfs.error("volume", "rm", "named", code=1)
    layerfs("rm", "-v", "user")
    assert sorted(names()) == sorted(["named", random])
    assert f"Deleted Volumes:\n{random}\n" in layerfs("volume", "prune", "-f")
    assert layerfs("volume", "prune", "-fa").startswith("Deleted Volumes:\n")
    assert names() == []
    assert layerfs("volume", "rm", "-f", "nope") == "nope\n"
    assert "no such volume" in layerfs.error("volume", "rm", "nope", code=1)
    assert "there is only local" in layerfs.error("volume", "create", "-d", "nfs", code=4)


def test_prune_of_containers_and_of_all(layerfs, box):
    layerfs("create", "--name", "one", "-l", "keep=1", "box", "true")
    layerfs("create", "--name", "two", "box", "true")
    dry = layerfs("container", "prune", "--dry-run")
    assert dry.startswith("Unused Containers:\n")
    assert dry.count("\n") == 5
    layerfs("container", "prune", "-f", "--filter", "label!=keep")
    assert layerfs.lines("ps", "-a", "--format", "{{.Names}}") == ["one"]
    assert layerfs.lines("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}") == [
        "Images 1 1",
        "Containers 1 0",
        "Local Volumes 0 0",
        "Build Cache 0 0",
    ]
    layerfs("system", "prune", "-af")
    assert layerfs("ps", "-aq") == layerfs("images", "-q") == ""


def test_inspect_of_a_container(layerfs, box):
    layerfs("create", "--name", "made", "-e", "A=1", "-m", "64m", "box", "true")
    show = lambda format, *words: layerfs("inspect", "-f", format, *words, "made").strip()  # noqa: E731
    assert show("{{.Name}} {{.State.Status}} {{.HostConfig.Memory}}") == "/made created 67108864"
    assert show("{{range .Config.Env}}{{println .}}{{end}}").splitlines()[:2] == ["PATH=/bin", "A=1"]
    assert show("{{.Config.Healthcheck}}|{{.State.Health}}") == "<no value>|<no value>"
    assert show("{{.SizeRw}}", "-s") == "0"
    assert "no field 'SizeRw'" in layerfs.error("inspect", "-f", "{{.SizeRw}}", "made", code=2)
    assert layerfs.json("container", "inspect", "made")[0]["Name"] == "/made"
    assert "no such container" in layerfs.process("container", "inspect", "box", code=1).stderr.decode()
    layerfs("tag", "box", "made")
    assert layerfs("inspect", "-f", "{{.Id}}", "--type", "image", "made").startswith("sha256:")


def test_info(layerfs, box):
    assert "LayerFormat: " in layerfs("info")
    facts = layerfs.json("system", "info", "-f", "json")
    assert facts["Images"] == 1
    assert layerfs("info", "--format", "{{.Images}} {{.Containers}}") == "1 0\n"


def test_sizes_are_those_of_the_files(layerfs, box):
    """As docker counts: what is in files, hard links once, not the blocks and directories of a disk."""
    script = (
        "mkdir d; echo 12345 >d/a; ln d/a d/b; ln -s abc c; dd if=/dev/zero of=e bs=1 count=1 seek=99999 2>/dev/null"
    )
    layerfs("run", "--name", "made", "box", "sh", "-c", script)
    assert layerfs.json("inspect", "-s", "made")[0]["SizeRw"] == 6 + 3 + 100_000
    shown = layerfs("ps", "-as", "--format", "{{.Size}}")
    assert shown.startswith("100kB (virtual ")


def test_copying_tells_of_the_container_as_it_was_named(layerfs, box, tmp_path):
    id = layerfs("create", "--name", "made", "box", "true").strip()
    for name in ("made", id[:9]):
        wrong = f"{name}:/nope"
        for target in (tmp_path, "-"):
            assert layerfs.error("cp", wrong, target, code=1).startswith(f"layerfs cp: copy {wrong}: ")
        error = layerfs.error("cp", tmp_path / "nope", f"{name}:/", code=1)
        assert error.startswith(f"layerfs cp: copy {tmp_path}/nope to {name}:/: ")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["rmi"], "layerfs images lists those that are"),
        (["push"], "layerfs images lists those that are"),
        (["create", "--pull", "never"], "with --pull missing it is pulled"),
        (["save"], "layerfs pull nothing"),
        (["history"], "layerfs pull nothing"),
        (["diff"], "layerfs ps -a and layerfs images list what there is"),
        (["mount"], "layerfs ps -a and layerfs images list what there is"),
    ],
)
def test_hints_fit_the_verb(layerfs, words, hint):
    result = layerfs.process(*words, "nothing", code=None)
    assert f"({hint})" in result.stderr.decode()


def test_nobody_is_told_to_pull_an_id(layerfs):
    assert layerfs.error("history", "0123456789ab", code=1).endswith(
        "not in the store (layerfs images lists those that are)"
    )
