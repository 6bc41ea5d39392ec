"""Mounts, which are descriptors until they are attached, and what works here."""

import os
from collections.abc import Mapping, Sequence

import msgspec

from layerfs._native import ffi, lib
from layerfs.errors import NativeError
from layerfs.native._core import check, encode, new_error

__all__ = [
    "Probe",
    "attach",
    "bind_mount",
    "detach",
    "enter_namespaces",
    "erofs_mount",
    "idmap_mount",
    "overlay_mount",
    "probe",
    "readahead",
    "userns_open",
    "write_back",
]


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What works here; ``reasons`` says of each feature that does not, why."""

    erofs: bool
    erofs_loop: bool
    overlay: bool
    overlay_fd: bool
    overlay_userxattr: bool
    namespaces: bool
    userns: bool
    reasons: Mapping[str, str]


def erofs_mount(fd: int, *, loop: bool = False) -> int:
    """Mount a layer file, detached: a descriptor to close."""
    error = new_error()
    return check(lib.lfs_erofs_mount(fd, lib.LFS_MOUNT_LOOP if loop else 0, error), error)


def overlay_mount(
    lowers: Sequence[int],
    upper: int = -1,
    work: int = -1,
    *,
    volatile: bool = False,
    userxattr: bool = False,
    readonly: bool = False,
    owner: tuple[int, int] | None = None,
) -> int:
    """Stack directories, TOP-MOST FIRST, under an upper (-1: none, read-only); a detached mount.

    ``owner``: with layers seen through ``idmap_mount``, the uid and gid outside of the maps' root.
    """
    error, spec = new_error(), ffi.new("lfs_overlay *")
    array = ffi.new("int[]", list(lowers))
    spec.lowers, spec.nlowers, spec.upper, spec.work = array, len(lowers), upper, work
    spec.flags = (
        (lib.LFS_OVERLAY_VOLATILE if volatile else 0)
        | (lib.LFS_OVERLAY_USERXATTR if userxattr else 0)
        | (lib.LFS_OVERLAY_READONLY if readonly else 0)
        | (lib.LFS_OVERLAY_OWNER if owner else 0)
    )
    spec.uid, spec.gid = owner or (0, 0)
    return check(lib.lfs_overlay_mount(spec, error), error)


def bind_mount(dirfd: int, path: str | bytes, *, recursive: bool = True, readonly: bool = False) -> int:
    """A detached bind mount of ``path`` below ``dirfd`` (AT_FDCWD: a path of the host)."""
    error = new_error()
    return check(lib.lfs_bind_mount(dirfd, encode(path), recursive, readonly, error), error)


def userns_open(uid_map: Sequence[tuple[int, int, int]], gid_map: Sequence[tuple[int, int, int]]) -> int:
    """A user namespace with these maps of (inside, outside, count): a descriptor to close."""
    error = new_error()
    uids, gids = ([number for triple in triples for number in triple] for triples in (uid_map, gid_map))
    return check(lib.lfs_userns_open(uids, len(uid_map), gids, len(gid_map), error), error)


def enter_namespaces(flags: int, pidfd: int = -1) -> None:
    """Move this process, which must have one thread, into new namespaces (CLONE_NEW*), or those of a process; in the
    user namespace of that one it becomes root."""
    error = new_error()
    check(lib.lfs_enter_namespaces(pidfd, flags, error), error)


def idmap_mount(mount: int, userns: int) -> int:
    """A detached copy of a mount, through which owners are seen by the maps of ``userns``."""
    error = new_error()
    return check(lib.lfs_mount_idmap(mount, userns, error), error)


def attach(mount: int, target: str | bytes | os.PathLike[str]) -> None:
    """Put a detached mount at a path."""
    error = new_error()
    check(lib.lfs_mount_attach(mount, os.fsencode(target), error), error)


def detach(target: str | bytes | os.PathLike[str], *, lazy: bool = False) -> None:
    """Unmount a path; EBUSY while it is in use, unless ``lazy``."""
    error = new_error()
    check(lib.lfs_mount_detach(os.fsencode(target), lazy, error), error)


def readahead(fd: int, offset: int, length: int) -> None:
    """Bring a range of a file into the page cache, all of it."""
    error = new_error()
    check(lib.lfs_readahead(fd, offset, length, error), error)


def write_back(fd: int, offset: int, length: int) -> None:
    """Have the kernel begin to write what is dirty of a file to the disk; a later sync then waits for less."""
    error = new_error()
    check(lib.lfs_write_back(fd, offset, length, error), error)


def probe(dirfd: int) -> Probe:
    """Try every feature, with files and directories made in ``dirfd`` and removed again."""
    error, works, reasons = new_error(), {}, {}
    for name in Probe.__struct_fields__[:-1]:
        feature = getattr(lib, f"LFS_PROBE_{name.upper()}")
        try:
            check(lib.lfs_probe(dirfd, feature, error), error)
        except NativeError as exc:
            reasons[name] = str(exc)
        works[name] = name not in reasons
    return Probe(**works, reasons=reasons)
