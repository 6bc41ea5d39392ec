"""What each option of ``RUN --mount``, and of RUN itself, does."""

import os

import pytest

from layerfs.build import Secret
from layerfs.build.cachemounts import CacheMounts
from layerfs.errors import InUseError, InvalidInputError, LayerfsError

pytestmark = pytest.mark.root


def test_the_network_of_run_goes_before_the_option(kit):
    text = "FROM box\nRUN ls /sys/class/net | wc -l > /o\nRUN --network=host ls /sys/class/net | wc -l > /p\n"
    kit.build(text, network="none")
    assert kit.read("/o") == "1\n"
    assert int(kit.read("/p")) == len(os.listdir("/sys/class/net"))


def test_targets_below_the_working_directory(kit):
    kit.build(
        "FROM box\nWORKDIR /w\n"
        "RUN --mount=type=tmpfs,target=rel/t --mount=target=./c,source=a cat c > f; touch rel/t/x\n",
        {"a": "1"},
    )
    assert kit.read("/w/f") == "1"
    assert kit.paths("/w") == ["f"]
    for kind in ("tmpfs", "cache"):
        with pytest.raises(InvalidInputError, match="nothing can be mounted at /"):
            kit.build(f"FROM box\nRUN --mount=type={kind},target=/etc/.. true\n")


def test_what_is_written_into_a_bind_mount(kit):
    kit.write({"d/s/f": "1", "one": "2"})
    os.chmod(kit.context / "d", 0o750)
    os.chmod(kit.context / "one", 0o640)
    kit.build(
        "FROM box AS made\nRUN mkdir -m 710 /m && chown 5:6 /m\nFROM box\n"
        "RUN --mount=source=d,target=/d,rw --mount=source=one,target=/one,rw "
        "stat -c %a /d /one > /o; echo more >> /one; cat /one >> /o\n"
        "RUN --mount=from=made,source=/m,target=/m,rw stat -c '%a %u %g' /m > /p\n"
        "RUN --mount=source=d,target=/d touch /d/x || echo read-only > /q\n"
        "RUN --mount=source=d,target=/d,rw=false touch /d/x || echo read-only > /r\n"
        "RUN --mount=source=d,target=/d,ro=false touch /d/x && echo written > /s\n"
    )
    assert kit.read("/o").split() == ["750", "640", "2more"]
    assert kit.read("/p") == "710 5 6\n"
    assert [kit.read(path) for path in ("/q", "/r", "/s")] == ["read-only\n", "read-only\n", "written\n"]
    assert (kit.context / "one").read_text() == "2"


def test_a_pipe_cannot_be_bound(kit):
    os.mkfifo(kit.context / "pipe")
    with pytest.raises(InvalidInputError, match="pipe is neither a directory nor a file"):
        kit.build("FROM box\nRUN --mount=source=pipe,target=/p true\n")


def test_a_bind_mount_over_a_file_of_ours(kit):
    kit.build("FROM box\nRUN --mount=source=a,target=/etc/hosts cat /etc/hosts > /o\n", {"a": "mine\n"})
    assert kit.read("/o") == "mine\n"


# ---- caches ----


def test_owner_and_mode_of_a_cache(kit):
    line = "RUN --mount=type=cache,target=/{0},{1}id={0} stat -c '%a %u %g' /{0} > /{0}.o\n"
    kit.build("FROM box\n" + line.format("a", "") + line.format("b", "mode=1770,uid=5,gid=6,"))
    assert (kit.read("/a.o"), kit.read("/b.o")) == ("755 0 0\n", "1770 5 6\n")


def test_a_cache_is_known_by_its_target_without_an_id(kit):
    kit.build("FROM box\nRUN --mount=type=cache,target=/c echo 1 > /c/f\n")
    kit.build("FROM box\nRUN --mount=type=cache,target=/d,id=/c cat /d/f > /o; test ! -e /d/none\n")
    assert kit.read("/o") == "1\n"


def test_a_namespace_of_caches(kit):
    text = "FROM box\nRUN --mount=type=cache,target=/c echo $(ls /c) > /o; touch /c/{}\n"
    for name, seen in (("one", ""), ("two", ""), ("one", "a")):
        kit.build(text.format("a"), build_args={"BUILDKIT_CACHE_MOUNT_NS": name}, no_cache=True)
        assert kit.read("/o").strip() == seen
    kit.build(text.format("b"), no_cache=True)
    assert kit.read("/o").strip() == ""


def test_caches_that_begin_differently_are_different(kit):
    text = (
        "FROM box AS one\nRUN mkdir /r && echo {0} > /r/f\nFROM box\n"
        "RUN --mount=type=cache,target=/c,from=one,source=/r cat /c/f > /o\n"
    )
    for number in (1, 2):
        kit.build(text.format(number))
        assert kit.read("/o") == f"{number}\n"


def test_a_part_of_a_cache(kit):
    kit.build("FROM box\nRUN --mount=type=cache,target=/c,id=x,source=sub echo 1 > /c/f\n")
    kit.build("FROM box\nRUN --mount=type=cache,target=/c,id=x echo $(ls /c /c/sub) > /o\n")
    assert kit.read("/o") == "/c: sub /c/sub: f\n"
    for source in ("..", "sub/../../x"):
        with pytest.raises(InvalidInputError, match="leaves the cache"):
            kit.build(f"FROM box\nRUN --mount=type=cache,target=/c,id=x,source={source} true\n")


