"""Secrets and agents of ssh for the commands of a build. Their values are in no layer, no key and no message."""

import hashlib
import os
import select
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from layerfs.build.options import BuildOptions
from layerfs.errors import BuildError, InvalidInputError, NotFoundError, UnsupportedError, system_errors
from layerfs.late import LateModule

if TYPE_CHECKING:
    import shutil
    import socket
    import subprocess
else:  # few builds have keys of ssh
    shutil, socket, subprocess = LateModule("shutil"), LateModule("socket"), LateModule("subprocess")

__all__ = ["agent_socket", "forwarded", "secret_value", "set_owner"]

_LIMIT = 1 << 20
_SECONDS = 10


def secret_value(options: BuildOptions, environment: Mapping[str, str], id: str) -> bytes | None:
    """The value of a secret; None for one that was not given. NotFoundError when what it names is not there."""
    for secret in options.secrets:
        if secret.id != id:
            continue
        if secret.env is not None or (secret.source is None and id in environment):
            value = environment.get(secret.env or id)
            if value is None:
                raise NotFoundError(f"secret {id}: the environment has no {secret.env}")
            return value.encode("utf-8", "surrogateescape")
        with system_errors(f"read secret {id}"), open(secret.source or id, "rb") as file:
            data = file.read(_LIMIT + 1)
        if len(data) > _LIMIT:
            raise InvalidInputError(f"secret {id}: more than {_LIMIT} bytes")
        return data
    return None


@contextmanager
def agent_socket(id: str, path: str, place: Path) -> Iterator[str]:
    """The socket of an agent: ``path`` itself, or that of an agent of our own that has the key in ``path``.

    ``place`` is a private directory. NotFoundError, and BuildError for a key that cannot be used.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        raise NotFoundError(f"ssh {id}: there is no {path}", hint=f"give --ssh {id}=SOCKET or a key") from None
    if stat.S_ISSOCK(mode):
        yield path
        return
    agent, add = shutil.which("ssh-agent"), shutil.which("ssh-add")
    if agent is None or add is None:
        raise UnsupportedError(f"ssh {id}: a key needs ssh-agent and ssh-add", hint="give an agent's socket")
    # A socket's path cannot be long, so it is named from within the directory. The agent ends with ``cat``, and that
    # when the other end of its input is closed, even by our death.
    name = f"agent-{hashlib.sha256(id.encode()).hexdigest()[:8]}"
    process = subprocess.Popen(
        [agent, "-a", name, "cat"],
        cwd=place,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    try:
        deadline = time.monotonic() + _SECONDS
        while not (place / name).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        done = subprocess.run(
            [add, "-q", "--", os.path.abspath(path)],
            cwd=place,
            env={"SSH_AUTH_SOCK": name, "PATH": os.environ.get("PATH", ""), "SSH_ASKPASS_REQUIRE": "never"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()
            raise BuildError(f"ssh {id}: the key {path} cannot be used: {said}", hint="give an agent's socket")
        yield str(place / name)
    finally:
        process.stdin.close()
        process.wait()
        with suppress(FileNotFoundError):
            (place / name).unlink()


def set_owner(file: int | Path, options: Mapping[str, str], mode: str) -> None:
    """Make a file what the ``uid``, ``gid`` and ``mode`` of its mount say; ``mode``: where that says none."""
    if os.geteuid() == 0:
        os.chown(file, int(options.get("uid", "0")), int(options.get("gid", "0")))
    os.chmod(file, int(options.get("mode", mode), 8))


@contextmanager
def forwarded(agent: str, own: Path) -> Iterator[None]:
    """A socket at ``own`` that speaks for an agent's: who may use it is ours to say, and the agent sees only us."""
    with ExitStack() as stack:
        with system_errors(f"make {own}"):
            # The path of a socket cannot be long, so both are named by descriptors.
            place, theirs = (os.open(path, os.O_PATH | os.O_CLOEXEC) for path in (own.parent, agent))
            stack.callback(os.close, place)
            stack.callback(os.close, theirs)
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(f"/proc/self/fd/{place}/{own.name}")
            server.listen()
        thread = threading.Thread(target=_accept, args=(server, f"/proc/self/fd/{theirs}"), name="layerfs-build-ssh")
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown, socket.SHUT_RDWR)  # which wakes the thread
        yield


def _accept(server: "socket.socket", agent: str) -> None:
    with suppress(OSError):
        while True:
            client, _ = server.accept()
            other = socket.socket(socket.AF_UNIX)
            other.settimeout(_SECONDS)
            try:
                other.connect(agent)
                other.settimeout(None)
                threading.Thread(target=_forward, args=(client, other), daemon=True).start()
            except OSError:  # as an agent that has gone
                client.close()
                other.close()


def _forward(client: "socket.socket", other: "socket.socket") -> None:
    """What one says to the other, until either ends."""
    with suppress(OSError), client, other:
        poll, ends = select.poll(), {client.fileno(): (client, other), other.fileno(): (other, client)}
        for fd in ends:
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                source, target = ends[fd]
                data = source.recv(1 << 16)
                if not data:
                    return
                target.sendall(data)
