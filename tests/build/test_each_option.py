"""What each option of an instruction and of a mount does: without it, one of these fails."""

import os
import socket
import threading
import time
from pathlib import Path

import pytest

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
            "RUN --mount=type=ssh --mount=type=ssh,id=two,target=/s test -S /run/buildkit/ssh_agent.0 -a -S /s\n"
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