@pytest.mark.parametrize(("sharing", "together"), [(",sharing=shared", True), ("", True), (",sharing=locked", False)])
def test_two_commands_at_one_cache(kit, sharing, together):
    """Each waits a while for the other to be there: those that share a cache meet."""
    line = (
        f"RUN --mount=type=cache,target=/c,id=x{sharing} touch /c/{{0}}; for i in $(seq 20); do "
        "[ -e /c/{1} ] && echo met > /o && break; sleep 0.1; done; sleep 0.5; rm /c/{0}\n"
    )
    text = "FROM box AS one\n{}FROM box AS two\n{}FROM box\nCOPY --from=one / /one\nCOPY --from=two / /two\n"
    kit.build(text.format(line.format("a", "b"), line.format("b", "a")), jobs=3)
    assert ("o" in kit.paths("/one") and "o" in kit.paths("/two")) is together


def test_a_cache_in_use_stays(kit):
    parts = kit.store.build_cache()._parts
    mounts = CacheMounts(parts.root, parts.database)
    with mounts.open("x", "shared", None, 0o755, 0, 0) as place:
        (entry,) = kit.store.build_cache().list()
        assert entry.in_use
        for dry_run in (True, False):
            assert not kit.store.build_cache().prune(all_entries=True, dry_run=dry_run).entries
        with pytest.raises(InUseError):
            mounts.remove(mounts.list()[0].key)
        assert place.is_dir()
    assert len(kit.store.build_cache().prune(dry_run=True).entries) == 1
    assert len(kit.store.build_cache().prune().entries) == 1
    assert not place.exists()


# ---- tmpfs ----


def test_a_tmpfs(kit):
    kit.build(
        "FROM box\nUSER bob\nRUN --mount=type=tmpfs,target=/t cp /bin/busybox /t/ && /t/busybox echo runs > /tmp/o && "
        "stat -c %a /t >> /tmp/o\n"
    )
    assert kit.read("/tmp/o") == "runs\n1777\n"


@pytest.mark.parametrize(
    ("size", "kilobytes"), [("8192", 8), ("64k", 64), ("2M", 2048), ("1gb", 1 << 20), ("1t", 1 << 30)]
)
def test_sizes_of_a_tmpfs(kit, size, kilobytes):
    kit.build(f"FROM box\nRUN --mount=type=tmpfs,target=/t,size={size} df -k /t | tail -1 > /o\n")
    assert int(kit.read("/o").split()[1]) == kilobytes


def test_a_size_that_cannot_be(kit):
    with pytest.raises(InvalidInputError, match="size=9999999999999g: too large"):
        kit.build("FROM box\nRUN --mount=type=tmpfs,target=/t,size=9999999999999g true\n")


# ---- secrets and agents ----


def test_a_secret_s_name_where_none_is_given(kit, tmp_path):
    (tmp_path / "tok").write_text("hush")
    kit.build(
        "FROM box\nRUN --mount=type=secret,target=/deep/tok cat /deep/tok > /a\n"
        "RUN --mount=type=secret,env=tok echo $tok > /b; test ! -e /run/secrets\n"
        "RUN --mount=type=secret,id=tok,env=V,target=/v echo $V $(cat /v) > /c\n"
        "RUN --mount=type=secret,id=tok stat -c '%a %u %g' /run/secrets/tok > /d; "
        "echo x > /run/secrets/tok || echo no >> /d\n"
        "RUN --mount=type=secret,id=tok,uid=5,gid=6,mode=0440 stat -c '%a %u %g' /run/secrets/tok > /e\n",
        secrets=(Secret("tok", source=str(tmp_path / "tok")),),
    )
    assert [kit.read(f"/{name}") for name in "abcde"] == ["hush", "hush\n", "hush hush\n", "400 0 0\nno\n", "440 5 6\n"]
    assert (tmp_path / "tok").read_text() == "hush"


@pytest.mark.parametrize("kind", ["secret", "ssh"])
@pytest.mark.parametrize("value", ["", "=true", "=1"])
def test_what_is_required(kit, kind, value):
    with pytest.raises(LayerfsError, match="required" if kind == "secret" else "no agent's socket"):
        kit.build(f"FROM box\nRUN --mount=type={kind},id=x,required{value} true\n")
    kit.build(f"FROM box\nRUN --mount=type={kind},id=x,required=false true\n")


# ---- the command ----


def test_a_privileged_command(kit):
    text = "FROM box\nRUN {}sh -c 'mount -t tmpfs x /tmp && echo 1 > /o || echo 0 > /o'\n"
    kit.build(text.format("--security=insecure "), allow=("security.insecure",))
    assert kit.read("/o") == "1\n"
    kit.build(text.format("--security=sandbox "), allow=("security.insecure",))
    assert kit.read("/o") == "0\n"


def test_lines_that_write_over_themselves(kit):
    kit.build("FROM box\nRUN printf '10%%\\r50%%\\r100%%\\r\\nnext\\r\\n'\n")
    assert kit.progress.lines == ["100%", "next"]


def test_history_of_commands(kit):
    kit.build(
        "FROM box\nARG A=1\nRUN <<E\necho 1\nE\n"
        'RUN cat <<E\n2\nE\nRUN ["true", "x"]\nSHELL ["/bin/sh", "-ec"]\nRUN true\n'
    )
    told = [entry["created_by"] for entry in kit.config()["history"][-5:]]
    assert told == [
        "RUN |1 A=1 /bin/sh -c echo 1\n",
        "RUN |1 A=1 /bin/sh -c cat <<E\n2\nE",
        "RUN |1 A=1 true x",
        "SHELL [/bin/sh -ec]" if told[3].startswith("SHELL [/") else 'SHELL ["/bin/sh", "-ec"]',
        "RUN |1 A=1 /bin/sh -ec true",
    ]


def test_an_address_that_is_none(kit):
    with pytest.raises(InvalidInputError, match=r"1\.2\.3"):
        kit.build("FROM box\nRUN true\n", add_hosts=(("there", "1.2.3"),))
