"""Work as root of a user namespace: files of containers that have other owners than this user.

A container of an ordinary user has a user namespace; what its processes make belongs to numbers that only its root may
read, change and remove.  So what has to be done to such files is done by a child of this process in a namespace with
the same numbers, and what comes of it is sent back.
"""

import errno
import os
import struct
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from layerfs.errors import LayerfsError, NativeError, UnsupportedError, native_error, system_errors
from layerfs.fsutil import disk_usage, remove_tree
from layerfs.native import enter_namespaces

__all__ = ["IdRange", "Maps", "Stream", "in_userns", "is_within", "own_maps", "owned", "remove_owned", "usage_owned"]

_NEW_MOUNT, _NEW_USER = 0x0002_0000, 0x1000_0000
_HEAD = struct.Struct("=cI")
_NOBODY = 65534
_HINT = "see sysctl user.max_user_namespaces and kernel.unprivileged_userns_clone, /etc/subuid and /etc/subgid"
_READY, _DATA, _RESULT, _ERROR = b"S", b"D", b"R", b"E"

IdRange = tuple[int, int, int]
"""(inside, outside, count)."""

T = TypeVar("T")
_Explain = Callable[[BaseException], list[str]]


class Maps(msgspec.Struct, frozen=True):
    """The numbers that a user namespace has."""

    uids: tuple[IdRange, ...]
    gids: tuple[IdRange, ...]

    @property
    def alone(self) -> bool:
        """Whether there is root and nobody else."""
        return sum(count for _, _, count in self.uids) == 1

    def has(self, other: "Maps") -> bool:
        """Whether what ``other`` maps is mapped to the same here."""
        return self.uids[: len(other.uids)] == other.uids and self.gids[: len(other.gids)] == other.gids

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """What an owner outside is called inside; the kernel's "nobody" for one that there is not."""
        return _inside(self.uids, uid), _inside(self.gids, gid)


def _inside(ranges: tuple[IdRange, ...], number: int) -> int:
    return next((a + number - b for a, b, count in ranges if b <= number < b + count), _NOBODY)


_within: Maps | None = None
"""The numbers there are, where this process is a child that works as root of a user namespace."""


def is_within() -> bool:
    """Whether this process is such a child."""
    return _within is not None


def own_maps() -> Maps:
    """Those of this user: his own number as root, and his ranges in /etc/subuid and /etc/subgid where he has such."""
    if _within is not None:
        return _within
    import shutil  # a command of root's needs it not

    uid, gid = os.geteuid(), os.getegid()
    uids, gids = (_subordinate(name) for name in ("subuid", "subgid"))
    if not uids or not gids or shutil.which("newuidmap") is None or shutil.which("newgidmap") is None:
        uids = gids = []
    return Maps(_ranges(uid, uids), _ranges(gid, gids))


def _ranges(own: int, more: list[tuple[int, int]]) -> tuple[IdRange, ...]:
    found, inside = [(0, own, 1)], 1
    for outside, count in more:
        found.append((inside, outside, count))
        inside += count
    return tuple(found)


def _subordinate(name: str) -> list[tuple[int, int]]:
    """(first, count) of each range of this user; see subuid(5)."""
    import pwd  # as above

    uid = os.geteuid()
    owners = {str(uid)}
    with suppress(KeyError):
        owners.add(pwd.getpwuid(uid).pw_name)
    found = []
    with suppress(OSError):
        for line in Path("/etc", name).read_text(errors="surrogateescape").splitlines():
            words = line.split(":")
            if len(words) == 3 and words[0] in owners and words[1].isdecimal() and words[2].isdecimal():
                found.append((int(words[1]), int(words[2])))
    return found


# ---- the child ----


