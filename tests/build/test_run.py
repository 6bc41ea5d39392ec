"""RUN: what a command sees, what it leaves, and what it does not."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from layerfs import native
from layerfs.build import Secret
from layerfs.errors import BuildError, ExistsError, InvalidInputError, LayerfsError, NativeError, NotFoundError

pytestmark = pytest.mark.root


def test_shell_and_exec_form(kit):
    kit.build('FROM box\nRUN echo "$HOME" > /a\nRUN ["/bin/sh", "-c", "echo two > /b"]')
    assert (kit.read("/a"), kit.read("/b")) == ("/root\n", "two\n")


def test_shell_instruction(kit):
    kit.build('FROM box\nSHELL ["/bin/sh", "-e", "-x", "-c"]\nRUN echo hi > /a\nCMD x')
    assert kit.section()["Cmd"] == ["/bin/sh", "-e", "-x", "-c", "x"]
    assert "+ echo hi" in kit.progress.lines


def test_environment_and_arguments(kit):
    text = "FROM box\nARG A=1\nARG B\nARG E=arg\nENV E=env F=$A\nRUN echo $A,$B,$E,$F,$HTTP_PROXY > /o\nRUN env"
    kit.build(text, build_args={"B": "2", "HTTP_PROXY": "http://p"})
    assert kit.read("/o") == "1,2,env,1,http://p\n"
    assert not any("PWD_OF_HOST" in line or line.startswith("LAYERFS") for line in kit.progress.lines)
    assert not any(entry.startswith(("A=", "B=", "HTTP_PROXY=")) for entry in kit.section()["Env"])


def test_user_and_directory(kit):
    kit.build("FROM box\nWORKDIR /w\nRUN chown bob /w\nUSER bob\nRUN id -u > who; pwd >> who")
    assert kit.read("/w/who") == "1000\n/w\n"
    assert kit.stat("/w/who").uid == 1000


def test_what_is_left(kit):
    kit.build("FROM box\nRUN mkdir -p /n/m && echo 1 > /n/f && rm /data/seed && ln -s x /n/l && chmod 600 /etc/group")
    assert {"/n", "/n/f", "/n/l", "/n/m", "/etc/group"} < set(kit.layer_paths())
    assert not {"/etc/passwd", "/bin", "/tmp"} & set(kit.layer_paths())
    assert "/data/seed" not in kit.entries()
    assert kit.stat("/etc/group").mode & 0o777 == 0o600


def test_mount_points_leave_no_trace(kit):
    kit.build(
        "FROM box\nRUN --mount=type=tmpfs,target=/deep/er/tmp "
        "--mount=type=cache,target=/cache cat /etc/hosts /etc/resolv.conf /etc/hostname && mount"
    )
    paths = kit.entries()
    assert not {"/deep", "/cache", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/proc", "/sys", "/dev"} & set(
        paths
    )
    assert kit.paths("/", "box") == kit.paths("/")


def test_a_command_without_changes_makes_an_empty_layer(kit):
    kit.build("FROM box\nRUN true")
    assert kit.layer_paths() == ["/"]


def test_a_socket_hides_what_lies_below_it(kit):
    """A layer cannot hold the socket; what it took the place of must not come back."""
    kit.build(
        "FROM box\nRUN echo old > /data/f\n"
        "RUN ln -s /data/f /dev/log && (syslogd -n & for i in 1 2 3 4 5 6 7 8 9; do sleep 0.1; done; test -S /data/f)\n"
        "RUN ls -A /data > /o"
    )
    assert kit.read("/o") == "seed\n"
    assert "/data/f" not in kit.entries()


def test_heredocs(kit):
    kit.build(
        "FROM box\nRUN <<EOF\necho one > /a\necho two >> /a\nEOF\n"
        "RUN cat <<X > /b && cat <<Y > /c\nbee $HOME\nX\nsea\nY\n"
        "RUN <<EOF sh\necho three > /d\nEOF\n"
        "RUN <<EOF\n#!/bin/busybox sh\necho $0 > /e\nEOF\n"
    )
    assert [kit.read(f"/{name}") for name in "abcd"] == ["one\ntwo\n", "bee /root\n", "sea\n", "three\n"]
    assert "/EOF" in kit.read("/e")
    assert "/dev" not in kit.entries()


def test_network_none(kit):
    kit.build("FROM box\nRUN --network=none ls /sys/class/net > /n\nRUN ls /sys/class/net > /h")
    assert kit.read("/n").split() == ["lo"]
    kit.build("FROM box\nRUN ls /sys/class/net > /n", network="none")
    assert kit.read("/n").split() == ["lo"]


def test_add_host(kit):
    kit.build("FROM box\nRUN grep special /etc/hosts > /h", add_hosts=(("special", "10.1.2.3"),))
    assert "10.1.2.3" in kit.read("/h")


def test_no_privilege(kit):
    kit.build("FROM box\nRUN mount -t tmpfs x /tmp && echo no || echo yes > /ok")
    assert kit.read("/ok") == "yes\n"
    with pytest.raises(InvalidInputError, match="not allowed"):
        kit.build("FROM box\nRUN --security=insecure true")
    kit.build("FROM box\nRUN --security=insecure mount -t tmpfs x /tmp && echo yes > /ok", allow=("security.insecure",))
    assert kit.read("/ok") == "yes\n"


# ---- failures ----


def test_failure(kit):
    with pytest.raises(BuildError) as caught:
        kit.build("FROM box\nRUN echo fine\n\nRUN echo seen; exit 42")
    error = caught.value
    assert (error.exit_code, error.line, error.file) == (42, 4, str(kit.place / "Dockerfile"))
    assert str(error) == f"{kit.place}/Dockerfile:4: RUN echo seen; exit 42: the command ended with exit code 42"
    assert kit.progress.failures[0][2] == ["seen"]
    kit.build("FROM box\nRUN echo fine\n\nRUN echo seen")
    assert kit.steps() == (1, 1)


@pytest.mark.parametrize(("command", "code"), [('["/no/such"]', 127), ('["/etc/passwd"]', 126)])
def test_a_command_that_cannot_run(kit, command, code):
    with pytest.raises(LayerfsError) as caught:
        kit.build(f"FROM box\nRUN {command}")
    assert caught.value.exit_code == code
    assert "Dockerfile:2: RUN" in str(caught.value)


def test_unknown_user(kit):
    with pytest.raises(NotFoundError, match="Dockerfile:3: RUN true: user 'nobody-here'"):
        kit.build("FROM box\nUSER nobody-here\nRUN true")


def test_no_shell_in_scratch(kit):
    with pytest.raises(LayerfsError, match="/bin/sh"):
        kit.build("FROM scratch\nRUN true")


def test_background_processes_end(kit):
    begin = time.monotonic()
    kit.build("FROM box\nRUN sleep 100 & echo started")
    assert time.monotonic() - begin < 20


def test_much_output(kit):
    kit.build("FROM box\nRUN i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; printf 'no end'")
    assert kit.progress.lines[:2] == ["line 0", "line 1"]
    assert kit.progress.lines[-1] == "no end"
    assert len(kit.progress.lines) == 2001


# ---- mounts ----


def test_bind_of_the_context(kit):
    files = {"d/a": "1", "d/s/b": "2", "one": "3", ".dockerignore": "d/hidden", "d/hidden": "4"}
    kit.build(
        "FROM box\nRUN --mount=target=/ctx,source=d find /ctx | sort > /l; ! touch /ctx/x\n"
        "RUN --mount=source=one,target=/f cat /f > /o\nRUN --mount=source=d,target=/w,rw touch /w/new && ls /w > /w2",
        files,
    )
    assert kit.read("/l").split() == ["/ctx", "/ctx/a", "/ctx/s", "/ctx/s/b"]
    assert kit.read("/o") == "3"
    assert kit.read("/w2").split() == ["a", "new", "s"]
    assert not (kit.context / "d/new").exists()
    assert not {"/ctx", "/f", "/w"} & set(kit.entries())


@pytest.fixture
def old_kernel(monkeypatch):
    """Linux before 6.15: of a detached mount nothing is bound, and nothing stacked."""

    def must_be_attached(fd):
        number = Path(f"/proc/self/fdinfo/{fd}").read_text().split("mnt_id:")[1].split()[0]
        if all(line.split()[0] != number for line in Path("/proc/self/mountinfo").read_text().splitlines()):
            raise NativeError("as before Linux 6.15", errno.EINVAL)

    def bind_mount(fd, path, *, real=native.bind_mount, **options):
        if not path:
            must_be_attached(fd)
        return real(fd, path, **options)

    def overlay_mount(lowers, *others, real=native.overlay_mount, **options):
        for fd in lowers:
            must_be_attached(fd)
        return real(lowers, *others, **options)

    monkeypatch.setattr(native, "bind_mount", bind_mount)
    monkeypatch.setattr(native, "overlay_mount", overlay_mount)


def test_bind_on_an_old_kernel(kit, old_kernel):
    kit.build(
        "FROM box AS one\nRUN mkdir /d && echo 1 > /d/a\nFROM box\n"
        "RUN --mount=target=/ctx,source=d cat /ctx/a > /o\nRUN --mount=source=one,target=/f cat /f >> /o\n"
        "RUN --mount=source=d,target=/w,rw touch /w/new && ls /w >> /o\n"
        "RUN --mount=from=one,source=/d,target=/s cat /s/a >> /o\n"
        "RUN --mount=from=one,source=/d/a,target=/s cat /s >> /o",
        {"d/a": "2\n", "one": "3\n"},
    )
    assert kit.read("/o").split() == ["2", "3", "a", "new", "1", "1"]
    assert "/view-" not in Path("/proc/self/mountinfo").read_text()


def test_bind_of_a_stage_and_an_image(kit):
    kit.build(
        "FROM box AS one\nRUN mkdir /r && echo hi > /r/f\nFROM box\n"
        "RUN --mount=from=one,source=/r,target=/m cat /m/f > /a\nRUN --mount=from=box,target=/i cat /i/data/seed > /b\n"
        "RUN --mount=from=one,source=/r/f,target=/m2 cat /m2 > /c\n"
        "RUN --mount=from=one,source=/r,target=/m3,rw echo more >> /m3/f && cat /m3/f > /d"
    )
    assert [kit.read(f"/{name}") for name in "abcd"] == ["hi\n", "seeded\n", "hi\n", "hi\nmore\n"]


@pytest.mark.parametrize("source", ["/l", "/l/passwd", "../../etc", "l2"])
def test_a_link_as_bind_source_stays_in_its_tree(kit, source):
    text = (
        "FROM box AS one\nRUN ln -s / /l; ln -s /proc/1/root/etc /l2; rm -f /etc/debian_version\n"
        f"FROM box\nRUN --mount=from=one,source={source},target=/m ls /m /m/etc > /o; ls "
        f"/m/debian_version && false || true"
    )
    try:
        kit.build(text)
    except LayerfsError:
        return
    assert "debian_version" not in kit.read("/o")


def test_cache_mounts_outlive_a_build(kit):
    text = (
        "FROM box\nRUN --mount=type=cache,target=/c,uid=1000,mode=0700 echo {} >> /c/f; cat "
        "/c/f > /o; stat -c '%u %a' /c > /s"
    )
    kit.build(text.format(1))
    kit.build(text.format(2))
    assert kit.read("/o") == "1\n2\n"
    assert kit.read("/s") == "1000 700\n"
    kit.build(
        "FROM box\nRUN --mount=type=cache,target=/other,id=/c,ro cat /other/f > /o; touch /other/x || echo ro >> /o"
    )
    assert kit.read("/o") == "1\n2\nro\n"
    kit.build("FROM box\nRUN --mount=type=cache,target=/c,id=else ls /c > /o")
    assert kit.read("/o") == ""


def test_cache_mount_with_a_beginning(kit):
    kit.build(
        "FROM box AS one\nRUN mkdir /r && echo hi > /r/f\nFROM box\n"
        "RUN --mount=type=cache,target=/c,from=one,source=/r cat /c/f > /o"
    )
    assert kit.read("/o") == "hi\n"


def test_cache_mounts_are_listed_and_pruned(kit):
    kit.build("FROM box\nRUN --mount=type=cache,target=/c,id=mine echo 12345 > /c/f")
    cache = kit.store.build_cache()
    assert [entry.title for entry in cache.list() if entry.type == "mount"] == ["mine"]
    done = cache.prune(all_entries=True)
    assert {entry.type for entry in done.entries} == {"mount", "layer"}
    assert list(cache.list()) == []
    kit.build("FROM box\nRUN --mount=type=cache,target=/c,id=mine ls /c > /o")
    assert kit.steps() == (1, 0)
    assert kit.read("/o") == ""


def test_sharing(kit):
    """Two stages at once: locked waits, private has another."""
    stage = (
        "RUN --mount=type=cache,target=/c,id={0},sharing={0} mkdir /c/in && sleep 0.4 && "
        "rmdir /c/in; echo {1} >> /c/log"
    )
    text = (
        "FROM box AS one\n{}\nFROM box AS two\n{}\nFROM box\nCOPY --from=one /etc/group /1\n"
        "COPY --from=two /etc/group /2\n"
    )
    for sharing in ("locked", "private"):
        kit.build(text.format(stage.format(sharing, 1), stage.format(sharing, 2)), jobs=3)
    mounts = [entry.title for entry in kit.store.build_cache().list() if entry.type == "mount"]
    assert mounts.count("locked") == 1
    assert mounts.count("private") == 2


def test_a_link_in_a_cache_is_not_followed(kit, tmp_path):
    kit.build("FROM box\nRUN --mount=type=cache,target=/c,id=x ln -s /etc /c/sub")
    with pytest.raises(LayerfsError):
        kit.build("FROM box\nRUN --mount=type=cache,target=/c,id=x,source=sub ls /c")
    kit.build("FROM box\nRUN --mount=type=cache,target=/c,id=x,source=new/one echo 1 > /c/f")
    kit.build("FROM box\nRUN --mount=type=cache,target=/c,id=x cat /c/new/one/f > /o")
    assert kit.read("/o") == "1\n"


def test_tmpfs(kit):
    kit.build("FROM box\nRUN --mount=type=tmpfs,target=/t,size=1m df -k /t | tail -1 > /o; touch /t/x")
    assert kit.read("/o").split()[1] == "1024"
    assert "/t" not in kit.entries()


def test_secrets(kit, tmp_path):
    (tmp_path / "token").write_text("hush")
    secrets = (Secret("tok", source=str(tmp_path / "token")), Secret("var", env="THE_VAR"))
    environment = {"THE_VAR": "quiet"}
    text = (
        "FROM box\nRUN --mount=type=secret,id=tok cat /run/secrets/tok | wc -c > /a; stat -c "
        "'%a %u' /run/secrets/tok >> /a\n"
        "RUN --mount=type=secret,id=var,env=V "
        "--mount=type=secret,id=tok,target=/t,mode=0444,uid=1000 test $V = quiet && stat -c '%a %u' /t > /b\n"
        "RUN --mount=type=secret,id=none ls /run/secrets || echo none > /c"
    )
    kit.build(text, secrets=secrets, environment=environment)
    assert kit.read("/a") == "4\n400 0\n"
    assert kit.read("/b") == "444 1000\n"
    assert kit.read("/c") == "none\n"
    assert "/run" not in kit.entries()
    assert b"hush" not in kit.store.images.get("made").config_bytes
    (tmp_path / "token").write_text("other")
    kit.build(text, secrets=secrets, environment=environment)
    assert kit.steps() == (0, 3)
    with pytest.raises(NotFoundError, match="required"):
        kit.build("FROM box\nRUN --mount=type=secret,id=x,required=true true")


def test_ssh(kit, tmp_path):
    path = str(tmp_path / "agent")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        kit.build(
            "FROM box\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo $SSH_AUTH_SOCK > /o", ssh={"default": path}
        )
    assert kit.read("/o") == "/run/buildkit/ssh_agent.0\n"
    with pytest.raises(NotFoundError, match="agent"):
        kit.build("FROM box\nRUN --mount=type=ssh,required=true true")


def test_arguments_in_mounts(kit):
    kit.build("FROM box\nARG D=d\nENV T=/t\nRUN --mount=source=${D},target=$T cat $T/a > /o", {"d/a": "1"})
    assert kit.read("/o") == "1"


def test_a_standard_runtime(kit):
    if shutil.which("runc") is None:
        pytest.skip("needs the Debian package runc")
    kit.build("FROM box\nRUN --mount=source=d,target=/m cat /m/a > /o", {"d/a": "1"}, runtime="runc")
    assert kit.read("/o") == "1"


# ---- interrupted ----


LONG = str(10_000_000 + os.getpid())
"""Seconds by which a process of this test is known from those of others that run at the same time."""

SCRIPT = """
import sys
from layerfs import Store
from layerfs.build import BuildOptions
with Store.open(sys.argv[1], sys.argv[2]) as store:
    store.build(BuildOptions(context=sys.argv[3], file=sys.argv[4], tags=("late",)))
