"""Containers as users of docker and podman find them there: defaults, filters, formats, what an error says."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .test_lifecycle import until

pytestmark = pytest.mark.root

CGROUPS = Path("/sys/fs/cgroup")


def test_a_limit_of_0_is_none(layerfs, box):
    zeros = ["--memory=0", "--memory-swap=0", "--memory-reservation=0", "--cpus=0", "--cpu-shares=0", "--pids-limit=0"]
    layerfs("run", "--name", "one", *zeros, "--cpuset-cpus=", "--cpuset-mems=", "box", "true")
    host = json.loads(layerfs("inspect", "one"))[0]["HostConfig"]
    assert [host[name] for name in ("Memory", "MemorySwap", "NanoCpus", "CpuShares", "CpusetCpus")] == [0, 0, 0, 0, ""]
    assert "less than --memory" in layerfs.error("create", "--memory-swap=7m", "-m=8m", "box", code=125)


def test_an_update_to_0_leaves_a_limit_as_it_was(layerfs, box):
    layerfs("create", "--name", "one", "-m", "64m", "--cpus", "1", "box")
    assert layerfs("update", "--memory", "0", "--cpus", "0", "--cpu-shares", "512", "one") == "one\n"
    shown = layerfs("inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.CpuShares}}", "one")
    assert shown == f"{64 << 20} 1000000000 512\n"


def test_an_empty_option_is_none(layerfs, box):
    layerfs("create", "--name", "one", "--user=", "--workdir=", "--hostname=", "--runtime=", "box")
    assert layerfs("inspect", "-f", "{{.Config.User}}|{{.Config.WorkingDir}}", "one") == "|\n"


def test_the_default_network_is_the_default(layerfs, box):
    layerfs("create", "--name", "one", "--network", "default", "box")
    assert layerfs("inspect", "-f", "{{.HostConfig.NetworkMode}}", "one") == "host\n"


def test_filters_of_names_know_them_with_and_without_a_slash(layerfs, box):
    layerfs("create", "--name", "one", "box")
    layerfs("create", "--name", "onetwo", "box")
    for pattern, found in (("^one$", ["one"]), ("^/one$", ["one"]), ("^one", ["onetwo", "one"]), ("two", ["onetwo"])):
        assert layerfs.lines("ps", "-a", "--filter", f"name={pattern}", "--format", "{{.Names}}") == found


def test_nothing_descends_from_an_image_that_is_not_there(layerfs, box):
    layerfs("create", "--name", "one", "box")
    assert layerfs("ps", "-aq", "--filter", "ancestor=nothere") == ""
    assert len(layerfs.lines("ps", "-aq", "--filter", "ancestor=nothere", "--filter", "ancestor=box")) == 1


def test_a_log_that_is_not_kept_cannot_be_shown(layerfs, box):
    layerfs("run", "--name", "one", "--log-driver", "none", "box", "echo", "hi")
    assert "--log-driver none" in layerfs.error("logs", "one", code=1)


def test_the_last_minus_one_lines_are_all(layerfs, box):
    layerfs("run", "--name", "one", "box", "sh", "-c", "echo 1; echo 2; echo 3")
    assert layerfs("logs", "--tail", "-1", "one") == layerfs("logs", "one") == "1\n2\n3\n"


def test_no_hint_leads_to_an_option_that_is_refused(layerfs):
    assert "did you mean --publish" not in layerfs.error("run", "--publishh", "80", "box", code=125)


def test_options_of_mounts_that_mean_nothing_here_are_taken(layerfs, box, tmp_path):
    new = tmp_path / "new"
    layerfs("run", "--rm", "-v", f"{tmp_path}:/a:ro,cached", "box", "true")
    layerfs("run", "--rm", "--mount", f"type=bind,src={tmp_path},dst=/a,consistency=delegated", "box", "true")
    layerfs("run", "--rm", "--mount", f"type=bind,src={new},dst=/a,bind-create-src", "box", "true")
    assert new.is_dir()
    layerfs("run", "--rm", "--mount", "type=volume,src=vol,dst=/a,volume-driver=local", "box", "true")
    for wrong in ("consistency=maybe", "volume-driver=nfs"):
        said = layerfs.error("run", "--mount", f"type=volume,src=vol,dst=/a,{wrong}", "box", "true", code=125)
        assert wrong.partition("=")[2] in said


def test_what_runc_says_of_a_command_is_said_once(layerfs, box):
    if shutil.which("runc") is None:
        pytest.skip("needs the Debian package runc")
    layerfs("run", "-d", "--name", "one", "--runtime", "runc", "box", "sleep", "1000")
    assert "not a directory" in layerfs.error("exec", "-w", "/etc/passwd", "one", "true", code=125)
    assert layerfs("exec", "-i", "one", "sh", "-c", "cat; echo err >&2", data=b"x" * 300_000) == "x" * 300_000


@pytest.mark.parametrize("runtime", ["builtin", "runc"])
def test_the_mode_of_a_tmpfs(layerfs, box, runtime):
    if runtime == "runc" and shutil.which("runc") is None:
        pytest.skip("needs the Debian package runc")
    run = lambda *words: layerfs("run", "--rm", "--runtime", runtime, "--tmpfs", *words).split()[0]  # noqa: E731
    wanted = {
        "/new": "drwxrwxrwt",
        "/new:mode=700": "drwx------",
        "/new/below": "drwxrwxrwt",
        "/n:mode=751": "drwxr-x--x",
    }
    for option, mode in wanted.items():
        assert run(option, "box", "ls", "-ld", option.partition(":")[0]) == mode
    layerfs("run", "--name", "made", "box", "sh", "-c", "mkdir -m 750 /kept")
    layerfs("commit", "made", "withdir")
    assert run("/kept", "withdir", "ls", "-ld", "/kept") == "drwxr-x---"


def test_a_restart_waits_for_what_the_end_leaves_to_do(layerfs, box):
    layerfs("run", "-d", "--name", "one", "--restart", "always", "box", "sleep", "1000")
    for _ in range(8):
        assert layerfs("restart", "-s", "KILL", "one") == "one\n"


def test_volumes_without_a_name_are_pruned(layerfs):
    name = layerfs("volume", "create").strip()
    layerfs("volume", "create", "named")
    assert name in layerfs("volume", "prune", "-f")
    assert layerfs("volume", "ls", "-q") == "named\n"


def test_stats_have_the_column_of_the_network(layerfs, box):
    layerfs("create", "--name", "one", "box")
    assert layerfs("stats", "-a", "--no-stream", "--format", "{{.NetIO}}") == "0B / 0B\n"
    assert "NET I/O" in layerfs("stats", "--no-stream")


def test_events_of_the_end_tell_whose_it_is(layerfs, box):
    layerfs("run", "-d", "--name", "one", "--rm", "-l", "k=v", "box", "sh", "-c", "exit 7")
    until(lambda: layerfs("ps", "-aq") == "")
    layerfs("run", "--name", "two", "--rm", "box", "true")
    layerfs("create", "--name", "three", "box")
    layerfs("rm", "three")
    wanted = {"one": "die k=v box 7", "two": "die  box 0"}
    for name, said in wanted.items():
        words = ("events", "--since", "1h", "--until", "0s", "--filter", f"container={name}")
        shape = "{{.Action}} {{with .Actor.Attributes.k}}k={{.}}{{end}} {{.From}} {{.Actor.Attributes.exitCode}}"
        assert said in layerfs.lines(*words, "--filter", "event=die", "--format", shape), name
    for name in ("one", "two", "three"):
        assert (
            layerfs("events", "--since", "1h", "--until", "0s", "--filter", f"container={name}").count("destroy") == 1
        )


def test_mounts_of_another_container(layerfs, box, tmp_path):
    (tmp_path / "file").write_text("from the host")
    mounts = ("-v", "named:/named", "-v", "/anonymous", "-v", f"{tmp_path}:/host:ro", "--tmpfs", "/gone")
    layerfs("run", "--name", "one", *mounts, "box", "sh", "-c", "echo 1 > /named/x; echo 2 > /anonymous/x")
    run = lambda *words, **more: layerfs("run", "--rm", *words, **more)  # noqa: E731
    assert run("--volumes-from", "one", "box", "cat", "/named/x", "/anonymous/x", "/host/file") == "1\n2\nfrom the host"
    assert len(layerfs.lines("volume", "ls", "-q")) == 2  # the end of the second took none of the first one's
    assert "ro" in run("--volumes-from", "one:ro", "box", "sh", "-c", "grep ' /named ' /proc/mounts").split()[3].split(
        ","
    )
    assert run("--volumes-from", "one:rw", "box", "sh", "-c", "echo x > /host/new; ls / | grep gone", code=1) == ""
    assert run("--volumes-from", "one", "-v", "other:/named", "box", "ls", "/named") == ""
    layerfs("create", "--name", "two", "--volumes-from", "one", "box")
    assert layerfs("inspect", "-f", "{{.HostConfig.VolumesFrom}}", "two") == "[one]\n"
    layerfs("rm", "-v", "one")
    assert len(layerfs.lines("volume", "ls", "-q")) == 3  # the second one still has the first one's
    layerfs("rm", "-v", "two")
    assert sorted(layerfs.lines("volume", "ls", "-q")) == ["named", "other"]
    assert "no such container" in layerfs.error("run", "--volumes-from", "one", "box", "true", code=125)
    for wrong in (":ro", "one:what", "one:nocopy"):
        assert "--volumes-from" in layerfs.error("run", "--volumes-from", wrong, "box", "true", code=125)


def test_members_of_what_is_not_offered_are_empty(layerfs, box):
    layerfs("create", "--name", "one", "box")
    shape = "{{.HostConfig.Links}}|{{.HostConfig.Isolation}}|{{.HostConfig.BlkioWeight}}|{{.AppArmorProfile}}"
    assert layerfs("inspect", "-f", shape, "one") == "[]||0|\n"
    assert "no field 'Linkz'" in layerfs.error("inspect", "-f", "{{.HostConfig.Linkz}}", "one", code=2)


@pytest.mark.parametrize("runtime", ["builtin", "runc"])
def test_variables_that_are_not_set_here_are_unset(layerfs, box, runtime):
    if runtime == "runc" and shutil.which("runc") is None:
        pytest.skip("needs the Debian package runc")
    layerfs("create", "--name", "made", "box")
    layerfs("commit", "-c", "ENV GONE=1 KEPT=2", "made", "withenv")
    words = (
        "run",
        "--runtime",
        runtime,
        "--name",
        "one",
        "-e",
        "GONE",
        "-e",
        "HOSTNAME",
        "-e",
        "HOME=",
        "withenv",
        "env",
    )
    names = {line.partition("=")[0] for line in layerfs.lines(*words)}
    assert {"PATH", "HOME", "KEPT"} <= names
    assert not names & {"GONE", "HOSTNAME"}
    assert layerfs("start", "-a", "one").count("HOME=/root\n") == 1
    layerfs("commit", "one", "again")
    for what in ("one", "again"):
        assert sorted(layerfs.json("inspect", what)[0]["Config"]["Env"]) == ["HOME=", "KEPT=2", "PATH=/bin"]


def test_options_of_the_resolver_by_both_names(layerfs, box):
    words = ("--dns", "1.1.1.1", "--dns-option", "ndots:9", "--dns-opt", "timeout:1")
    assert "options ndots:9 timeout:1" in layerfs("run", "--rm", *words, "box", "cat", "/etc/resolv.conf")


def test_an_entry_point_as_a_list(layerfs, box):
    assert layerfs("run", "--rm", "--entrypoint", '["/bin/echo","-n","x"]', "box", "y") == "x y"
    assert "[echo" in layerfs.error("run", "--rm", "--entrypoint", "[echo", "box", code=127)


@pytest.mark.parametrize("runs", [True, False])
def test_cp_to_a_link_writes_where_it_leads(layerfs, box, tmp_path, runs):
    (tmp_path / "file").write_text("new\n")
    script = "mkdir /d; echo old > /d/real; ln -s real /d/link; ln -s /d/made /d/dangling; ln -s /d /there"
    layerfs("run", "--name", "one", "box", "sh", "-c", script)
    layerfs("commit", "one", "linked")
    layerfs("rm", "one")
    layerfs("run" if runs else "create", *(["-d"] if runs else []), "--name", "one", "linked", "sleep", "1000")
    for target in ("/d/link", "/d/dangling", "/there"):
        layerfs("cp", tmp_path / "file", f"one:{target}")
    for name in ("real", "made", "file"):
        layerfs("cp", f"one:/d/{name}", tmp_path / "back")
        assert (tmp_path / "back").read_text() == "new\n"
    layerfs("cp", "one:/d/link", tmp_path)
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "to").symlink_to("kept")
    layerfs("cp", "one:/d/real", tmp_path / "to")
    assert (tmp_path / "kept").read_text() == "new\n"
    assert (tmp_path / "to").is_symlink()
    layerfs("cp", "one:/there", tmp_path)
    assert (tmp_path / "there").is_symlink()


def test_cp_of_links_that_lead_nowhere(layerfs, box, tmp_path):
    layerfs("run", "--name", "one", "box", "sh", "-c", "ln -s /not/there /link")
    layerfs("cp", "one:/link", tmp_path)
    assert (tmp_path / "link").is_symlink()
    assert "leads to is not there" in layerfs.error("cp", "-L", "one:/link", tmp_path / "other", code=1)


def test_cp_of_all_that_runs_leaves_out_what_is_the_kernels(layerfs, box, tmp_path):
    layerfs("run", "-d", "--name", "one", "-v", "vol:/vol", "box", "sh", "-c", "echo 1 > /vol/x; exec sleep 1000")
    until(lambda: layerfs("exec", "one", "ls", "/vol") == "x\n")
    layerfs("cp", "one:/", tmp_path / "all")
    assert (tmp_path / "all/vol/x").read_text() == "1\n"
    for name in ("dev", "proc", "sys"):
        assert list((tmp_path / "all" / name).iterdir()) == []


def test_verbs_on_all_and_on_the_newest(layerfs, box):
    ids = {name: layerfs("create", "--name", name, "box", "sleep", "1000").strip() for name in ("a1", "b1", "c1")}
    assert layerfs.lines("start", "--all") == [ids["c1"], ids["b1"], ids["a1"]]
    assert layerfs("start", "--all") == ""
    assert layerfs.lines("pause", "-l") == [ids["c1"]]
    assert layerfs.lines("unpause", "--all") == [ids["c1"]]
    assert layerfs.lines("kill", "--filter", "name=^b") == [ids["b1"]]
    assert layerfs.lines("wait", "--latest", "--filter", "name=b") == []
    assert layerfs("wait", "b1", "--ignore", "nothere") == "137\n-1\n"
    assert layerfs.lines("kill", "-a", "-s", "KILL") == [ids["c1"], ids["a1"]]
    assert layerfs("rm", "--filter", "name=a1", "a1", "b1") == "a1\n"
    layerfs("start", "c1")
    assert layerfs.lines("stop", "-a", "-t", "0") == [ids["c1"]]
    assert layerfs.lines("restart", "-t", "0", "--filter", "status=exited", "--filter", "name=c1") == [ids["c1"]]
    assert layerfs.lines("stop", "-l", "-t", "0") == [ids["c1"]]
    assert sorted(layerfs.lines("rm", "-a")) == sorted([ids["b1"], ids["c1"]])
    assert layerfs("rm", "-a") == ""
    assert "--all goes without names" in layerfs.error("rm", "--all", "a1", code=2)
    assert "an argument is missing" in layerfs.error("rm", code=2)
    assert "one container alone" in layerfs.error("start", "-a", "--all", code=125)


def test_cidfiles_and_what_is_not_there(layerfs, box, tmp_path):
    layerfs("create", "--name", "one", "--cidfile", tmp_path / "cid", "box")
    assert layerfs("rm", "--cidfile", tmp_path / "cid").strip() == (tmp_path / "cid").read_text()
    assert "cidfile" in layerfs.error("rm", "--cidfile", tmp_path / "none", code=1)
    for verb in ("rm", "stop"):
        assert layerfs(verb, "--ignore", "--cidfile", tmp_path / "none", "one") == ""
    assert "no such container" in layerfs.error("stop", "one", code=1)
    layerfs("volume", "create", "vol")
    assert layerfs("container", "exists", "one", code=1) == layerfs("volume", "exists", "vol") == ""
    layerfs("volume", "exists", "one", code=1)


def test_a_forced_removal_that_asks_first(layerfs, box):
    layerfs(
        "run",
        "-d",
        "--name",
        "one",
        "-v",
        "vol:/v",
        "box",
        "sh",
        "-c",
        "trap 'echo bye > /v/x; exit' TERM; sleep 1000 & wait",
    )
    until(lambda: layerfs("top", "one").count("\n") == 3)
    layerfs("rm", "-f", "-t", "20", "one")
    assert layerfs("run", "--rm", "-v", "vol:/v", "box", "cat", "/v/x") == "bye\n"


@pytest.mark.parametrize("runtime", ["builtin", "runc"])
def test_wait_returns_at_the_end_of_a_run_that_another_follows(layerfs, box, runtime):
    if runtime == "runc" and shutil.which("runc") is None:
        pytest.skip("needs the Debian package runc")
    run = ("run", "-d", "--runtime", runtime, "--restart", "always", "--name")
    layerfs(*run, "fails", "box", "sh", "-c", "sleep 0.3; exit 9")
    layerfs(*run, "killed", "box", "sleep", "1000")
    assert layerfs("wait", "fails", timeout=20) == "9\n"
    waiting = subprocess.Popen(
        [sys.executable, "-m", "layerfs", "wait", "killed"], stdout=subprocess.PIPE, env=layerfs.environment
    )
    time.sleep(0.5)
    layerfs("kill", "killed")
    assert waiting.communicate(timeout=20)[0] == b"137\n"


def test_how_often_a_health_check_failed(layerfs, box):
    words = ("--health-cmd", "[ -e /ok ]", "--health-interval", "100ms", "--health-retries", "2")
    layerfs("run", "-d", "--name", "one", *words, "box", "sleep", "1000")
    streak = lambda: int(layerfs("inspect", "-f", "{{.State.Health.FailingStreak}}", "one"))  # noqa: E731
    until(lambda: streak() >= 2)
    layerfs("exec", "one", "sh", "-c", ": > /ok")
    until(lambda: streak() == 0)


def test_memory_comes_with_as_much_swap(layerfs, box):
    layerfs("create", "--name", "one", "-m", "64m", "-i", "box")
    shape = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.Config.StdinOnce}}"
    assert layerfs("inspect", "-f", shape, "one") == f"{64 << 20} {128 << 20} true\n"


@pytest.mark.parametrize("runtime", ["builtin", "runc"])
def test_quota_and_period_of_processors(layerfs, box, runtime):
    if runtime == "runc" and shutil.which("runc") is None:
        pytest.skip("needs the Debian package runc")
    words = ("--cpu-period=50000", "--cpu-quota=8000", "box", "sleep", "1000")
    id = layerfs("run", "-d", "--runtime", runtime, "--name", "one", *words).strip()
    group = next(path for at in ("cpu/layerfs", "cpu,*/layerfs", "layerfs") for path in CGROUPS.glob(f"{at}/{id}"))
    files = [path for name in ("cfs_quota_us", "cfs_period_us", "max") if (path := group / f"cpu.{name}").exists()]
    shown = lambda: [word for path in files for word in path.read_text().split()]  # noqa: E731
    assert shown() == ["8000", "50000"]
    assert layerfs("inspect", "-f", "{{.HostConfig.CpuPeriod}} {{.HostConfig.CpuQuota}}", "one") == "50000 8000\n"
    layerfs("update", "--cpu-quota", "9000", "one")
    assert shown() == ["9000", "50000"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cpus=1", "--cpu-quota=2000"], "cannot go with"),
        (["--cpus=1", "--cpu-period=2000"], "cannot go with"),
        (["--cpu-period=999"], "out of range"),
        (["--cpu-quota=10"], "out of range"),
    ],
)
def test_quotas_that_cannot_be(layerfs, box, words, said):
    assert said in layerfs.error("create", *words, "box", code=125)


def test_ports_that_are_noted(layerfs, box):
    layerfs("create", "--name", "one", "--expose", "80", "--expose", "90-91/udp", "box")
    layerfs("commit", "one", "exposing")
    for what in ("one", "exposing"):
        assert sorted(layerfs.json("inspect", what)[0]["Config"]["ExposedPorts"]) == ["80/tcp", "90/udp", "91/udp"]
    assert "option --expose: '80000'" in layerfs.error("create", "--expose", "80000", "box", code=125)


def test_replacing_a_container(layerfs, box):
    first = layerfs("run", "-d", "--name", "one", "box", "sleep", "1000")
    second = layerfs("create", "--replace", "--name", "one", "box").strip()
    assert first != second
    assert layerfs.lines("ps", "-aq", "--no-trunc") == [second]
    assert layerfs("run", "--rm", "--replace", "--name", "/one", "box", "echo", "hi") == "hi\n"
    assert layerfs("ps", "-aq") == ""
    assert "--name" in layerfs.error("run", "--replace", "box", code=125)


@pytest.mark.parametrize(
    "words",
    [["--pod", "x"], ["--systemd=always"], ["--secret", "x"], ["--uidmap", "0:1:2"], ["--rootfs"], ["--use-api-socket"],
     ["--blkio-weight-device", "/dev/vda:10"], ["--cgroupns", "container:x"], ["--network", "slirp4netns"]],
)  # fmt: skip
def test_what_is_not_offered_is_refused_by_name(layerfs, words):
    said = layerfs.error("run", *words, "box", "true", code=125)
    assert words[0].partition("=")[0] in said
    assert "not offered" in said


def test_inspect_of_what_is_no_name_of_an_image(layerfs):
    assert layerfs.error("inspect", "NotThere", code=1).endswith("NotThere: no such object")
    assert "lower case" in layerfs.error("image", "inspect", "NotThere", code=2)


def test_volumes_are_among_the_binds(layerfs, box, tmp_path):
    layerfs("create", "--name", "one", "-v", f"{tmp_path}:/a:ro", "-v", "named:/b", "-v", "/c", "box")
    assert layerfs.json("inspect", "one")[0]["HostConfig"]["Binds"] == [f"{tmp_path}:/a:ro", "named:/b"]


def test_events_of_commands_that_are_executed(layerfs, box):
    layerfs("run", "-d", "--name", "one", "box", "sleep", "1000")
    layerfs("exec", "one", "sh", "-c", "exit 3", code=3)
    layerfs("exec", "-d", "one", "true")
    layerfs("exec", b"one", b"echo", b"\xff\n")
    words = ("events", "--since", "1h", "--until", "0s", "--filter", "event=exec_start", "--filter", "event=exec_die")
    shape = "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}}"
    wanted = ["exec_start: sh -c exit 3 one <no value>", "exec_die one 3", "exec_start: true one <no value>"]
    wanted += ["exec_start: echo    one <no value>", "exec_die one 0"]
    assert layerfs.lines(*words, "--format", shape) == wanted
