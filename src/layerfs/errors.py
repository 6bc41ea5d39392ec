"""The one exception tree, and the exit codes that belong to it.

A message names the operation and the object, then the reason (``read blob sha256:1f…: not found``); a hint,
where one helps, stands apart. Whoever catches ``LayerfsError`` catches all that this package raises on purpose.
"""

import errno as _errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "BuildError",
    "ExistsError",
    "InUseError",
    "IntegrityError",
    "InvalidInputError",
    "LayerfsError",
    "NativeError",
    "NotFoundError",
    "RegistryError",
    "UnauthorizedError",
    "UnsupportedError",
    "hint_for",
    "native_error",
    "system_errors",
]

_HINTS = {
    _errno.ENOSPC: "free some space; layerfs system prune does so in the store",
    _errno.EDQUOT: "the disk quota is used up",
    _errno.EROFS: "the file system is mounted read-only",
    _errno.EMFILE: "raise the limit of open files: ulimit -n",
}


class LayerfsError(Exception):
    """Any failure of layerfs; ``exit_code`` is what the command ends with."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        return str(self.args[0])


class InvalidInputError(LayerfsError):
    """A reference, option, instruction or document that the user gave is wrong."""

    exit_code = 2

    def __init__(
        self, message: str, *, hint: str | None = None, file: str | None = None, line: int | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.file = file
        self.line = line


class NotFoundError(LayerfsError):
    """There is no such thing."""


class ExistsError(LayerfsError):
    """The name is taken."""


class InUseError(LayerfsError):
    """Something else needs it or holds it."""


class IntegrityError(LayerfsError):
    """Data are not what their digest, size or format says; trying again does not help.

    ``authentic``: they have the digest they were asked for by, so that no other place has better ones.
    """

    exit_code = 3
    authentic = False


class NativeError(LayerfsError, OSError):
    """The system refused; ``errno`` is kept."""

    exit_code = 4

    def __init__(self, message: str, errno: int, *, hint: str | None = None) -> None:
        OSError.__init__(self, errno, message)
        self.args = (message,)
        self.errno = errno
        self.hint = hint


class UnsupportedError(NativeError):
    """This kernel, file system or user cannot do it."""

    def __init__(self, message: str, errno: int = _errno.EOPNOTSUPP, *, hint: str | None = None) -> None:
        super().__init__(message, errno, hint=hint)


class RegistryError(LayerfsError):
    """A registry refused, failed or could not be reached; ``temporary`` says that waiting may help."""

    exit_code = 5

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        url: str | None = None,
        temporary: bool = False,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.url = url
        self.temporary = temporary


class UnauthorizedError(RegistryError):
    """The registry wants other credentials, or any."""


class BuildError(LayerfsError):
    """A step of a build failed; ``exit_code`` is that of its command."""

    def __init__(
        self,
        message: str,
        *,
        exit_code: int = 1,
        step: str | None = None,
        file: str | None = None,
        line: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
        self.step = step
        self.file = file
        self.line = line


def hint_for(errno: int) -> str | None:
    """What helps against a system error, where that can be said in general."""
    if errno in (_errno.EPERM, _errno.EACCES) and os.geteuid() != 0:
        return "this needs root"
    return _HINTS.get(errno)


def native_error(exc: OSError, what: str) -> LayerfsError:
    """The error to raise for a system error met while doing ``what`` (operation and object).

    What is not there is a NotFoundError; all else a NativeError.
    """
    code = exc.errno or _errno.EIO
    if code in (_errno.ENOENT, _errno.ENOTDIR):
        return NotFoundError(f"{what}: {os.strerror(code)}")
    return NativeError(f"{what}: {os.strerror(code)}", code, hint=hint_for(code))


@contextmanager
def system_errors(what: str) -> Iterator[None]:
    """An OSError met while doing ``what`` (operation and object) becomes a NativeError that says so."""
    try:
        yield
    except LayerfsError:
        raise
    except OSError as exc:
        raise native_error(exc, what) from exc
