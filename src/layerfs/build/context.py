"""Where a build's files come from: a directory, a tar or a Dockerfile on a stream, a URL, a Git repository.

Whatever it is, it ends as a ``Tree``: a directory descriptor that is read without following links. An archive is
unpacked as a layer, by the core that unpacks all layers, and looked at through a mount; the context of a directory is
never copied.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from layerfs.blobs import PIECE, BlobReader
from layerfs.build.ignore import Matcher, read_patterns
from layerfs.build.memory import FileMemory
from layerfs.build.options import BuildOptions, BuildParts
from layerfs.build.tree import Tree
from layerfs.compression import detect, open_reader
from layerfs.digest import Digest
from layerfs.errors import InvalidInputError, NotFoundError, system_errors
from layerfs.leases import Lease
from layerfs.runtime import read_beneath
from layerfs.unpack import MAX_LAYER_BYTES, MAX_LAYER_ENTRIES, MAX_LAYER_METADATA, record_layer

__all__ = [
    "Context",
    "TreeKeeper",
    "context_of",
    "drop_layers",
    "ignore_of",
    "is_remote",
    "looks_like_tar",
    "open_context",
    "read_context",
]

_FILE_LIMIT = 16 << 20
_NAMES = ("Dockerfile", "dockerfile", "Containerfile")
"""Without ``-f``, the first that is there: as with docker, then as with buildah."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MAGIC_AT = 257
_REMOTE = re.compile(r"(?:https?|git|ssh)://|git@|github\.com/")


class Context(msgspec.Struct, frozen=True, eq=False):
    """The main context and the Dockerfile; ``name`` is the file's for messages."""

    tree: Tree
    dockerfile: bytes
    name: str


class TreeKeeper:
    """Opens trees and closes them with the build; layers made only to be looked at go again. For a ``with``."""

    def __init__(self, parts: BuildParts, lease: Lease) -> None:
        self.parts = parts
        self.lease = lease
        self.stack = ExitStack()
        self._memories: dict[int, FileMemory] = {}
        self._none = FileMemory(None)
        self.temporary: list[Digest] = []
        """Layers of archives, to be removed when the lease has ended."""

    def __enter__(self) -> "TreeKeeper":
        return self

    def __exit__(self, *_: object) -> None:
        for memory in self._memories.values():
            memory.save()
        self.stack.close()

    def directory(self, path: Path, what: str, ignore: Matcher | None = None, *, remember: bool = True) -> Tree:
        """The tree of a directory of the host."""
        with system_errors(f"open {what}"):
            fd = os.open(path, _DIRECTORY)
        self.stack.callback(os.close, fd)
        tree = Tree(fd, what, ignore)
        if remember:
            name = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()
            self._memories[fd] = FileMemory(self.parts.root / "cache" / "fingerprints" / f"{name}.db")
        return tree

    def layers(self, stack: list[Digest], what: str) -> Tree:
        """The tree of a stack of layers."""
        root = self.parts.snapshots.view(stack) if stack else self._empty()
        self.stack.callback(os.close, root)
        fd = os.open(".", _DIRECTORY, dir_fd=root)
        self.stack.callback(os.close, fd)
        tree = Tree(fd, what, owned=True)
        tree.stack = tuple(stack)
        return tree

    def _empty(self) -> int:
        return os.open(self.stack.enter_context(self.parts.ingest.directory("empty")), _DIRECTORY)

    def archive(self, reader: BlobReader, what: str, *, ignore: Matcher | None = None, owned: bool = False) -> Tree:
        """The tree of a tar, in any compression. IntegrityError when it is none."""
        layers = self.parts.layers
        with layers.writer(
            protect=self.lease.protect,
            max_bytes=MAX_LAYER_BYTES,
            max_entries=MAX_LAYER_ENTRIES,
            max_metadata=MAX_LAYER_METADATA,
        ) as writer:
            plain = open_reader(reader, "auto")
            while piece := plain.read(PIECE):
                writer.write(piece)
            layer = writer.commit()
        record_layer(self.parts.database, layer)
        self.temporary.append(layer.diff_id)
        tree = self.layers([layer.diff_id], what)
        tree.ignore = ignore or tree.ignore
        tree.owned = owned
        return tree

    def memory(self, tree: Tree) -> FileMemory:
        """Fingerprints of earlier builds."""
        return self._memories.get(tree.fd, self._none)


def drop_layers(parts: BuildParts, temporary: list[Digest]) -> None:
    """Layers that were made only to be looked at; the lease on them has ended."""
    if not temporary:
        return
    with parts.ingest.directory("trash") as trash, parts.database.transaction(durable=True):
        for diff_id in dict.fromkeys(temporary):
            if parts.database.take_layer(diff_id):
                parts.layers.retire(diff_id, trash)


def is_remote(text: str) -> bool:
    """Whether a context or source is a URL or a Git repository."""
    return _REMOTE.match(text) is not None


def looks_like_tar(head: bytes) -> bool:
    """Whether plain bytes begin as a tar does."""
    return head[_MAGIC_AT : _MAGIC_AT + 5] == b"ustar"