class Stream:
    """Bytes that a generator in the namespace yields, in pieces; ``result`` is what it returned, at the end.

    Close it, or use it in a ``with``: a child that is not read to the end is ended.
    """

    def __init__(
        self,
        work: Callable[..., Any],
        *,
        maps: Maps | None = None,
        process: int | None = None,
        feed: Iterable[bytes] | None = None,
        bound: bool = False,
    ) -> None:
        """``work`` makes the generator, in namespaces of ``maps`` (None: this user's own), or in the user namespace of
        the process that the pidfd ``process`` names. It is given a file with the bytes of ``feed``, where there are
        any. ``bound``: it ends at once with ``close``, and with this process, however that ends."""
        # A command of root's needs them not. Before the fork: the root of a namespace may not read our modules.
        import pickle
        import traceback

        maps = maps or own_maps()
        self._loads = pickle.loads
        self.result: Any = None
        self._feeder: threading.Thread | None = None
        with system_errors("work in a user namespace"):
            self._input = os.pipe2(os.O_CLOEXEC) if feed is not None else (-1, -1)
            self._output, theirs = os.pipe2(os.O_CLOEXEC)
            go, ours = os.pipe2(os.O_CLOEXEC)
            with warnings.catch_warnings():
                # The child calls nothing that another thread of ours may have been in the middle of.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._pid = os.fork()
        if self._pid == 0:
            child = _Child(theirs, go, bound, pickle.dumps, traceback.format_exception)
            child.run(work, (self._output, ours, self._input[1]), self._input[0], process, maps)
        os.close(theirs)
        os.close(go)
        self._close(0)
        try:
            self._begin(maps, ours, joined=process is not None)
        except BaseException:
            os.close(ours)
            self._close(1)
            self.close()
            raise
        if bound:
            self._bond = ours
        else:
            os.close(ours)
        if feed is not None:
            self._feeder = threading.Thread(target=self._feed, args=(feed,), name="layerfs-feed", daemon=True)
            self._feeder.start()

    def _begin(self, maps: Maps, go: int, *, joined: bool) -> None:
        kind, data = self._frame()
        if kind != _READY:
            error = self._error(data)
            if joined or not isinstance(error, NativeError):
                raise error
            why = "no more are allowed" if error.errno == errno.ENOSPC else str(error)
            raise UnsupportedError(f"make a user namespace: {why}", hint=_HINT)
        if not joined:
            _write_map(self._pid, maps.gids, groups=True)
            _write_map(self._pid, maps.uids, groups=False)
        with system_errors("work in a user namespace"):
            os.write(go, b"+")

    def _close(self, end: int) -> None:
        if self._input[end] >= 0:
            os.close(self._input[end])
            self._input = (-1, self._input[1]) if end == 0 else (self._input[0], -1)

    def _feed(self, feed: Iterable[bytes]) -> None:
        try:
            with open(self._input[1], "wb", buffering=0) as file, suppress(BrokenPipeError):
                for piece in feed:
                    view = memoryview(piece)
                    while view:
                        view = view[file.write(view) :]
        except BaseException as exc:  # told by whoever reads the result
            self._feed_error = exc

    _feed_error: BaseException | None = None
    _bond = -1

    def _frame(self) -> tuple[bytes, bytes]:
        kind, size = _HEAD.unpack(self._read(_HEAD.size))
        return kind, self._read(size)

    def _error(self, data: bytes) -> BaseException:
        kind, words, hint = self._loads(data)
        error: BaseException = kind(*words, hint=hint) if issubclass(kind, LayerfsError) else kind(*words)
        return error

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = os.read(self._output, size - len(data))
            if not piece:
                raise LayerfsError("work in a user namespace: the process that did it was killed")
            data += piece
        return bytes(data)

    def read(self) -> bytes:
        """The next piece; nothing at the end. Raises what was raised in the namespace."""
        if self._output < 0:
            return b""
        kind, data = self._frame()
        if kind == _DATA:
            return data
        self.close()
        if self._feed_error is not None:
            raise self._feed_error
        if kind == _ERROR:
            raise self._error(data)
        self.result = self._loads(data)
        return b""

    def __iter__(self) -> Iterator[bytes]:
        try:
            while piece := self.read():
                yield piece
        finally:
            self.close()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child, where it has not ended; again is allowed."""
        if self._output < 0:
            return
        os.close(self._output)
        self._output = -1
        if self._bond >= 0:
            os.close(self._bond)
        if self._feeder is not None:
            self._feeder.join()
        # It ends at its next write, and before it holds nothing that others wait for.
        os.waitpid(self._pid, 0)


def in_userns(
    work: Callable[..., T],
    *,
    maps: Maps | None = None,
    process: int | None = None,
    feed: Iterable[bytes] | None = None,
) -> T:
    """What ``work`` returns in a user namespace, see ``Stream``; it must be something to pickle.

    Where this process is in such a namespace of this user's, it is done here.
    """
    if _within is not None and maps is None and process is None and feed is None:
        return work()

    def run(*given: Any) -> Generator[bytes, None, T]:
        yield b""
        return work(*given)

    with Stream(run, maps=maps, process=process, feed=feed, bound=True) as stream:
        while stream.read():
            pass
        result: T = stream.result
        return result


class _Child:
    def __init__(self, output: int, go: int, bound: bool, dumps: Callable[[Any], bytes], explain: _Explain) -> None:
        self._output = output
        self._go = go
        self._bound = bound
        self._dumps = dumps
        self._explain = explain

    def run(
        self, work: Callable[..., Any], theirs: tuple[int, ...], feed: int, process: int | None, maps: Maps
    ) -> NoReturn:
        """Do the work and end, whatever comes."""
        global _within
        _within = maps if process is None else None
        code = 1
        try:
            for fd in theirs:
                if fd >= 0:
                    os.close(fd)
            try:
                self._work(work, feed, process)
            except BaseException as exc:
                with suppress(OSError):
                    self._send(_ERROR, self._dumps(self._described(exc)))
            code = 0
        finally:
            os._exit(code)

    def _work(self, work: Callable[..., Any], feed: int, process: int | None) -> None:
        if process is None:
            enter_namespaces(_NEW_USER | _NEW_MOUNT)
        else:
            enter_namespaces(_NEW_USER, process)
        self._send(_READY)
        if not os.read(self._go, 1):  # our parent gave up
            return
        if self._bound:
            threading.Thread(target=self._end_with_parent, daemon=True).start()
        if feed < 0:
            result = self._produce(work())
        else:
            with open(feed, "rb", buffering=1 << 20) as file:
                result = self._produce(work(file))
        self._send(_RESULT, self._dumps(result))

    def _end_with_parent(self) -> None:
        os.read(self._go, 1)
        os._exit(1)

    def _produce(self, pieces: Iterator[bytes]) -> Any:
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                return end.value
            if piece:
                self._send(_DATA, piece)

    def _send(self, kind: bytes, data: bytes = b"") -> None:
        for part in (_HEAD.pack(kind, len(data)), data):
            view = memoryview(part)
            while view:
                view = view[os.write(self._output, view) :]

    def _described(self, exc: BaseException) -> tuple[type[BaseException], tuple[Any, ...], str | None]:
        """What to make the error again of: not all that an exception holds can be sent."""
        if isinstance(exc, NativeError):
            return type(exc), (str(exc), exc.errno or 0), exc.hint
        if isinstance(exc, LayerfsError):
            return type(exc), (str(exc),), exc.hint
        if isinstance(exc, OSError):
            return type(exc), (exc.errno, exc.strerror, exc.filename), None
        return RuntimeError, ("".join(self._explain(exc)),), None


def _write_map(pid: int, ranges: tuple[IdRange, ...], *, groups: bool) -> None:
    name = "gid_map" if groups else "uid_map"
    if os.geteuid() == 0 or len(ranges) == 1:
        with system_errors(f"work in a user namespace: write {name}"):
            if groups and os.geteuid() != 0:
                Path(f"/proc/{pid}/setgroups").write_text("deny")
            Path(f"/proc/{pid}/{name}").write_text("".join(f"{a} {b} {n}\n" for a, b, n in ranges))
        return
    import subprocess  # most work needs it not

    program = "newgidmap" if groups else "newuidmap"
    words = [str(number) for triple in ranges for number in triple]
    try:
        subprocess.run([program, str(pid), *words], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as exc:
        raise UnsupportedError(f"make a user namespace: {program}: {exc.stderr.strip()}", hint=_HINT) from exc
    except OSError as exc:
        raise native_error(exc, f"run {program}") from exc


# ---- files of other owners ----


def remove_owned(path: Path) -> None:
    """``remove_tree``, also of a tree in which a container of this user made files under his other numbers."""
    owned(lambda: remove_tree(path))


def usage_owned(path: Path) -> int:
    """``disk_usage`` of such a tree."""
    return owned(lambda: disk_usage(path))


def owned(work: Callable[[], T]) -> T:
    """What ``work`` returns, done in a user namespace where this user alone may not do it."""
    try:
        return work()
    except PermissionError:
        if os.geteuid() == 0:
            raise
        return in_userns(work)
