"""What users of docker type and read, where it once was another thing here."""

import io
import json
import re
import signal
import subprocess
import sys
import tarfile
import time

import pytest

from .conftest import tar_of

pytestmark = pytest.mark.root


def test_json_of_a_row_in_a_template(layerfs, box):
    layerfs("create", "--name", "one", "-l", "k=v", "box", "sh", "-c", 'echo "a b"\n')
    row = json.loads(layerfs("ps", "-a", "--format", "{{json .}}"))
    whole = json.loads(layerfs("ps", "-a", "--format", "json"))
    age = {"RunningFor": row["RunningFor"]}  # which grows meanwhile
    assert row == whole | age
    assert (row["Names"], row["Labels"]) == ("one", "k=v")
    assert list(row) == sorted(row)


def test_ps_quotes_the_command_as_one_can_type_it(layerfs, box):
    layerfs("create", "box", "sh", "-c", 'echo "a b"\nid')
    assert layerfs("ps", "-a", "--no-trunc", "--format", "{{.Command}}") == '"sh -c \'echo \\"a b\\"\\nid\'"\n'


def test_history_has_whole_seconds(layerfs, box):
    created = layerfs("history", "--format", "{{.CreatedAt}}", "box").strip()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", created)


@pytest.mark.parametrize("verb", ["diff", "export", "mount"])
def test_a_name_of_nothing_is_not_called_an_image(layerfs, verb):
    assert "nothere: no such container" in layerfs.error(verb, "nothere", code=1)


def test_the_usage_in_an_error_can_be_typed(layerfs):
    assert "usage: layerfs rm [OPTIONS] CONTAINER" in layerfs.error("rm", code=2)
    assert "usage: layerfs image rm [OPTIONS] IMAGE" in layerfs.error("image", "rm", code=2)


def test_inspect_has_the_members_that_docker_users_ask_for(layerfs, box):
    layerfs(
        "create", "--name", "one", "--tmpfs", "/run:size=1m,mode=700", "--cap-add", "net_admin", "--cap-drop", "ALL",
        "--log-opt", "max-size=1m", "--device", "/dev/null:/dev/other", "--stop-timeout", "7", "--pid", "host",
        "--network", "none", "box",
    )  # fmt: skip
    ask = lambda template: layerfs("inspect", "-f", template, "one").strip()  # noqa: E731
    assert ask("{{.NetworkSettings.IPAddress}}|{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}|") == "||"
    assert ask("{{json .NetworkSettings.Ports}} {{.HostConfig.NetworkMode}}") == "{} none"
    assert ask("{{.HostConfig.LogConfig.Type}} {{json .HostConfig.LogConfig.Config}}") == (
        'json-file {"max-size":"1048576"}'
    )
    assert ask("{{json .HostConfig.CapAdd}} {{json .HostConfig.CapDrop}}") == '["CAP_NET_ADMIN"] ["ALL"]'
    assert ask("{{json .HostConfig.Tmpfs}}") == '{"/run":"size=1048576,mode=700"}'
    assert ask("{{(index .HostConfig.Devices 0).PathInContainer}}") == "/dev/other"
    assert ask("{{.HostConfig.PidMode}} {{.HostConfig.IpcMode}} {{.HostConfig.UTSMode}}|") == "host private |"
    assert ask("{{.Config.StopTimeout}} {{.State.OOMKilled}} {{.RestartCount}}") == "7 false 0"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_half_made(layerfs, tmp_path, number):
    words = [sys.executable, "-m", "layerfs", "import", "-", "half"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=layerfs.environment) as process:
        process.stdin.write(tar_of({"big": bytes(3 << 20)})[: 2 << 20])
        process.stdin.flush()
        ingest = tmp_path / "root" / "ingest"
        deadline = time.monotonic() + 20
        while not list(ingest.glob("layer-*/*")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(20) == 128 + number
        assert process.stderr.read() == b""
    assert [entry.name for entry in ingest.iterdir() if not entry.name.startswith("lock-")] == []
    assert layerfs("images", "-q") == ""


@pytest.mark.parametrize("words", [("save", "box"), ("export", "box"), ("cat", "box", "/bin/busybox")])
def test_a_reader_that_leaves_ends_the_command_in_silence(layerfs, box, words):
    command = [sys.executable, "-m", "layerfs", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=layerfs.environment) as process:
        assert len(process.stdout.read(10)) == 10
        process.stdout.close()
        assert process.wait(20) == 141
        assert process.stderr.read() == b""


def test_arguments_that_are_no_utf8(layerfs, box, tmp_path):
    assert "not UTF-8" in layerfs.error("run", "box", "echo", b"\xff", code=125)
    assert "not UTF-8" in layerfs.error("create", "-e", b"A=\xff", "box", code=125)
    assert layerfs("ps", "-aq") == ""
    name = bytes(tmp_path) + b"/\xff.tar"
    with open(name, "wb") as file:
        file.write(tar_of({"a": b"1"}))
    layerfs("import", name, "raw")
    assert layerfs("history", "--no-trunc", "--format", "{{.Comment}}", "raw").endswith("/\ufffd.tar\n")


def test_save_of_a_repository_takes_all_its_tags(layerfs, box):
    layerfs("tag", "box", "box:2", "other:2")
    names = lambda *words: [  # noqa: E731
        name
        for image in json.load(
            tarfile.open(fileobj=io.BytesIO(layerfs.process("save", *words).stdout)).extractfile("manifest.json")
        )
        for name in image["RepoTags"] or []
    ]
    assert sorted(names("box")) == ["docker.io/library/box:2", "docker.io/library/box:latest"]
    assert names("box:2") == ["docker.io/library/box:2"]
    assert names(layerfs("images", "-q", "box").split()[0]) == []
