"""What ADD does beyond COPY: URLs with checksums, Git repositories, archives unpacked by their content."""

import os
import stat
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from layerfs.blobs import BlobReader
from layerfs.build.context import is_remote, looks_like_tar
from layerfs.build.git import parse_git
from layerfs.build.instructions import Copy
from layerfs.build.pieces import Source
from layerfs.build.secrets import secret_value
from layerfs.build.session import Session
from layerfs.build.tree import Cursor
from layerfs.compression import open_reader
from layerfs.digest import Digest
from layerfs.errors import IntegrityError, InvalidInputError, system_errors
from layerfs.native import Status

__all__ = ["add_sources", "is_archive", "unpacked"]


def add_sources(
    session: Session, copy: Copy, word: str, checksum: str | None, *, needs_name: bool
) -> list[Source] | None:
    """The sources that a word of ADD means when it is no path; None for a path. ``needs_name``: the destination is a
    directory, so that the file must have a name of its own."""
    if not is_remote(word):
        if checksum is not None:
            raise InvalidInputError(f"--checksum is for URLs and repositories, and {word} is a path")
        return None
    source = parse_git(word)
    if source is not None:
        from layerfs.build.remote import git_tree

        tree = git_tree(session.keeper, source, keep_git_dir=copy.keep_git_dir, checksum=checksum or "")
        return [Source((), tree, (), Status.of(os.fstat(tree.fd)), spread=True)]
    from layerfs.build.remote import download

    directory = session.keeper.stack.enter_context(session.parts.ingest.directory("download"))
    wanted = Digest(checksum) if checksum else None
    found = download(word, directory, checksum=wanted, authorization=_authorization(session, word))
    if needs_name and not found.name:
        raise InvalidInputError(f"{word}: it has no name for a file in a directory", hint="name the file itself")
    with system_errors(f"keep {word}"):
        os.chmod(found.path, 0o600)
        if found.time is not None:
            os.utime(found.path, (found.time, found.time))
        else:
            os.utime(found.path, ns=(session.now, session.now))
    tree = session.keeper.directory(directory, "the download", remember=False)
    name = os.fsencode(found.path.name)
    plain = Source((os.fsencode(found.name),), tree, (name,), Status.of(os.stat(found.path)))
    if copy.unpack and not is_archive(plain):
        raise InvalidInputError(f"{word}: no archive, it cannot be unpacked")
    return [msgspec.structs.replace(plain, unpack=bool(copy.unpack))]


def _authorization(session: Session, url: str) -> str | None:
    """What the secrets HTTP_AUTH_HEADER_<host> and HTTP_AUTH_TOKEN_<host> say; it is not sent on to other hosts."""
    host = urlsplit(url).hostname or ""
    for name, form in (("HTTP_AUTH_HEADER", "{}"), ("HTTP_AUTH_TOKEN", "Bearer {}")):
        value = secret_value(session.options, session.environment, f"{name}_{host}")
        if value is not None:
            return form.format(value.decode("latin-1").strip())
    return None


def is_archive(source: Source) -> bool:
    """Whether a file is a tar, in any compression, by what it has in it."""
    if source.tree is None or source.status is None or not stat.S_ISREG(source.status.st_mode):
        return False
    with system_errors("read a source"), Cursor(source.tree.fd) as cursor:
        fd = cursor.open(source.names)
    with open(fd, "rb") as file:
        try:
            return looks_like_tar(_head(open_reader(file, "auto")))
        except IntegrityError:
            return False


def _head(reader: BlobReader) -> bytes:
    head = b""
    while len(head) < 512 and (piece := reader.read(512 - len(head))):
        head += piece
    return head


def unpacked(session: Session, sources: Sequence[Source]) -> list[Source]:
    """The sources with archives in the form of what is in them; owners are those of the archive."""
    found = []
    for source in sources:
        if source.unpack and source.tree is not None:
            with system_errors("read a source"), Cursor(source.tree.fd) as cursor:
                fd = cursor.open(source.names)
            with open(fd, "rb") as file:
                tree = session.keeper.archive(file, "the archive", owned=True)
            source = Source((), tree, (), Status.of(os.fstat(tree.fd)), spread=True, keep_owner=True)
        found.append(source)
    return found
