"""Programs that filter system calls, kept for other processes of this boot: libseccomp takes a millisecond and more to
make one, which is longer than all else that is done for a container's process.

``RUN/filters/<hex>`` is named by what the program was made of, and has that in it as well, the library that made it,
and a sum of all. What is not whole, not ours or of another library is not used: the program is made anew.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import xxhash

from layerfs import native
from layerfs.errors import LayerfsError
from layerfs.fsutil import boot_id, write_atomic

__all__ = ["kept_program"]

_LIMIT = 1 << 20
_MOST = 64
"""Files that are kept; whoever would make one more begins with none."""
_INSTRUCTION = 8


def kept_program(run: Path, source: str, make: Callable[[], bytes]) -> bytes:
    """The program that ``make`` makes of ``source``, or has made in this boot for any process with this ``run``.

    Raises what ``make`` raises, and nothing for what cannot be kept.
    """
    key = f"{boot_id()} {_stamp(native.library_path())} {source}".encode()
    path = run / "filters" / xxhash.xxh3_128_hexdigest(key)
    program = _read(path, key)
    if program is None:
        program = make()
        with suppress(OSError, LayerfsError):
            _write(path, key, program)
    return program


def _read(path: Path, key: bytes) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(fd, "rb", buffering=0) as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid != os.geteuid():
            return None
        data = file.read(_LIMIT)
    body = data[16:]
    if data[:16] != xxhash.xxh3_128_digest(body) or not body.startswith(key + b"\0"):
        return None
    library, made_by, program = body[len(key) + 1 :].split(b"\0", 2)
    if not program or len(program) % _INSTRUCTION or made_by != _stamp(os.fsdecode(library)).encode():
        return None
    return program


def _write(path: Path, key: bytes, program: bytes) -> None:
    library = native.seccomp_library()
    path.parent.mkdir(mode=0o700, exist_ok=True)
    names = os.listdir(path.parent)
    if len(names) >= _MOST:
        for name in names:
            (path.parent / name).unlink(missing_ok=True)
    body = b"\0".join((key, os.fsencode(library), _stamp(library).encode(), program))
    write_atomic(path, xxhash.xxh3_128_digest(body) + body, 0o600, durable=False)


def _stamp(path: str) -> str:
    """What tells a file from another one that came in its place; empty where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
