"""Containers in the foreground, on the built-in launcher and on runc, by what they print and leave behind."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest
import tarbuild as tar
from boxes import add_box, needs_busybox, options, run

from layerfs import Store
from layerfs.errors import ExistsError, InUseError, InvalidInputError, LayerfsError, NotFoundError, UnsupportedError

pytestmark = [pytest.mark.root, needs_busybox]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def shared(places):
    with Store.open(*places) as store:
        add_box(store, places[0])
        yield store
        store.snapshots.release_layers()


@pytest.fixture
def store(shared):
    yield shared
    for container in shared.containers.list():
        container.remove(force=True, volumes=True)
    for volume in shared.containers.volumes.list():
        shared.containers.volumes.remove(volume.name)
    shared.snapshots.close()
    assert list((shared.root / "containers").iterdir()) == []
    assert list((shared.root / "snapshots").iterdir()) == []
    assert list((shared.root / "volumes").iterdir()) == []
    assert list((shared.run_root / "containers").iterdir()) == []
    assert not [row for row in shared.snapshots.list() if row.mounted is not None]


def sh(store, runtime, script, **flags):
    return run(store, "sh", "-c", script, runtime=runtime, **flags)


def test_output_input_and_exit_code(store, runtime):
    ran = sh(store, runtime, "cat; echo oops >&2; exit 7", rm=True, interactive=True, stdin=b"hello\n")
    assert (ran.code, ran.out, ran.err) == (7, "hello\n", "oops\n")
    assert store.containers.list() == []


def test_without_interactive_the_input_is_empty(store, runtime):
    assert sh(store, runtime, "cat; echo end", rm=True, stdin=b"hello\n").out == "end\n"


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["no-such-command"], 127),
        (["/no/such"], 127),
        (["./x"], 127),
        (["/etc/passwd"], 126),
        (["/etc"], 126),
        ([""], 127),
    ],
)
def test_what_cannot_be_executed(store, runtime, args, code):
    with pytest.raises(LayerfsError) as caught:
        run(store, *args, runtime=runtime)
    assert caught.value.exit_code == code
    assert str(caught.value).startswith("run ")
    (container,) = store.containers.list()
    assert (container.status, container.exit_code) == ("created", code)
    assert container.state.error == str(caught.value)


def test_a_command_that_is_ended_by_a_signal(store, runtime):
    # A shell that is not the first process, which the kernel protects from its own signals.
    assert sh(store, runtime, "sh -c 'kill -KILL $$'; exit $?", rm=True).code == 137


def test_no_command(store, places, tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(tar.archive(tar.directory("etc")))
    store.import_image(path, "nocommand")
    with pytest.raises(InvalidInputError, match="no command"):
        store.containers.create(options(image="nocommand"))
    store.remove_image("nocommand")


def test_names(store):
    first = store.containers.create(options(name="web-1"))
    with pytest.raises(ExistsError, match="web-1"):
        store.containers.create(options(name="web-1"))
    with pytest.raises(InvalidInputError):
        store.containers.create(options(name="-x"))
    assert store.containers.get("web-1").id == store.containers.get(first.id[:6]).id == first.id
    first.rename("web-2")
    assert store.containers.get("web-2").id == first.id
    with pytest.raises(NotFoundError):
        store.containers.get("web-1")
    assert len(list((store.root / "snapshots").iterdir())) == 1  # a failed create leaves nothing


def test_an_unknown_image(store):
    with pytest.raises(NotFoundError, match="nothing-like-this"):
        store.containers.create(options(image="nothing-like-this"))


def test_state_and_inspect(store, runtime):
    container = store.containers.create(
        options("sh", "-c", "exit 3", name="one", runtime=runtime, env=["A=1"], label=["k=v"])
    )
    assert (container.status, container.pid, container.started_at) == ("created", 0, 0)
    assert container.run((0, 1, 2)) == 3
    container = store.containers.get("one")
    assert (container.status, container.exit_code) == ("exited", 3)
    assert container.finished_at >= container.started_at > container.created
    shown = container.inspect()
    assert shown["State"]["ExitCode"] == 3
    assert shown["Config"]["Env"] == ["A=1"]
    assert shown["Config"]["Labels"] == {"k": "v"}
    assert shown["HostConfig"]["Runtime"] == runtime
    assert container.run((0, 1, 2)) == 3  # again


def test_what_it_changed_stays_for_the_next_run(store, runtime):
    container = store.containers.create(options("sh", "-c", "cat /new; echo was here >>/new", runtime=runtime))
    out = os.open("/dev/null", os.O_WRONLY)
    assert [container.run((0, out, out)) for _ in range(3)] == [0, 0, 0]
    os.close(out)
    with container.tree() as root:
        fd = os.open("new", os.O_RDONLY, dir_fd=root)
        with open(fd) as file:
            assert file.read() == "was here\n" * 3


@pytest.mark.parametrize(
    ("user", "wanted"),
    [("", "0 0 0"), ("bob", "1000 1000 29 1000"), ("1000", "1000 1000 29 1000"), ("bob:audio", "1000 29 29"),
     ("44:55", "44 55 55"),
     ("1234", "1234 0 0")],
)  # fmt: skip
def test_users(store, runtime, user, wanted):
    ran = sh(store, runtime, "echo $(id -u) $(id -g) $(id -G)", user=user or None, rm=True)
    numbers = ran.out.split()
    assert numbers[:2] == wanted.split()[:2]
    assert sorted(set(numbers[1:])) == sorted(set(wanted.split()[1:]))


def test_a_user_that_is_not_there(store, runtime):
    with pytest.raises(NotFoundError, match="nobody-here"):
        sh(store, runtime, "id", user="nobody-here", rm=True)
    assert store.containers.list() == []


def test_further_groups(store, runtime):
    assert "44" in sh(store, runtime, "id -G", group_add=["video"], rm=True).out.split()


def test_environment(store, runtime, tmp_path):
    file = tmp_path / "env"
    file.write_text("FROM_FILE=1\nA=file\n")
    ran = sh(store, runtime, "env", env=["A=2", "HOME=/x"], env_file=[str(file)], hostname="box-1", rm=True)
    found = dict(line.split("=", 1) for line in ran.out.splitlines())
    assert (found["A"], found["FROM_FILE"], found["HOME"], found["HOSTNAME"]) == ("2", "1", "/x", "box-1")
    assert found["PATH"].startswith("/usr/local/sbin:")
    assert set(found) <= {"A", "FROM_FILE", "HOME", "HOSTNAME", "PATH", "PWD", "SHLVL", "OLDPWD"}


def test_entrypoint_and_arguments(store, runtime, places):
    add_box(store, places[0], name="entry", changes=('ENTRYPOINT ["echo", "first"]', 'CMD ["second"]'))
    assert run(store, image="entry", runtime=runtime, rm=True).out == "first second\n"
    assert run(store, "third", image="entry", runtime=runtime, rm=True).out == "first third\n"
    assert run(store, "third", image="entry", entrypoint="/bin/echo", runtime=runtime, rm=True).out == "third\n"
    with pytest.raises(InvalidInputError, match="no command"):
        run(store, image="entry", entrypoint="", runtime=runtime, rm=True)
    store.remove_image("entry")


def test_the_files_in_etc(store, runtime):
    ran = sh(
        store, runtime, "cat /etc/hostname; hostname; cat /etc/hosts; cat /etc/resolv.conf", hostname="box-7",
        network="none",
        add_host=["db:10.1.2.3"], dns=["10.9.9.9"], dns_search=["example.org"], rm=True,
    )  # fmt: skip
    lines = ran.out.splitlines()
    assert lines[:2] == ["box-7", "box-7"]
    assert "10.1.2.3\tdb" in lines
    assert "127.0.1.1\tbox-7" in lines
    assert "nameserver 10.9.9.9" in lines
    assert "search example.org" in lines


def test_network(store, runtime):
    links = "ls /sys/class/net | tr '\\n' ' '"
    assert sh(store, runtime, links, network="none", rm=True).out == "lo "
    host = sorted(os.listdir("/sys/class/net"))
    assert sorted(
        sh(store, runtime, "cat /proc/net/dev", network="host", rm=True).out.count(f"{name}:") for name in host
    )


def test_mount_points_are_no_changes(store, runtime, tmp_path):
    (tmp_path / "f").write_text("x")
    ran = sh(
        store, runtime, "true", volume=["/anonymous/deep", f"{tmp_path}:/mnt/host", f"{tmp_path}/f:/opt/f", "named:/n"],
    )  # fmt: skip
    assert list(ran.container.changes()) == []


def test_changes(store, runtime):
    ran = sh(
        store, runtime,
        "echo x >/new; mkdir /dir; touch /dir/a; rm /etc/group; chmod 600 /etc/passwd; rm -r /data; mkdir /data;"
        " rmdir /home",
    )  # fmt: skip
    found = {(change.kind, change.path.decode()) for change in ran.container.changes()}
    assert found == {
        ("A", "new"), ("A", "dir"), ("A", "dir/a"), ("C", "etc"), ("D", "etc/group"), ("C", "etc/passwd"),
        ("C", "data"),
        ("D", "data/seed"), ("D", "home"),
    }  # fmt: skip


def test_read_only(store, runtime):
    ran = sh(
        store,
        runtime,
        "touch /x || touch /etc/x || touch /vol/x && echo written",
        read_only=True,
        volume=["/vol"],
        rm=True,
    )
    assert ran.out == "written\n"
    assert ran.err.count("Read-only file system") == 2


def test_a_directory_of_the_host(store, runtime, tmp_path):
    (tmp_path / "in").write_text("from the host\n")
    ran = sh(store, runtime, "cat /m/in; echo from inside >/m/out", volume=[f"{tmp_path}:/m"], rm=True)
    assert ran.out == "from the host\n"
    assert (tmp_path / "out").read_text() == "from inside\n"
    ran = sh(store, runtime, "touch /m/no", volume=[f"{tmp_path}:/m:ro"], rm=True)
    assert "Read-only" in ran.err
    assert not (tmp_path / "no").exists()


def test_a_source_that_is_not_there(store, runtime, tmp_path):
    with pytest.raises(NotFoundError, match="the host has no"):
        sh(store, runtime, "true", mount=[f"type=bind,source={tmp_path}/none,target=/m"], rm=True)
    sh(store, runtime, "touch /m/x", volume=[f"{tmp_path}/made:/m"], rm=True)
    assert (tmp_path / "made/x").exists()


def test_volumes_are_seeded_from_the_image(store, runtime):
    script = "stat -c '%a %u %g' /data; cat /data/seed; echo more >>/data/seed"
    assert sh(store, runtime, script, volume=["vol:/data"], rm=True).out == "750 1000 29\nseeded\n"
    assert sh(store, runtime, "cat /data/seed", volume=["vol:/data"], rm=True).out == "seeded\nmore\n"
    assert sh(store, runtime, "ls /data", volume=["bare:/data:nocopy"], rm=True).out == ""
    assert sh(store, runtime, "cat /data/seed", rm=True).out == "seeded\n"
    assert [volume.name for volume in store.containers.volumes.list()] == ["bare", "vol"]


def test_volumes_of_an_image(store, runtime, places):
    add_box(store, places[0], name="volumes", changes=("VOLUME /data /other/../else",))
    ran = sh(store, runtime, "touch /data/x /else/y", image="volumes")
    assert sorted(mount.option.target for mount in ran.container.mounts) == ["/data", "/else"]
    assert list(ran.container.changes()) == []
    names = [volume.name for volume in store.containers.volumes.list()]
    assert len(names) == 2
    with pytest.raises(InUseError, match="in use by container"):
        store.containers.volumes.remove(names[0])
    ran.container.remove()
    assert len(store.containers.volumes.list()) == 2
    assert len(store.containers.volumes.prune()) == 2
    sh(store, runtime, "true", image="volumes", rm=True)
    assert store.containers.volumes.list() == []
    store.remove_image("volumes")


@pytest.mark.parametrize(
    "change",
    [
        "VOLUME /proc/x",
        "VOLUME /proc",
        "VOLUME /../proc",
        "VOLUME /sys",
        "VOLUME /",
        "VOLUME /linked/x",
        "VOLUME /dev/x",
    ],
)
def test_volumes_that_an_image_must_not_have(store, places, change):
    add_box(store, places[0], tar.symlink("linked", "/proc"), name="hostile", changes=(change,))
    with pytest.raises(InvalidInputError):
        store.containers.create(options(image="hostile"))
    store.remove_image("hostile")


def test_a_volume_with_dots_is_below_the_root(store, runtime, places):
    add_box(store, places[0], name="dots", changes=("VOLUME /../../etc",))
    ran = sh(store, runtime, "cat /etc/passwd | head -1; ls /etc | grep -c shadow", image="dots", rm=True)
    assert ran.out == "root:x:0:0:root:/root:/bin/sh\n0\n"  # the image's, not the host's
    store.remove_image("dots")


@pytest.mark.parametrize("path", ["/proc/self/fd/7", "/proc/self/cwd", "/proc/1/root", "/etc/passwd"])
def test_a_working_directory_that_leads_outside(store, runtime, path):
    try:
        ran = sh(store, runtime, "pwd -P; ls -a", workdir=path, rm=True)
    except LayerfsError:
        return
    assert "busybox" not in ran.out or ran.out.startswith("/\n")
    assert not {"vmlinuz", "boot", "lost+found"} & set(ran.out.split())


def test_a_working_directory_is_made(store, runtime):
    assert sh(store, runtime, "pwd", workdir="/a/new/one", rm=True).out == "/a/new/one\n"


def test_capabilities(store, runtime):
    script = "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status | tr -d '\\t'"
    lines = dict(line.split(":") for line in sh(store, runtime, script, rm=True).out.splitlines())
    assert {int(lines[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {0xA80425FB}
    assert int(lines["CapInh"], 16) == int(lines["CapAmb"], 16) == 0
    assert lines["NoNewPrivs"].strip() == "1"
    lines = dict(
        line.split(":")
        for line in sh(store, runtime, script, cap_drop=["ALL"], cap_add=["chown"], rm=True).out.splitlines()
    )
    assert int(lines["CapBnd"], 16) == 1
    lines = dict(line.split(":") for line in sh(store, runtime, script, user="bob", rm=True).out.splitlines())
    assert int(lines["CapEff"], 16) == int(lines["CapInh"], 16) == int(lines["CapAmb"], 16) == 0


def test_no_descriptor_leaks(store, runtime):
    with open("/etc/passwd") as file:
        os.set_inheritable(file.fileno(), True)
        assert sh(store, runtime, "ls /proc/self/fd | wc -w", rm=True).out.strip() == "4"  # 0, 1, 2 and the directory


def test_labels_are_not_commands_for_runtimes(store, runtime, places):
    change = "LABEL run.oci.handler=krun io.containerd.x=binary:///bin/sh org.opencontainers.image.title=box run.x=1"
    add_box(store, places[0], name="labels", changes=(change,))
    assert sh(store, runtime, "echo fine", image="labels", rm=True).out == "fine\n"
    store.remove_image("labels")


def test_signals_are_handed_on(store, runtime):
    container = store.containers.create(
        options(
            "sh", "-c", "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.05; done", runtime=runtime
        )
    )
    read, write = os.pipe()

    def terminate() -> None:
        assert os.read(read, 6) == b"ready\n"
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=terminate)
    thread.start()
    assert container.run((0, write, write)) == 5
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == before
    assert os.read(read, 100) == b"got it\n"
    os.close(read)
    os.close(write)


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


KEEPER = """
import sys
from layerfs import Store
from layerfs.containers import create_options
with Store.open(sys.argv[1], sys.argv[2]) as store:
    flags = {"runtime": sys.argv[3], "name": "kept", "rm": sys.argv[4] == "rm"}
    store.containers.run(create_options("box", sys.argv[5:], flags), sig_proxy=False)
