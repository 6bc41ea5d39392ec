"""Whether a command is there, looked up before a program is started that would report it in words of its own."""

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from layerfs.runtime.beneath import open_beneath
from layerfs.runtime.spec import ExecSpec, MountSpec, RunSpec, command_failure

__all__ = ["check_command", "check_directory"]

_NO_LINKS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def check_command(spec: RunSpec | ExecSpec, root: int) -> None:
    """Raise what ``command_failure`` makes when the tree ``root`` has no such command, or one that cannot run.

    Nothing is said where that cannot be known: behind a link, when directories are mounted in the tree.
    """
    name = spec.args[0]
    mounts = [mount for mount in spec.mounts if mount.is_dir] if isinstance(spec, RunSpec) else []
    best = errno.ENOENT
    for path in _candidates(spec, name):
        found = _look_mounted(root, mounts, path) if mounts else _look(root, path)
        if found in (0, None):
            return
        best = found if found == errno.EACCES else best
    reason = "no such command in the container" if best == errno.ENOENT else os.strerror(best)
    raise command_failure(name, best, reason)


def check_directory(spec: ExecSpec, root: int) -> None:
    """The same for the directory that a command starts in."""
    try:
        fd = open_beneath(root, os.fsencode(spec.cwd))
    except OSError as exc:
        reason = f"its working directory {spec.cwd}: {os.strerror(exc.errno or errno.ENOENT)}"
        raise command_failure(spec.args[0], errno.ENOENT, reason) from None
    os.close(fd)


def _candidates(spec: RunSpec | ExecSpec, name: str) -> list[str]:
    if not name:
        return []
    if "/" in name:
        return [os.path.join(spec.cwd, name)]
    path = next((word[5:] for word in reversed(spec.env) if word.startswith("PATH=")), "")
    return [os.path.join(spec.cwd, directory, name) for directory in path.split(":")]


def _look(root: int, path: str) -> int:
    """0 for something that may be executed, else the errno of trying it."""
    with suppress(OSError):
        fd = open_beneath(root, os.fsencode(path))
        try:
            return _judge(os.fstat(fd).st_mode)
        finally:
            os.close(fd)
    return errno.ENOENT


def _judge(mode: int) -> int:
    return 0 if stat.S_ISREG(mode) and mode & 0o111 else errno.EACCES


def _look_mounted(root: int, mounts: Sequence[MountSpec], path: str) -> int | None:
    """The same in a tree with directories mounted in it; None behind a link, which may lead anywhere."""
    path = os.path.normpath(path)
    within = [mount for mount in mounts if path.startswith(f"{mount.target.rstrip('/')}/")]
    mount = max(within, key=lambda mount: len(mount.target), default=None)
    if mount is None:
        return _look_plain(os.dup(root), path)
    if mount.type != "bind" or isinstance(mount.source, int):
        return None
    with suppress(OSError):
        return _look_plain(os.open(mount.source, os.O_PATH | os.O_CLOEXEC), path[len(mount.target.rstrip("/")) :])
    return None


def _look_plain(directory: int, path: str) -> int | None:
    """Beneath ``directory``, which is closed."""
    mode = stat.S_IFDIR
    try:
        for name in filter(None, path.split("/")):
            fd = os.open(name, _NO_LINKS, dir_fd=directory)
            os.close(directory)
            directory = fd
            mode = os.fstat(fd).st_mode
            if stat.S_ISLNK(mode):
                return None
        return _judge(mode)
    except OSError:
        return errno.ENOENT
    finally:
        os.close(directory)
