"""Where a verb writes an archive: the standard output, or a file that appears when it is whole."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from layerfs.cli.context import Context
from layerfs.errors import native_error

__all__ = ["output"]


@contextmanager
def output(context: Context, path: str | None, what: str) -> Iterator[BinaryIO]:
    """Open what ``-o`` says; a device or pipe is written to, a file is replaced in the end."""
    if path is None or path == "-":
        sink = context.binary_out(what)
        yield sink
        sink.flush()
        return
    try:
        with _file(Path(path)) as file:
            yield file
    except OSError as error:
        if type(error).__module__ == "builtins":
            raise native_error(error, f"write {path}") from error
        raise


@contextmanager
def _file(path: Path) -> Iterator[BinaryIO]:
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.stat().st_mode):
            with path.open("wb") as special:
                yield special
            return
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(fd, "wb") as file:
            yield file
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(fd, 0o666 & ~umask)
        os.rename(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
