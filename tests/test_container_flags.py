import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.containers import CreateOptions, Device, MountOption, Restart, Ulimit, create_options
from layerfs.containers._values import clean_target, parse_duration, parse_size
from layerfs.containers.names import check_name, generate_name
from layerfs.errors import InvalidInputError, LayerfsError, UnsupportedError


def make(**flags: object) -> CreateOptions:
    return create_options("image", ["cmd"], flags)


def volume(text: str) -> MountOption:
    return make(volume=[text]).mounts[0]


def mount(text: str) -> MountOption:
    return make(mount=[text]).mounts[0]


def test_nothing_given_is_all_defaults():
    assert make() == CreateOptions(image="image", args=("cmd",))


def test_absent_flags_may_be_given_as_none():
    assert make(tty=False, name=None, env=[], memory=None) == make()


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("0", 0), ("512", 512), ("1k", 1024), ("64m", 64 << 20), ("1.5g", 3 << 29), ("2GiB", 2 << 30), ("1 kb", 1024)],
)
def test_sizes(text, bytes_):
    assert parse_size(text, "size") == bytes_


@pytest.mark.parametrize("text", ["", "m", "-1", "1x", "1e3", "1k2", "0x10"])
def test_what_is_no_size(text):
    with pytest.raises(InvalidInputError, match="not a size"):
        parse_size(text, "size")


@pytest.mark.parametrize(
    ("text", "ns"), [("0", 0), ("1s", 10**9), ("1m30s", 90 * 10**9), ("1.5ms", 1_500_000), ("1h", 3600 * 10**9)]
)
def test_durations(text, ns):
    assert parse_duration(text, "time") == ns


@pytest.mark.parametrize("text", ["", "1", "s", "1d", "-1s", "1s "])
def test_what_is_no_duration(text):
    with pytest.raises(InvalidInputError, match="not a duration"):
        parse_duration(text, "time")


def test_volume_forms():
    assert volume("/data") == MountOption(type="volume", target="/data")
    assert volume("name:/data") == MountOption(type="volume", source="name", target="/data")
    assert volume("name:/data:ro,nocopy") == MountOption(
        type="volume", source="name", target="/data", readonly=True, nocopy=True
    )
    bind = volume("/host/dir/:/data//x/:ro,rslave")
    assert bind == MountOption(
        type="bind", source="/host/dir", target="/data/x", readonly=True, propagation="rslave", create_source=True
    )


def test_a_relative_source_is_taken_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert volume("./a:/data").source == str(tmp_path / "a")


@pytest.mark.parametrize(
    "text",
    ["", ":", "a:", ":/b", "a:b", "name:/", "/h:/..", "/h:/proc", "/h:/proc/sys", "/h:/a/../proc/x",
     "/a:/b:c:d", "a b:/x",
     "/h:/b:what", "name:/b:rshared", "/h:/b:nocopy", "x:/b"],
)  # fmt: skip
def test_volumes_that_are_refused(text):
    with pytest.raises(InvalidInputError):
        volume(text)


def test_mount_forms():
    assert mount("type=bind,src=/a,dst=/b,readonly") == MountOption(
        type="bind", source="/a", target="/b", readonly=True
    )
    assert mount("source=vol,target=/b,volume-nocopy=true") == MountOption(
        type="volume", source="vol", target="/b", nocopy=True
    )
    assert mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770") == MountOption(
        type="tmpfs", target="/t", size=1 << 20, mode=0o1770
    )
    assert mount('type=bind,"src=/a,b",dst=/b').source == "/a,b"
    assert mount("type=bind,src=/a,dst=/b,ro=false,bind-recursive=disabled") == MountOption(
        type="bind", source="/a", target="/b", recursive=False
    )


@pytest.mark.parametrize(
    "text",
    ["type=bind,dst=/b", "type=bind,src=rel,dst=/b", "type=what,dst=/b", "src=/a", "type=tmpfs,src=/a,dst=/b",
     "dst=/b,x=y",
     "type=bind,src=/a,dst=/b,volume-nocopy", "type=tmpfs,dst=/b,tmpfs-mode=9", "dst=/b,ro=maybe",
     "type=bind,src=/a,dst=/b,bind-propagation=up", "type=bind,src=/a,dst=/b,bind-propagation=rslave:rw"],
)  # fmt: skip
def test_mounts_that_are_refused(text):
    with pytest.raises(InvalidInputError):
        mount(text)


def test_one_place_takes_one_mount():
    with pytest.raises(InvalidInputError, match="given twice"):
        make(volume=["vol:/x"], tmpfs=["/x/"])


def test_tmpfs_forms():
    assert make(tmpfs=["/t:size=64k,mode=700,exec,ro"]).mounts == (
        MountOption(type="tmpfs", target="/t", size=65536, mode=0o700, exec=True, readonly=True),
    )
    with pytest.raises(InvalidInputError, match="unknown option 'suid'"):
        make(tmpfs=["/t:suid"])