"""


@pytest.mark.parametrize("number", [2, 15, 9])
def test_killed(kit, tmp_path, number):
    (kit.place / "Dockerfile").write_text(f"FROM box\nRUN echo 1 > /a\nRUN sleep {LONG}\n")
    words = [sys.executable, "-c", SCRIPT, tmp_path / "root", tmp_path / "run", kit.context, kit.place / "Dockerfile"]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not _sleeping() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _sleeping()
    process.send_signal(number)
    assert process.wait(20) != 0
    deadline = time.monotonic() + 10
    while _sleeping() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _sleeping()
    kit.build("FROM box\nRUN echo 1 > /a")
    assert kit.steps() == (0, 1)
    assert [image.names for image in kit.store.images.list() if any("/late:" in name for name in image.names)] == []
    kit.store.sweep()


def test_what_a_killed_build_left_goes_with_a_sweep(kit, tmp_path):
    (kit.place / "Dockerfile").write_text(f"FROM box\nRUN echo 1 > /a\nRUN sleep {LONG}\n")
    words = [sys.executable, "-c", SCRIPT, tmp_path / "root", tmp_path / "run", kit.context, kit.place / "Dockerfile"]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    while not _sleeping() and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert [row for row in kit.store.snapshots.list() if row.key.startswith("build-")]
    kit.store.sweep()
    assert not [row for row in kit.store.snapshots.list() if row.key.startswith("build-")]


def _sleeping():
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == b"sleep\0%b\0" % LONG.encode():
                found.append(path)
        except OSError:
            continue
    return found


def test_a_cache_mount_goes_to_another_store(kit, tmp_path):
    kit.build(
        "FROM box\nRUN --mount=type=cache,target=/c,id=mine echo 1 > /c/f; chown 7:8 /c/f; "
        "ln -s f /c/l; mkdir -m 700 /c/d"
    )
    path = tmp_path / "mount.tar"
    cache = kit.store.build_cache()
    with path.open("wb") as sink:
        cache.export_mount("mine", sink)
    with path.open("rb") as source, pytest.raises(ExistsError):
        cache.import_mount("mine", source)
    layers = len(list(kit.store.layers.list()))
    with path.open("rb") as source:
        cache.import_mount("theirs", source)
    assert len(list(kit.store.layers.list())) == layers
    kit.build(
        "FROM box\nRUN --mount=type=cache,target=/c,id=theirs cat /c/l > /o; stat -c '%u %g' "
        "/c/f >> /o; stat -c %a /c/d >> /o"
    )
    assert kit.read("/o") == "1\n7 8\n700\n"
    with pytest.raises(NotFoundError):
        cache.export_mount("none", sink)


def test_a_cache_mount_by_the_command(kit, tmp_path):
    from layerfs.cli import main

    place = ["--root", str(tmp_path / "root"), "--run", str(tmp_path / "run"), "builder"]
    path = tmp_path / "mount.tar"
    kit.build("FROM box\nRUN --mount=type=cache,target=/c,id=mine echo 1 > /c/f")
    assert main([*place, "export", "mine", "-o", str(path)]) == 0
    assert main([*place, "import", "theirs", str(path)]) == 0
    assert main([*place, "import", "theirs", str(path)]) == 1
    assert main([*place, "import", "more", "/no/such"]) == 1
    assert main([*place, "export", "none", "-o", str(path)]) == 1
    assert {entry.title for entry in kit.store.build_cache().list() if entry.type == "mount"} == {"mine", "theirs"}


def test_ssh_with_a_key(kit, tmp_path):
    if not (shutil.which("ssh-agent") and shutil.which("ssh-keygen")):
        pytest.skip("needs the Debian package openssh-client")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    kit.build("FROM box\nRUN --mount=type=ssh,id=mine test -S $SSH_AUTH_SOCK && echo 1 > /o", ssh={"mine": str(key)})
    assert kit.read("/o") == "1\n"
    key.write_text("no key")
    with pytest.raises(BuildError, match="cannot be used"):
        kit.build("FROM box\nRUN --mount=type=ssh,id=mine true", ssh={"mine": str(key)})


def test_the_name_of_the_host(kit):
    kit.build("FROM box\nRUN hostname > /o; cat /etc/hostname >> /o")
    assert kit.read("/o") == "buildkitsandbox\n" * 2
    kit.build("FROM box\nRUN hostname > /p", build_args={"BUILDKIT_SANDBOX_HOSTNAME": "other"})
    assert kit.read("/p") == "other\n"


def test_nothing_of_the_host_is_seen(kit, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_HOST", "here")
    kit.build(
        'FROM box\nRUN cat /proc/*/environ > /o 2>/dev/null; env >> /o; ls /proc > /procs\nRUN ["ls", "/proc/self/fd"]'
    )
    assert "SECRET_OF_THE_HOST" not in kit.read("/o")
    assert set(kit.progress.lines) <= {"0", "1", "2", "3"}
    assert len([name for name in kit.read("/procs").split() if name.isdecimal()]) <= 2
