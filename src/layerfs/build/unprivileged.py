"""A build by an ordinary user: as root of a user namespace of his, where overlays can be mounted.

The namespace has his own number as root, and his ranges of /etc/subuid and /etc/subgid where he has such. The work is
done by a child of this process; how it goes is told through a pipe, and the child ends in order when we are gone.
"""

import os
import signal
import threading
from collections.abc import Callable, Generator
from typing import Any

import msgspec

from layerfs.build.options import BuildOptions, BuildParts, BuildResult
from layerfs.build.progress import BuildProgress
from layerfs.errors import BuildError, InvalidInputError, LayerfsError, UnsupportedError
from layerfs.userns import Maps, Stream, own_maps

__all__ = ["build_unprivileged", "inner_maps"]

_inner: Maps | None = None


def inner_maps() -> Maps | None:
    """The numbers there are inside the namespace, where this process is one that builds in it."""
    return _inner


def build_unprivileged(
    parts: BuildParts, options: BuildOptions, build: Callable[[BuildParts, BuildOptions], BuildResult]
) -> BuildResult:
    """What ``build`` gives in a namespace of this user. No other thread may use the store meanwhile.

    UnsupportedError where the runtime is another than the built-in one.
    """
    if options.runtime != "builtin":
        raise UnsupportedError(
            f"runtime {options.runtime}: without privilege builds use the built-in launcher", hint="leave out --runtime"
        )
    parts.database.close()  # a connection is not to be taken over a fork; it comes again when it is needed
    maps = own_maps()
    told, tell = os.pipe2(os.O_CLOEXEC)
    gone, here = os.pipe2(os.O_CLOEXEC)

    def work() -> Generator[bytes, None, Any]:
        global _inner
        # Range by range: what lies together inside may not outside, and then is not mapped at once.
        _inner = Maps(*(tuple((first, first, n) for first, _, n in ranges) for ranges in (maps.uids, maps.gids)))
        os.close(told)
        os.close(here)
        threading.Thread(target=_end_with_parent, args=(gone,), daemon=True).start()
        yield b""
        try:
            return done()
        finally:  # the child ends at once, and not as a process that waits for its threads
            parts.snapshots.close()
            for thread in threading.enumerate():
                if not thread.daemon and thread is not threading.current_thread():
                    thread.join()

    def done() -> Any:
        try:
            result = build(parts, msgspec.structs.replace(options, progress=_Teller(tell)))
        except (BuildError, InvalidInputError) as exc:
            return exc  # with its exit code, file and line, which an error that is raised here has not there
        for output in options.outputs:
            if output.dest is not None and not isinstance(output.dest, str):
                output.dest.flush()
        image = str(result.image.target.digest) if result.image is not None else None
        return image, result.warnings, result.ran, result.cached, result.metadata

    listener = _Listener(told, options.progress)
    try:
        try:
            stream = Stream(work, maps=maps)
        finally:
            os.close(tell)
            os.close(gone)
        listener.start()
        try:
            while stream.read():
                pass
        except BaseException:
            os.close(here)
            here = -1
            raise
        finally:
            stream.close()
            listener.end()
    finally:
        listener.close()
        if here >= 0:
            os.close(here)
    if isinstance(stream.result, LayerfsError):
        raise stream.result
    digest, warnings, ran, cached, metadata = stream.result
    image = parts.images.get(digest) if digest is not None else None
    return BuildResult(image, warnings, ran, cached, metadata)


def _end_with_parent(gone: int) -> None:
    os.read(gone, 1)
    os.kill(os.getpid(), signal.SIGINT)


class _Teller:
    """A progress that tells another process."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()

    def _tell(self, method: str, *words: Any, **more: Any) -> None:
        data = msgspec.msgpack.encode((method, words, more))
        view = memoryview(len(data).to_bytes(4, "little") + data)
        with self._lock:
            while view:
                view = view[os.write(self._fd, view) :]

    def begin(self, step: int, title: str) -> None:
        self._tell("begin", step, title)

    def output(self, step: int, line: str) -> None:
        self._tell("output", step, line)

    def end(self, step: int, seconds: float, *, cached: bool) -> None:
        self._tell("end", step, seconds, cached=cached)

    def failed(self, step: int, reason: str, tail: list[str]) -> None:
        self._tell("failed", step, reason, tail)

    def note(self, text: str) -> None:
        self._tell("note", text)


class _Listener(threading.Thread):
    """Tells a progress what comes through a pipe, which is this one's. Where the progress fails, the pipe is closed,
    and with that the build ends."""

    def __init__(self, fd: int, progress: BuildProgress) -> None:
        super().__init__(name="layerfs-build-progress")
        self._fd = fd
        self._progress = progress
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            with open(self._fd, "rb") as file:
                self._fd = -1
                while head := file.read(4):
                    method, words, more = msgspec.msgpack.decode(file.read(int.from_bytes(head, "little")))
                    getattr(self._progress, method)(*words, **more)
        except BaseException as exc:
            self._error = exc

    def end(self) -> None:
        """Wait until all is told; raises what the progress raised."""
        self.join()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Give up the pipe, where it was not read."""
        if self._fd >= 0 and not self.is_alive():
            os.close(self._fd)
            self._fd = -1
