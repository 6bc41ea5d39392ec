"""What each option of an instruction and of a mount does: without it, one of these fails."""

import os
import socket
import threading
import time
from pathlib import Path

import pytest

from layerfs.build.ignore import read_patterns
from layerfs.build.parser import parse, parse_mount
from layerfs.build.secrets import forwarded, set_owner
from layerfs.errors import InvalidInputError

pytestmark = pytest.mark.root


class Agent:
    """Answers each message with itself."""

    def __init__(self, path):
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self.answer, args=(client,), daemon=True).start()

    @staticmethod
    def answer(client):
        with client:
            while data := client.recv(100):
                client.sendall(b"agent: " + data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()


def test_owner_and_mode_of_an_agent_s_socket(kit, tmp_path):
    """Whoever has the agent here, the command's user can talk to it."""
    path = tmp_path / "agent"
    with Agent(path):
        os.chmod(path, 0o600)
        kit.build(
            "FROM box\nRUN --mount=type=ssh stat -c '%a %u %g' $SSH_AUTH_SOCK > /plain\n"
            "RUN --mount=type=ssh,uid=1000,gid=29,mode=0640 stat -c '%a %u %g' $SSH_AUTH_SOCK > /own\n"
            "RUN --mount=type=ssh --mount=type=ssh,id=two test -S /run/buildkit/ssh_agent.0 "
            "-a -S /run/buildkit/ssh_agent.1\n"
            'RUN --mount=type=ssh,id=no test ! -e /run/buildkit/ssh_agent.0 -a -z "$SSH_AUTH_SOCK"\n',
            ssh={"default": None, "two": str(path)},
            environment={"SSH_AUTH_SOCK": str(path)},
        )
    assert kit.read("/plain") == "600 0 0\n"
    assert kit.read("/own") == "640 1000 29\n"
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_what_an_agent_says_comes_through(tmp_path):
    deep = tmp_path / ("x" * 200)
    deep.mkdir()
    fds = len(list(Path("/proc/self/fd").iterdir()))
    with Agent(tmp_path / "agent"), forwarded(str(tmp_path / "agent"), deep / "own"):
        set_owner(deep / "own", {"uid": "1000"}, "600")
        place = os.open(deep, os.O_PATH)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for number, client in enumerate(clients):
            client.connect(f"/proc/self/fd/{place}/own")
            client.sendall(b"%d" % number)
        assert [client.recv(100) for client in clients] == [b"agent: 0", b"agent: 1", b"agent: 2"]
        for client in clients:
            client.close()
        os.close(place)
    deadline = time.monotonic() + 10  # the threads of the connections see that they are closed
    while len(list(Path("/proc/self/fd").iterdir())) > fds and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(list(Path("/proc/self/fd").iterdir())) == fds


@pytest.mark.parametrize("directive", ["error=true", "skip=StageNameCasing;error=true"])
def test_warnings_that_are_to_be_errors(kit, directive):
    text = f"# check={directive}\nFROM box\nRUN echo seen\nCMD {{}}\n"
    with pytest.raises(InvalidInputError, match="makes errors of warnings: JSONArgsRecommended"):
        kit.build(text.format("x"))
    assert kit.progress.lines == []
    kit.build(text.format('["x"]'))
    kit.build(text.format("x"), build_args={"BUILDKIT_DOCKERFILE_CHECK": "error=false"})


# ---- what is refused before anything is done ----


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ARG =x", "is not of the form name or name=value"),
        ("ARG A'B=x", "is not of the form name or name=value"),
        ("RUN --mount=type=cache,target=/x,uid=bob true", "uid 'bob' is not a number"),
        ("RUN --mount=type=secret,id=x,gid=-1 true", "gid '-1' is not a number"),
        ("RUN --mount=type=secret,id=x,mode=rw true", "mode 'rw' is not octal"),
        ("RUN --mount=type=tmpfs,target=/x,size=1x true", "size '1x' is not a number of bytes"),
        ("RUN --mount=type=bind,target true", "'target' is not of the form name=value"),
        ("RUN --mount=type=cache,target=/x,ro=maybe true", "ro is true or false"),
    ],
)
def test_what_is_refused(line, reason):
    with pytest.raises(InvalidInputError, match=reason):
        parse(f"FROM a\n{line}\n".encode())