@contextmanager
def open_context(options: BuildOptions, keeper: TreeKeeper) -> Iterator[Context]:
    """The context and the Dockerfile. NotFoundError, InvalidInputError."""
    if options.context == "-":
        yield _from_stream(options, keeper)
    elif is_remote(options.context):
        from layerfs.build.remote import url_context  # few builds need it

        yield url_context(options, keeper)
    else:
        path = Path(options.context)
        if not path.is_dir():
            reason = "not a directory" if path.exists() else "not there"
            raise NotFoundError(f"build context {options.context}: {reason}")
        yield context_of(options, keeper.directory(path, "the build context"), path)


def context_of(options: BuildOptions, tree: Tree, path: Path | None) -> Context:
    """The context of a tree. With ``path``, ``-f`` is a path of the host; else it is one in the tree."""
    data, name, beside = _dockerfile(options, tree, path)
    tree.ignore = ignore_of(options.ignore_file, tree, beside)
    return Context(tree, data, name)


def _dockerfile(options: BuildOptions, tree: Tree, path: Path | None) -> tuple[bytes, str, bytes | None]:
    """The file's bytes, its name, and the ignore file that stands beside it."""
    if options.file == "-":
        return _read_stream(options.stdin, "Dockerfile"), "Dockerfile", None
    if options.file is None or path is None:
        for name in (options.file,) if options.file else _NAMES:
            data = read_beneath(tree.fd, os.fsencode(name), _FILE_LIMIT)
            if data is not None:
                return data, name, read_beneath(tree.fd, os.fsencode(f"{name}.dockerignore"), _FILE_LIMIT)
        raise NotFoundError(f"{options.file or _NAMES[0]}: not in the build context", hint="name another with -f")
    if is_remote(options.file):
        raise InvalidInputError(f"Dockerfile {options.file}: a URL is not taken here")
    if not os.path.isabs(options.file) and not os.path.exists(options.file):
        data = read_beneath(tree.fd, os.fsencode(options.file), _FILE_LIMIT)
        if data is not None:  # where buildah looks then
            return data, options.file, read_beneath(tree.fd, os.fsencode(f"{options.file}.dockerignore"), _FILE_LIMIT)
    with system_errors(f"read {options.file}"):
        with open(options.file, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) and not stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
                raise InvalidInputError(f"Dockerfile {options.file}: not a file")
            data = file.read(_FILE_LIMIT + 1)
        beside = None
        try:
            fd = os.open(f"{options.file}.dockerignore", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return data, options.file, None
        with open(fd, "rb") as file:
            beside = file.read(_FILE_LIMIT)
    return data, options.file, beside


def ignore_of(given: str | None, tree: Tree, beside: bytes | None) -> Matcher:
    """The ignore file that counts: the one given, the Dockerfile's own, .containerignore, .dockerignore."""
    name = given
    if name is not None:
        with system_errors(f"read {name}"):
            data: bytes | None = Path(name).read_bytes()
    elif beside is not None:
        name, data = "the Dockerfile's .dockerignore", beside
    else:
        for name in (".containerignore", ".dockerignore"):
            data = read_beneath(tree.fd, os.fsencode(name), _FILE_LIMIT)
            if data is not None:
                break
    if data is None:
        return Matcher(())
    try:
        return Matcher(read_patterns(data.decode("utf-8", "surrogateescape")))
    except InvalidInputError as exc:
        raise InvalidInputError(f"{name}: {exc}", file=name) from None


def _read_stream(stream: BinaryIO | None, what: str) -> bytes:
    if stream is None:
        raise InvalidInputError(f"{what}: there is no standard input")
    data = stream.read(_FILE_LIMIT + 1)
    if len(data) > _FILE_LIMIT:
        raise InvalidInputError(f"{what}: more than {_FILE_LIMIT} bytes")
    return data


class _Prefixed:
    """A reader whose beginning was read before."""

    def __init__(self, head: bytes, stream: BlobReader) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int = PIECE, /) -> bytes:
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        return self._stream.read(size)


def _from_stream(options: BuildOptions, keeper: TreeKeeper) -> Context:
    """A tar in any compression, or else a Dockerfile without a context."""
    if options.stdin is None:
        raise InvalidInputError("build context -: there is no standard input")
    if options.file == "-":
        raise InvalidInputError("the standard input cannot be the context and the Dockerfile at once")
    return read_context(options, keeper, options.stdin, "the context on the standard input")


def read_context(options: BuildOptions, keeper: TreeKeeper, stream: BlobReader, what: str) -> Context:
    """A context of bytes: a tar, or a Dockerfile alone."""
    head = b""
    while len(head) < 512 and (piece := stream.read(512 - len(head))):
        head += piece
    if detect(head) == "none" and not looks_like_tar(head):
        data = head + b"".join(iter(lambda: stream.read(PIECE), b""))
        if len(data) > _FILE_LIMIT:
            raise InvalidInputError(f"{what}: neither a tar nor a Dockerfile")
        empty = keeper.stack.enter_context(keeper.parts.ingest.directory("context"))
        return Context(keeper.directory(empty, "the empty context", remember=False), data, "Dockerfile")
    return context_of(options, keeper.archive(_Prefixed(head, stream), what), None)
