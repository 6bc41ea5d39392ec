"""A tar stream into a tree, by a descriptor of its root: what ``cp`` writes.

Every name is resolved beneath the root, component by component (``runtime.beneath``), whatever links the archive or a
process inside plants meanwhile; what is made is made in a directory that is open, by its last name alone.
"""

import os
import posixpath
import stat
import tarfile
from contextlib import suppress
from typing import IO

from layerfs.errors import InvalidInputError
from layerfs.runtime import Place

__all__ = ["tar_in"]

_PIECE = 1 << 20
_ENTRIES = 20_000_000


def tar_in(
    stream: IO[bytes], root: int, directory: bytes, *, keep_owner: bool, owner: tuple[int, int], devices: bool = True
) -> None:
    """Unpack into ``directory`` inside ``root``.

    Owners are those of the archive with ``keep_owner``, else ``owner``. Without ``devices`` a device node in it is
    refused. InvalidInputError for an archive that is malformed or whose names lead outside, OSError from the system.
    """
    _Reader(root, directory, devices, keep_owner, owner).run(stream)


class _Reader:
    def __init__(self, root: int, directory: bytes, devices: bool, keep_owner: bool, owner: tuple[int, int]) -> None:
        self._root = root
        self._directory = directory
        self._devices = devices
        self._keep_owner = keep_owner
        self._owner = owner
        self._times: list[tuple[bytes, int, int]] = []

    def run(self, stream: IO[bytes]) -> None:
        try:
            with tarfile.open(fileobj=stream, mode="r|*", encoding="utf-8", errors="surrogateescape") as archive:
                for count, member in enumerate(archive):
                    if count > _ENTRIES:
                        raise InvalidInputError(f"archive: more than {_ENTRIES} entries")
                    self._take(archive, member)
                    archive.members.clear()  # type: ignore[attr-defined]  # else every entry is kept in memory
        except (tarfile.TarError, EOFError) as exc:
            raise InvalidInputError(f"archive: {exc}") from exc
        for path, mtime, mode in reversed(self._times):
            with suppress(OSError), Place(self._root, path, follow=False) as place:
                if place.fd is not None and stat.S_ISDIR(os.fstat(place.fd).st_mode):
                    os.chmod(f"/proc/self/fd/{place.fd}", mode)
                    os.utime(f"/proc/self/fd/{place.fd}", ns=(mtime, mtime))

    def _name(self, name: str) -> bytes:
        """Where an entry goes, as a path inside the root."""
        clean = posixpath.normpath(name.lstrip("/"))
        if clean == ".." or clean.startswith("../"):
            raise InvalidInputError(f"archive: the name {name!r} leads outside")
        return posixpath.join(self._directory, os.fsencode(clean))

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = self._name(member.name)
        with Place(self._root, path, follow=False) as place:
            if member.isdir():
                self._make_directory(place, member, path)
                return
            if place.name == b".":
                raise InvalidInputError(f"archive: {member.name!r} would replace the directory it goes into")
            if place.fd is not None:
                if stat.S_ISDIR(os.fstat(place.fd).st_mode):
                    raise InvalidInputError(f"copy {member.name}: cannot replace a directory by what is none")
                os.unlink(place.name, dir_fd=place.parent)
            self._make(archive, member, place)

    def _make_directory(self, place: Place, member: tarfile.TarInfo, path: bytes) -> None:
        there = place.fd is not None
        if place.fd is not None and not stat.S_ISDIR(os.fstat(place.fd).st_mode):
            if not stat.S_ISLNK(os.fstat(place.fd).st_mode):
                raise InvalidInputError(f"copy {member.name}: cannot replace a file by a directory")
            # A link to a directory stays, and what is in the archive's directory goes where it leads.
            with Place(self._root, path) as target:
                if target.fd is None or not stat.S_ISDIR(os.fstat(target.fd).st_mode):
                    raise InvalidInputError(f"copy {member.name}: it is a link to no directory")
            return
        if not there:
            os.mkdir(place.name, 0o700, dir_fd=place.parent)
            os.chown(place.name, *self._owner_of(member), dir_fd=place.parent, follow_symlinks=False)
            self._times.append((path, _mtime(member), member.mode & 0o7777))

    def _make(self, archive: tarfile.TarFile, member: tarfile.TarInfo, place: Place) -> None:
        if member.issym():
            os.symlink(os.fsencode(member.linkname), place.name, dir_fd=place.parent)
        elif member.islnk():
            self._make_link(member, place)
            return
        elif member.isfifo():
            os.mkfifo(place.name, 0o600, dir_fd=place.parent)
        elif member.isdev():
            if not self._devices:
                raise InvalidInputError(f"copy {member.name}: a device node of a container is not made on the host")
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(place.name, kind | 0o600, os.makedev(member.devmajor, member.devminor), dir_fd=place.parent)
        elif member.isreg():
            self._make_file(archive, member, place)
            return
        else:
            raise InvalidInputError(f"archive: {member.name!r} is of an unknown type")
        os.chown(place.name, *self._owner_of(member), dir_fd=place.parent, follow_symlinks=False)
        if not member.issym():
            # Just made, in a directory that is open; whoever swaps it gets the mode on what he put there inside.
            with Place(place.parent, place.name, follow=False) as made:
                if made.fd is not None and not stat.S_ISLNK(os.fstat(made.fd).st_mode):
                    os.chmod(f"/proc/self/fd/{made.fd}", member.mode & 0o7777)
        os.utime(place.name, ns=(_mtime(member),) * 2, dir_fd=place.parent, follow_symlinks=False)

    def _make_link(self, member: tarfile.TarInfo, place: Place) -> None:
        with Place(self._root, self._name(member.linkname), follow=False) as target:
            if target.fd is None or stat.S_ISDIR(os.fstat(target.fd).st_mode):
                raise InvalidInputError(f"archive: {member.name!r} links to {member.linkname!r}, which is not there")
            os.link(target.name, place.name, src_dir_fd=target.parent, dst_dir_fd=place.parent, follow_symlinks=False)

    def _make_file(self, archive: tarfile.TarFile, member: tarfile.TarInfo, place: Place) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(place.name, flags, 0o600, dir_fd=place.parent)
        with open(fd, "wb", buffering=0) as file:
            content = archive.extractfile(member)
            assert content is not None  # for a regular file it never is
            while piece := content.read(_PIECE):
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
            os.fchown(fd, *self._owner_of(member))
            for key, value in member.pax_headers.items():
                name = key.removeprefix("SCHILY.xattr.")
                if name != key and (name.startswith("user.") or name == "security.capability"):
                    with suppress(OSError):
                        os.setxattr(fd, name, value.encode("utf-8", "surrogateescape"))
            os.fchmod(fd, member.mode & 0o7777)
            os.utime(fd, ns=(_mtime(member),) * 2)

    def _owner_of(self, member: tarfile.TarInfo) -> tuple[int, int]:
        return (member.uid, member.gid) if self._keep_owner else self._owner


def _mtime(member: tarfile.TarInfo) -> int:
    text = member.pax_headers.get("mtime")
    if text:
        seconds, _, fraction = text.partition(".")
        with suppress(ValueError):
            return int(seconds) * 10**9 + int(f"{fraction:0<9}"[:9])
    return int(member.mtime) * 10**9
