"""Containers as users of docker and podman find them there: defaults, filters, formats, what an error says."""

import json
import shutil

import pytest

pytestmark = pytest.mark.root


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
