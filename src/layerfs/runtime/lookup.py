"""Whether a command is there, looked up before a program is started that would report it in words of its own."""

import errno
import os
import stat
from contextlib import suppress

from layerfs.runtime.beneath import open_beneath
from layerfs.runtime.spec import ExecSpec, RunSpec, command_failure

__all__ = ["check_command"]


def check_command(spec: RunSpec | ExecSpec, root: int) -> None:
    """Raise what ``command_failure`` makes when the tree ``root`` has no such command, or one that cannot run.

    Nothing is said where a mount of the container may bring it.
    """
    name = spec.args[0]
    if isinstance(spec, RunSpec) and any(mount.is_dir for mount in spec.mounts):
        return
    best = errno.ENOENT
    for path in _candidates(spec, name):
        found = _look(root, path)
        if found == 0:
            return
        best = found if found == errno.EACCES else best
    reason = "no such command in the container" if best == errno.ENOENT else os.strerror(best)
    raise command_failure(name, best, reason)


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
            mode = os.fstat(fd).st_mode
        finally:
            os.close(fd)
        return 0 if stat.S_ISREG(mode) and mode & 0o111 else errno.EACCES
    return errno.ENOENT
