"""The tree of a layer directory whose files have other owners than this user, or modes that keep him from them.

Owners are told as they are in the user namespace that the layer was made for. What only the root of that namespace may
read is asked of a child in it, which is there from the first such question until the tree is closed.
"""

import pickle
import queue
from collections.abc import Iterator
from itertools import count
from typing import Any, BinaryIO

import msgspec

from layerfs.layers.tree import Attributes, DirTree, Node
from layerfs.userns import Maps, Stream

__all__ = ["OwnTree"]

_SEEN_OTHERWISE = {b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"}
"""Attributes that have numbers of users in them, which the kernel tells as they are in the namespace of who asks."""


class OwnTree:
    """As ``DirTree``."""

    root: Node = DirTree.root

    def __init__(self, fd: int, maps: Maps) -> None:
        """``fd`` is the directory, and belongs to the tree from now on."""
        self._tree = DirTree(fd)
        self._maps = maps
        self._child: _Child | None = None
        self._numbers = count()

    def _asked(self, method: str, *words: Any) -> Any:
        if self._child is None:
            self._child = _Child(self._tree, self._maps)
        return self._child.ask(method, *words)

    def _tried(self, method: str, *words: Any) -> Any:
        try:
            return _call(self._tree, method, *words)
        except PermissionError:
            return self._asked(method, *words)

    def lookup(self, directory: Node, name: bytes) -> Node | None:
        """A name in a directory."""
        return self._tried("lookup", directory, name)

    def names(self, directory: Node) -> Iterator[tuple[bytes, Node, int]]:
        """What a directory has."""
        yield from self._tried("names", directory)

    def stat(self, node: Node) -> Attributes:
        """Attributes of a file, its owner as the tar of the layer has it."""
        try:
            found = self._tree.stat(node)
        except PermissionError:
            inside: Attributes = self._asked("stat", node)
            return inside
        uid, gid = self._maps.inside(found.uid, found.gid)
        return msgspec.structs.replace(found, uid=uid, gid=gid)

    def xattrs(self, node: Node) -> dict[bytes, bytes]:
        """Extended attributes."""
        found: dict[bytes, bytes] = self._tried("xattrs", node)
        return self._asked("xattrs", node) if _SEEN_OTHERWISE & found.keys() else found

    def readlink(self, node: Node) -> bytes:
        """The target of a symbolic link."""
        target: bytes = self._tried("readlink", node)
        return target

    def read(self, node: Node, size: int) -> Iterator[bytes]:
        """The content of a regular file."""
        try:
            yield from self._tree.read(node, size)  # may be refused at its beginning alone
        except PermissionError:
            number = next(self._numbers)
            while piece := self._asked("read", node, size, number):
                yield piece

    def close(self) -> None:
        """Close the descriptors, and end the child; again is allowed."""
        if self._child is not None:
            self._child.close()
            self._child = None
        self._tree.close()


def _call(tree: DirTree, method: str, *words: Any) -> Any:
    result = getattr(tree, method)(*words)
    return list(result) if method == "names" else result


class _Child:
    """A process that reads the tree as root of the namespace: one answer to each question."""

    def __init__(self, tree: DirTree, maps: Maps) -> None:
        self._questions: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        feed: Iterator[bytes] = iter(self._questions.get, None)
        self._answers = Stream(lambda questions: _answers(tree, questions), maps=maps, feed=feed)

    def ask(self, *question: Any) -> Any:
        data = pickle.dumps(question)
        self._questions.put(len(data).to_bytes(4, "little") + data)
        error, result = pickle.loads(self._answers.read())
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        self._questions.put(None)
        self._answers.close()


def _answers(tree: DirTree, questions: BinaryIO) -> Iterator[bytes]:
    readers: dict[int, Iterator[bytes]] = {}
    while head := questions.read(4):
        method, *words = pickle.loads(questions.read(int.from_bytes(head, "little")))
        error = result = None
        try:
            if method == "read":
                node, size, number = words
                result = next(readers.setdefault(number, tree.read(node, size)), b"")
            else:
                result = _call(tree, method, *words)
        except Exception as exc:
            error = exc
        yield pickle.dumps((error, result))