def test_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FROM_HERE", "x y")
    monkeypatch.delenv("NOT_SET", raising=False)
    file = tmp_path / "env"
    file.write_text("\ufeff# comment\n\n  A=1 # no comment\nFROM_HERE\n")
    made = make(env=["B=2=3", "NOT_SET", "C="], env_file=[str(file)])
    assert made.env == ("A=1 # no comment", "FROM_HERE=x y", "B=2=3", "NOT_SET", "C=")


@pytest.mark.parametrize("word", ["=x", "", "A\0=1", "A B"])
def test_environment_that_is_refused(word):
    with pytest.raises(InvalidInputError):
        make(env=[word])


def test_an_environment_file_has_a_limit(tmp_path):
    file = tmp_path / "env"
    file.write_bytes(b"A=" + b"x" * (1 << 20))
    with pytest.raises(InvalidInputError, match="more than"):
        make(env_file=[str(file)])
    with pytest.raises(LayerfsError, match="No such file"):
        make(env_file=[str(tmp_path / "none")])


def test_limits():
    made = make(ulimit=["nofile=100:200", "core=-1", "nproc=unlimited"], memory="64m", cpus="1.5", cpuset_cpus="0-1,3")
    assert made.ulimits == (Ulimit("nofile", 100, 200), Ulimit("core", -1, -1), Ulimit("nproc", -1, -1))
    assert (made.memory, made.cpus, made.cpuset_cpus) == (64 << 20, 1.5, "0-1,3")


@pytest.mark.parametrize(
    ("name", "value"),
    [("ulimit", ["nofile=2:1"]), ("ulimit", ["what=1"]), ("ulimit", ["nofile=x"]), ("memory", "1m"), ("cpus", "-1"),
     ("cpus", "many"), ("cpuset_cpus", "0-99999999"), ("cpuset_cpus", "2-1"), ("cpuset_cpus", "a"), ("pids_limit", "x"),
     ("restart", "sometimes"), ("restart", "always:3"), ("restart", "on-failure:x"), ("label", ["=x"]),
     ("add_host", ["x"]),
     ("device", ["null"]), ("device", ["/dev/nothing-there"]), ("sysctl", ["x"]), ("health_interval", "1us")],
)  # fmt: skip
def test_values_that_are_refused(name, value):
    with pytest.raises(InvalidInputError):
        make(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("publish", ["80:80"]), ("network", "bridge"), ("network", ["host", "none"]), ("gpus", "all"), ("pid",
     "ns:x"),
     ("userns", "what"), ("log_driver", "syslog"), ("log_opt", ["tag=x"]), ("volume_driver", "x")],
)  # fmt: skip
def test_what_is_not_offered_is_refused_by_name(name, value):
    with pytest.raises(UnsupportedError, match=name.replace("_", "-")):
        make(**{name: value})


def test_an_unknown_flag_is_refused():
    with pytest.raises(InvalidInputError, match="--no-such-flag"):
        make(no_such_flag="x")


def test_other_values():
    made = make(
        restart="on-failure:3", device=["/dev/null:/dev/x:r"], label=["a=b", "c"], add_host=["h:10.0.0.1", "v6=[::1]"],
        entrypoint="", health_cmd="true", health_interval="2s", log_opt=["max-size=1m"],
    )  # fmt: skip
    assert made.restart == Restart("on-failure", 3)
    assert made.devices == (Device("/dev/null", "/dev/x", "r"),)
    assert made.labels == {"a": "b", "c": ""}
    assert made.add_hosts == (("h", "10.0.0.1"), ("v6", "::1"))
    assert made.entrypoint == ()
    assert made.health is not None
    assert (made.health.test, made.health.interval) == (("CMD-SHELL", "true"), 2 * 10**9)
    assert made.log_options == {"max-size": str(1 << 20)}


@given(st.text(max_size=30))
def test_a_clean_target_is_below_the_root_and_not_proc(text):
    try:
        path = clean_target(text, "x")
    except InvalidInputError:
        return
    parts = path.split("/")
    assert parts[0] == ""
    assert parts[1] not in ("", "proc")
    assert not {"..", "."} & set(parts)


def test_names():
    assert check_name("/web-1") == "web-1"
    for name in ("", "a", "-x", "a b", "a/b", "ü1", "a" * 300, "a\n"):
        with pytest.raises(InvalidInputError):
            check_name(name)
    for attempt in range(50):
        assert check_name(generate_name(attempt))


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ([], (100 << 20, 10)),
        (["max-size=1m"], (1 << 20, 1)),
        (["max-size=1m", "max-file=3"], (1 << 20, 3)),
        (["max-file=2"], (100 << 20, 2)),
        (["max-size=-1"], (0, 1)),
    ],
)
def test_a_log_has_an_end_unless_told_otherwise(given, limits):
    assert make(log_opt=given).log_limits == limits


@pytest.mark.parametrize("wrong", ["max-file=0", "max-file=-1", "max-file=x", "max-size=x", "max-size=-2"])
def test_limits_of_logs_that_are_none(wrong):
    with pytest.raises(InvalidInputError, match="--log-opt"):
        make(log_opt=[wrong])