"""


def keeper(store, runtime, removal, *args):
    child = subprocess.Popen(
        [sys.executable, "-c", KEEPER, store.root, store.run_root, runtime, removal, *args],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def running() -> bool:
        assert child.poll() is None
        return [c.status for c in store.containers.list()] == ["running"]

    wait_for(running)
    return child


def test_a_running_container_is_not_removed_nor_started_again(store, runtime):
    child = keeper(store, runtime, "keep", "sleep", "60")
    container = store.containers.get("kept")
    with pytest.raises(InUseError, match="running"):
        container.remove()
    with pytest.raises(InUseError, match="running"):
        container.run()
    assert Path(f"/proc/{container.pid}/root/bin/busybox").exists()
    container.kill(signal.SIGKILL)
    assert child.wait(20) == 0
    assert (container.refresh().status, container.exit_code) == ("exited", 137)
    with pytest.raises(InUseError, match="not running"):
        container.kill()


def test_removal_by_force(store, runtime):
    child = keeper(store, runtime, "keep", "sleep", "60")
    container = store.containers.get("kept")
    pid = container.pid
    container.remove(force=True)
    child.wait(20)
    assert not Path(f"/proc/{pid}").exists() or "sleep" not in Path(f"/proc/{pid}/cmdline").read_text()
    assert store.containers.list() == []


@pytest.mark.parametrize("removal", ["rm", "keep"])
def test_the_next_command_notices_that_a_keeper_was_killed(store, runtime, removal):
    child = keeper(store, runtime, removal, "sh", "-c", "echo x >/x; sleep 60")
    container = store.containers.get("kept")
    pid = container.pid
    wait_for(lambda: Path(f"/proc/{pid}/root/x").exists())
    child.kill()
    child.wait()
    assert store.containers.get("kept").status == "running"  # the container goes on
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
    if removal == "rm":
        wait_for(lambda: store.containers.list() == [])
        with pytest.raises(NotFoundError):
            store.containers.get("kept")
    else:
        container = store.containers.get("kept")
        assert (container.status, container.exit_code) == ("exited", 255)
        assert "not known" in container.state.error
        assert [change.path for change in container.changes()] == [b"x"]
        assert container.run((0, 2, 2)) == 0 if runtime == "never" else True


def test_a_container_of_an_earlier_boot_does_not_run(store):
    container = store.containers.create(options("true", name="old"))
    row = store.database.container(container.id)
    process = {"pid": os.getpid(), "start_time": 1, "boot_id": "another"}
    store.database.set_container_state(container.id, {**row.state, "status": "running", "process": process})
    store.database.set_mounted(container.id, "", "another")
    found = store.containers.get("old")
    assert (found.status, found.exit_code) == ("exited", 255)
    assert found.run() == 0


def terminal(store_args, script, feed=b"", size=(24, 80)):
    """Run a container with a terminal, in a process that has one too; what the terminal showed, and the exit code."""
    import fcntl
    import struct
    import termios

    pid, master = pty.fork()
    if pid == 0:  # pragma: no cover
        code = 99
        try:
            with Store.open(*store_args[:2]) as store:
                chosen = options("sh", "-c", script, runtime=store_args[2], rm=True, tty=True, interactive=True)
                code = store.containers.run(chosen)[1]
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    shown = b""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            piece = os.read(master, 1000)
        except OSError:
            break
        if not piece:
            break
        shown += piece
        if feed and b"ready" in shown:
            os.write(master, feed)
            feed = b""
    os.close(master)
    return shown.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_terminal(store, places, runtime):
    script = "tty; stat -c %F /dev/console; echo ready; read x; stty size; echo got $x; exit 4"
    shown, code = terminal((*places, runtime), script, feed=b"typed\r", size=(33, 77))
    assert code == 4
    assert "/dev/pts/0" in shown or "/dev/console" in shown
    assert "character special file" in shown
    assert "got typed" in shown


def test_interrupt_at_a_terminal_reaches_the_command(store, places, runtime):
    shown, code = terminal(
        (*places, runtime), "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done", feed=b"\x03"
    )
    assert "caught" in shown
    assert code == 9


def test_a_terminal_without_one(store, runtime):
    with pytest.raises(InvalidInputError, match="terminal"):
        run(store, "true", runtime=runtime, tty=True, interactive=True, stdin=b"", rm=True)


def test_a_terminal_of_the_host_is_not_given_away(store, places):
    """Without -t the command gets pipes, even where layerfs has a terminal."""
    pid, master = pty.fork()
    if pid == 0:  # pragma: no cover
        code = 99
        try:
            with Store.open(*places) as inner:
                script = "test -t 0 || test -t 1 || test -t 2 && exit 1; read x; echo =$x="
                chosen = options("sh", "-c", script, runtime="builtin", rm=True, interactive=True)
                code = inner.containers.run(chosen)[1]
        finally:
            os._exit(code)
    os.write(master, b"line\n")
    shown = b""
    while True:
        try:
            piece = os.read(master, 1000)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(master)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b"=line=" in shown


@pytest.mark.parametrize("flag", [{"userns": "keep-id"}, {"security_opt": ["apparmor=x"]}])
def test_what_is_not_offered_is_refused(store, flag):
    with pytest.raises(UnsupportedError, match=next(iter(flag)).replace("_", "-")):
        store.containers.create(options("true", **flag))


def test_from_many_threads(store):
    codes = []

    def work(number: int) -> None:
        codes.append(run(store, "sh", "-c", f"exit {number}", runtime="builtin", rm=True).code)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == list(range(8))


def test_the_log_of_a_container_in_the_foreground(store, runtime):
    ran = sh(store, runtime, "echo one; sleep 0.1; echo two >&2; echo -n three")
    assert (ran.out, ran.err) == ("one\nthree", "two\n")
    entries = [(entry.stream, entry.text) for entry in ran.container.logs()]
    assert entries == [("stdout", b"one\n"), ("stderr", b"two\n"), ("stdout", b"three")]
    assert not (ran.container.directory / "status.json").exists()


def test_a_background_process_does_not_hold_the_output(store, runtime):
    began = time.monotonic()
    assert sh(store, runtime, "sleep 60 & echo done").out == "done\n"
    assert time.monotonic() - began < 10


def test_a_terminal_where_nobody_has_one(store, runtime, tmp_path):
    """As in a cron job: docker gives the container a terminal of its own, whatever ours are."""
    with open(os.devnull) as nothing, open(tmp_path / "out", "wb+") as out:
        stdio = (nothing.fileno(), out.fileno(), out.fileno())
        made = options(
            "sh", "-c", "test -t 0 && test -t 1 && echo out; echo err >&2; exit 3", runtime=runtime, tty=True, rm=True
        )
        code = store.containers.run(made, stdio)[1]
        out.seek(0)
        assert (code, out.read()) == (3, b"out\r\nerr\r\n")