def test_options_of_a_mount_as_they_are_kept():
    lines = {
        "TYPE=cache,Target=/x,RO": ("cache", {"target": "/x", "ro": "true"}),
        "type=cache,target=/x,rw": ("cache", {"target": "/x", "ro": "false"}),
        "type=cache,target=/x,rw=false": ("cache", {"target": "/x", "ro": "true"}),
        "type=cache,target=/x,readwrite=0": ("cache", {"target": "/x", "ro": "true"}),
        "target=/x,ro": ("bind", {"target": "/x", "rw": "false"}),
        "target=/x,readonly=false": ("bind", {"target": "/x", "rw": "true"}),
        "src=a,dst=/x,readwrite": ("bind", {"source": "a", "target": "/x", "rw": "true"}),
        "destination=/x": ("bind", {"target": "/x"}),
    }
    for text, wanted in lines.items():
        mount = parse_mount(text)
        assert (mount.type, mount.options) == wanted, text


# ---- arguments, stages, triggers ----


def test_an_empty_default_is_one(kit):
    kit.build(
        "ARG A=outer\nARG B=outer\nFROM box\nARG A=\nARG B\nRUN echo [$A] [$B] > /o; env | grep -c '^A=$' >> /o\n"
    )
    assert kit.read("/o") == "[] [outer]\n1\n"


def test_a_given_argument_before_the_first_from(kit):
    kit.build("FROM box\nENV IS=other\n", tags=("other",))
    text = "ARG IMAGE=box\nARG VALUE=default\nFROM $IMAGE\nARG VALUE\nRUN echo $IS $VALUE > /o\n"
    kit.build(text)
    assert kit.read("/o") == "default\n"
    kit.build(text, build_args={"IMAGE": "other", "VALUE": "given"})
    assert kit.read("/o") == "other given\n"
    kit.build("ARG IMAGE\nFROM $IMAGE\n", build_args={"IMAGE": "other"})
    assert "IS=other" in kit.section()["Env"]


def test_a_target_in_other_letters(kit):
    kit.build("FROM box AS One\nENV A=1\nFROM box\nENV A=2\n", target="oNE")
    assert "A=1" in kit.section()["Env"]


def test_a_context_in_the_place_of_a_stage(kit, tmp_path):
    """The stage is then not needed at all."""
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra/f").write_text("context")
    text = (
        "FROM box AS part\nRUN exit 1\nFROM box\nCOPY --from=part /f /f\nRUN --mount=from=part,target=/m cp /m/f /g\n"
    )
    kit.build(text, contexts={"part": str(tmp_path / "extra")})
    assert (kit.read("/f"), kit.read("/g")) == ("context", "context")


def test_a_trigger_with_a_heredoc(kit):
    kit.build("FROM box\nONBUILD RUN <<E\necho one > /a\necho two >> /a\nE\nONBUILD COPY <<E /b\nthree\nE\n")
    kit.store.images.tag("made", "parent")
    kit.build("FROM parent\n")
    assert (kit.read("/a"), kit.read("/b")) == ("one\ntwo\n", "three\n")


def test_lines_of_an_ignore_file():
    assert read_patterns("#a\n!./b//c/\n ! d\n./e\n") == ["!b/c", "!d", "e"]


def test_variables_in_the_flags_of_copy(kit):
    text = "FROM box\nARG O=5:6\nARG E=y\nARG M=u=r\nCOPY --chown=$O --exclude=$E --chmod=$M d/* /n/\n"
    kit.build(text, {"d/x": "1", "d/y": "2"})
    entry = kit.stat("/n/x")
    assert (kit.paths("/n"), entry.uid, entry.gid, entry.mode & 0o700) == (["x"], 5, 6, 0o400)


def test_a_sticky_bit_by_letter(kit):
    kit.build("FROM scratch\nCOPY --chmod=u=rwx,+t a /a\nCOPY --chmod=1644 a /b\nCOPY --chmod=-t a /c\n", {"a": "1"})
    assert [kit.stat(f"/{name}").mode & 0o1000 for name in "abc"] == [0o1000, 0o1000, 0]


@pytest.mark.parametrize(
    ("owner", "reason"),
    [("bob", "no names in scratch"), ("4294967295", "out of range"), ("1:99999999999", "out of range")],
)
def test_owners_that_cannot_be(kit, owner, reason):
    with pytest.raises(InvalidInputError, match=f"--chown.*{reason}"):
        kit.build(f"FROM scratch\nCOPY --chown={owner} a /a\n", {"a": "1"})


def test_a_variable_that_nobody_sets_is_told_of(kit):
    kit.build("FROM scratch\nENV a=$NOPE\nONBUILD ENV b=$NEITHER\n", tags=("base",))
    assert any("NOPE" in text for text in kit.result.warnings)
    kit.build("FROM base\n")  # what only the base has is not in the file that a check reads
    assert any("NEITHER" in text for text in kit.result.warnings)
