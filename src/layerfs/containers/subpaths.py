"""A path within a volume or an image as a mount: resolved beneath its root at each start, whatever links lie there."""

import errno
import os
from contextlib import ExitStack

from layerfs import native
from layerfs.containers.record import MountUse
from layerfs.errors import NativeError, NotFoundError, UnsupportedError, system_errors
from layerfs.runtime import MountSpec, open_beneath

__all__ = ["opened_subpath", "subpath_is_dir", "subpath_mount"]


def opened_subpath(root: int, use: MountUse) -> int:
    """An O_PATH descriptor of the path within a volume or image that a mount names; NotFoundError."""
    option = use.option
    what = f"mount {option.target}: {option.subpath} in {option.type} {use.volume or option.source}"
    with system_errors(what):
        try:
            return open_beneath(root, b"/" + os.fsencode(option.subpath or ""))
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(f"{what}: it is not there") from None


def subpath_is_dir(root: int, use: MountUse) -> bool:
    """Whether it is a directory; NotFoundError when it is not there."""
    fd = opened_subpath(root, use)
    try:
        return os.path.isdir(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def subpath_mount(root: int, use: MountUse, stack: ExitStack) -> MountSpec:
    """The mount of what is there now; ``stack`` closes it."""
    option = use.option
    place = opened_subpath(root, use)
    try:
        fd = native.bind_mount(place, "", recursive=False)
        stack.callback(os.close, fd)
        is_dir = os.path.isdir(f"/proc/self/fd/{place}")
    except NativeError as exc:
        if exc.errno == errno.EINVAL and not use.volume:
            raise UnsupportedError(f"mount {option.target}: a path within an image needs Linux 6.15") from exc
        raise
    finally:
        os.close(place)
    readonly = option.readonly or not use.volume
    return MountSpec(type="bind", target=option.target, source=fd, is_dir=is_dir, readonly=readonly, recursive=False)
