"""The program of a runtime as a child of this process: on its own, with a terminal, or in a mount namespace."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

from layerfs import native
from layerfs.runtime.process import exit_code

if TYPE_CHECKING:
    import subprocess

__all__ = ["Launched", "WithTerminal", "spawned"]

_AT_FDCWD = -100


def spawned(words: list[str], stdio: tuple[int, int, int]) -> subprocess.Popen[bytes]:
    """In a session of its own: signals of ours are handed on just once."""
    import subprocess  # listing containers needs it not

    return subprocess.Popen(words, stdin=stdio[0], stdout=stdio[1], stderr=stdio[2], start_new_session=True)


class _Program:
    """The end of a program, which ``_reap`` finds."""

    _code: int | None

    def _reap(self, flags: int) -> int | None:
        raise NotImplementedError

    def poll(self) -> int | None:
        """The exit code, below 0 for a signal; None while it runs."""
        return self._code if self._code is not None else self._reap(os.WNOHANG)

    def wait(self) -> int:
        """Wait for its end; the exit code."""
        code = self._code if self._code is not None else self._reap(0)
        assert code is not None
        return code


class WithTerminal(_Program):
    """A program with a session and a terminal of its own, whose other end is ``terminal``."""

    def __init__(self, words: list[str]) -> None:
        self.terminal, theirs = os.openpty()
        try:
            # Who leads a session and opens a terminal has it as its controlling one; no code of ours runs in the child.
            self.pid = os.posix_spawn(
                words[0],
                words,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.ttyname(theirs), os.O_RDWR, 0),
                    (os.POSIX_SPAWN_DUP2, 0, 1),
                    (os.POSIX_SPAWN_DUP2, 0, 2),
                ],
                setsid=True,
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        except BaseException:
            os.close(self.terminal)
            raise
        finally:
            os.close(theirs)
        self._code: int | None = None

    def _reap(self, flags: int) -> int | None:
        pid, status = os.waitpid(self.pid, flags)
        if pid:
            self._code = os.waitstatus_to_exitcode(status)
        return self._code


class Launched(_Program):
    """A program on the host, but in a mount namespace of its own; ``terminal``: the master of its terminal, or None."""

    def __init__(self, words: list[str], fields: dict[str, Any], stdio: tuple[int, int, int], *, tty: bool) -> None:
        """``fields`` of a ``native.LaunchSpec``; OSError."""
        root = native.bind_mount(_AT_FDCWD, "/", recursive=True)
        try:
            spec = native.LaunchSpec(root=root, args=words, stdio=stdio, tty=tty, **fields)
            self.pid, self._pidfd, self.terminal = native.launch(spec)
        finally:
            os.close(root)
        self._code: int | None = None

    def _reap(self, flags: int) -> int | None:
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | flags)
        if result is not None:
            self._code = exit_code(result)
            os.close(self._pidfd)
        return self._code
