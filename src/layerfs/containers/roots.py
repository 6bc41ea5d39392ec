"""The root of a container for its start: its snapshot mounted, or without privilege what the launcher mounts itself."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from layerfs.containers.parts import Parts, is_rootless
from layerfs.containers.record import Config, MountUse
from layerfs.containers.starting import run_spec
from layerfs.digest import Digest
from layerfs.errors import LayerfsError, UnsupportedError, system_errors
from layerfs.runtime import AccountReader, MountSpec, OverlaySpec, Place, RunSpec, User, read_beneath

if TYPE_CHECKING:
    from layerfs.userns import Maps

__all__ = ["Root", "claimed_root", "spec_for", "within"]

_LIMIT = 1 << 20


class Root(msgspec.Struct, frozen=True):
    """``fd`` is the mounted tree, or -1 where ``overlay`` says what it is; ``accounts`` is for ``resolve_user``;
    ``images`` are mounts of images, by their place; ``enter`` is as in ``RunSpec``, and ``mounts`` come with it."""

    fd: int
    overlay: OverlaySpec | None
    accounts: int | AccountReader
    images: dict[str, MountSpec] = {}
    enter: tuple[tuple[str, int], ...] = ()
    mounts: tuple[MountSpec, ...] = ()


@contextmanager
def claimed_root(parts: Parts, config: Config, *, volatile: bool) -> Iterator[Root]:
    """The root for a start. The claim on the snapshot is not given back here: ``snapshots.release``."""
    if not is_rootless():
        with ExitStack() as stack:
            fd = parts.snapshots.mount(config.id, volatile=volatile, id_map=config.id_map)
            stack.callback(os.close, fd)
            options = config.options
            if any(":" in kind for kind in (options.network, options.pid, options.ipc, options.uts)):
                from layerfs.containers.joining import joined  # few containers join others

                others = joined(parts, config, stack)
                yield Root(fd, None, fd, _images(parts, config, stack), others.enter, others.mounts)
            else:
                yield Root(fd, None, fd, _images(parts, config, stack))
        return
    place = parts.snapshots.claim(config.id, volatile=volatile)
    overlay = OverlaySpec(
        tuple(map(str, place.lowers)),
        str(place.upper),
        str(place.work),
        ("userxattr", "volatile") if volatile else ("userxattr",),
    )
    yield Root(-1, overlay, _accounts(parts, config))


def _images(parts: Parts, config: Config, stack: ExitStack) -> dict[str, MountSpec]:
    found = {}
    for use in config.mounts:
        target = use.option.target
        if use.option.subpath:
            found[target] = _subpath(parts, use, stack)
        elif use.layers:
            fd = parts.snapshots.view([Digest(text) for text in use.layers])
            stack.callback(os.close, fd)
            found[target] = MountSpec(type="bind", target=target, source=fd, readonly=True, recursive=False)
    return found


def _subpath(parts: Parts, use: MountUse, stack: ExitStack) -> MountSpec:
    from layerfs.containers.subpaths import subpath_mount  # few mounts have one

    if use.layers:
        root = parts.snapshots.view([Digest(text) for text in use.layers])
    else:
        with system_errors(f"open volume {use.volume}"):
            root = os.open(use.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return subpath_mount(root, use, stack)
    finally:
        os.close(root)


def spec_for(config: Config, root: Root, directory: Path) -> RunSpec:
    """What to run in the root; without privilege it has this user's numbers."""
    spec = run_spec(config, root.accounts, directory)
    mounts = [root.images.get(mount.target, mount) for mount in spec.mounts]
    targets = {mount.target for mount in mounts}
    mounts = [*(mount for mount in root.mounts if mount.target not in targets), *mounts]
    spec = msgspec.structs.replace(spec, mounts=tuple(mounts), enter=root.enter)
    if root.overlay is None:
        return spec
    from layerfs.userns import own_maps  # root needs none

    maps = own_maps()
    return msgspec.structs.replace(spec, overlay=root.overlay, user=within(spec.user, maps), maps=maps)


def within(user: User, maps: "Maps") -> User:
    """The user where only these numbers are mapped; UnsupportedError for one that is not among them."""
    if maps.alone and (user.uid or user.gid):
        raise UnsupportedError(
            f"user {user.uid}:{user.gid}: without privilege a container has root alone",
            hint="give this user ranges in /etc/subuid and /etc/subgid, run as root, or --user 0",
        )
    for kind, number, ranges in (("user", user.uid, maps.uids), ("group", user.gid, maps.gids)):
        if number >= sum(count for _, _, count in ranges):
            raise UnsupportedError(f"{kind} {number}: this user's ranges in /etc/subuid and /etc/subgid are too small")
    # Where there is one number alone, groups cannot be set at all.
    return msgspec.structs.replace(user, groups=() if maps.alone else user.groups)


def _accounts(parts: Parts, config: Config) -> AccountReader:
    """Files of the tree without a mount: of the upper, else of the layers."""

    def read(path: bytes) -> bytes | None:
        upper = os.open(parts.snapshots.upper(config.id), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with suppress(OSError), Place(upper, path, follow=False) as place:
                if place.fd is not None:
                    return read_beneath(upper, path, _LIMIT)
        finally:
            os.close(upper)
        data = b""
        with suppress(LayerfsError), parts.layers.view(config.diff_ids) as view:
            for piece in view.read(path):
                data += piece
                if len(data) > _LIMIT:
                    raise OSError(27, os.strerror(27))
            return data
        return None

    return read
