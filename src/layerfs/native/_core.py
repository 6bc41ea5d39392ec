"""What every wrapper shares: errors, buffers, and handles that are released by scope."""

import errno
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, Self

from layerfs._native import ffi
from layerfs.errors import IntegrityError, InvalidInputError, NativeError, UnsupportedError, hint_for

__all__ = ["PIECE", "Buffer", "Handle", "alloc", "check", "encode", "library_path", "new_error"]

Buffer = bytes | bytearray | memoryview
"""What the wrappers accept as bytes."""

PIECE = 1 << 20
"""The amount of work of one call that moves data, in bytes."""

_UNSUPPORTED = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENODEV, errno.ENOTBLK})

# Zeroing a buffer that is about to be filled would cost as much as filling it.
alloc = ffi.new_allocator(should_clear_after_alloc=False)


def check(result: int, error: Any) -> int:
    """The result of a call, or the exception for its failure."""
    if result >= 0:
        return result
    code = -result
    message = ffi.string(error.msg).decode("utf-8", "backslashreplace") or "native call"
    if code == errno.EBADMSG:
        raise IntegrityError(message)
    if code == errno.EFBIG:
        raise InvalidInputError(message)
    kind = UnsupportedError if code in _UNSUPPORTED else NativeError
    raise kind(f"{message}: {os.strerror(code)}", errno=code, hint=hint_for(code))


def new_error() -> Any:
    return ffi.new("lfs_error *")


def library_path() -> str:
    """The file of the compiled core."""
    return str(sys.modules["layerfs._native"].__file__)


def encode(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else os.fsencode(value)


class Handle:
    """Owns a C handle: freed by ``close`` or at the end of a ``with``."""

    def __init__(self, type_name: str, free: Callable[[Any], None], opener: Callable[[Any, Any], int]) -> None:
        self._handle: Any = None
        self._free = free
        self._error = new_error()
        out = ffi.new(f"{type_name} **")
        check(opener(out, self._error), self._error)
        self._handle = out[0]

    @property
    def _open(self) -> Any:
        if self._handle is None:
            raise ValueError(f"{type(self).__name__} is closed")
        return self._handle

    def close(self) -> None:
        """Release the handle; again is allowed."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._free(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
